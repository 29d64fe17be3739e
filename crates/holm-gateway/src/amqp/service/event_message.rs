//! An event of the log as the AMQP message that clients of Event Hubs read, written straight into a buffer.
//!
//! ```text
//! delivery annotations    last_enqueued_…                          only where the reader asks for them
//! message annotations     x-opt-sequence-number, x-opt-offset, x-opt-enqueued-time, x-opt-partition-key,
//!                         iothub-connection-…, iothub-enqueuedtime, iothub-message-source, dt-…, …
//! properties              message-id, user-id, to, correlation-id, content-type, content-encoding, …
//! application properties  the device's, and what it said by reserved names
//! data                    the body
//! ```
//!
//! Source: `hub-service-api.md` §6, the list of annotations; `hub-device-protocols.md` §3.4, the reserved names.

use bytes::{Bytes, BytesMut};
use holm_amqp::message::{Entries, MessageWriter};
use holm_amqp::{MessageId, Properties, Symbol, Text, Timestamp as AmqpTimestamp, Value};
use holm_model::message::DecodeError;
use holm_model::{Message, SystemProperty, Timestamp};

use crate::service::{PartitionBounds, StoredEvent};

/// System properties that stand in annotations under a published name. What is not in this table, in `properties_of` or in
/// `RESERVED` is not told: it says how the hub has the message, not what it is.
const ANNOTATIONS: &[(SystemProperty, &str)] = &[
    (SystemProperty::ConnectionDeviceId, "iothub-connection-device-id"),
    (SystemProperty::ConnectionModuleId, "iothub-connection-module-id"),
    (SystemProperty::ConnectionAuthMethod, "iothub-connection-auth-method"),
    (
        SystemProperty::ConnectionAuthGenerationId,
        "iothub-connection-auth-generation-id",
    ),
    (SystemProperty::MessageSource, "iothub-message-source"),
    (SystemProperty::ModelId, "dt-dataschema"),
    (SystemProperty::Subject, "dt-subject"),
    (SystemProperty::InterfaceId, "iothub-interface-id"),
    (SystemProperty::DiagnosticId, "Diagnostic-Id"),
    (SystemProperty::DiagnosticContext, "Correlation-Context"),
];

/// System properties that devices say by reserved application properties, and back ends find there.
const RESERVED: &[(SystemProperty, &str)] = &[
    (SystemProperty::OutputName, "iothub-outputname"),
    (SystemProperty::CreationTime, "iothub-creation-time-utc"),
    (SystemProperty::MessageSchema, "iothub-message-schema"),
    (SystemProperty::Operation, "iothub-operation"),
    (SystemProperty::Ack, "iothub-ack"),
];

/// What is known of the partition while an event is read, for readers that ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeMetric {
    /// What the partition holds.
    pub(crate) bounds: PartitionBounds,
    /// When that was looked at.
    pub(crate) at: Timestamp,
}

/// Appends the AMQP message of an event.
///
/// # Errors
/// [`DecodeError`]; then nothing was appended.
pub(crate) fn write_event(
    event: StoredEvent,
    metric: Option<&RuntimeMetric>,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    let StoredEvent {
        sequence,
        enqueued,
        message,
    } = event;
    let message = Message::decode(message)?;
    let mut writer = MessageWriter::new(out);
    if let Some(metric) = metric {
        writer.delivery_annotations(|entries| write_metric(metric, entries));
    }
    writer.message_annotations(|entries| {
        entries.long("x-opt-sequence-number", long(sequence));
        entries.string("x-opt-offset", Decimal::new(sequence).as_str());
        entries.timestamp("x-opt-enqueued-time", amqp_time(enqueued));
        if let Some(device) = message.system.get(SystemProperty::ConnectionDeviceId) {
            entries.string("x-opt-partition-key", device);
        }
        entries.timestamp("iothub-enqueuedtime", amqp_time(enqueued));
        for (property, name) in ANNOTATIONS {
            if let Some(value) = message.system.get(*property) {
                entries.string(name, value);
            }
        }
    });
    if let Some(properties) = properties_of(&message) {
        writer.properties(&properties);
    }
    writer.application_properties(|entries| {
        for (name, value) in message.properties.iter() {
            // A property without a value is told as an empty one: there is no string that is none.
            entries.string(name, value.unwrap_or_default());
        }
        for (property, name) in RESERVED {
            if let Some(value) = message.system.get(*property)
                && message.properties.get(name).is_none()
            {
                entries.string(name, value);
            }
        }
    });
    writer.data(&message.body);
    Ok(())
}

/// The standard's properties of a message; none when it has none of them.
#[must_use]
pub(crate) fn properties_of(message: &Message) -> Option<Properties> {
    let system = &message.system;
    let text = |property| system.get(property).map(Text::from);
    // What is not ASCII can't be a symbol, and no media type or character set is called that.
    let symbol = |property| system.get(property).and_then(|text| Symbol::try_from(text).ok());
    let time = |property| system.get(property).and_then(Timestamp::parse).map(amqp_time);
    let properties = Properties {
        message_id: text(SystemProperty::MessageId).map(MessageId::String),
        user_id: system
            .get(SystemProperty::UserId)
            .map(|user| Bytes::copy_from_slice(user.as_bytes())),
        to: text(SystemProperty::To),
        correlation_id: text(SystemProperty::CorrelationId).map(MessageId::String),
        content_type: symbol(SystemProperty::ContentType),
        content_encoding: symbol(SystemProperty::ContentEncoding),
        absolute_expiry_time: time(SystemProperty::AbsoluteExpiryTime),
        ..Properties::default()
    };
    (properties != Properties::default()).then_some(properties)
}

fn write_metric(metric: &RuntimeMetric, entries: &mut Entries<'_>) {
    let RuntimeMetric { bounds, at } = metric;
    let (last, offset) = last_of(bounds);
    entries.long("last_enqueued_sequence_number", last);
    entries.string("last_enqueued_offset", &offset);
    let enqueued = bounds.last_enqueued.unwrap_or(Timestamp::NEVER);
    entries.timestamp("last_enqueued_time_utc", amqp_time(enqueued));
    entries.value("runtime_info_retrieval_time_utc", &Value::Timestamp(amqp_time(*at)));
}

/// Sequence number and offset of a partition's newest event: -1 where there never was one.
pub(super) fn last_of(bounds: &PartitionBounds) -> (i64, String) {
    let last = long(bounds.next) - 1;
    (last, last.to_string())
}

pub(super) fn long(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) const fn amqp_time(time: Timestamp) -> AmqpTimestamp {
    AmqpTimestamp(time.unix_millis())
}

/// A number in decimal digits, without an allocation.
struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        for (index, digit) in digits.iter_mut().enumerate().rev() {
            *digit += u8::try_from(number % 10).unwrap_or_default();
            number /= 10;
            start = index;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    fn as_str(&self) -> &str {
        let digits = self.digits.get(self.start..).unwrap_or_default();
        std::str::from_utf8(digits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use holm_amqp::{Body, Limits};

    use super::*;

    fn stored(message: &Message, sequence: u64) -> StoredEvent {
        StoredEvent {
            sequence,
            enqueued: Timestamp::from_unix_millis(1_795_225_981_687),
            message: message.encode(),
        }
    }

    fn written(message: &Message, metric: Option<&RuntimeMetric>) -> holm_amqp::Message {
        let mut out = BytesMut::new();
        write_event(stored(message, 7), metric, &mut out).unwrap();
        holm_amqp::Message::decode(&out.freeze(), Limits::default()).unwrap()
    }

    fn telemetry() -> Message {
        let mut message = Message::new("{\"t\":21}");
        for (property, value) in [
            (SystemProperty::MessageId, "m-1"),
            (SystemProperty::CorrelationId, "c-1"),
            (SystemProperty::UserId, "user"),
            (SystemProperty::ContentType, "application/json"),
            (SystemProperty::ContentEncoding, "utf-8"),
            (SystemProperty::CreationTime, "2026-01-02T03:04:05Z"),
            (SystemProperty::ConnectionDeviceId, "d1"),
            (SystemProperty::ConnectionModuleId, "m1"),
            (SystemProperty::ConnectionAuthGenerationId, "638"),
            (SystemProperty::ConnectionAuthMethod, "{\"scope\":\"module\"}"),
            (SystemProperty::MessageSource, "Telemetry"),
            (SystemProperty::ModelId, "dtmi:a;1"),
            (SystemProperty::Subject, "part"),
            (SystemProperty::EdgeMessageId, "inner"),
        ] {
            message.system.set(property, value);
        }
        message.properties.set("level", Some("high".to_owned()));
        message.properties.set("flag", None);
        message
    }

    #[test]
    fn an_event_has_the_published_annotations_properties_and_body() {
        let message = written(&telemetry(), None);

        let time = Value::Timestamp(AmqpTimestamp(1_795_225_981_687));
        let annotations: Vec<_> = message
            .message_annotations
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .collect();
        assert_eq!(
            annotations,
            [
                ("x-opt-sequence-number", Value::Long(7)),
                ("x-opt-offset", "7".into()),
                ("x-opt-enqueued-time", time.clone()),
                ("x-opt-partition-key", "d1".into()),
                ("iothub-enqueuedtime", time),
                ("iothub-connection-device-id", "d1".into()),
                ("iothub-connection-module-id", "m1".into()),
                ("iothub-connection-auth-method", "{\"scope\":\"module\"}".into()),
                ("iothub-connection-auth-generation-id", "638".into()),
                ("iothub-message-source", "Telemetry".into()),
                ("dt-dataschema", "dtmi:a;1".into()),
                ("dt-subject", "part".into()),
            ]
        );
        let properties = message.properties.unwrap();
        assert_eq!(properties.message_id, Some("m-1".into()));
        assert_eq!(properties.correlation_id, Some("c-1".into()));
        assert_eq!(properties.user_id, Some(Bytes::from_static(b"user")));
        assert_eq!(properties.content_type, Some(Symbol::from_static("application/json")));
        assert_eq!(properties.content_encoding, Some(Symbol::from_static("utf-8")));
        let application: Vec<_> = message.application_properties.iter().collect();
        assert_eq!(
            application,
            [
                (&"level".into(), &Value::from("high")),
                (&"flag".into(), &Value::from("")),
                (&"iothub-creation-time-utc".into(), &Value::from("2026-01-02T03:04:05Z")),
            ]
        );
        assert_eq!(message.body, Body::Data(vec![Bytes::from_static(b"{\"t\":21}")]));
        assert!(message.delivery_annotations.is_empty());
    }

    #[test]
    fn an_event_of_nothing_is_a_message_of_an_empty_body() {
        let message = written(&Message::default(), None);

        assert_eq!(message.body, Body::Data(vec![Bytes::new()]));
        assert_eq!(message.properties, None);
        assert!(message.application_properties.is_empty());
    }

    #[test]
    fn what_is_known_of_the_partition_goes_with_the_event_to_who_asks() {
        let bounds = PartitionBounds {
            first: 2,
            next: 10,
            last_enqueued: Some(Timestamp::from_unix_millis(5)),
        };
        let at = Timestamp::from_unix_millis(6);

        let message = written(&telemetry(), Some(&RuntimeMetric { bounds, at }));

        let told = |name: &str| message.delivery_annotations.get(name).cloned();
        assert_eq!(told("last_enqueued_sequence_number"), Some(Value::Long(9)));
        assert_eq!(told("last_enqueued_offset"), Some("9".into()));
        assert_eq!(told("last_enqueued_time_utc"), Some(AmqpTimestamp(5).into()));
        assert_eq!(told("runtime_info_retrieval_time_utc"), Some(AmqpTimestamp(6).into()));
    }

    #[test]
    fn a_media_type_that_is_no_symbol_is_left_out() {
        let mut message = Message::new("x");
        message.system.set(SystemProperty::ContentType, "größe");

        assert_eq!(written(&message, None).properties, None);
    }

    #[test]
    fn what_can_not_be_read_back_leaves_the_buffer_as_it_was() {
        let damaged = StoredEvent {
            sequence: 0,
            enqueued: Timestamp::NEVER,
            message: Bytes::from_static(b"\x09"),
        };
        let mut out = BytesMut::from(&b"before"[..]);

        assert_eq!(write_event(damaged, None, &mut out), Err(DecodeError::Version(9)));
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn offsets_are_the_digits_of_the_number() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(Decimal::new(number).as_str(), number.to_string());
        }
    }
}
