//! One identity that acts on a connection, with the links that it has.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use holm_amqp::{LinkId, MessageId};
use holm_model::Timestamp;
use holm_net::clock::instant;
use holm_net::{Alarm, Clock};

use super::crowd::Party;
use super::deliver::{Deliveries, MAILBOXES};
use super::telemetry::Part;
use super::untold::Untold;
use crate::backend::{Admission, Backend, Delivery, IngestError, Mailbox, Refusal};
use crate::intake::{Entrance, Receipts};
use crate::method_calls::Calls;
use crate::profile::{CLOCK_SKEW, Profile};
use crate::session::{Command, SessionHandle, SessionInbox, Subscriptions};
use crate::twin_requests::{Answer, Requests};

/// What may happen to a client.
pub(super) enum News<R> {
    /// The node wants something of it.
    Command(Command),
    /// So many deliveries that came first are on disk, or could not be brought there.
    Stored(usize, Result<(), IngestError>),
    /// A twin request is answered.
    Twin(Answer<Asker>),
    /// Messages for it came.
    Received(Mailbox, Result<Vec<Delivery>, Refusal>),
    /// The message that waited for room has its place, or none.
    Entered(Option<Part>, Result<R, IngestError>),
    /// A moment has come that it waited for: see [`Client::ends`], [`Client::overdue`] and [`Deliveries::drained`].
    Due,
}

/// What the answer to a twin request needs.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) id: Option<MessageId>,
}

pub(super) struct Client<B: Backend> {
    pub(super) admission: Arc<Admission>,
    pub(super) handle: SessionHandle,
    pub(super) inbox: SessionInbox,
    pub(super) entrance: Entrance<B, Part>,
    pub(super) receipts: Receipts<B::Receipt, Part>,
    pub(super) twins: Requests<B, Asker>,
    pub(super) deliveries: Deliveries<B>,
    pub(super) calls: Calls,
    pub(super) untold: Untold,
    /// How many links it has.
    pub(super) links: usize,
    /// The link for answers and changes of its twin.
    pub(super) twin: Option<LinkId>,
    /// The link for method calls.
    pub(super) methods: Option<LinkId>,
    /// Whether it wants to hear of changed desired properties.
    pub(super) wants_desired: bool,
    /// The node wished to close it.
    closing: bool,
    /// When its proof ends.
    ends: Option<Instant>,
    patience: Duration,
    alarm: Alarm,
}

impl<B: Backend> Client<B> {
    pub(super) fn new(
        backend: &Arc<B>,
        profile: &Profile,
        clock: &Clock,
        admission: Admission,
        (handle, inbox): (SessionHandle, SessionInbox),
    ) -> Self {
        let admission = Arc::new(admission);
        let (of, session) = (|| Arc::clone(&admission), handle.id());
        Self {
            entrance: Entrance::new(Arc::clone(backend), of()),
            receipts: Receipts::default(),
            twins: Requests::new(Arc::clone(backend), of()),
            deliveries: Deliveries::new(Arc::clone(backend), of(), session, profile.delivery_window),
            calls: Calls::default(),
            untold: Untold::default(),
            links: 0,
            twin: None,
            methods: None,
            wants_desired: false,
            closing: false,
            ends: ends(admission.expires, clock),
            patience: profile.acknowledge_deadline,
            alarm: Alarm::default(),
            admission,
            handle,
            inbox,
        }
    }

    /// Its proof was renewed.
    pub(super) fn renew(&mut self, expires: Option<Timestamp>, clock: &Clock) {
        self.ends = ends(expires, clock);
    }

    /// Whether its proof has ended.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// The link whose oldest delivery has waited too long for its outcome.
    pub(super) fn overdue(&self, now: Instant) -> Option<LinkId> {
        let (sent, link) = self.deliveries.oldest()?;
        (sent + self.patience <= now).then_some(link)
    }

    /// Whether something for it waits for room on the connection.
    pub(super) fn is_blocked(&self) -> bool {
        self.untold.waits() || self.deliveries.blocked().next().is_some()
    }

    /// What it receives now.
    pub(super) fn subscriptions(&self) -> Subscriptions {
        let mut all = Subscriptions::NONE;
        for (mailbox, subscription) in MAILBOXES {
            if self.deliveries.is_open(mailbox) {
                all = all.with(subscription);
            }
        }
        if self.methods.is_some() {
            all = all.with(Subscriptions::METHODS);
        }
        if self.twin.is_some() {
            all = all.with(Subscriptions::TWIN_RESPONSES);
            if self.wants_desired {
                all = all.with(Subscriptions::DESIRED_PROPERTIES);
            }
        }
        all
    }
}

impl<B: Backend> Party for Client<B> {
    type News = News<B::Receipt>;

    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<Self::News> {
        // A wish to close stays, and is told once.
        if !self.closing
            && let Poll::Ready(command) = self.inbox.poll_next(cx, self.untold.waits())
        {
            self.closing = matches!(command, Command::Close(_));
            return Poll::Ready(News::Command(command));
        }
        if let Poll::Ready((count, outcome)) = pin!(self.receipts.next()).poll(cx) {
            return Poll::Ready(News::Stored(count, outcome));
        }
        if !self.untold.waits()
            && let Poll::Ready(answer) = pin!(self.twins.next()).poll(cx)
        {
            return Poll::Ready(News::Twin(answer));
        }
        if let Poll::Ready((mailbox, received)) = self.deliveries.poll_received(cx) {
            return Poll::Ready(News::Received(mailbox, received));
        }
        if let Poll::Ready(Some((delivery, outcome))) = pin!(self.entrance.next()).poll(cx) {
            return Poll::Ready(News::Entered(delivery, outcome));
        }
        let overdue = self.deliveries.oldest().map(|(sent, _)| sent + self.patience);
        let due = [self.ends, overdue, self.deliveries.drained()]
            .into_iter()
            .flatten()
            .min();
        self.alarm.poll(cx, due).map(|()| News::Due)
    }
}

/// When an identity must stop acting by a proof: 5 minutes after its end, for clocks that differ.
fn ends(expires: Option<Timestamp>, clock: &Clock) -> Option<Instant> {
    let skew = i64::try_from(CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX);
    // A proof that came after its end has less than the skew.
    let left = expires?.millis_since(clock.now().into()).saturating_add(skew);
    Some(instant() + Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}
