//! What an endpoint is: something that takes batches of messages, in order, and says what became of them.
//!
//! ```text
//! lane --up to Limits--> [Routed, Routed, …] --send--> Ok                          all are kept there; the lane forgets them
//!                              ^                       Later { delivered: n }      the first n are kept; the rest comes again, after a pause
//!                              '---- the rest ---------Never { index: n }          the first n are kept; number n goes to the dead letters
//! ```
//!
//! What must hold:
//! - An answer counts as the endpoint's word: `Ok`, and what stands before `delivered` or `index`, is removed for ever. So it is
//!   given when the other side has confirmed, or when what was written is on disk, and not before.
//! - One caller, one batch at a time: order within a lane is the order of devices' messages. An endpoint may have many messages of a
//!   batch on their way at once where its protocol keeps their order.
//! - `send` may be dropped at any await (the endpoint was changed, the hub ends). The batch comes again, to a new endpoint of the same
//!   definition: whatever was delivered of it is then delivered twice, and nothing is lost. [`Routed::key`] stays the same, for
//!   receivers that want to recognise it.
//! - It does not wait by itself for the other side to come back: it says [`SendError::Later`], and whoever calls decides when the next
//!   attempt is. A connection is made by the first `send` that needs one. Each attempt ends in a time that its settings bound.
//! - Memory: a batch, and what a batch becomes on the wire; nothing else that grows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holm_model::{Message, SystemProperty, Timestamp};

use super::Source;
use crate::Clock;

/// Messages on their way to one endpoint.
///
/// Body, content type and encoding, system and application properties are those of `message`, as published: what the hub stamped
/// (connection device and module id, enqueued time, message source) is among `message.system`, enrichments among
/// `message.properties`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Its number in the lane of the endpoint: rises from one message to the next, and is the same when it comes again.
    pub sequence: u64,
    /// When the hub took it in.
    pub enqueued: Timestamp,
    /// What kind of message it is.
    pub source: Source,
    /// The partition of its device in the event log; the same for all messages of a device.
    pub partition: u16,
    /// The message.
    pub message: Message,
}

impl Routed {
    /// The device that it is from, or about.
    #[must_use]
    pub fn device(&self) -> &str {
        self.system(SystemProperty::ConnectionDeviceId).unwrap_or_default()
    }

    /// The module that it is from, or about.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        self.system(SystemProperty::ConnectionModuleId)
    }

    /// A system property.
    #[must_use]
    pub fn system(&self, name: SystemProperty) -> Option<&str> {
        self.message.system.get(name)
    }

    /// What no other message of the endpoint has, and this one has each time that it comes: for receivers that drop repeats.
    /// `lane` is [`Surroundings::lane`].
    #[must_use]
    pub fn key(&self, lane: &str) -> String {
        format!("{lane}/{}", self.sequence)
    }

    /// Bytes that count against [`Limits::bytes`]: body and properties.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let system = self.message.system.iter();
        let system: usize = system.map(|(_, value)| value.len()).sum();
        let application = self.message.properties.iter();
        let application: usize = application
            .map(|(name, value)| name.len() + value.map_or(0, str::len))
            .sum();
        self.message.body.len() + system + application
    }
}

/// The largest batch, and how long it is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most messages of a batch, at least 1.
    pub messages: usize,
    /// The most bytes of a batch, by [`Routed::bytes`]; a single message may be larger.
    pub bytes: usize,
    /// How long messages are collected, from the first that waits, before a batch that is not full is sent. Zero: not at all, a
    /// batch is what waits when the one before is done.
    pub linger: Duration,
}

impl Limits {
    /// 500 messages, 1 MiB, no waiting.
    pub const USUAL: Self = Self {
        messages: 500,
        bytes: 1 << 20,
        linger: Duration::ZERO,
    };
}

/// Why a batch, or a part of it, was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not now: the other side is away, busy, or does not let us in. It is tried again, from message `delivered` on.
    #[error("{why}")]
    Later {
        /// How many messages from the start of the batch were delivered all the same.
        delivered: usize,
        /// When the other side wants to be asked again, if it said so.
        after: Option<Duration>,
        /// What happened, in words for an operator.
        why: String,
    },
    /// Message `index` of the batch can't ever be taken, as it is: too large, or refused by what it holds. Those before it were
    /// delivered; those behind it come again without it.
    #[error("{why}")]
    Never {
        /// Which message, counted from the start of the batch.
        index: usize,
        /// What is wrong with it, in words for an operator.
        why: String,
    },
}

impl SendError {
    /// Nothing of the batch was taken.
    pub fn later(why: impl Into<String>) -> Self {
        Self::Later {
            delivered: 0,
            after: None,
            why: why.into(),
        }
    }
}

/// What an endpoint needs to know of the hub that it belongs to.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The hub's name: the first label of its host name, the `{iothub}` of file names and topics.
    pub hub_name: Arc<str>,
    /// The name of the lane: of this endpoint of this hub, and of no other that comes after it under the same name.
    pub lane: Arc<str>,
    /// The one directory below which endpoints of the kind `file` may write.
    pub files: Arc<PathBuf>,
    /// The time of day, for file names and signatures.
    pub clock: Clock,
}

/// Something that takes messages. See the top of the file for what must hold.
pub trait Endpoint: Send + std::fmt::Debug {
    /// Delivers a batch, which is never empty, in its order.
    ///
    /// # Errors
    /// [`SendError`]: how far it came, and whether the rest is worth another attempt.
    fn send<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<(), SendError>>;

    /// The largest batch that it wants.
    fn limits(&self) -> Limits;

    /// Where messages go, in words for an operator and without secrets: `POST https://example.com/in`.
    fn describe(&self) -> String;

    /// Says good-bye in good order; nothing waits to be delivered. Bounded by the caller.
    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
