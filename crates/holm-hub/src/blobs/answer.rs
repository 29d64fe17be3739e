//! Answers of the blob store: headers as published, errors as XML.

use std::time::Instant;

use holm_gateway::tracking_id;
use holm_model::Timestamp;
use holm_net::http::{ResponseBody, body};
use hyper::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value};

use super::fault::{Fault, FaultCode};
use crate::storage::Blob;

/// The version of the interface where a client names none.
const VERSION: &str = "2018-03-28";

/// Where the name of an error stands.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// An answer with a status and no body.
pub(super) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

/// An XML document.
pub(super) fn xml(status: StatusCode, document: String) -> Response<ResponseBody> {
    let mut response = Response::new(body::full(document));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "application/xml");
    response
}

/// That its reader has a blob already.
pub(super) fn not_modified(blob: &Blob) -> Response<ResponseBody> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    describe(&mut response, blob);
    set(&mut response, ERROR_CODE, FaultCode::ConditionNotMet.name());
    response
}

/// The error as XML, with its code in a header.
pub(super) fn fault(fault: &Fault, request_id: &str, now: Timestamp) -> Response<ResponseBody> {
    let (code, text) = (fault.code.name(), escaped(&fault.text));
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{text}\nRequestId:{request_id}\nTime:{now}</Message></Error>"
    );
    let mut response = xml(fault.code.status(), document);
    set(&mut response, ERROR_CODE, code);
    response
}

/// What every answer has.
pub(super) fn finish(
    mut response: Response<ResponseBody>,
    asked: &HeaderMap,
    request_id: &str,
) -> Response<ResponseBody> {
    let version = asked.get("x-ms-version").cloned();
    let headers = response.headers_mut();
    headers.insert("x-ms-version", version.unwrap_or(HeaderValue::from_static(VERSION)));
    if let Some(id) = asked.get("x-ms-client-request-id") {
        headers.insert("x-ms-client-request-id", id.clone());
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set(&mut response, HeaderName::from_static("x-ms-request-id"), request_id);
    response
}

/// An id for a request.
pub(super) fn request_id() -> String {
    tracking_id().to_string()
}

/// Which blob an answer speaks of.
pub(super) fn describe(response: &mut Response<ResponseBody>, blob: &Blob) {
    set(response, ETAG, &format!("\"{}\"", blob.etag));
    set(response, LAST_MODIFIED, &http_date(blob.modified));
}

/// What the sender of a blob said of it.
pub(super) fn describe_content(response: &mut Response<ResponseBody>, blob: &Blob) {
    let said: Map<String, Value> = serde_json::from_str(&blob.headers).unwrap_or_default();
    set(response, CONTENT_TYPE, "application/octet-stream");
    // Whatever a device stores is not to act in a browser as if the hub had written it.
    set(response, CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
    for (name, value) in &said {
        if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), value.as_str()) {
            set(response, name, value);
        }
    }
}

pub(super) fn set(response: &mut Response<ResponseBody>, name: HeaderName, value: &str) {
    // Whatever stands here was checked when it came, or is ASCII by its making.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A line in the log for a request that is done.
pub(super) fn log(response: &Response<ResponseBody>, method: &hyper::Method, blob: &str, began: Instant) {
    tracing::trace!(%method, blob, status = response.status().as_u16(), took = ?began.elapsed(), "a request to the blob store");
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|sign| match sign {
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '&' => "&amp;".to_owned(),
            sign if sign.is_control() => " ".to_owned(),
            sign => sign.to_string(),
        })
        .collect()
}

/// `Sat, 21 Nov 2026 20:15:00 GMT` (RFC 9110 §5.6.7).
fn http_date(moment: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let weekday = moment.unix_seconds().div_euclid(86_400).rem_euclid(7);
    let day_name = usize::try_from(weekday)
        .ok()
        .and_then(|day| DAYS.get(day))
        .unwrap_or(&"Thu");
    let text = moment.to_string();
    let (date, clock) = text.split_once('T').unwrap_or(("1970-01-01", "00:00:00Z"));
    let mut parts = date.split('-');
    let mut part = || parts.next().unwrap_or("01");
    let (year, month, day) = (part(), part(), part());
    let month = month
        .parse::<usize>()
        .ok()
        .and_then(|month| MONTHS.get(month.checked_sub(1)?));
    let clock = clock.get(..8).unwrap_or("00:00:00");
    format!("{day_name}, {day} {} {year} {clock} GMT", month.unwrap_or(&"Jan"))
}

#[cfg(test)]
mod tests {
    use super::super::fault::FaultCode;
    use super::*;

    #[test]
    fn dates_are_as_http_has_them() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("2026-11-21T20:15:00.5Z", "Sat, 21 Nov 2026 20:15:00 GMT"),
        ] {
            assert_eq!(http_date(Timestamp::parse(text).unwrap()), expected);
        }
    }

    #[tokio::test]
    async fn an_error_is_xml_whatever_stands_in_its_text() {
        use http_body_util::BodyExt as _;
        let why = Fault::new(FaultCode::BlobNotFound, "no `a<b>&\u{1}`");

        let response = fault(&why, "r1", Timestamp::from_unix_millis(0));

        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["x-ms-error-code"], "BlobNotFound");
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("<Message>no `a&lt;b&gt;&amp; `\nRequestId:r1\n"),
            "{text}"
        );
    }
}
