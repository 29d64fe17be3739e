//! Events over HTTPS: one in a request, its properties as headers, or many as JSON.
//!
//! ```text
//! POST …/messages/events                       body = the message; iothub-messageid: m-1; iothub-app-level: high
//! Content-Type: application/vnd.microsoft.iothub.json
//!   [{"body":"aGk=","properties":{"iothub-app-level":"high"}},{"body":"hi","base64Encoded":false}]
//! ```
//!
//! A batch is taken in whole or not at all: it is read to its end before the first message of it is taken in, and it is
//! acknowledged when the last is on disk. Where the disk fails in the middle it is not acknowledged, and some of it may be there
//! twice when it comes again.
//!
//! Source: `hub-device-protocols.md` §4.1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_model::Message;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::message::MAX_DEVICE_TO_CLOUD_BYTES;
use holm_model::wire::{bag, http};
use holm_net::http::Spelling;
use hyper::HeaderMap;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use serde_json::Value;

use crate::backend::{Admission, Ingest, IngestError};
use crate::intake::MAX_BATCH_MESSAGES;

/// The media type of a batch.
const BATCH: &str = "application/vnd.microsoft.iothub.json";
/// The largest body of a batch: 256 KiB of messages in base64, and half as much again for their properties and the JSON around
/// them.
const MAX_BATCH_BODY: usize = 512 * 1024;

/// Whether a request brings a batch.
pub(super) fn is_batch(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(BATCH))
}

/// The most bytes of the body that these headers announce.
pub(super) fn limit(headers: &HeaderMap) -> usize {
    if is_batch(headers) {
        MAX_BATCH_BODY
    } else {
        MAX_DEVICE_TO_CLOUD_BYTES
    }
}

/// Takes in what a request brings; returns when it is on disk.
pub(super) async fn take_in<B: Ingest>(
    backend: &B,
    from: &Admission,
    head: &Parts,
    body: Bytes,
) -> Result<(), ServiceError> {
    let messages = if is_batch(&head.headers) {
        batch(&body)?
    } else {
        vec![single(head, body)?]
    };
    check(&messages)?;
    let mut receipts = Vec::with_capacity(messages.len());
    for message in messages {
        receipts.push(backend.ingest(from, message).await.map_err(refused)?);
    }
    for receipt in receipts {
        receipt.await.map_err(refused)?;
    }
    Ok(())
}

fn refused(error: IngestError) -> ServiceError {
    match error {
        IngestError::TooLarge { .. } | IngestError::PropertiesTooLong { .. } => {
            ServiceError::new(ErrorCode::MessageTooLarge, error.to_string())
        }
        IngestError::Unavailable(_) => ServiceError::unavailable(error.to_string()),
    }
}

/// Whether none of the messages will be refused for what it is.
fn check(messages: &[Message]) -> Result<(), ServiceError> {
    let mut size = 0;
    for message in messages {
        size += message.counted_bytes();
        let bytes = bag::longest(message);
        if bytes > bag::MAX_BYTES {
            let limit = bag::MAX_BYTES;
            return Err(refused(IngestError::PropertiesTooLong { bytes, limit }));
        }
    }
    let limit = MAX_DEVICE_TO_CLOUD_BYTES;
    match messages {
        [_] if size > limit => Err(refused(IngestError::TooLarge { size, limit })),
        _ if size > limit => Err(ServiceError::new(
            ErrorCode::MessageTooLarge,
            format!("the messages of the batch have {size} bytes together; at most {limit} are allowed"),
        )),
        _ => Ok(()),
    }
}

fn single(head: &Parts, body: Bytes) -> Result<Message, ServiceError> {
    let (system, properties) = http::from_headers(texts(head)?);
    Ok(Message {
        body,
        system,
        properties,
    })
}

/// The headers as text, their names as the client wrote them. HTTP leaves open what bytes beyond ASCII mean, and here they are UTF-8.
///
/// # Errors
/// `ArgumentInvalid` naming the header that is not.
pub fn texts(head: &Parts) -> Result<Vec<(&str, &str)>, ServiceError> {
    let mut texts = Vec::with_capacity(head.headers.len());
    for (name, value) in Spelling::headers(head) {
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            ServiceError::argument_invalid(format!(
                "the header `{name}` is not UTF-8; send it as UTF-8, or encode its value in ASCII"
            ))
        })?;
        texts.push((name, text));
    }
    Ok(texts)
}

/// Reads a batch.
///
/// # Errors
/// `ArgumentInvalid` naming what is wrong and where.
pub fn batch(body: &[u8]) -> Result<Vec<Message>, ServiceError> {
    let wrong = |why: String| ServiceError::argument_invalid(format!("the batch {why}"));
    let parsed: Value = serde_json::from_slice(body).map_err(|error| wrong(format!("is not JSON: {error}")))?;
    let Value::Array(items) = parsed else {
        return Err(wrong("is no array; send `[{\"body\":…},…]`".to_owned()));
    };
    if items.is_empty() {
        return Err(wrong("holds no message".to_owned()));
    }
    if items.len() > MAX_BATCH_MESSAGES {
        let text = format!(
            "holds {} messages; at most {MAX_BATCH_MESSAGES} are allowed",
            items.len()
        );
        return Err(wrong(text));
    }
    let numbered = items.into_iter().enumerate();
    numbered
        .map(|(index, item)| item_of(item).map_err(|why| wrong(format!("has at place {index} {why}"))))
        .collect()
}

/// One message of a batch, or what is wrong with it.
fn item_of(item: Value) -> Result<Message, String> {
    let Value::Object(mut item) = item else {
        return Err("something that is no object".to_owned());
    };
    let body = match item.remove("body") {
        Some(Value::String(body)) => body,
        Some(_) => return Err("a `body` that is no text".to_owned()),
        None => return Err("an object without `body`".to_owned()),
    };
    let is_base64 = match item.remove("base64Encoded") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(is_base64)) => is_base64,
        Some(_) => return Err("a `base64Encoded` that is neither true nor false".to_owned()),
    };
    let body = if is_base64 {
        let decoded = STANDARD.decode(&body);
        decoded.map_err(|error| {
            format!("a `body` that is not base64 ({error}); encode it, or say `\"base64Encoded\":false`")
        })?
    } else {
        body.into_bytes()
    };
    let properties = match item.remove("properties") {
        None | Some(Value::Null) => serde_json::Map::new(),
        Some(Value::Object(properties)) => properties,
        Some(_) => return Err("`properties` that are no object".to_owned()),
    };
    let mut texts = Vec::with_capacity(properties.len());
    for (name, value) in &properties {
        let Value::String(value) = value else {
            return Err(format!("a property `{}` that is no text", shortened(name)));
        };
        texts.push((name.as_str(), value.as_str()));
    }
    let (system, properties) = http::from_headers(texts);
    Ok(Message {
        body: body.into(),
        system,
        properties,
    })
}

fn shortened(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use holm_model::SystemProperty;

    use super::*;

    #[test]
    fn a_batch_is_read_as_the_sdks_write_it() {
        let body = br#"[{"body": "aGVsbG8=", "properties":{"iothub-app-k":"v","iothub-messageid":"m"}},
            {"body":"hi","base64Encoded":false},{"body":"","properties":null}]"#;

        let messages = batch(body).unwrap();

        let bodies: Vec<&[u8]> = messages.iter().map(|message| message.body.as_ref()).collect();
        assert_eq!(bodies, [b"hello".as_slice(), b"hi", b""]);
        assert_eq!(messages[0].properties.get("k"), Some(Some("v")));
        assert_eq!(messages[0].system.get(SystemProperty::MessageId), Some("m"));
    }

    #[test]
    fn what_is_wrong_with_a_batch_is_named_with_its_place() {
        for (body, named) in [
            ("", "not JSON"),
            ("{}", "no array"),
            ("[]", "no message"),
            (
                r#"[{"body":"aGk="},{"body":"a"}]"#,
                "place 1 a `body` that is not base64",
            ),
            (r#"[{"body":1}]"#, "place 0 a `body` that is no text"),
            (r#"[{}]"#, "without `body`"),
            ("[1]", "no object"),
            (r#"[{"body":"","base64Encoded":"no"}]"#, "`base64Encoded`"),
            (r#"[{"body":"","properties":[]}]"#, "`properties`"),
            (r#"[{"body":"","properties":{"iothub-app-n":1}}]"#, "`iothub-app-n`"),
        ] {
            let refused = batch(body.as_bytes()).unwrap_err();

            assert_eq!(refused.code, ErrorCode::ArgumentInvalid, "{body}");
            assert!(refused.message.contains(named), "{body}: {}", refused.message);
        }
        let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(batch(nested.as_bytes()).is_err());
        let many = format!("[{}1]", "1,".repeat(MAX_BATCH_MESSAGES));
        assert!(batch(many.as_bytes()).unwrap_err().message.contains("at most"));
    }

    #[test]
    fn the_messages_of_a_batch_count_together() {
        let half = "x".repeat(MAX_DEVICE_TO_CLOUD_BYTES / 2);
        let item = format!(r#"{{"body":"{half}","base64Encoded":false}}"#);

        let fits = batch(format!("[{item},{item}]").as_bytes()).unwrap();
        let too_much = batch(format!(r#"[{item},{item},{{"body":"YQ=="}}]"#).as_bytes()).unwrap();

        assert!(check(&fits).is_ok());
        assert_eq!(check(&too_much).unwrap_err().code, ErrorCode::MessageTooLarge);
    }
}
