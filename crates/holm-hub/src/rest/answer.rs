//! Answers of the service API. Every error has both members of its body and the header `iothub-errorcode`; a failed method
//! call has the nested form. Source: `hub-service-api.md` §2.1, §2.5, §2.8.

use std::time::Duration;

use holm_gateway::http::answer;
use holm_model::{ErrorCode, ServiceError, Timestamp};
use holm_net::http::{ResponseBody, body};
use hyper::header::{ETAG, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

/// An answer.
pub(super) type Answer = Response<ResponseBody>;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Failure {
    error: ServiceError,
    /// Overrides the status of the error, for what has no published name of its own.
    status: Option<StatusCode>,
    /// How long a method call waited for what did not come.
    waited: Option<Duration>,
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self {
            error,
            status: None,
            waited: None,
        }
    }
}

impl Failure {
    /// A failure that has no published name: the nearest one under another status.
    pub(super) fn with_status(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            error: ServiceError::new(ErrorCode::InvalidOperation, message),
            status: Some(status),
            waited: None,
        }
    }

    /// A failed method call.
    pub(super) fn of_call(error: ServiceError, waited: Duration) -> Self {
        Self {
            error,
            status: None,
            waited: Some(waited),
        }
    }

    /// The answer that tells of it.
    pub(super) fn answer(&self, now: Timestamp) -> Answer {
        let nested = matches!(
            self.error.code,
            ErrorCode::DeviceNotOnline | ErrorCode::GatewayTimeout | ErrorCode::BadDeviceResponse
        );
        let mut response = answer::of_error_as(&self.error, |tracking| match self.waited {
            Some(waited) if nested => self.error.nested_body(tracking, now, waited),
            _ => self.error.rest_body(tracking, now),
        });
        if let Some(status) = self.status {
            *response.status_mut() = status;
        }
        response
    }
}

/// A JSON document.
pub(super) fn json(document: &Value) -> Answer {
    answer::json(StatusCode::OK, document)
}

/// A JSON document with a status of the caller's.
pub(super) fn json_as(status: StatusCode, document: &Value) -> Answer {
    answer::json(status, document)
}

/// A failure whose body is not that of an error.
pub(super) fn failed_with(code: ErrorCode, document: &Value) -> Answer {
    answer::error(&ServiceError::new(code, ""), document)
}

/// A JSON document with its etag as a header: C# takes that as authoritative and needs the quotes.
pub(super) fn json_with_etag(document: &Value) -> Answer {
    let mut response = json(document);
    put_etag(
        &mut response,
        document.get("etag").and_then(Value::as_str).unwrap_or_default(),
    );
    response
}

/// Sets the header of an etag.
pub(super) fn put_etag(response: &mut Answer, etag: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        response.headers_mut().insert(ETAG, value);
    }
}

/// Gives an answer the name by which its caller can speak of it.
pub(super) fn name(response: &mut Answer) {
    let name = holm_gateway::tracking_id().to_string();
    if let Ok(value) = HeaderValue::from_str(&name) {
        response.headers_mut().insert("x-ms-request-id", value);
    }
}

/// Done, with nothing to say.
pub(super) fn no_content() -> Answer {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
