//! Messages that wait for a client: taken from its mailboxes as it gives credit, sent, and settled as it says.
//!
//! ```text
//!   credit --> receive, as many as there is credit and window --> send --> accepted: complete     rejected: reject
//!                                                                     '--> released, modified: abandon
//!                                                                     '--> nothing, the link is gone: back, uncounted
//!                                                             '--> asked for settled, so at most once: complete at once
//!              '-- no room on the connection: when there is, whatever the client says or does not say
//!   drain --> as above, and when nothing more came for a moment --> the rest of the credit goes back
//! ```
//!
//! A mailbox can't be asked whether it is empty, only for what is in it; so a drain waits a moment for the answer.
//!
//! Source: `hub-device-protocols.md` §3.3 and §3.4.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use holm_amqp::{Connection, DeliveryTag, LinkId, MessageId, Outbound, Outcome, SendError, Token};
use holm_net::clock::instant;

use super::message::to_client;
use crate::backend::{Admission, Backend, Delivery, Mailbox, Refusal, Settlement};
use crate::session::{SessionId, Subscriptions};
use crate::tracking_id;

type Receiving = Pin<Box<dyn Future<Output = Result<Vec<Delivery>, Refusal>> + Send>>;

/// How long a client that drains waits for messages which may be there.
const DRAIN: Duration = Duration::from_millis(200);

/// The mailboxes, and what stands for each among the subscriptions.
pub(super) const MAILBOXES: [(Mailbox, Subscriptions); 2] = [
    (Mailbox::CloudToDevice, Subscriptions::CLOUD_TO_DEVICE),
    (Mailbox::Inputs, Subscriptions::INPUTS),
];

/// The place of a mailbox in [`MAILBOXES`].
pub(super) const fn place_of(mailbox: Mailbox) -> usize {
    match mailbox {
        Mailbox::CloudToDevice => 0,
        Mailbox::Inputs => 1,
    }
}

/// The deliveries of one client.
pub(super) struct Deliveries<B> {
    backend: Arc<B>,
    admission: Arc<Admission>,
    session: SessionId,
    /// Deliveries of one mailbox that may wait for their outcome.
    window: usize,
    tags: Tags,
    open: [Option<Open>; MAILBOXES.len()],
}

/// A mailbox that a link is attached to.
struct Open {
    link: LinkId,
    credit: usize,
    /// When the rest of the credit goes back, if the client drains.
    drained: Option<Instant>,
    receiving: Option<Receiving>,
    /// Leased and not sent yet.
    unsent: VecDeque<Delivery>,
    /// They wait for room on the connection, and not for credit.
    is_blocked: bool,
    /// Sent and not settled, in the order sent.
    in_flight: VecDeque<InFlight>,
}

struct InFlight {
    token: Token,
    lease: u64,
    sent: Instant,
}

impl<B: Backend> Deliveries<B> {
    pub(super) fn new(backend: Arc<B>, admission: Arc<Admission>, session: SessionId, window: usize) -> Self {
        Self {
            backend,
            admission,
            session,
            window,
            tags: Tags::new(),
            open: [None, None],
        }
    }

    /// Begins to deliver from a mailbox on a link; gives the link that it was delivered on before.
    pub(super) fn open(&mut self, mailbox: Mailbox, link: LinkId) -> Option<LinkId> {
        let before = self.close(mailbox);
        if let Some(place) = self.open.get_mut(place_of(mailbox)) {
            *place = Some(Open {
                link,
                credit: 0,
                drained: None,
                receiving: None,
                unsent: VecDeque::new(),
                is_blocked: false,
                in_flight: VecDeque::new(),
            });
        }
        before
    }

    /// Delivers no more from a mailbox: what is not settled goes back, uncounted. Gives the link that it was delivered on.
    pub(super) fn close(&mut self, mailbox: Mailbox) -> Option<LinkId> {
        let open = self.open.get_mut(place_of(mailbox))?.take()?;
        let leases = open.in_flight.iter().map(|sent| sent.lease);
        for lease in leases.chain(open.unsent.iter().map(|delivery| delivery.lease)) {
            self.settle(mailbox, lease, Settlement::Release);
        }
        Some(open.link)
    }

    /// The client takes so many more on a link, and wants back what is not used at once if it drains.
    pub(super) fn credit(&mut self, link: LinkId, credit: u32, drain: bool, connection: &mut Connection) {
        if let Some(open) = self.open.iter_mut().flatten().find(|open| open.link == link) {
            open.credit = usize::try_from(credit).unwrap_or(usize::MAX);
            open.drained = drain.then(|| instant() + DRAIN);
            if open.credit == 0 {
                open.receiving = None;
            }
        }
        self.send(connection);
    }

    /// When [`give_credit_back`](Self::give_credit_back) is to be called.
    pub(super) fn drained(&self) -> Option<Instant> {
        self.open.iter().flatten().filter_map(|open| open.drained).min()
    }

    /// Gives back the credit of those who drained, for whom nothing more came.
    pub(super) fn give_credit_back(&mut self, now: Instant, connection: &mut Connection) {
        let is_due = |open: &&mut Open| open.drained.is_some_and(|drained| drained <= now);
        for open in self.open.iter_mut().flatten().filter(is_due) {
            open.drained = None;
            if connection.give_credit_back(open.link) {
                open.credit = 0;
                open.receiving = None;
            }
        }
    }

    /// Messages for one of the mailboxes, as soon as there are some and room for them.
    pub(super) fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<(Mailbox, Result<Vec<Delivery>, Refusal>)> {
        for (index, (mailbox, _)) in MAILBOXES.iter().enumerate() {
            let Some(open) = self.open.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            let held = open.in_flight.len() + open.unsent.len();
            let room = open
                .credit
                .min(self.window.saturating_sub(held))
                .saturating_sub(open.unsent.len());
            if room > 0 && open.receiving.is_none() {
                let (backend, admission, session) =
                    (Arc::clone(&self.backend), Arc::clone(&self.admission), self.session);
                let mailbox = *mailbox;
                open.receiving = Some(async move { backend.receive(session, &admission, mailbox, room).await }.boxed());
            }
            if let Some(receiving) = &mut open.receiving
                && let Poll::Ready(outcome) = receiving.poll_unpin(cx)
            {
                open.receiving = None;
                return Poll::Ready((*mailbox, outcome));
            }
        }
        Poll::Pending
    }

    /// Takes what came from a mailbox, and sends what there is room for.
    pub(super) fn received(&mut self, mailbox: Mailbox, deliveries: Vec<Delivery>, connection: &mut Connection) {
        if let Some(open) = self.open.get_mut(place_of(mailbox)).and_then(Option::as_mut) {
            open.unsent.extend(deliveries);
            if open.drained.is_some() {
                open.drained = Some(instant() + DRAIN);
            }
        }
        self.send(connection);
    }

    /// Sends what waits, as far as the client takes it.
    pub(super) fn send(&mut self, connection: &mut Connection) {
        for (index, (mailbox, _)) in MAILBOXES.iter().enumerate() {
            while let Some(open) = self.open.get_mut(index).and_then(Option::as_mut)
                && let Some(delivery) = open.unsent.pop_front()
            {
                let (tag, lock) = self.tags.next();
                let outbound = Outbound {
                    tag,
                    format: 0,
                    payload: to_client(&delivery, &self.admission.identity, &lock).to_bytes(),
                    settled: false,
                };
                let lease = delivery.lease;
                open.is_blocked = false;
                match connection.send(open.link, &outbound) {
                    Ok(Some(token)) => {
                        let sent = instant();
                        open.credit = open.credit.saturating_sub(1);
                        open.in_flight.push_back(InFlight { token, lease, sent });
                    }
                    // At most once, as the client asked: it is done with when it is on its way.
                    Ok(None) => {
                        open.credit = open.credit.saturating_sub(1);
                        self.settle(*mailbox, lease, Settlement::Complete);
                    }
                    Err(SendError::TooLarge { bytes, limit }) => {
                        tracing::warn!(identity = %self.admission.identity, bytes, limit, "a message was rejected: the client takes smaller ones only");
                        self.settle(*mailbox, lease, Settlement::Reject);
                    }
                    Err(SendError::NoCredit) => {
                        open.credit = 0;
                        open.unsent.push_front(delivery);
                        break;
                    }
                    Err(error @ (SendError::NotAttached | SendError::WindowFull | SendError::QueueFull)) => {
                        open.is_blocked = error != SendError::NotAttached;
                        open.unsent.push_front(delivery);
                        break;
                    }
                }
            }
        }
    }

    /// The links for which the connection had no room; they have credit, so nothing of the client's may come any more that
    /// makes [`send`](Self::send) look again.
    pub(super) fn blocked(&self) -> impl Iterator<Item = LinkId> {
        let open = self.open.iter().flatten();
        open.filter(|open| open.is_blocked).map(|open| open.link)
    }

    /// The client said what became of a delivery.
    pub(super) fn settled(&mut self, token: Token, outcome: Option<&Outcome>) {
        for (index, (mailbox, _)) in MAILBOXES.iter().enumerate() {
            let Some(open) = self.open.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            // Clients settle in order, mostly, so the first is nearly always it.
            let place = open.in_flight.iter().position(|sent| sent.token == token);
            if let Some(done) = place.and_then(|place| open.in_flight.remove(place)) {
                let settlement = match outcome {
                    Some(Outcome::Accepted) => Settlement::Complete,
                    Some(Outcome::Rejected(_)) => Settlement::Reject,
                    Some(Outcome::Released | Outcome::Modified(_)) => Settlement::Abandon,
                    None => Settlement::Release,
                };
                return self.settle(*mailbox, done.lease, settlement);
            }
        }
    }

    /// Whether a link is attached to a mailbox.
    pub(super) fn is_open(&self, mailbox: Mailbox) -> bool {
        self.open.get(place_of(mailbox)).is_some_and(Option::is_some)
    }

    /// Since when the oldest delivery waits for its outcome, and on which link.
    pub(super) fn oldest(&self) -> Option<(Instant, LinkId)> {
        let open = self.open.iter().flatten();
        open.filter_map(|open| Some((open.in_flight.front()?.sent, open.link)))
            .min()
    }

    fn settle(&self, mailbox: Mailbox, lease: u64, settlement: Settlement) {
        self.backend
            .settle(self.session, &self.admission, mailbox, lease, settlement);
    }
}

/// Gives tags of 16 bytes, as C# needs them, each once: 8 random bytes of this client's, then a number. The same as the text of
/// a UUID is what a message says of its lock.
struct Tags {
    prefix: [u8; 8],
    given: u64,
}

impl Tags {
    fn new() -> Self {
        let [prefix @ .., _, _, _, _, _, _, _, _] = tracking_id().bits().to_be_bytes();
        Self { prefix, given: 0 }
    }

    fn next(&mut self) -> (DeliveryTag, String) {
        self.given += 1;
        let mut bits = [0; 16];
        let (prefix, number) = bits.split_at_mut(self.prefix.len());
        prefix.copy_from_slice(&self.prefix);
        number.copy_from_slice(&self.given.to_be_bytes());
        (DeliveryTag::from(bits), MessageId::Uuid(bits).to_string())
    }
}
