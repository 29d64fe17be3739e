//! Random operations on a joined pair, with the promises of a connection checked after each.
//!
//! Two bytes are an operation: which, and with what. Both sides are honest, so neither may ever see a fault. Checked is that
//! deliveries arrive whole, in the order of their link, once; that no more are undecided than the window; that each gets the
//! outcome that its receiver gave; and that what is held stays bounded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{Pair, delivery, events};
use crate::{
    Acceptance, AmqpError, Config, Connection, Credentials, DeliveryId, Event, LinkId, Login, NewLink, OpenError,
    Outbound, Outcome, SaslCode, SendError, SessionId, Token, condition,
};

/// The window of all receivers, small so that it fills.
const WINDOW: u32 = 4;
/// The window of sessions, and the largest frame: both small for the same reason.
const FRAMES: u32 = 6;
const MAX_FRAME: u32 = 512;

/// The most that a side may hold: eight links with what may wait on each and one message more, the output with one frame more,
/// events, and input of which nothing was handled.
const MAX_HELD: usize = 8 * 4000 + 4000 + 3 * 4096 + 4000 + 64 * 1024;

/// Runs the operations that `data` spells and checks the promises of both connections.
///
/// # Panics
/// When a promise is broken.
pub fn check_operations(data: &[u8]) {
    let config = Config {
        max_frame_size: MAX_FRAME,
        incoming_window: FRAMES,
        max_unsettled: 6,
        max_link_queue: 2000,
        max_output: 3000,
        max_events: 3,
        ..Config::default()
    };
    let login = Login {
        credentials: Some(Credentials::Anonymous),
        ..Login::default()
    };
    let mut model = Model::new(Pair::new(config.clone(), config, login));
    for operation in data.chunks_exact(2) {
        model.apply(operation[0], usize::from(operation[1]));
    }
    model.finish();
}

/// What one side did and was told.
#[derive(Default)]
struct Side {
    sessions: Vec<SessionId>,
    /// Links of both directions that are attached, as far as this side knows.
    links: Vec<LinkId>,
    /// Links that wait for our decision.
    deciding: Vec<(LinkId, Acceptance)>,
    /// What was sent on a link and not settled: in order, with the content.
    sent: BTreeMap<LinkId, VecDeque<Token>>,
    /// What came on a link and was not decided.
    undecided: Vec<DeliveryId>,
    /// The next content to come on a link.
    expected: BTreeMap<LinkId, u64>,
    next: BTreeMap<LinkId, u64>,
    /// Links that want their credit back.
    draining: Vec<LinkId>,
    attaches: usize,
    sent_count: u64,
    received_count: u64,
    settled_count: u64,
    decided_count: u64,
    closed: bool,
}

struct Model {
    pair: Pair,
    server: Side,
    client: Side,
    names: u32,
}

impl Model {
    fn new(pair: Pair) -> Self {
        Self {
            pair,
            server: Side::default(),
            client: Side::default(),
            names: 0,
        }
    }

    fn apply(&mut self, operation: u8, with: usize) {
        self.names += 1;
        let (side, connection) = if operation.is_multiple_of(2) {
            (&mut self.client, &mut self.pair.client)
        } else {
            (&mut self.server, &mut self.pair.server)
        };
        match (operation / 2) % 14 {
            0 => side.begin(connection),
            1 => side.attach(connection, self.names, with),
            2 => side.decide_link(connection, with),
            3 | 4 => side.send(connection, with),
            5 | 6 => side.settle(connection, with),
            7 => side.detach(connection, with),
            8 if with.is_multiple_of(16) => side.end(connection, with),
            8 | 9 => side.give_back(connection),
            10 => side.drain(connection, with),
            11 => self.pair.fragment = with,
            12 => self.pair.advance(Duration::from_millis(with as u64 * 10)),
            _ => drop(self.pair.step()),
        }
        self.collect();
        for connection in [&self.pair.client, &self.pair.server] {
            let held = connection.held_bytes();
            assert!(held <= MAX_HELD, "{held} bytes are held");
        }
    }

    fn collect(&mut self) {
        self.pair.server_events.extend(events(&mut self.pair.server));
        self.pair.client_events.extend(events(&mut self.pair.client));
        for event in std::mem::take(&mut self.pair.server_events) {
            self.server.note(&mut self.pair.server, event);
        }
        for event in std::mem::take(&mut self.pair.client_events) {
            self.client.note(&mut self.pair.client, event);
        }
    }

    /// Lets everything finish: what was sent on links that are still there has its outcome. Then cuts the line.
    fn finish(mut self) {
        for _ in 0..200 {
            self.pair.drive();
            self.collect();
            for (side, connection) in [
                (&mut self.client, &mut self.pair.client),
                (&mut self.server, &mut self.pair.server),
            ] {
                side.give_back(connection);
                while !side.undecided.is_empty() {
                    side.settle(connection, 0);
                }
                while !side.deciding.is_empty() {
                    side.decide_link(connection, 0);
                }
            }
        }
        for side in [&self.client, &self.server] {
            assert!(!side.closed, "honest peers");
            let waiting: usize = side.sent.values().map(VecDeque::len).sum();
            assert_eq!(waiting, 0, "each delivery has its outcome: {:?}", side.sent);
        }
        assert!(
            self.client.received_count <= self.server.sent_count,
            "nothing is invented"
        );
        assert!(
            self.server.received_count <= self.client.sent_count,
            "nothing is invented"
        );
        assert!(
            self.client.settled_count <= self.server.decided_count,
            "no outcome is invented"
        );
        assert!(
            self.server.settled_count <= self.client.decided_count,
            "no outcome is invented"
        );
        self.pair.cut();
        self.collect();
        assert!(self.client.closed && self.server.closed, "each end is told");
    }
}

impl Side {
    fn begin(&mut self, connection: &mut Connection) {
        if self.sessions.len() < 3
            && let Ok(session) = connection.begin()
        {
            self.sessions.push(session);
        }
    }

    fn attach(&mut self, connection: &mut Connection, name: u32, with: usize) {
        let Some(session) = pick(&self.sessions, with) else {
            return;
        };
        // Handles of both sides may meet on the way, so neither takes them all.
        if self.links.len() >= 8 || self.attaches >= 100 {
            return;
        }
        self.attaches += 1;
        let name = name.to_string();
        let new = if with.is_multiple_of(2) {
            NewLink::sender(name, "node")
        } else {
            NewLink::receiver(name, "node", WINDOW)
        };
        let attached = connection.attach(session, new);
        assert!(
            matches!(attached, Ok(_) | Err(OpenError::TooMany)),
            "the session is there: {attached:?}"
        );
    }

    fn decide_link(&mut self, connection: &mut Connection, with: usize) {
        if self.deciding.is_empty() {
            return;
        }
        let (link, acceptance) = self.deciding.remove(with % self.deciding.len());
        if with % 5 == 4 {
            assert!(
                connection.refuse_link(link, AmqpError::new(condition::NOT_FOUND, "not here")),
                "it waits"
            );
        } else {
            assert!(connection.accept_link(link, acceptance), "it waits");
            self.links.push(link);
        }
    }

    /// The content is the number of the delivery on its link, repeated to a length that takes several frames.
    fn send(&mut self, connection: &mut Connection, with: usize) {
        let Some(link) = pick(&self.links, with) else {
            return;
        };
        let welcome = connection.can_send(link);
        let number = *self.next.entry(link).or_default();
        let later = with % 11 == 10;
        let what = Outbound {
            settled: with % 7 == 6,
            ..delivery(number, content(number))
        };
        let sent = if later {
            connection.send_later(link, &what)
        } else {
            connection.send(link, &what)
        };
        match sent {
            Ok(token) => {
                assert!(welcome || later, "taken although unwelcome");
                self.next.insert(link, number + 1);
                self.sent_count += 1;
                self.sent.entry(link).or_default().extend(token);
            }
            Err(SendError::TooLarge { .. }) => panic!("nothing here is too large"),
            Err(_) => assert!(!welcome, "refused what was welcome"),
        }
    }

    fn settle(&mut self, connection: &mut Connection, with: usize) {
        if self.undecided.is_empty() {
            return;
        }
        let id = self.undecided.remove(with % self.undecided.len());
        let outcome = if with % 3 == 2 {
            Outcome::Released
        } else {
            Outcome::Accepted
        };
        assert!(connection.settle(id, outcome.clone()), "it waits");
        assert!(!connection.settle(id, outcome), "a delivery is settled once");
        self.decided_count += 1;
    }

    fn detach(&mut self, connection: &mut Connection, with: usize) {
        if with.is_multiple_of(8)
            && let Some(link) = pick(&self.links, with)
        {
            assert!(connection.detach(link, with.is_multiple_of(3), None), "it is there");
            self.forget(link);
        }
    }

    fn end(&mut self, connection: &mut Connection, with: usize) {
        if let Some(session) = pick(&self.sessions, with) {
            assert!(connection.end(session, None), "it is there");
            self.forget_session(session);
        }
    }

    fn give_back(&mut self, connection: &mut Connection) {
        self.draining.retain(|link| !connection.give_credit_back(*link));
    }

    fn drain(&mut self, connection: &mut Connection, with: usize) {
        if let Some(link) = pick(&self.links, with) {
            connection.drain(link);
        }
    }

    fn forget(&mut self, link: LinkId) {
        self.links.retain(|known| *known != link);
        self.deciding.retain(|(known, _)| *known != link);
        self.undecided.retain(|id| id.link() != link);
        self.draining.retain(|known| *known != link);
        self.sent.remove(&link);
    }

    fn forget_session(&mut self, session: SessionId) {
        self.sessions.retain(|known| *known != session);
        let links: Vec<LinkId> = self
            .links
            .iter()
            .chain(self.deciding.iter().map(|(link, _)| link))
            .copied()
            .collect();
        for link in links.into_iter().filter(|link| link.session() == session) {
            self.forget(link);
        }
    }

    fn note(&mut self, connection: &mut Connection, event: Event) {
        assert!(!self.closed, "nothing follows the end");
        match event {
            Event::Authenticate { .. } => assert!(connection.authenticate(super::epoch(), SaslCode::Ok), "it waits"),
            Event::Begun(session) if !self.sessions.contains(&session) => self.sessions.push(session),
            Event::Ended { session, by, error } => {
                assert_eq!((by, error), (crate::Side::Peer, None), "honest peers");
                self.forget_session(session);
            }
            Event::Attach { link, attach } => {
                let acceptance = Acceptance {
                    window: WINDOW,
                    ..Acceptance::of(&attach)
                };
                self.deciding.push((link, acceptance));
            }
            Event::Attached { link, .. } => self.links.push(link),
            Event::Detached { link, by, .. } => {
                assert_eq!(by, crate::Side::Peer, "honest peers");
                self.forget(link);
            }
            Event::Credit { link, credit, drain } => {
                assert!(credit <= WINDOW, "the window holds");
                if drain {
                    self.draining.push(link);
                }
            }
            Event::Delivery(delivery) => self.note_delivery(&delivery),
            Event::Settled { token, outcome } => self.note_settled(token, outcome.as_ref()),
            Event::Closed(_) => self.closed = true,
            Event::Begun(_) | Event::Opened(_) | Event::Drained(_) | Event::SaslResponse(_) => {}
        }
    }

    fn note_delivery(&mut self, delivery: &crate::Delivery) {
        let expected = self.expected.entry(delivery.link).or_default();
        assert_eq!(delivery.tag.bytes()[..], expected.to_be_bytes(), "in order, once");
        assert_eq!(delivery.payload, content(*expected), "whole");
        *expected += 1;
        self.received_count += 1;
        if let Some(id) = delivery.id {
            self.undecided.push(id);
        }
        let undecided = self.undecided.iter().filter(|id| id.link() == delivery.link).count();
        assert!(undecided <= WINDOW as usize, "the window holds");
    }

    fn note_settled(&mut self, token: Token, outcome: Option<&Outcome>) {
        assert!(
            matches!(outcome, Some(Outcome::Accepted | Outcome::Released)),
            "as it was given"
        );
        self.settled_count += 1;
        let waiting = self.sent.entry(token.link()).or_default();
        let index = waiting.iter().position(|known| *known == token);
        waiting.remove(index.expect("what is settled was sent"));
    }
}

fn pick<T: Copy>(from: &[T], with: usize) -> Option<T> {
    from.get(with % from.len().max(1)).copied()
}

/// From nothing to three frames and a half.
fn content(number: u64) -> Bytes {
    let length = usize::try_from(number * 397 % 1700).unwrap_or(0);
    Bytes::from(vec![number.to_be_bytes()[7]; length])
}
