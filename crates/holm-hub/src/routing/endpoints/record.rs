//! A routed message as a JSON object, in the published shape of what the original stores.
//!
//! ```text
//! {"EnqueuedTimeUtc":"2026-01-02T03:04:05.1230000Z",
//!  "Properties":{"level":"high"},
//!  "SystemProperties":{"connectionDeviceId":"d1","contentType":"application/json","contentEncoding":"utf-8",…},
//!  "Body":{"t":21.5}}
//! ```
//!
//! `Body` is the body itself where the message says that it is JSON in UTF-8 and it is; otherwise it is text, in base64. Digits, order and
//! repetition of keys of a JSON body stay as they were written. The object has no line ends.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_model::{Message, Properties, SystemProperties, SystemProperty, Timestamp};
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::routing::Routed;

/// The names of system properties, those that have a published one first. Properties of deliveries to devices have none.
const NAMES: &[(SystemProperty, &str)] = &[
    (SystemProperty::MessageId, "messageId"),
    (SystemProperty::CorrelationId, "correlationId"),
    (SystemProperty::UserId, "userId"),
    (SystemProperty::To, "to"),
    (SystemProperty::AbsoluteExpiryTime, "absoluteExpiryTime"),
    (SystemProperty::ConnectionDeviceId, "connectionDeviceId"),
    (SystemProperty::ConnectionModuleId, "connectionModuleId"),
    (SystemProperty::ConnectionAuthMethod, "connectionAuthMethod"),
    (
        SystemProperty::ConnectionAuthGenerationId,
        "connectionDeviceGenerationId",
    ),
    (SystemProperty::ContentType, "contentType"),
    (SystemProperty::ContentEncoding, "contentEncoding"),
    (SystemProperty::MessageSource, "iothub-message-source"),
    (SystemProperty::ModelId, "dt-dataschema"),
    (SystemProperty::Subject, "dt-subject"),
    (SystemProperty::InterfaceId, "iothub-interface-id"),
    (SystemProperty::OutputName, "iothub-outputname"),
    (SystemProperty::CreationTime, "iothub-creation-time-utc"),
    (SystemProperty::MessageSchema, "iothub-message-schema"),
    (SystemProperty::Operation, "iothub-operation"),
    (SystemProperty::DiagnosticId, "Diagnostic-Id"),
    (SystemProperty::DiagnosticContext, "Correlation-Context"),
];

/// System properties with the names that stored messages give them.
pub(super) fn system_properties(system: &SystemProperties) -> impl Iterator<Item = (&'static str, &str)> {
    NAMES
        .iter()
        .filter_map(|(property, name)| system.get(*property).map(|value| (*name, value)))
}

/// The message as one line of JSON, without the line's end.
///
/// # Errors
/// Never for what the hub has taken in; JSON's own otherwise.
pub(super) fn to_line(routed: &Routed) -> serde_json::Result<Vec<u8>> {
    line(routed.enqueued, &routed.message)
}

/// As [`to_line`], of its parts.
///
/// # Errors
/// As [`to_line`].
pub(super) fn line(enqueued: Timestamp, message: &Message) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Record { enqueued, message })
}

/// The application properties as one line of JSON.
///
/// # Errors
/// As [`to_line`].
#[cfg(feature = "parquet")]
pub(super) fn application_json(message: &Message) -> serde_json::Result<String> {
    serde_json::to_string(&Application(&message.properties))
}

/// The system properties as one line of JSON.
///
/// # Errors
/// As [`to_line`].
#[cfg(feature = "parquet")]
pub(super) fn system_json(enqueued: Timestamp, message: &Message) -> serde_json::Result<String> {
    serde_json::to_string(&System {
        enqueued,
        system: &message.system,
    })
}

struct Record<'a> {
    enqueued: Timestamp,
    message: &'a Message,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let mut record = serializer.serialize_struct("Record", 4)?;
        record.serialize_field("EnqueuedTimeUtc", &self.enqueued)?;
        record.serialize_field("Properties", &Application(&message.properties))?;
        let (enqueued, system) = (self.enqueued, &message.system);
        record.serialize_field("SystemProperties", &System { enqueued, system })?;
        record.serialize_field("Body", &body(message).map_err(serde::ser::Error::custom)?)?;
        record.end()
    }
}

struct Application<'a>(&'a Properties);

impl Serialize for Application<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

struct System<'a> {
    enqueued: Timestamp,
    system: &'a SystemProperties,
}

impl Serialize for System<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in system_properties(self.system) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("enqueuedTime", &self.enqueued)?;
        map.end()
    }
}

fn body(message: &Message) -> serde_json::Result<Box<RawValue>> {
    match json_text(message) {
        Some(text) => RawValue::from_string(text.trim_ascii().replace(['\n', '\r'], " ")),
        None => to_raw_value(&STANDARD.encode(&message.body)),
    }
}

/// The body, if it says that it is JSON in UTF-8 and everybody can read it as that: no `1e999`, no thousand brackets.
fn json_text(message: &Message) -> Option<&str> {
    let kind = message.system.get(SystemProperty::ContentType)?;
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let encoding = message.system.get(SystemProperty::ContentEncoding)?.trim();
    let is_utf8 = encoding.eq_ignore_ascii_case("utf-8") || encoding.eq_ignore_ascii_case("utf8");
    if !kind.eq_ignore_ascii_case("application/json") || !is_utf8 {
        return None;
    }
    let text = std::str::from_utf8(&message.body).ok()?;
    serde_json::from_str::<Value>(text).is_ok().then_some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(body: &'static [u8], kind: &str, encoding: &str) -> Message {
        let mut message = Message::new(body);
        message.system.set(SystemProperty::ContentType, kind);
        message.system.set(SystemProperty::ContentEncoding, encoding);
        message
    }

    fn told(message: &Message) -> String {
        String::from_utf8(line(Timestamp::from_unix_millis(1_767_323_045_123), message).unwrap()).unwrap()
    }

    #[test]
    fn a_record_has_the_published_shape() {
        let mut message = message(b"{\"t\":21.50,\n\"t\":1}", "application/json; charset=utf-8", "UTF-8");
        message.system.set(SystemProperty::ConnectionDeviceId, "d1");
        message.system.set(SystemProperty::ConnectionAuthGenerationId, "7");
        message.system.set(SystemProperty::CorrelationId, "c");
        message.properties.set("level", Some("high".into()));
        message.properties.set("bare", None);

        assert_eq!(
            told(&message),
            "{\"EnqueuedTimeUtc\":\"2026-01-02T03:04:05.1230000Z\",\"Properties\":{\"level\":\"high\",\"bare\":null},\
             \"SystemProperties\":{\"correlationId\":\"c\",\"connectionDeviceId\":\"d1\",\"connectionDeviceGenerationId\":\"7\",\
             \"contentType\":\"application/json; charset=utf-8\",\"contentEncoding\":\"UTF-8\",\
             \"enqueuedTime\":\"2026-01-02T03:04:05.1230000Z\"},\"Body\":{\"t\":21.50, \"t\":1}}"
        );
    }

    #[test]
    fn a_body_that_does_not_say_to_be_json_or_is_none_is_base64() {
        for (body, kind, encoding) in [
            (&b"{\"t\":1}"[..], "application/json", "utf-16"),
            (b"{\"t\":1}", "text/plain", "utf-8"),
            (b"{\"t\":", "application/json", "utf-8"),
            (b"1e999", "application/json", "utf-8"),
            (b"\xff", "application/json", "utf-8"),
            (b"", "application/json", "utf-8"),
        ] {
            let record: Value = serde_json::from_str(&told(&message(body, kind, encoding))).unwrap();

            assert_eq!(record["Body"], json!(STANDARD.encode(body)), "{kind} {encoding}");
        }
        let unnamed: Value = serde_json::from_str(&told(&Message::new("{}"))).unwrap();
        assert_eq!(unnamed["Body"], json!("e30="));
    }
}
