//! Errors as peers tell them each other: a published condition, a sentence, and perhaps more. AMQP 1.0, part 2, 2.8.14 to 2.8.18.

use std::fmt;

use crate::codec::fields::composite;
use crate::map::Fields;
use crate::text::{Symbol, Text};

composite! {
    /// Why a link, session or connection ended, or a delivery was rejected.
    pub AmqpError = 0x1d, "error" {
        /// What went wrong, by a published name.
        condition: Symbol = "condition",
        /// A sentence for whoever reads the log.
        description: Option<Text> = "description",
        /// More, by names that go with the condition.
        info: Fields = "info",
    }
}

impl AmqpError {
    /// An error with a description.
    ///
    /// # Panics
    /// When the condition is not ASCII.
    #[must_use]
    pub fn new(condition: &'static str, description: impl Into<Text>) -> Self {
        Self {
            condition: Symbol::from_static(condition),
            description: Some(description.into()),
            info: Fields::new(),
        }
    }
}

impl fmt::Display for AmqpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.description {
            Some(description) => write!(f, "{}: {description}", self.condition),
            None => write!(f, "{}", self.condition),
        }
    }
}

/// A mistake inside of the one that answers.
pub const INTERNAL_ERROR: &str = "amqp:internal-error";
/// No such node.
pub const NOT_FOUND: &str = "amqp:not-found";
/// No right to do this.
pub const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
/// Bytes that are no value of the type expected.
pub const DECODE_ERROR: &str = "amqp:decode-error";
/// More than a limit allows.
pub const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
/// Nothing that may be done, by whomever.
pub const NOT_ALLOWED: &str = "amqp:not-allowed";
/// A field with a value that makes no sense.
pub const INVALID_FIELD: &str = "amqp:invalid-field";
/// A part of AMQP that is not offered.
pub const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
/// Two clients want the same.
pub const RESOURCE_LOCKED: &str = "amqp:resource-locked";
/// The state of the thing asked for forbids it.
pub const PRECONDITION_FAILED: &str = "amqp:precondition-failed";
/// What was asked for has gone.
pub const RESOURCE_DELETED: &str = "amqp:resource-deleted";
/// A performative at a time or on a channel where it may not come.
pub const ILLEGAL_STATE: &str = "amqp:illegal-state";
/// The connection was closed by an operator or a limit; connect again.
pub const CONNECTION_FORCED: &str = "amqp:connection:forced";
/// Bytes that are no frame.
pub const FRAMING_ERROR: &str = "amqp:connection:framing-error";
/// The peer is elsewhere.
pub const CONNECTION_REDIRECT: &str = "amqp:connection:redirect";
/// More transfers than the session's window.
pub const WINDOW_VIOLATION: &str = "amqp:session:window-violation";
/// A transfer or flow for a link that ended in error, or that it was not for.
pub const ERRANT_LINK: &str = "amqp:session:errant-link";
/// A handle that has a link already.
pub const HANDLE_IN_USE: &str = "amqp:session:handle-in-use";
/// A handle that has no link.
pub const UNATTACHED_HANDLE: &str = "amqp:session:unattached-handle";
/// The link was detached by an operator or a limit; attach again.
pub const DETACH_FORCED: &str = "amqp:link:detach-forced";
/// More deliveries than credit.
pub const TRANSFER_LIMIT_EXCEEDED: &str = "amqp:link:transfer-limit-exceeded";
/// A message larger than the link takes.
pub const MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
/// The node is elsewhere.
pub const LINK_REDIRECT: &str = "amqp:link:redirect";
/// Somebody else took the link over.
pub const LINK_STOLEN: &str = "amqp:link:stolen";
