//! What a connection tells the application, and why it refuses what the application asks.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

use crate::condition::AmqpError;
use crate::link::{DeliveryId, LinkId, SessionId, Token};
use crate::performative::{Attach, DeliveryTag, Open, Outcome, SaslCode, Secret};
use crate::sasl::Credentials;
use crate::text::Text;
use crate::timer::Timer;
use crate::violation::Violation;

/// What happened, in the order in which it happened. After [`Event::Closed`] nothing follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Server: a client gives its credentials. Answer by [`authenticate`](crate::Connection::authenticate), or first by a
    /// [`challenge`](crate::Connection::challenge); what the client sends meanwhile waits. A client without SASL never gives any.
    Authenticate {
        /// What it gives.
        credentials: Credentials,
        /// Whom it wants to talk to.
        hostname: Option<Text>,
    },
    /// Server: a client answers a [`challenge`](crate::Connection::challenge). Decide as after [`Event::Authenticate`].
    SaslResponse(Secret),
    /// The peer opened the connection: sessions may begin. A server has answered.
    Opened(Box<Open>),
    /// The peer began a session, or answered ours. Its begin was answered.
    Begun(SessionId),
    /// A session is gone with all its links, without us having asked for it. What waited on its links never gets an outcome.
    Ended {
        /// The session.
        session: SessionId,
        /// Who ended it.
        by: Side,
        /// Why.
        error: Option<Box<AmqpError>>,
    },
    /// The peer wants a link. Answer by [`accept_link`](crate::Connection::accept_link) or
    /// [`refuse_link`](crate::Connection::refuse_link).
    Attach {
        /// What the answer names.
        link: LinkId,
        /// What the peer wants: it sends where the role is [`Role::Sender`](crate::performative::Role::Sender).
        attach: Box<Attach>,
    },
    /// The peer took our link.
    Attached {
        /// The link.
        link: LinkId,
        /// The peer's answer.
        attach: Box<Attach>,
    },
    /// A link is gone, or was refused, without us having asked for it. What waited on it never gets an outcome.
    Detached {
        /// The link.
        link: LinkId,
        /// Who detached it.
        by: Side,
        /// Whether it ended; otherwise the peer may attach it again.
        closed: bool,
        /// Why.
        error: Option<Box<AmqpError>>,
    },
    /// The peer lets more be sent on a link, or less.
    Credit {
        /// The link, whose sender is here.
        link: LinkId,
        /// How many deliveries may be sent now.
        credit: u32,
        /// Whether the peer wants back what is not used: send what there is, and then
        /// [`give_credit_back`](crate::Connection::give_credit_back).
        drain: bool,
    },
    /// The peer sent all that it had, as [`drain`](crate::Connection::drain) asked for, and gave back the rest of its credit.
    Drained(LinkId),
    /// A delivery came, whole.
    Delivery(Delivery),
    /// A delivery of ours has its outcome.
    Settled {
        /// The delivery.
        token: Token,
        /// What it came to; none when the peer forgot it without saying.
        outcome: Option<Outcome>,
    },
    /// The end. Transmit what is left, then close the transport.
    Closed(Closed),
}

/// A delivery of the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The link that it came on.
    pub link: LinkId,
    /// What [`settle`](crate::Connection::settle) wants; none when the peer wants no outcome.
    pub id: Option<DeliveryId>,
    /// What the peer calls it.
    pub tag: DeliveryTag,
    /// What its bytes are: 0 for a [`Message`](crate::Message), or
    /// [`BATCH_FORMAT`](crate::message::BATCH_FORMAT).
    pub format: u32,
    /// Its bytes.
    pub payload: Bytes,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This one: because of a fault of the peer's.
    Here,
    /// The peer.
    Peer,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Closed {
    /// The peer closed.
    #[error("the peer closed the connection{}", .0.as_ref().map(|error| format!(": {error}")).unwrap_or_default())]
    ByPeer(Option<Box<AmqpError>>),
    /// This side closed.
    #[error("the connection was closed by this side")]
    ByApplication,
    /// SASL ended without letting the client in.
    #[error("the credentials were refused ({})", sasl_text(*.0))]
    Refused(SaslCode),
    /// The peer does not offer the mechanism that was to be used.
    #[error("the peer does not offer the mechanism `{0}`; take one of `{1}`")]
    NotOffered(String, String),
    /// The peer broke a rule.
    #[error("the peer broke a rule of AMQP 1.0")]
    Violation(#[source] Violation),
    /// The peer was too slow.
    #[error("{0} did not come in time")]
    TimedOut(Timer),
    /// The transport ended without a close.
    #[error("the transport ended without a close")]
    Lost,
}

impl Closed {
    /// Whether the peer ended it in order. That the transport ends without a close is usual too (`libraries.md`, AMQP
    /// fact 9).
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        matches!(self, Self::ByPeer(None) | Self::ByApplication)
    }
}

const fn sasl_text(code: SaslCode) -> &'static str {
    match code {
        SaslCode::Ok => "they were taken",
        SaslCode::Auth => "they are wrong",
        SaslCode::Sys | SaslCode::SysPerm => "the server failed",
        SaslCode::SysTemp => "the server failed; try again later",
    }
}

/// Why a delivery cannot be sent. Nothing was sent; the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The link is not attached (any more), or the other end sends on it.
    #[error("the link does not send from here; send between `Attached` or the acceptance and `Detached`")]
    NotAttached,
    /// The peer gives no credit.
    #[error("the peer takes no more deliveries on this link; send again after `Credit`")]
    NoCredit,
    /// As many deliveries as allowed wait for their outcome.
    #[error("too many deliveries of this link wait for their outcome; send again after `Settled`")]
    WindowFull,
    /// The peer reads too slowly.
    #[error("too many bytes wait to be sent; send again after `poll_transmit` took them")]
    QueueFull,
    /// Larger than the peer takes.
    #[error("the message has {bytes} bytes; the peer takes at most {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit of the link.
        limit: u64,
    },
}

/// Why a session or link cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Before the peer's open, or after the end.
    #[error("the connection is not open; ask between `Opened` and `Closed`")]
    NotOpen,
    /// No such session, or it is ending.
    #[error("the session is gone; begin another one")]
    NoSession,
    /// More than allowed, here or at the peer.
    #[error("there are as many of them as allowed; end one first")]
    TooMany,
    /// A link of that name and role is there.
    #[error("the session has a link of that name and role; take another name")]
    NameInUse,
}

/// Events that wait, with what they hold of their buffers.
#[derive(Debug, Default)]
pub(crate) struct Events {
    queue: VecDeque<(Event, usize)>,
    bytes: usize,
    /// The size of the frame that is being handled.
    frame: usize,
}

impl Events {
    /// Notes the size of the frame that is handled next: its fields may be as long as it.
    pub(crate) const fn set_frame(&mut self, bytes: usize) {
        self.frame = bytes;
    }

    pub(crate) fn push(&mut self, event: Event) {
        let bytes = match &event {
            Event::Delivery(delivery) => delivery.payload.len(),
            Event::Begun(_) | Event::Credit { .. } | Event::Drained(_) | Event::Closed(_) => 0,
            _ => self.frame,
        };
        self.bytes += bytes;
        self.queue.push_back((event, bytes));
    }

    pub(crate) fn take_where(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let index = self.queue.iter().position(|(event, _)| wanted(event))?;
        let (event, bytes) = self.queue.remove(index)?;
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.queue.is_empty() {
            // Thousands of idle connections must fit.
            self.queue = VecDeque::new();
        }
        Some(event)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}
