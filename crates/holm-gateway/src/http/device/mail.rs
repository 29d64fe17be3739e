//! Cloud-to-device messages over HTTPS: fetched one at a time, under a lock that the client ends or that ends by itself.
//!
//! ```text
//! GET …/devicebound ──204── nothing waits
//!        └──200, ETag: "lock"──┬─ DELETE …/lock          complete
//!                              ├─ DELETE …/lock?reject   reject, to the dead letters
//!                              ├─ POST …/lock/abandon    it waits again, counted
//!                              └─ nothing                it waits again when the lock is over
//! ```
//!
//! A device that is also connected otherwise shares the queue: what one of its ways holds the others don't get. What becomes of a
//! message is told (204) when it is on disk; `If-Match` is not looked at, since SDKs write it in four ways.
//!
//! Source: `hub-device-protocols.md` §4.2.

use std::time::Duration;

use bytes::Bytes;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::wire::{http, percent};
use holm_net::http::{ResponseBody, body};
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};

use super::locks::LockTokens;
use super::no_content;
use crate::backend::{Admission, Delivery, Inbox, Mailbox, Settlement};
use crate::http::query::Query;
use crate::session::SessionId;

/// Under this name a client says how long it wants to hold a message: as a header (Java) or in the query (C#), in seconds.
const LOCK_TIME: &str = "iothub-messagelocktimeout";

/// Fetches a message.
pub(super) async fn fetch<B: Inbox>(
    backend: &B,
    (holder, tokens): (SessionId, &LockTokens),
    of: &Admission,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response<ResponseBody>, ServiceError> {
    let lock = lock_time(query, headers)?;
    let taken = backend.take(holder, of, Mailbox::CloudToDevice, lock).await?;
    let Some(delivery) = taken else {
        return Ok(no_content());
    };
    match tokens.token(&of.identity, delivery.lease) {
        Some(token) => Ok(written(delivery, &token)),
        None => {
            backend.settle(holder, of, Mailbox::CloudToDevice, delivery.lease, Settlement::Release);
            Err(ServiceError::server_error("the operating system gave no random bytes"))
        }
    }
}

fn lock_time(query: &Query, headers: &HeaderMap) -> Result<Option<Duration>, ServiceError> {
    let header = headers.get(LOCK_TIME).map(|value| value.to_str().unwrap_or("?"));
    let Some(text) = query.get(LOCK_TIME).or(header) else {
        return Ok(None);
    };
    let seconds = text.parse::<u32>().map_err(|_| {
        let shown: String = text.chars().take(32).collect();
        ServiceError::argument_invalid(format!("`{LOCK_TIME}` is `{shown}`; give a number of seconds"))
    })?;
    Ok(Some(Duration::from_secs(seconds.into())))
}

/// Ends a lock as the client wishes.
pub(super) async fn settle<B: Inbox>(
    backend: &B,
    (holder, tokens): (SessionId, &LockTokens),
    of: &Admission,
    lock: &str,
    settlement: Settlement,
) -> Result<Response<ResponseBody>, ServiceError> {
    let lost = || {
        ServiceError::new(
            ErrorCode::DeviceMessageLockLost,
            "the lock is over, or is none of this device; fetch the message again",
        )
    };
    let lease = tokens.lease(&of.identity, lock).ok_or_else(lost)?;
    let settled = backend.settle_durably(holder, of, Mailbox::CloudToDevice, lease, settlement);
    if settled.await? { Ok(no_content()) } else { Err(lost()) }
}

/// What a `DELETE` of a lock means. Java spells the name `?reject`; a value is not looked at.
pub(super) fn settlement_of(query: &Query) -> Settlement {
    if query.get("reject").or_else(|| query.get("?reject")).is_some() {
        Settlement::Reject
    } else {
        Settlement::Complete
    }
}

fn written(delivery: Delivery, token: &str) -> Response<ResponseBody> {
    let message = delivery.message;
    let mut response = Response::new(body::full(Bytes::clone(&message.body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    for (name, value) in http::to_headers(&message.system, &message.properties) {
        let (name, value) = (header_name(&name), header_value(&value));
        headers.append(name, value);
    }
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{token}\"")) {
        headers.insert(ETAG, etag);
    }
    response
}

/// A name with signs that no header name may hold is percent-encoded: nothing of a message is left out.
fn header_name(name: &str) -> HeaderName {
    HeaderName::from_bytes(name.as_bytes())
        .or_else(|_| HeaderName::from_bytes(percent::encode(name).as_bytes()))
        .unwrap_or(HeaderName::from_static(http::APPLICATION_PREFIX))
}

/// A value goes as UTF-8, or percent-encoded where it has control characters.
fn header_value(value: &str) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes())
        .or_else(|_| HeaderValue::from_str(&percent::encode(value)))
        .unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use holm_model::{Message, SystemProperty};

    use super::*;

    #[test]
    fn a_message_carries_its_lock_and_all_of_its_properties() {
        let mut message = Message::new("hi");
        message.system.set(SystemProperty::SequenceNumber, "7");
        message.properties.set("level", Some("höchst".to_owned()));
        message.properties.set("two words", Some("a\nb".to_owned()));
        let delivery = Delivery {
            message,
            input: None,
            lease: 1,
            redelivered: false,
        };

        let response = written(delivery, "1-ab");

        let header = |name: &str| {
            std::str::from_utf8(response.headers()[name].as_bytes())
                .unwrap()
                .to_owned()
        };
        assert_eq!(header("etag"), "\"1-ab\"");
        assert_eq!(header("iothub-sequencenumber"), "7");
        assert_eq!(header("iothub-app-level"), "höchst");
        assert_eq!(header("iothub-app-two%20words"), "a%0Ab");
    }

    #[test]
    fn both_spellings_of_reject_reject_whatever_their_value() {
        for query in ["reject", "a=1&reject=false", "%3Freject=true", "Reject="] {
            assert_eq!(settlement_of(&Query::parse(query)), Settlement::Reject, "{query}");
        }
        assert_eq!(
            settlement_of(&Query::parse("api-version=2021-04-12")),
            Settlement::Complete
        );
    }

    #[test]
    fn a_wish_for_a_lock_stands_in_query_or_header() {
        let mut headers = HeaderMap::new();
        headers.insert("IoTHub-MessageLockTimeout", HeaderValue::from_static("180"));
        let none = HeaderMap::new();
        let seconds = |query: &str, headers: &HeaderMap| lock_time(&Query::parse(query), headers);

        assert_eq!(seconds("", &headers).unwrap(), Some(Duration::from_secs(180)));
        assert_eq!(
            seconds("iothub-messagelocktimeout=60", &headers).unwrap(),
            Some(Duration::from_secs(60))
        );
        assert_eq!(seconds("", &none).unwrap(), None);
        assert!(seconds("iothub-messagelocktimeout=soon", &none).is_err());
    }
}
