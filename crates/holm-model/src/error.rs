//! What can be wrong with a request, in the words and numbers that are published.
//!
//! ```text
//! ServiceError { code, message }        what every operation of hub and edge fails with
//!   |-- rest_body      {"Message":"ErrorCode:<Name>;<text>","ExceptionMessage":"Tracking ID:…"}     service REST
//!   |-- nested_body    {"Message":"{\"errorCode\":404103,…}","ExceptionMessage":""}                 method calls
//!   `-- device_body    {"errorCode":429001,"message":…,"trackingId":…,"timestampUtc":…}             twin answers
//! ```
//!
//! Clients branch on the name (C#, Node), on the number (Node on devices) or on the HTTP status (Python, CLI), so all three
//! come from one [`ErrorCode`] and can't disagree. The text is for people.
//!
//! Source: `hub-service-api.md` §2.5 and §2.8, `hub-device-protocols.md` §2.6, §4 and §7.

mod code;
mod render;

pub use code::ErrorCode;
pub use render::TrackingId;

use std::fmt;

/// Why the platform refused or could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// The published name, with its number and HTTP status.
    pub code: ErrorCode,
    /// What is wrong and what to do about it, for the person who reads it. It must not hold secrets.
    pub message: String,
}

impl ServiceError {
    /// An error with a text.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// 400004: a value in the request breaks a rule.
    #[must_use]
    pub fn argument_invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ArgumentInvalid, message)
    }

    /// 404001: there is no such device.
    #[must_use]
    pub fn device_not_found(device: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::DeviceNotFound,
            format!("device `{device}` is not registered"),
        )
    }

    /// 404010: there is no such module on the device.
    #[must_use]
    pub fn module_not_found(identity: impl fmt::Display) -> Self {
        Self::new(
            ErrorCode::ModuleNotFound,
            format!("module `{identity}` is not registered"),
        )
    }

    /// 404103: nobody listens for methods under this identity, even after waiting for it to connect.
    #[must_use]
    pub fn not_online() -> Self {
        Self::new(ErrorCode::DeviceNotOnline, "Timed out waiting for device to connect.")
    }

    /// 504101: the device was called and did not answer in time.
    #[must_use]
    pub fn no_answer() -> Self {
        Self::new(
            ErrorCode::GatewayTimeout,
            "Timed out waiting for the response from device.",
        )
    }

    /// 412001: the `If-Match` etag is not the current one.
    #[must_use]
    pub fn precondition_failed(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::PreconditionFailed, message)
    }

    /// 401003: the credential is missing, wrong or expired.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::IotHubUnauthorized, message)
    }

    /// 500001: the fault is ours; the text must not hold internals.
    #[must_use]
    pub fn server_error(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServerError, message)
    }

    /// 503001: a temporary condition; the same request may succeed later.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServiceUnavailable, message)
    }
}
