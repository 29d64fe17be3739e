//! Messages that wait for a client: taken from its mailboxes while its window has room, sent, and settled when it
//! acknowledges them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::FutureExt;
use holm_model::Identity;
use holm_model::wire::{ServerTopic, bag};
use holm_mqtt::{Message, PublishError, Qos, Session, Text, Token};
use holm_net::clock::instant;

use crate::backend::{Admission, Backend, Delivery, Mailbox, Refusal, Settlement};
use crate::session::{SessionId, Subscriptions};

type Receiving = Pin<Box<dyn Future<Output = Result<Vec<Delivery>, Refusal>> + Send>>;

/// Bytes of bodies in flight at which no more messages are taken out of a mailbox: far more than a link holds, and what a client
/// that does not acknowledge costs, with one more helping of its mailboxes.
const MOST_BYTES: usize = 256 << 10;

const MAILBOXES: [(Mailbox, Subscriptions); 2] = [
    (Mailbox::CloudToDevice, Subscriptions::CLOUD_TO_DEVICE),
    (Mailbox::Inputs, Subscriptions::INPUTS),
];

/// The deliveries of one client.
pub(super) struct Deliveries<B> {
    backend: Arc<B>,
    admission: Arc<Admission>,
    session: SessionId,
    window: usize,
    /// Quality of service granted for each mailbox; `None` while it is not subscribed.
    granted: [Option<Qos>; MAILBOXES.len()],
    receiving: [Option<Receiving>; MAILBOXES.len()],
    /// Leased and not sent yet, because the connection had no room.
    unsent: VecDeque<(usize, Delivery)>,
    /// Sent and not acknowledged, in the order sent.
    in_flight: VecDeque<InFlight>,
    /// Bytes of bodies that are not sent or not acknowledged.
    bytes: usize,
    /// Leases of each mailbox that the client has acknowledged and that are not settled yet.
    acknowledged: [Vec<u64>; MAILBOXES.len()],
}

/// A delivery that was sent.
struct InFlight {
    token: Token,
    mailbox: usize,
    lease: u64,
    bytes: usize,
    sent: Instant,
}

impl<B: Backend> Deliveries<B> {
    pub(super) fn new(backend: Arc<B>, admission: Arc<Admission>, session: SessionId, window: usize) -> Self {
        Self {
            backend,
            admission,
            session,
            window,
            granted: [None, None],
            receiving: [None, None],
            unsent: VecDeque::new(),
            in_flight: VecDeque::new(),
            bytes: 0,
            acknowledged: [const { Vec::new() }; MAILBOXES.len()],
        }
    }

    /// Opens and closes mailboxes as the client is subscribed to them. What was taken out of one that is closed, and not sent
    /// yet, goes back.
    pub(super) fn subscribe(&mut self, all: Subscriptions, qos: impl Fn(Subscriptions) -> Qos) {
        for (index, (_, subscription)) in MAILBOXES.iter().enumerate() {
            self.granted[index] = all.contains(*subscription).then(|| qos(*subscription));
            if self.granted[index].is_none() {
                self.receiving[index] = None;
            }
        }
        let (unsent, unwanted) = std::mem::take(&mut self.unsent)
            .into_iter()
            .partition(|(index, _)| self.granted[*index].is_some());
        self.unsent = unsent;
        for (index, delivery) in unwanted {
            self.settle_unsent(index, &delivery, Settlement::Release);
        }
    }

    /// Waits for nothing any more.
    pub(super) fn stop(&mut self) {
        self.receiving = [None, None];
    }

    /// Waits for the next messages, while the window has room. Cancel-safe.
    pub(super) async fn next(&mut self) -> (usize, Result<Vec<Delivery>, Refusal>) {
        let room = self.window.saturating_sub(self.in_flight.len() + self.unsent.len());
        if room > 0 && self.bytes < MOST_BYTES {
            for (index, (mailbox, _)) in MAILBOXES.iter().enumerate() {
                if self.granted[index].is_some() && self.receiving[index].is_none() {
                    // Both mailboxes may fill at once: the session's window then makes the second wait.
                    self.receiving[index] = Some(self.receive(*mailbox, room));
                }
            }
        }
        std::future::poll_fn(|cx| {
            for (index, receiving) in self.receiving.iter_mut().enumerate() {
                if let Some(future) = receiving
                    && let Poll::Ready(outcome) = future.poll_unpin(cx)
                {
                    *receiving = None;
                    return Poll::Ready((index, outcome));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn receive(&self, mailbox: Mailbox, most: usize) -> Receiving {
        let (backend, admission, session) = (Arc::clone(&self.backend), Arc::clone(&self.admission), self.session);
        async move { backend.receive(session, &admission, mailbox, most).await }.boxed()
    }

    /// Takes what [`Deliveries::next`] brought and sends what there is room for.
    pub(super) fn received(&mut self, index: usize, deliveries: Vec<Delivery>, session: &mut Session) {
        self.bytes += deliveries
            .iter()
            .map(|delivery| delivery.message.body.len())
            .sum::<usize>();
        self.unsent
            .extend(deliveries.into_iter().map(|delivery| (index, delivery)));
        self.send(session);
    }

    /// Sends what waits, as far as the connection has room.
    pub(super) fn send(&mut self, session: &mut Session) {
        if self.unsent.is_empty() {
            return;
        }
        let now = instant();
        while let Some((index, delivery)) = self.unsent.pop_front() {
            let qos = self.granted[index].unwrap_or(Qos::AtLeastOnce);
            let Some(message) = packet(MAILBOXES[index].0, &self.admission.identity, &delivery, qos) else {
                tracing::warn!(identity = %self.admission.identity, "a message was rejected: its properties don't fit in a topic");
                self.settle_unsent(index, &delivery, Settlement::Reject);
                continue;
            };
            match session.publish(now, &message) {
                Ok(Some(token)) => {
                    self.in_flight.push_back(InFlight {
                        token,
                        mailbox: index,
                        lease: delivery.lease,
                        bytes: delivery.message.body.len(),
                        sent: now,
                    });
                }
                Ok(None) => self.settle_unsent(index, &delivery, Settlement::Complete),
                Err(PublishError::Encode(error)) => {
                    tracing::warn!(identity = %self.admission.identity, %error, "a message was rejected");
                    self.settle_unsent(index, &delivery, Settlement::Reject);
                }
                Err(_) => {
                    self.unsent.push_front((index, delivery));
                    return;
                }
            }
        }
    }

    /// The client has acknowledged a message.
    pub(super) fn acknowledged(&mut self, token: Token) {
        // Clients acknowledge in order, so the first is nearly always it.
        let place = self.in_flight.iter().position(|sent| sent.token == token);
        if let Some(done) = place.and_then(|place| self.in_flight.remove(place)) {
            self.bytes = self.bytes.saturating_sub(done.bytes);
            if let Some(acknowledged) = self.acknowledged.get_mut(done.mailbox) {
                acknowledged.push(done.lease);
            }
        }
    }

    /// Settles what was acknowledged since the last time, together.
    pub(super) fn settle_acknowledged(&mut self) {
        for ((mailbox, _), leases) in MAILBOXES.iter().zip(&mut self.acknowledged) {
            if !leases.is_empty() {
                self.backend.complete(self.session, &self.admission, *mailbox, leases);
                leases.clear();
            }
        }
    }

    /// Since when the oldest delivery waits for its acknowledgement.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.in_flight.front().map(|first| first.sent)
    }

    /// Settles what is not in flight.
    fn settle_unsent(&mut self, index: usize, delivery: &Delivery, settlement: Settlement) {
        self.bytes = self.bytes.saturating_sub(delivery.message.body.len());
        let (mailbox, _) = MAILBOXES[index];
        self.backend
            .settle(self.session, &self.admission, mailbox, delivery.lease, settlement);
    }
}

fn packet(mailbox: Mailbox, receiver: &Identity, delivery: &Delivery, qos: Qos) -> Option<Message> {
    let topic = match (mailbox, &delivery.input) {
        (Mailbox::Inputs, Some(input)) => {
            ServerTopic::input(receiver, input, &bag::input(&delivery.message, receiver, input))
        }
        _ => ServerTopic::cloud_to_device(receiver, &bag::cloud_to_device(&delivery.message, receiver)),
    };
    let topic = Text::try_from(topic).ok()?;
    Some(Message {
        topic,
        payload: delivery.message.body.clone(),
        qos,
        retain: false,
        dup: delivery.redelivered,
    })
}
