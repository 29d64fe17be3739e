//! Random operations on a joined pair, with the promises of a session checked after each.
//!
//! Two bytes are an operation: which, and with what. Both sides are honest, so neither may ever see a violation; the
//! promises are those that the module docs of session, acknowledgements and flow list.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Pair, connect, events, subscription, telemetry, text};
use crate::{
    Closed, Config, DeliveryId, Event, Granted, Message, Outcome, PublishError, Qos, RequestId, Session, Token,
};

/// The window of both sides, small so that it fills.
const WINDOW: u16 = 4;

/// Runs the operations that `data` spells and checks the promises of both sessions.
///
/// # Panics
/// When a promise is broken.
pub fn check_operations(data: &[u8]) {
    let config = Config {
        inbound_window: usize::from(WINDOW),
        outbound_window: 2 * WINDOW,
        max_requests: 2,
        max_events: 3,
        ..Config::default()
    };
    let mut model = Model::new(Pair::new(config.clone(), config, connect()));
    for operation in data.chunks_exact(2) {
        model.apply(operation[0], usize::from(operation[1]));
        model.check();
    }
    model.finish();
}

/// What one side did and was told.
#[derive(Debug, Default)]
struct Side {
    /// Tokens of what it published at QoS 1; the index is the payload.
    published: Vec<Token>,
    /// How many of them were acknowledged; they are so in order.
    acknowledged: usize,
    /// How many of the other side's messages of QoS 1 it was told.
    received: usize,
    /// What its application has not settled.
    unsettled: Vec<(usize, DeliveryId)>,
    /// Which of the other side's messages it settled.
    settled: BTreeSet<usize>,
    /// Requests that it has to answer.
    requests: Vec<(RequestId, usize)>,
    closed: Option<Closed>,
}

struct Model {
    pair: Pair,
    server: Side,
    client: Side,
    asked: usize,
    answered: usize,
}

impl Model {
    fn new(pair: Pair) -> Self {
        Self {
            pair,
            server: Side::default(),
            client: Side::default(),
            asked: 0,
            answered: 0,
        }
    }

    fn apply(&mut self, operation: u8, with: usize) {
        let now = self.pair.now;
        match operation % 12 {
            0 | 1 => publish(&mut self.pair.client, &mut self.client, now, with),
            2 | 3 => publish(&mut self.pair.server, &mut self.server, now, with),
            4 => settle(&mut self.pair.server, &mut self.server, with),
            5 => settle(&mut self.pair.client, &mut self.client, with),
            6 => self.subscribe(with),
            7 => self.answer(with),
            8 => {
                self.pair.server.accept(now, with.is_multiple_of(2));
            }
            9 if with.is_multiple_of(16) => self.pair.client.close(),
            9 => self.pair.fragment = with,
            10 => self.pair.advance(Duration::from_millis(with as u64 * 10)),
            _ => {
                self.pair.step();
            }
        }
        self.collect();
    }

    fn subscribe(&mut self, with: usize) {
        let filters = vec![subscription("devices/dev1/#", Qos::AtLeastOnce); with % 3];
        let asked = if with.is_multiple_of(2) {
            self.pair.client.subscribe(self.pair.now, filters)
        } else {
            let filters = vec![text("devices/dev1/#"); with % 3];
            self.pair.client.unsubscribe(self.pair.now, filters)
        };
        self.asked += usize::from(asked.is_ok());
    }

    fn answer(&mut self, with: usize) {
        if self.server.requests.is_empty() {
            return;
        }
        let (request, filters) = self.server.requests.remove(with % self.server.requests.len());
        let answered = match filters {
            0 => self.pair.server.unsuback(request),
            filters => {
                let codes = vec![Granted::Qos(Qos::AtLeastOnce); filters];
                self.pair.server.suback(request, &codes)
            }
        };
        assert_eq!(answered, Ok(()), "a request that was told waits for its answer");
    }

    fn collect(&mut self) {
        self.pair.server_events.extend(events(&mut self.pair.server));
        self.pair.client_events.extend(events(&mut self.pair.client));
        for event in self.pair.server_events.drain(..) {
            self.server.note(event, &mut self.answered);
        }
        for event in self.pair.client_events.drain(..) {
            self.client.note(event, &mut self.answered);
        }
    }

    fn check(&self) {
        for (sender, receiver) in [(&self.client, &self.server), (&self.server, &self.client)] {
            assert!(receiver.received <= sender.published.len(), "nothing is invented");
            assert!(
                (0..sender.acknowledged).all(|index| receiver.settled.contains(&index)),
                "nothing is acknowledged before it is settled"
            );
            assert!(
                receiver.unsettled.len() <= usize::from(WINDOW) && sender.in_flight() <= 2 * usize::from(WINDOW),
                "windows hold"
            );
        }
        assert!(self.answered <= self.asked, "each answer was asked for");
    }

    /// Lets everything finish, then cuts the line: each message is acknowledged or given back.
    fn finish(mut self) {
        let now = self.pair.now;
        self.pair.server.accept(now, false);
        for _ in 0..1000 {
            self.pair.drive();
            self.collect();
            for _ in 0..WINDOW {
                settle(&mut self.pair.server, &mut self.server, 1);
                settle(&mut self.pair.client, &mut self.client, 1);
                self.answer(0);
            }
            self.check();
        }
        if self.client.closed.is_none() && self.server.closed.is_none() {
            assert_eq!(
                self.client.acknowledged,
                self.client.published.len(),
                "the client's messages arrive"
            );
            assert_eq!(
                self.server.acknowledged,
                self.server.published.len(),
                "the server's messages arrive"
            );
            assert_eq!(self.answered, self.asked, "each request is answered");
        }
        self.pair.cut();
        self.collect();
        assert!(
            self.client.closed.is_some() && self.server.closed.is_some(),
            "each end is told"
        );
        given_back(self.pair.client, &self.client);
        given_back(self.pair.server, &self.server);
    }
}

impl Side {
    fn in_flight(&self) -> usize {
        self.published.len() - self.acknowledged
    }

    fn note(&mut self, event: Event, answered: &mut usize) {
        assert_eq!(self.closed, None, "nothing follows the end");
        match event {
            Event::Publish { message, delivery } => {
                let Some(delivery) = delivery else { return };
                assert_eq!(
                    message.payload,
                    self.received.to_string(),
                    "messages arrive in order, once"
                );
                self.unsettled.push((self.received, delivery));
                self.received += 1;
            }
            Event::Acknowledged(token) => {
                assert_eq!(
                    self.published.get(self.acknowledged),
                    Some(&token),
                    "acknowledged in order"
                );
                self.acknowledged += 1;
            }
            Event::Subscribe { request, filters } => self.requests.push((request, filters.len())),
            Event::Unsubscribe { request, .. } => self.requests.push((request, 0)),
            Event::Subscribed { .. } | Event::Unsubscribed { .. } => *answered += 1,
            Event::Closed(reason) => {
                assert!(!matches!(reason, Closed::Violation(_)), "honest peers: {reason:?}");
                self.closed = Some(reason);
            }
            Event::Connect(_) | Event::Connected { .. } => {}
        }
    }
}

fn publish(session: &mut Session, side: &mut Side, now: std::time::Instant, with: usize) {
    let message = Message {
        qos: if with.is_multiple_of(5) {
            Qos::AtMostOnce
        } else {
            Qos::AtLeastOnce
        },
        ..telemetry(side.published.len().to_string())
    };
    let welcome = session.can_publish();
    match session.publish(now, &message) {
        Ok(token) => side.published.extend(token),
        Err(PublishError::NotOpen | PublishError::WindowFull) => assert!(!welcome, "refused what was welcome"),
        Err(error) => panic!("unexpected refusal: {error}"),
    }
}

fn settle(session: &mut Session, side: &mut Side, with: usize) {
    if side.unsettled.is_empty() {
        return;
    }
    let (index, delivery) = side.unsettled.remove(with % side.unsettled.len());
    if session.acknowledge(delivery, Outcome::Accept) {
        side.settled.insert(index);
        assert!(
            !session.acknowledge(delivery, Outcome::Accept),
            "a delivery is settled once"
        );
    } else {
        assert!(
            !session.is_open(),
            "a delivery waits until it is settled or the session ends"
        );
    }
}

fn given_back(session: Session, side: &Side) {
    let tokens: Vec<Token> = session
        .into_unacknowledged()
        .into_iter()
        .map(|(token, message)| {
            assert!(message.dup, "what is given back was sent before");
            token
        })
        .collect();
    assert_eq!(
        tokens,
        &side.published[side.acknowledged..],
        "acknowledged or given back"
    );
}
