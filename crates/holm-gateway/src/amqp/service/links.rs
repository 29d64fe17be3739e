//! The service links of one connection: who may have them, and what happens on them.
//!
//! ```text
//! attach --address--> permit (a token of the connection) --> CloudToDevice   delivery -> send_to_device -> outcome
//!                                                        |-> Notices         receive -> delivery -> outcome -> settle
//!                                                        |-> Questions, Answers          question -> answer
//!                                                        |-> Events          read -> deliveries
//!                                                        '-> redirected, refused
//! ```
//!
//! The owner of the connection hands in what happens ([`ServiceLinks::attach`], `delivery`, `credit`, `settled`, `detached`), waits
//! for [`ServiceLinks::next`], hands that to [`ServiceLinks::handle`], and calls [`ServiceLinks::room`] when one of those that
//! [`ServiceLinks::wait_for_room`] names can send again.
//!
//! - Where no back ends connect ([`Service::SERVES_BACK_ENDS`]) there never is a link, and each of these begins by saying so.
//! - A link lives as long as a token that opens it: when the one that let it in ends, another one of the connection takes its
//!   place, or the link is detached.
//! - What waits here is bounded: messages to devices by [`MAX_SENDS`], at which the owner brings nothing more
//!   ([`ServiceLinks::is_choked`]); notices one a link, and events, by what the engine queues.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holm_amqp::performative::Attach;
use holm_amqp::{
    AmqpError, Connection, Delivery, DeliveryId, DeliveryTag, Limits, LinkId, Message, Outbound, Outcome, Role,
    SessionId, Text, Token, condition,
};
use holm_model::Timestamp;
use holm_model::error::{ErrorCode, ServiceError};

use super::address::ServiceAddress;
use super::event_link::{EventLink, Surroundings};
use super::notice_link::NoticeLink;
use super::{cloud_to_device, errors, management};
use crate::backend::Refusal;
use crate::service::{Notice, ReadRefusal, Service};

/// Messages to devices that one link may have on their way.
pub(super) const SEND_WINDOW: u32 = 100;
/// Messages to devices of one connection on their way, from which on its links give no credit, and what comes for credit that
/// was given before waits in the session. Only a sender that wants no outcomes gets so far.
const MAX_SENDS: usize = 1000;

/// Something happened that [`ServiceLinks::handle`] wants to know.
pub(crate) struct News(Happened);

enum Happened {
    Sent(Sent),
    Notice(LinkId, Result<Option<Notice>, Refusal>),
    Lost(LinkId, ReadRefusal),
    MoreEvents,
}

type Sent = (Option<DeliveryId>, Result<u64, ServiceError>);
type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// The service links of a connection.
pub(crate) struct ServiceLinks<B: Service> {
    pub(super) backend: Arc<B>,
    pub(super) links: BTreeMap<LinkId, Link<B>>,
    sends: FuturesUnordered<Sending>,
    /// Too many messages to devices are on their way.
    pub(super) is_choked: bool,
    /// Answers that were given.
    answers: u64,
    buffer: BytesMut,
}

pub(super) struct Link<B: Service> {
    pub(super) node: Node<B>,
    /// Of which a token must open one.
    pub(super) paths: Vec<String>,
    /// When the token ends.
    pub(super) ends: Timestamp,
}

pub(super) enum Node<B: Service> {
    CloudToDevice,
    Questions,
    Answers { reply_to: Option<Text> },
    Notices(NoticeLink<B::Notices>),
    Events(Box<EventLink<B::Events>>),
}

impl<B: Service> ServiceLinks<B> {
    /// No links yet.
    #[must_use]
    pub(crate) fn new(backend: Arc<B>) -> Self {
        Self {
            backend,
            links: BTreeMap::new(),
            sends: FuturesUnordered::new(),
            is_choked: false,
            answers: 0,
            buffer: BytesMut::new(),
        }
    }

    /// What a link is for that a peer wants; none when it is no service link.
    #[must_use]
    pub(crate) fn address(&self, attach: &Attach) -> Option<ServiceAddress> {
        let address = match attach.role {
            Role::Sender => attach.target.as_ref().and_then(|target| target.address.as_ref()),
            Role::Receiver => attach.source.as_ref().and_then(|source| source.address.as_ref()),
        };
        let event_hub = self.backend.event_hub();
        let name = event_hub.as_ref().map_or("", |event_hub| &event_hub.name);
        ServiceAddress::parse(attach.role, address?.as_str(), name)
    }

    /// Whether a link is one of these.
    #[must_use]
    pub(crate) fn holds(&self, link: LinkId) -> bool {
        B::SERVES_BACK_ENDS && self.links.contains_key(&link)
    }

    /// Whether there are none.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether too many messages to devices are on their way: then nothing more is to be brought until some have arrived, since
    /// each link has been given credit before.
    #[must_use]
    pub(crate) const fn is_choked(&self) -> bool {
        self.is_choked
    }

    /// A delivery came on one of these links.
    pub(crate) fn delivery(&mut self, connection: &mut Connection, delivery: Delivery) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        match self.links.get(&delivery.link).map(|link| &link.node) {
            Some(Node::CloudToDevice) => self.send_to_device(connection, &delivery),
            Some(Node::Questions) => {
                let outcome = self.answer(connection, &delivery);
                if let Some(id) = delivery.id {
                    connection.settle(id, outcome);
                }
            }
            _ => {}
        }
    }

    fn send_to_device(&mut self, connection: &mut Connection, delivery: &Delivery) {
        let read = if delivery.format == 0 {
            cloud_to_device::read(&delivery.payload, Limits::default())
        } else {
            let text = "messages to devices come one by one; send each with message format 0";
            Err(ServiceError::argument_invalid(text))
        };
        let id = delivery.id;
        match read {
            Ok(addressed) => {
                let backend = Arc::clone(&self.backend);
                let sending = async move { (id, send_addressed(&*backend, addressed).await) };
                self.sends.push(Box::pin(sending));
                if self.sends.len() >= MAX_SENDS {
                    self.is_choked = true;
                    self.set_send_windows(connection, 0);
                }
            }
            Err(error) => settle(connection, id, Err(error)),
        }
    }

    fn set_send_windows(&self, connection: &mut Connection, window: u32) {
        for (link, held) in &self.links {
            if matches!(held.node, Node::CloudToDevice) {
                connection.set_window(*link, window);
            }
        }
    }

    /// Answers a question about the Event Hub; gives the outcome of its delivery.
    fn answer(&mut self, connection: &mut Connection, delivery: &Delivery) -> Outcome {
        let rejected = |condition, text: &str| Outcome::Rejected(Some(Box::new(AmqpError::new(condition, text))));
        let question = match Message::decode(&delivery.payload, Limits::default()) {
            Ok(question) => question,
            Err(error) => return rejected(condition::DECODE_ERROR, &format!("the delivery is no message: {error}")),
        };
        let event_hub = self.backend.event_hub();
        let answer = management::answer(&question, event_hub.as_ref(), |partition| {
            self.backend.partition_bounds(partition)
        });
        let wanted = question.properties.as_ref().and_then(|asked| asked.reply_to.as_ref());
        let Some(link) = self.way_of_answer(delivery.link.session(), wanted) else {
            let text = "nobody here receives the answer; attach a receiver from `$management` first";
            return rejected(condition::PRECONDITION_FAILED, text);
        };
        self.answers += 1;
        let outbound = Outbound {
            tag: DeliveryTag::from(self.answers),
            format: 0,
            payload: answer.to_bytes(),
            settled: true,
        };
        match connection.send_later(link, &outbound) {
            Ok(_) => Outcome::Accepted,
            Err(error) => rejected(
                condition::RESOURCE_LIMIT_EXCEEDED,
                &format!("the answer can't be sent: {error}"),
            ),
        }
    }

    /// The link for an answer: the one that the question names, else the newest of its session, else the newest.
    fn way_of_answer(&self, session: SessionId, wanted: Option<&Text>) -> Option<LinkId> {
        let all = || {
            self.links.iter().rev().filter_map(|(link, held)| match &held.node {
                Node::Answers { reply_to } => Some((*link, reply_to)),
                _ => None,
            })
        };
        let named = || all().find(|(_, reply_to)| wanted.is_some() && reply_to.as_ref() == wanted);
        let near = || all().find(|(link, _)| link.session() == session);
        named().or_else(near).or_else(|| all().next()).map(|(link, _)| link)
    }

    /// The peer of one of these links takes more, or less.
    pub(crate) fn credit(&mut self, connection: &mut Connection, link: LinkId, credit: u32, drain: bool) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        match self.links.get_mut(&link).map(|held| &mut held.node) {
            Some(Node::Events(events)) => {
                events.credit(credit, drain);
                self.pump(connection);
            }
            Some(Node::Notices(notices)) => notices.credit(credit, drain),
            Some(Node::Answers { .. }) if drain => {
                connection.give_credit_back(link);
            }
            _ => {}
        }
    }

    /// A delivery on one of these links has its outcome.
    pub(crate) fn settled(&mut self, token: Token, outcome: Option<&Outcome>) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        if let Some(Node::Notices(notices)) = self.links.get_mut(&token.link()).map(|held| &mut held.node) {
            notices.settled(token, outcome);
        }
    }

    /// A link is gone.
    pub(crate) fn detached(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    /// A session is gone with its links.
    pub(crate) fn ended(&mut self, session: SessionId) {
        self.links.retain(|link, _| link.session() != session);
    }

    /// Waits for something to happen. Cancel-safe.
    pub(crate) async fn next(&mut self) -> News {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<News> {
        if !B::SERVES_BACK_ENDS {
            return Poll::Pending;
        }
        if let Poll::Ready(Some(sent)) = self.sends.poll_next_unpin(context) {
            return Poll::Ready(News(Happened::Sent(sent)));
        }
        for (id, link) in &mut self.links {
            let happened = match &mut link.node {
                Node::Events(events) => match events.poll(context) {
                    Poll::Ready(Some(end)) => Happened::Lost(*id, end),
                    Poll::Ready(None) => Happened::MoreEvents,
                    Poll::Pending => continue,
                },
                Node::Notices(notices) => match notices.poll(context) {
                    Poll::Ready(received) => Happened::Notice(*id, received),
                    Poll::Pending => continue,
                },
                Node::CloudToDevice | Node::Questions | Node::Answers { .. } => continue,
            };
            return Poll::Ready(News(happened));
        }
        Poll::Pending
    }

    /// Does what [`ServiceLinks::next`] told of.
    pub(crate) fn handle(&mut self, connection: &mut Connection, news: News) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        match news.0 {
            Happened::Sent((id, outcome)) => {
                settle(connection, id, outcome);
                if self.is_choked && self.sends.len() < MAX_SENDS / 2 {
                    self.is_choked = false;
                    self.set_send_windows(connection, SEND_WINDOW);
                }
            }
            Happened::Notice(link, received) => {
                let hub = self.backend.name();
                if let Some(Node::Notices(notices)) = self.links.get_mut(&link).map(|held| &mut held.node) {
                    let sent = received
                        .map_err(|why| errors::of_refusal(&why))
                        .and_then(|notice| notices.received(connection, link, notice, &hub));
                    if let Err(error) = sent {
                        self.detach(connection, link, error);
                    }
                }
            }
            Happened::Lost(link, refusal) => self.detach(connection, link, errors::of_read(&refusal)),
            Happened::MoreEvents => self.pump(connection),
        }
    }

    /// The links that wait for room on the connection: call [`ServiceLinks::room`] when one of them can send. A client that gives
    /// credit and closes its window has no room, however little there is to write.
    #[must_use]
    pub(crate) fn wait_for_room(&self) -> Vec<LinkId> {
        if !B::SERVES_BACK_ENDS {
            return Vec::new();
        }
        let waits = |link: &Link<B>| match &link.node {
            Node::Events(events) => events.wants_room(),
            Node::Notices(notices) => notices.wants_room(),
            Node::CloudToDevice | Node::Questions | Node::Answers { .. } => false,
        };
        let waiting = self.links.iter().filter(|(_, link)| waits(link));
        waiting.map(|(id, _)| *id).collect()
    }

    /// The connection has room again.
    pub(crate) fn room(&mut self, connection: &mut Connection) {
        if !B::SERVES_BACK_ENDS {
            return;
        }
        let mut failed = Vec::new();
        for (id, link) in &mut self.links {
            match &mut link.node {
                Node::Events(events) => events.room(),
                Node::Notices(notices) if notices.wants_room() => {
                    let hub = self.backend.name();
                    failed.extend(notices.room(connection, *id, &hub).err().map(|error| (*id, error)));
                }
                Node::Notices(_) | Node::CloudToDevice | Node::Questions | Node::Answers { .. } => {}
            }
        }
        for (link, error) in failed {
            self.detach(connection, link, error);
        }
        self.pump(connection);
    }

    /// Sends events, as far as credit and room allow.
    fn pump(&mut self, connection: &mut Connection) {
        let now = crate::gateway::now();
        let mut around = Surroundings {
            connection,
            buffer: &mut self.buffer,
            now,
        };
        let mut failed = Vec::new();
        for (id, link) in &mut self.links {
            if let Node::Events(events) = &mut link.node
                && let Err(error) = events.send(*id, &mut around)
            {
                failed.push((*id, error));
            }
        }
        for (link, error) in failed {
            self.detach(connection, link, error);
        }
        // An idle connection holds no buffer.
        self.buffer = BytesMut::new();
    }

    pub(super) fn detach(&mut self, connection: &mut Connection, link: LinkId, error: AmqpError) {
        tracing::debug!(%error, "a service link is detached");
        self.links.remove(&link);
        connection.detach(link, true, Some(error));
    }
}

async fn send_addressed<B: Service>(backend: &B, addressed: cloud_to_device::Addressed) -> Result<u64, ServiceError> {
    let cloud_to_device::Addressed {
        to: (first, second),
        message,
    } = addressed;
    let Some(second) = second else {
        return backend.send_to_device(first, message).await;
    };
    match backend.send_to_device(first, message.clone()).await {
        Err(error) if matches!(error.code, ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound) => {
            backend.send_to_device(second, message).await
        }
        sent => sent,
    }
}

fn settle(connection: &mut Connection, id: Option<DeliveryId>, outcome: Result<u64, ServiceError>) {
    let outcome = match outcome {
        Ok(_) => Outcome::Accepted,
        Err(error) => Outcome::Rejected(Some(Box::new(errors::of_service(&error)))),
    };
    match id {
        Some(id) => {
            connection.settle(id, outcome);
        }
        None => tracing::debug!(?outcome, "a message to a device whose sender wants no outcome"),
    }
}
