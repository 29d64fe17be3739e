//! The links of a connection: attach and detach, from either side.
//!
//! ```text
//!   refusal   <-- attach             --> attach without source and target --> detach with the error     (`libraries.md`, AMQP fact 8)
//! ```

use super::{Connection, Event, OpenError, State};
use crate::condition::AmqpError;
use crate::credit::{ReceiveCredit, SendCredit};
use crate::link::{Held, Link, LinkEnd, LinkId, LinkState, Receiver, Sender, SessionId};
use crate::map::Fields;
use crate::performative::{Attach, Detach, ReceiverSettleMode, Role, SenderSettleMode, Source, Target};
use crate::session::Session;
use crate::text::{Symbol, Text};

/// A link that this side wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLink {
    /// Its name; with the role, unique among the links of its session.
    pub name: Text,
    /// Whether this side sends or receives.
    pub role: Role,
    /// Where messages come from.
    pub source: Option<Box<Source>>,
    /// Where messages go to.
    pub target: Option<Box<Target>>,
    /// How its sender settles.
    pub snd_settle_mode: SenderSettleMode,
    /// How its receiver settles; a receiver of ours settles first.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// A receiver's credit: how many deliveries may be on their way or wait for the application's decision. 0 for none but
    /// what is [granted](Connection::grant).
    pub window: u32,
    /// More about it.
    pub properties: Fields,
    /// Extensions that this side would use.
    pub desired_capabilities: Vec<Symbol>,
}

/// The yes to a link that the peer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Where messages come from.
    pub source: Option<Box<Source>>,
    /// Where messages go to.
    pub target: Option<Box<Target>>,
    /// How the link's sender settles. When that is this side, [`SenderSettleMode::Settled`] and
    /// [`SenderSettleMode::Unsettled`] hold for every delivery.
    pub snd_settle_mode: SenderSettleMode,
    /// How the link's receiver settles. A receiver of ours settles first.
    pub rcv_settle_mode: ReceiverSettleMode,
    /// When this side receives, its credit: how many deliveries may be on their way or wait for the application's decision.
    /// 0 for none but what is [granted](Connection::grant).
    pub window: u32,
    /// When this side receives, the largest message; none for that of the [`Config`](crate::Config).
    pub max_message_size: Option<u64>,
    /// More about the link.
    pub properties: Fields,
    /// Extensions that this side has.
    pub offered_capabilities: Vec<Symbol>,
}

impl NewLink {
    /// A sender to a node.
    #[must_use]
    pub fn sender(name: impl Into<Text>, address: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            role: Role::Sender,
            source: Some(Box::new(Source::at(None))),
            target: Some(Box::new(Target::at(Some(address.into())))),
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            window: 0,
            properties: Fields::new(),
            desired_capabilities: Vec::new(),
        }
    }

    /// A receiver from a node, with its credit.
    #[must_use]
    pub fn receiver(name: impl Into<Text>, address: impl Into<Text>, window: u32) -> Self {
        Self {
            role: Role::Receiver,
            source: Some(Box::new(Source::at(Some(address.into())))),
            target: Some(Box::new(Target::at(None))),
            window,
            ..Self::sender(name, Text::default())
        }
    }
}

impl Acceptance {
    /// A link as the peer wants it, with a window of 100: source and target as they came, since clients look for theirs.
    #[must_use]
    pub fn of(attach: &Attach) -> Self {
        Self {
            source: attach.source.clone(),
            target: attach.target.clone(),
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            window: 100,
            max_message_size: None,
            properties: Fields::new(),
            offered_capabilities: Vec::new(),
        }
    }
}

impl Connection {
    /// Attaches a link. [`Event::Attached`] or [`Event::Detached`] tells the peer's answer.
    ///
    /// # Errors
    /// An [`OpenError`]; nothing was sent.
    pub fn attach(&mut self, session: SessionId, new: NewLink) -> Result<LinkId, OpenError> {
        if self.state != State::Open || self.ended() {
            return Err(OpenError::NotOpen);
        }
        let (serial, max_message_size) = (self.next_serial(), self.config.max_message_size);
        let at_limit = self.links >= self.allowance.links;
        let session = self.sessions.live(session).ok_or(OpenError::NoSession)?;
        if at_limit {
            return Err(OpenError::TooMany);
        }
        if session.by_name(new.name.as_str(), new.role).is_some() {
            return Err(OpenError::NameInUse);
        }
        let rcv_settle_mode = receiver_mode(new.role, new.rcv_settle_mode);
        let handle = session.free_handle().ok_or(OpenError::TooMany)?;
        let link = Link {
            serial,
            name: new.name.to_owned_buffer(),
            state: LinkState::Attaching,
            remote_handle: None,
            snd_settle_mode: new.snd_settle_mode,
            rcv_settle_mode,
            end: end_of(new.role, new.window, max_message_size),
        };
        session.insert(handle, link);
        self.links += 1;
        let id = link_id(session, handle, serial);
        let attach = Attach {
            snd_settle_mode: new.snd_settle_mode,
            rcv_settle_mode,
            source: new.source,
            target: new.target,
            max_message_size: (new.role == Role::Receiver).then_some(max_message_size),
            desired_capabilities: new.desired_capabilities,
            properties: new.properties,
            ..Attach::new(new.name, handle, new.role)
        };
        self.wire.send(id.session.channel, &attach);
        Ok(id)
    }

    /// Takes a link that the peer wants. False, without effect, when it does not wait for an answer (any more).
    pub fn accept_link(&mut self, link: LinkId, acceptance: Acceptance) -> bool {
        let default_size = self.config.max_message_size;
        let Some(session) = self.sessions.live(link.session) else {
            return false;
        };
        let Some(known) = session.known(link).filter(|known| known.state == LinkState::Deciding) else {
            return false;
        };
        known.state = LinkState::Attached;
        known.snd_settle_mode = acceptance.snd_settle_mode;
        known.rcv_settle_mode = receiver_mode(known.role(), acceptance.rcv_settle_mode);
        let mut attach = Attach {
            snd_settle_mode: known.snd_settle_mode,
            rcv_settle_mode: known.rcv_settle_mode,
            source: acceptance.source,
            target: acceptance.target,
            offered_capabilities: acceptance.offered_capabilities,
            properties: acceptance.properties,
            ..Attach::new(known.name.clone(), link.handle, known.role())
        };
        match &mut known.end {
            LinkEnd::Receiver(receiver) => {
                receiver.max_message_size = acceptance.max_message_size.unwrap_or(default_size);
                receiver.credit.set_window(acceptance.window);
                attach.max_message_size = Some(receiver.max_message_size);
            }
            LinkEnd::Sender(sender) => {
                // The peer's first flow may have come before the answer.
                let (credit, drain) = (sender.credit.left(), sender.credit.drain());
                if credit > 0 || drain {
                    self.events.push(Event::Credit { link, credit, drain });
                }
            }
        }
        self.wire.send(link.session.channel, &attach);
        self.mark_link(link.session.channel, link.handle);
        true
    }

    /// Refuses a link that the peer wants, with the reason. False, without effect, when it does not wait for an answer.
    pub fn refuse_link(&mut self, link: LinkId, error: AmqpError) -> bool {
        let known = self.sessions.live(link.session).and_then(|session| session.known(link));
        if known.is_none_or(|known| known.state != LinkState::Deciding) {
            return false;
        }
        self.detach_link(link.session.channel, link.handle, true, Some(Box::new(error)));
        true
    }

    /// Detaches a link: `closed` ends it, otherwise the peer may attach it again. What waited on it never gets an outcome; what
    /// [`settle`](Self::settle) said before is told before. False, without effect, when it is gone or going.
    pub fn detach(&mut self, link: LinkId, closed: bool, error: Option<AmqpError>) -> bool {
        let known = self.sessions.live(link.session).and_then(|session| session.known(link));
        if known.is_none_or(|known| known.state == LinkState::Detaching) {
            return false;
        }
        self.flush();
        self.detach_link(link.session.channel, link.handle, closed, error.map(Box::new));
        true
    }

    /// Says detach, after an attach that refuses if the peer waits for one, and waits for the peer's.
    pub(super) fn detach_link(&mut self, channel: u16, handle: u32, closed: bool, error: Option<Box<AmqpError>>) {
        let Some(session) = self.sessions.get(channel) else {
            return;
        };
        session.forget_deliveries(handle);
        let Some(link) = session.link(handle) else {
            return;
        };
        if link.state == LinkState::Deciding {
            self.wire
                .send(channel, &Attach::new(link.name.clone(), handle, link.role()));
        }
        link.state = LinkState::Detaching;
        let held = link.clear();
        self.release_held(held);
        self.wire.send(channel, &Detach { handle, closed, error });
    }

    pub(super) const fn release_held(&mut self, held: Held) {
        self.queued_bytes = self.queued_bytes.saturating_sub(held.queued);
        self.unfinished_bytes = self.unfinished_bytes.saturating_sub(held.partial);
    }
}

/// A receiver of ours settles first, whatever was asked: producers in Python wait for ever otherwise (`libraries.md`, AMQP
/// fact 7). As a sender either will do.
const fn receiver_mode(role: Role, wanted: ReceiverSettleMode) -> ReceiverSettleMode {
    match role {
        Role::Sender => wanted,
        Role::Receiver => ReceiverSettleMode::First,
    }
}

/// How a link's sender settles when one end would have it this way and the other that.
pub(super) const fn agreed(ours: SenderSettleMode, answer: SenderSettleMode) -> SenderSettleMode {
    match answer {
        SenderSettleMode::Mixed => ours,
        certain => certain,
    }
}

pub(super) fn end_of(role: Role, window: u32, max_message_size: u64) -> LinkEnd {
    match role {
        Role::Sender => LinkEnd::Sender(Sender {
            credit: SendCredit::default(),
            ..Sender::default()
        }),
        Role::Receiver => LinkEnd::Receiver(Receiver {
            credit: ReceiveCredit::new(window),
            max_message_size,
            partial: None,
            dirty: false,
        }),
    }
}

pub(super) fn link_id(session: &Session, handle: u32, serial: u32) -> LinkId {
    LinkId {
        session: session.id,
        handle,
        serial,
    }
}
