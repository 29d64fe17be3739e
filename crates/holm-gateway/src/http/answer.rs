//! Answers to HTTP requests in the published shapes.

use holm_model::Timestamp;
use holm_model::error::{ErrorCode, ServiceError, TrackingId};
use holm_net::http::{ResponseBody, body};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use crate::tracking_id;

/// A JSON answer. Node parses an answer only when it is called `application/json`.
#[must_use]
pub fn json(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    let mut response = Response::new(body::full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// An error in the published shape, with its code in the header `iothub-errorcode`.
#[must_use]
pub fn error(error: &ServiceError, body: &Value) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, body);
    response
        .headers_mut()
        .insert("iothub-errorcode", HeaderValue::from_static(error.code.name()));
    response
}

/// The answer to a request that failed, with a line in the log under the same tracking id.
#[must_use]
pub fn of_error(why: &ServiceError, now: Timestamp) -> Response<ResponseBody> {
    of_error_as(why, |tracking| why.rest_body(tracking, now))
}

/// [`of_error`] with a body of the caller's. Who is throttled learns when to come again.
#[must_use]
pub fn of_error_as(why: &ServiceError, body: impl FnOnce(TrackingId) -> Value) -> Response<ResponseBody> {
    let tracking = tracking_id();
    if why.code.status() >= 500 {
        tracing::warn!(%tracking, code = %why.code, error = %why, "a request failed");
    } else {
        tracing::debug!(%tracking, code = %why.code, error = %why, "a request was refused");
    }
    let mut response = error(why, &body(tracking));
    if why.code.status() == 429 {
        response
            .headers_mut()
            .insert("retry-after", HeaderValue::from_static("1"));
    }
    response
}

/// The answer to a method that a resource does not know (405).
#[must_use]
pub fn not_allowed(method: &Method, allowed: &Method, now: Timestamp) -> Response<ResponseBody> {
    let why = ServiceError::new(
        ErrorCode::InvalidOperation,
        format!("{method} is not possible here; use {allowed}"),
    );
    let mut response = of_error(&why, now);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}
