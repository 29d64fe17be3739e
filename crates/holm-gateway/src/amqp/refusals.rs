//! Errors as an AMQP client is told them: a published condition, a sentence, and a number that is in the log too.
//!
//! | what | condition |
//! | --- | --- |
//! | no right, wrong or ended proof, identity removed | `amqp:unauthorized-access` |
//! | no such node or device | `amqp:not-found` |
//! | can't be told or stored now | `amqp:internal-error`: SDKs try again |
//! | too large, too many in a batch | `amqp:link:message-size-exceeded` |
//! | not a message | `com.microsoft:argument-error` |
//! | taken over by a newer connection | `amqp:link:stolen` |
//!
//! Who is not let in learns no reason: it is in the log. Source: `hub-device-protocols.md` §3.5.

use holm_amqp::condition::{
    DETACH_FORCED, INTERNAL_ERROR, LINK_STOLEN, MESSAGE_SIZE_EXCEEDED, NOT_FOUND, RESOURCE_LIMIT_EXCEEDED,
    UNAUTHORIZED_ACCESS,
};
use holm_amqp::{AmqpError, Symbol};
use holm_model::Identity;
use holm_model::wire::amqp::TRACKING_ID;

use super::message::Unreadable;
use crate::backend::{IngestError, Refusal};
use crate::session::CloseReason;
use crate::tracking_id;

/// What clients did not get right, by a name of the original's.
pub(super) const ARGUMENT_ERROR: &str = "com.microsoft:argument-error";

/// More comes than the node takes; clients try again later.
pub(super) const THROTTLED: &str = "com.microsoft:device-container-throttled";

/// An error with a tracking id.
pub(super) fn error(condition: &'static str, description: impl Into<String>) -> AmqpError {
    let mut error = AmqpError::new(condition, description.into());
    error
        .info
        .push(Symbol::from_static(TRACKING_ID), tracking_id().to_string().as_str());
    error
}

/// Nobody who proved a key on this connection may do that.
pub(super) fn unauthorized(who: &dyn std::fmt::Display) -> AmqpError {
    error(
        UNAUTHORIZED_ACCESS,
        format!("nothing on this connection proves that it may act for `{who}`; send a token for it to `$cbs`"),
    )
}

pub(super) fn no_such_address(address: &str) -> AmqpError {
    let shown: String = address.chars().take(200).collect();
    error(NOT_FOUND, format!("there is no `{shown}` here for that direction"))
}

/// For an identity that was not let in; the reason goes to the log.
pub(super) fn of_refusal(refusal: &Refusal, identity: &Identity) -> AmqpError {
    match refusal {
        Refusal::NotAuthorized(_) => error(
            UNAUTHORIZED_ACCESS,
            format!("`{identity}` is not let in; the log of the node says why"),
        ),
        Refusal::Unavailable(_) => error(INTERNAL_ERROR, format!("`{identity}` can't be checked now; try again")),
        Refusal::Throttled(why) => error(THROTTLED, why.as_str()),
    }
}

pub(super) fn of_ingest(refused: &IngestError) -> AmqpError {
    let condition = match refused {
        IngestError::TooLarge { .. } => MESSAGE_SIZE_EXCEEDED,
        IngestError::PropertiesTooLong { .. } => ARGUMENT_ERROR,
        IngestError::Unavailable(_) => INTERNAL_ERROR,
    };
    error(condition, refused.to_string())
}

pub(super) fn of_unreadable(refused: &Unreadable) -> AmqpError {
    let condition = match refused {
        Unreadable::TooLarge { .. } | Unreadable::TooMany { .. } => MESSAGE_SIZE_EXCEEDED,
        Unreadable::Decode(_) | Unreadable::Body(_) | Unreadable::Field { .. } => ARGUMENT_ERROR,
    };
    error(condition, refused.to_string())
}

pub(super) fn of_close(reason: CloseReason, identity: &Identity) -> AmqpError {
    match reason {
        CloseReason::Replaced => error(
            LINK_STOLEN,
            format!("`{identity}` has connected anew; the newest connection holds its links"),
        ),
        CloseReason::Revoked => error(
            UNAUTHORIZED_ACCESS,
            format!("`{identity}` was removed, disabled, or its key or policy changed"),
        ),
        CloseReason::ShuttingDown => error(DETACH_FORCED, "the node stops; connect again"),
        CloseReason::TooSlow => error(
            RESOURCE_LIMIT_EXCEEDED,
            format!("`{identity}` does not take what is sent to it; give credit and read"),
        ),
    }
}

pub(super) fn token_ended(who: &dyn std::fmt::Display) -> AmqpError {
    error(
        UNAUTHORIZED_ACCESS,
        format!("the token for `{who}` has ended; send a new one to `$cbs` before it does"),
    )
}
