//! What a peer may do wrong, one variant a rule, by what it costs: the connection, the session, or the link.
//!
//! A fault costs the least that it can: many devices share a connection, and one that fails must not end the others
//! (`hub-device-protocols.md` §3.4). The text goes to the peer as the description of the published condition.

use thiserror::Error;

use crate::codec::{DecodeError, FrameError};
use crate::condition::{self, AmqpError};

/// A breach that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Another protocol, or a version of it that is not spoken. Answered with the header that is. 2.2.
    #[error("the connection begins with {0:02x?}; send `AMQP` with 0, or 3 for SASL, and version 1.0.0")]
    Header([u8; 8]),
    /// Bytes that are no frame. 2.3.1.
    #[error(transparent)]
    Frame(FrameError),
    /// A frame whose body is not what AMQP 1.0 says.
    #[error(transparent)]
    Decode(DecodeError),
    /// A frame that may not come now.
    #[error("{frame} came where {expected} was expected")]
    Unexpected {
        /// What came.
        frame: &'static str,
        /// What could have come.
        expected: &'static str,
    },
    /// 2.7.1.
    #[error("the `max-frame-size` of `open` is {0}; send at least 512")]
    MaxFrameSize(u32),
    /// A beat so quick that it would be the connection's main work.
    #[error("the `idle-time-out` of `open` is {0} ms; send at least 100, or none")]
    IdleTimeOut(u32),
    /// 2.7.1.
    #[error("the channel {channel} is beyond the `channel-max` of {limit}")]
    ChannelMax {
        /// The channel.
        channel: u16,
        /// The highest.
        limit: u16,
    },
    /// 2.7.2.
    #[error("a begin came on channel {0}, which has a session; end it first, or take another channel")]
    ChannelInUse(u16),
    /// A begin that answers none of ours.
    #[error("the `remote-channel` of `begin` is {0}, on which nothing waits for an answer")]
    RemoteChannel(u16),
    /// A frame on a channel without a session.
    #[error("{frame} came on channel {channel}, which has no session; begin one first")]
    UnknownChannel {
        /// What came.
        frame: &'static str,
        /// The channel.
        channel: u16,
    },
    /// The driver goes on reading although [`wants_input`](crate::Connection::wants_input) says no.
    #[error(
        "{bytes} bytes wait to be handled, more than the {limit} allowed; stop reading while the connection wants no input"
    )]
    InputOverflow {
        /// How many wait.
        bytes: usize,
        /// How many may.
        limit: usize,
    },
}

impl Violation {
    /// The published condition.
    #[must_use]
    pub const fn condition(&self) -> &'static str {
        match self {
            Self::Header(_) | Self::Frame(_) | Self::ChannelMax { .. } | Self::UnknownChannel { .. } => {
                condition::FRAMING_ERROR
            }
            Self::Decode(_) => condition::DECODE_ERROR,
            Self::Unexpected { .. } => condition::ILLEGAL_STATE,
            Self::MaxFrameSize(_) | Self::IdleTimeOut(_) | Self::RemoteChannel(_) => condition::INVALID_FIELD,
            Self::ChannelInUse(_) => condition::NOT_ALLOWED,
            Self::InputOverflow { .. } => condition::INTERNAL_ERROR,
        }
    }

    /// What the peer is told.
    #[must_use]
    pub fn error(&self) -> AmqpError {
        AmqpError::new(self.condition(), self.to_string())
    }
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Body(error) => Self::Decode(error),
            other => Self::Frame(other),
        }
    }
}

/// A breach that ends the session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionFault {
    /// 2.5.6.
    #[error("a transfer came although the `incoming-window` was 0; wait for a flow")]
    Window,
    /// 2.7.2.
    #[error("the `handle` of `attach` is {handle}, beyond the `handle-max` of {limit}")]
    HandleMax {
        /// The handle.
        handle: u32,
        /// The highest.
        limit: u32,
    },
    /// 2.7.3.
    #[error("the `handle` {0} of `attach` has a link; detach it first, or take another handle")]
    HandleInUse(u32),
    /// 2.6.2.
    #[error("{frame} names the `handle` {handle}, which has no link; attach it first")]
    UnattachedHandle {
        /// What came.
        frame: &'static str,
        /// The handle.
        handle: u32,
    },
    /// A transfer on a link whose sender is here.
    #[error("a transfer came on the `handle` {0}, whose link goes the other way")]
    ErrantLink(u32),
    /// An attach that can't be answered, since every link takes a handle of either side.
    #[error("an attach came although all handles up to the peer's `handle-max` of {0} have links; detach one first")]
    NoHandle(u32),
    /// More than one connection may have.
    #[error("the connection has {0} sessions already; end one first")]
    TooManySessions(usize),
}

impl SessionFault {
    /// The published condition.
    #[must_use]
    pub const fn condition(&self) -> &'static str {
        match self {
            Self::Window => condition::WINDOW_VIOLATION,
            Self::HandleMax { .. } => condition::NOT_ALLOWED,
            Self::HandleInUse(_) => condition::HANDLE_IN_USE,
            Self::UnattachedHandle { .. } => condition::UNATTACHED_HANDLE,
            Self::ErrantLink(_) => condition::ERRANT_LINK,
            Self::NoHandle(_) | Self::TooManySessions(_) => condition::RESOURCE_LIMIT_EXCEEDED,
        }
    }

    /// What the peer is told.
    #[must_use]
    pub fn error(&self) -> AmqpError {
        AmqpError::new(self.condition(), self.to_string())
    }
}

/// A breach that ends the link.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkFault {
    /// 2.6.7.
    #[error("a delivery came although the `link-credit` was 0; wait for a flow")]
    Credit,
    /// 2.7.3.
    #[error("the message has more than the {0} bytes of `max-message-size`; send less at a time")]
    MessageSize(u64),
    /// Deliveries of several transfers that never end.
    #[error("unfinished deliveries of this connection have more than {0} bytes together; finish one first")]
    Unfinished(usize),
    /// The first transfer of a delivery without a number.
    #[error("the `delivery-id` of the first `transfer` of a delivery is missing; it is mandatory")]
    NoDeliveryId,
    /// 2.7.5.
    #[error("the `delivery-id` {0} of `transfer` waits for its outcome; take another number")]
    DeliveryIdInUse(u32),
    /// 2.6.14.
    #[error(
        "the `delivery-id` of `transfer` is {found} while delivery {open} of this link is unfinished; finish it first"
    )]
    Interleaved {
        /// The unfinished delivery.
        open: u32,
        /// The other one.
        found: u32,
    },
    /// More than a connection may have.
    #[error("the connection has {0} links already; detach one first")]
    TooManyLinks(usize),
    /// A name that would be kept as long as the link.
    #[error("the `name` of `attach` has {bytes} bytes; send at most {limit}")]
    NameTooLong {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A second attach under the name of a link.
    #[error("the link was attached again under the same name in the same session")]
    Stolen,
}

impl LinkFault {
    /// The published condition.
    #[must_use]
    pub const fn condition(&self) -> &'static str {
        match self {
            Self::Credit => condition::TRANSFER_LIMIT_EXCEEDED,
            Self::MessageSize(_) => condition::MESSAGE_SIZE_EXCEEDED,
            Self::Unfinished(_) | Self::TooManyLinks(_) => condition::RESOURCE_LIMIT_EXCEEDED,
            Self::NoDeliveryId | Self::NameTooLong { .. } => condition::INVALID_FIELD,
            Self::DeliveryIdInUse(_) | Self::Interleaved { .. } => condition::NOT_ALLOWED,
            Self::Stolen => condition::LINK_STOLEN,
        }
    }

    /// What the peer is told.
    #[must_use]
    pub fn error(&self) -> AmqpError {
        AmqpError::new(self.condition(), self.to_string())
    }
}
