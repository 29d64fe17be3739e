//! Answers to HTTP requests in the published shapes.

use holm_model::error::ServiceError;
use holm_net::http::{ResponseBody, body};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

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
