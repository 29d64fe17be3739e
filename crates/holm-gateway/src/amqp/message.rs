//! Messages of devices and modules as AMQP has them: read from what clients send, written for clients to read.
//!
//! Reading takes what SDKs send and refuses, by the field, what could not be passed on. Writing suits the strictest reader: one
//! data section (Java casts), a lock token that is a string (C# and the original edge read only that).
//!
//! Source: `hub-device-protocols.md` §3.4.

use bytes::{Bytes, BytesMut};
use holm_amqp::message::{BATCH_FORMAT, messages_of_batch};
use holm_amqp::{Body, DecodeError, Delivery, Fields, Limits, MessageId, Properties, Symbol, Text, Value};
use holm_model::message::MAX_DEVICE_TO_CLOUD_BYTES;
use holm_model::wire::amqp;
use holm_model::{Identity, Message, Properties as Application, SystemProperties, SystemProperty, Timestamp};

use crate::backend;
use crate::intake::MAX_BATCH_MESSAGES;

/// What a delivery of telemetry holds at most, in batches of the published size: C fills one up to the size of the link, and the
/// original takes 1 MiB (`hub-device-protocols.md` §3.1).
const DELIVERY_BATCHES: usize = 4;
/// The largest delivery of telemetry.
pub(super) const MAX_DELIVERY_BYTES: usize = DELIVERY_BATCHES * MAX_DEVICE_TO_CLOUD_BYTES;
/// The most messages of a delivery.
const MAX_DELIVERY_MESSAGES: usize = DELIVERY_BATCHES * MAX_BATCH_MESSAGES;

/// Why a delivery is no message that could be passed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// Not a message of AMQP.
    #[error("the delivery can't be read: {0}")]
    Decode(#[from] DecodeError),
    /// A body of values.
    #[error("the body is {0}; send bytes, in data sections")]
    Body(&'static str),
    /// A property that is not text.
    #[error("`{field}` is {found}; send {wanted}")]
    Field {
        /// Its name.
        field: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A message of a batch is too large.
    #[error("a message of the batch has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its counted size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch has too many messages.
    #[error("the batch has {count} messages; at most {limit} are allowed, send them in several batches")]
    TooMany {
        /// How many it has.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// The messages of a delivery: one, or those of a batch.
pub(super) fn from_client(delivery: &Delivery) -> Result<Vec<Message>, Unreadable> {
    messages_in(delivery.format, &delivery.payload)
}

fn messages_in(format: u32, payload: &Bytes) -> Result<Vec<Message>, Unreadable> {
    let limits = Limits::default();
    let outer = holm_amqp::Message::decode(payload, limits)?;
    if format != BATCH_FORMAT {
        return Ok(vec![read(outer)?]);
    }
    let batch = messages_of_batch(&outer, limits)?;
    let (count, limit) = (batch.len(), MAX_DELIVERY_MESSAGES);
    if count > limit {
        return Err(Unreadable::TooMany { count, limit });
    }
    let mut messages = Vec::with_capacity(count);
    for inner in batch {
        let message = read(inner?)?;
        let size = message.counted_bytes();
        if size > MAX_DEVICE_TO_CLOUD_BYTES {
            let limit = MAX_DEVICE_TO_CLOUD_BYTES;
            return Err(Unreadable::TooLarge { size, limit });
        }
        messages.push(message);
    }
    Ok(messages)
}

/// One message.
pub(super) fn read(message: holm_amqp::Message) -> Result<Message, Unreadable> {
    let mut system = SystemProperties::default();
    let mut set = |name, value: Option<String>| {
        if let Some(value) = value {
            system.set(name, value);
        }
    };
    if let Some(properties) = message.properties {
        let id = |id: Option<MessageId>| id.map(|id| id.to_string());
        set(SystemProperty::MessageId, id(properties.message_id));
        set(SystemProperty::CorrelationId, id(properties.correlation_id));
        set(SystemProperty::UserId, properties.user_id.map(user_id).transpose()?);
        set(SystemProperty::To, properties.to.map(|to| to.to_string()));
        set(
            SystemProperty::ContentType,
            properties.content_type.map(|kind| kind.to_string()),
        );
        let encoding = properties.content_encoding.map(|encoding| encoding.to_string());
        set(SystemProperty::ContentEncoding, encoding);
        let moment = |moment: Option<holm_amqp::Timestamp>| {
            moment.map(|moment| Timestamp::from_unix_millis(moment.0).to_string())
        };
        set(
            SystemProperty::AbsoluteExpiryTime,
            moment(properties.absolute_expiry_time),
        );
        set(SystemProperty::CreationTime, moment(properties.creation_time));
    }
    for (name, property) in amqp::ANNOTATIONS_UP {
        if let Some(value) = message.message_annotations.get(name) {
            set(*property, Some(text_of(name, value)?));
        }
    }
    let mut pairs = Vec::with_capacity(message.application_properties.len());
    for (name, value) in message.application_properties.iter() {
        let name = name.as_str();
        let reserved = amqp::RESERVED.iter().find(|(reserved, _)| *reserved == name);
        match (reserved, value) {
            (Some((_, property)), value) => set(*property, Some(text_of(name, value)?)),
            (None, Value::Null) => pairs.push((name.to_owned(), None)),
            (None, value) => pairs.push((name.to_owned(), Some(text_of(name, value)?))),
        }
    }
    Ok(Message {
        body: body(message.body)?,
        system,
        properties: Application::from_pairs(pairs),
    })
}

/// The bytes of a body.
pub(super) fn body(body: Body) -> Result<Bytes, Unreadable> {
    match body {
        Body::Empty => Ok(Bytes::new()),
        Body::Data(mut sections) if sections.len() == 1 => Ok(sections.swap_remove(0)),
        Body::Data(sections) => {
            let mut whole = BytesMut::with_capacity(sections.iter().map(Bytes::len).sum());
            for section in sections {
                whole.extend_from_slice(&section);
            }
            Ok(whole.freeze())
        }
        Body::Value(Value::Binary(bytes)) => Ok(bytes),
        Body::Value(Value::String(text)) => Ok(text.buffer().clone()),
        Body::Value(Value::Null) => Ok(Bytes::new()),
        Body::Value(_) => Err(Unreadable::Body("a value that is neither bytes nor text")),
        Body::Sequence(_) => Err(Unreadable::Body("a sequence of values")),
    }
}

fn user_id(bytes: Bytes) -> Result<String, Unreadable> {
    String::from_utf8(bytes.into()).map_err(|_| Unreadable::Field {
        field: "user-id".to_owned(),
        found: "not UTF-8",
        wanted: "text",
    })
}

/// A property as text.
fn text_of(name: &str, value: &Value) -> Result<String, Unreadable> {
    text(value).ok_or_else(|| Unreadable::Field {
        field: name.to_owned(),
        found: value.kind().name(),
        wanted: "a string",
    })
}

/// A value as text: numbers and the like as they are usually written. None for what has parts, and bytes that are no text.
pub(super) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => String::new(),
        Value::Boolean(value) => value.to_string(),
        Value::Ulong(number) => number.to_string(),
        Value::Float(number) => number.get().to_string(),
        Value::Double(number) => number.get().to_string(),
        Value::Char(letter) => letter.to_string(),
        Value::Timestamp(moment) => Timestamp::from_unix_millis(moment.0).to_string(),
        Value::Uuid(uuid) => MessageId::Uuid(*uuid).to_string(),
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        other => match other.as_str() {
            Some(text) => text.to_owned(),
            None => other.as_i64()?.to_string(),
        },
    })
}

/// What is told to a client of its delivery: the message, named by `lock`.
pub(super) fn to_client(delivery: &backend::Delivery, receiver: &Identity, lock: &str) -> holm_amqp::Message {
    let (message, system) = (&delivery.message, &delivery.message.system);
    let get = |name| system.get(name).filter(|value| !value.is_empty());
    let moment = |name| {
        let moment = Timestamp::parse(get(name)?)?;
        Some(holm_amqp::Timestamp(moment.unix_millis()))
    };
    let symbol = |name| get(name).and_then(|value| Symbol::try_from(value).ok());
    let to = get(SystemProperty::To).map_or_else(|| destination(receiver), str::to_owned);
    let properties = Properties {
        message_id: get(SystemProperty::MessageId).map(MessageId::from),
        user_id: get(SystemProperty::UserId).map(|user| Bytes::copy_from_slice(user.as_bytes())),
        to: Some(to.into()),
        correlation_id: get(SystemProperty::CorrelationId).map(MessageId::from),
        content_type: symbol(SystemProperty::ContentType),
        content_encoding: symbol(SystemProperty::ContentEncoding),
        absolute_expiry_time: moment(SystemProperty::AbsoluteExpiryTime),
        creation_time: moment(SystemProperty::CreationTime),
        ..Properties::default()
    };
    let mut annotations = Fields::new();
    let mut annotate = |name: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            annotations.push(Symbol::from_static(name), value);
        }
    };
    let enqueued = moment(SystemProperty::EnqueuedTime);
    annotate(amqp::ENQUEUED_TIME, enqueued.map(Value::Timestamp));
    let count = get(SystemProperty::DeliveryCount).and_then(|count| count.parse::<u64>().ok());
    let count = count.map(|count| Value::Ubyte(u8::try_from(count).unwrap_or(u8::MAX)));
    annotate(amqp::DELIVERY_COUNT, count);
    let sequence = get(SystemProperty::SequenceNumber).and_then(|number| number.parse().ok());
    annotate(amqp::SEQUENCE_NUMBER, sequence.map(Value::Ulong));
    annotate(amqp::LOCK_TOKEN, Some(Value::from(lock)));
    annotate(amqp::INPUT_NAME, delivery.input.as_deref().map(Value::from));
    if delivery.input.is_some() {
        let sender = get(SystemProperty::ConnectionDeviceId);
        annotate(amqp::CONNECTION_DEVICE_ID, sender.map(Value::from));
        let sender = get(SystemProperty::ConnectionModuleId);
        annotate(amqp::CONNECTION_MODULE_ID, sender.map(Value::from));
        annotate("dt-subject", get(SystemProperty::Subject).map(Value::from));
    }
    let reserved = amqp::RESERVED
        .iter()
        .filter(|(_, property)| *property != SystemProperty::OutputName);
    let reserved =
        reserved.filter_map(|(name, property)| Some((Text::from_static(name), Value::from(get(*property)?))));
    let own = message.properties.iter().filter(|(name, _)| !amqp::is_reserved(name));
    let own = own.map(|(name, value)| (Text::from(name), value.map_or(Value::Null, Value::from)));
    holm_amqp::Message {
        message_annotations: annotations,
        properties: Some(Box::new(properties)),
        application_properties: reserved.chain(own).collect(),
        body: Body::Data(vec![message.body.clone()]),
        ..holm_amqp::Message::default()
    }
}

fn destination(receiver: &Identity) -> String {
    match &receiver.module {
        None => format!("/devices/{}/messages/devicebound", receiver.device),
        Some(module) => format!("/devices/{}/modules/{module}", receiver.device),
    }
}

#[cfg(test)]
mod tests {
    use holm_amqp::ApplicationProperties;
    use holm_amqp::message::Batch;

    use super::*;

    fn sample() -> holm_amqp::Message {
        holm_amqp::Message {
            message_annotations: Fields::new().with(Symbol::from_static("dt-subject"), "pump"),
            properties: Some(Box::new(Properties {
                message_id: Some("m-1".into()),
                correlation_id: Some(MessageId::Uuid([0x11; 16])),
                user_id: Some(Bytes::from_static(b"me")),
                content_type: Some(Symbol::from_static("application/json")),
                absolute_expiry_time: Some(holm_amqp::Timestamp(1_800_000_000_000)),
                ..Properties::default()
            })),
            application_properties: ApplicationProperties::new()
                .with(Text::from_static("iothub-outputname"), "out1")
                .with(Text::from_static("k"), "v")
                .with(Text::from_static("n"), 7i32)
                .with(Text::from_static("none"), Value::Null),
            ..holm_amqp::Message::of_data("{}")
        }
    }

    #[test]
    fn what_a_client_says_becomes_system_and_application_properties() {
        let message = read(sample()).unwrap();

        let system: Vec<_> = message.system.iter().collect();
        assert_eq!(
            system,
            [
                (SystemProperty::MessageId, "m-1"),
                (SystemProperty::CorrelationId, "11111111-1111-1111-1111-111111111111"),
                (SystemProperty::UserId, "me"),
                (SystemProperty::AbsoluteExpiryTime, "2027-01-15T08:00:00.0000000Z"),
                (SystemProperty::ContentType, "application/json"),
                (SystemProperty::OutputName, "out1"),
                (SystemProperty::Subject, "pump"),
            ]
        );
        let application: Vec<_> = message.properties.iter().collect();
        assert_eq!(application, [("k", Some("v")), ("n", Some("7")), ("none", None)]);
        assert_eq!(message.body, "{}");
    }

    #[test]
    fn what_could_not_be_passed_on_is_refused_by_its_field() {
        let mut listed = sample();
        listed.application_properties.push("list".into(), Value::List(vec![]));
        let mut foreign = sample();
        foreign.properties.as_mut().unwrap().user_id = Some(Bytes::from_static(b"\xff"));
        let mut valued = sample();
        valued.body = Body::Value(Value::Long(1));

        let errors = [listed, foreign, valued].map(|message| read(message).unwrap_err().to_string());

        assert_eq!(errors[0], "`list` is list; send a string");
        assert_eq!(errors[1], "`user-id` is not UTF-8; send text");
        assert_eq!(
            errors[2],
            "the body is a value that is neither bytes nor text; send bytes, in data sections"
        );
    }

    #[test]
    fn a_batch_has_as_many_messages_as_the_bound_and_no_more() {
        let batch = |count| {
            let mut batch = Batch::new(&holm_amqp::Message::default(), usize::MAX);
            for _ in 0..count {
                assert!(batch.try_push(&holm_amqp::Message::of_data("")));
            }
            let payload = batch.into_bytes();
            assert!(payload.len() <= MAX_DELIVERY_BYTES);
            messages_in(BATCH_FORMAT, &payload)
        };

        let fits = batch(MAX_DELIVERY_MESSAGES);
        let refused = batch(MAX_DELIVERY_MESSAGES + 1).unwrap_err();

        assert_eq!(fits.unwrap().len(), 32_768);
        assert_eq!(
            refused.to_string(),
            "the batch has 32769 messages; at most 32768 are allowed, send them in several batches"
        );
    }

    #[test]
    fn bodies_of_any_form_are_bytes() {
        let two = Body::Data(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert_eq!(body(two).unwrap(), "ab");
        assert_eq!(body(Body::Value(Value::from("text"))).unwrap(), "text");
        assert_eq!(body(Body::Empty).unwrap(), "");
    }

    #[test]
    fn a_delivery_says_what_sdks_read() {
        let mut message = read(sample()).unwrap();
        message
            .system
            .set(SystemProperty::EnqueuedTime, "2027-01-15T08:00:00.0000000Z");
        message.system.set(SystemProperty::SequenceNumber, "9");
        message.system.set(SystemProperty::DeliveryCount, "2");
        message.system.set(SystemProperty::Ack, "full");
        let delivery = backend::Delivery {
            message,
            input: None,
            lease: 1,
            redelivered: false,
        };

        let told = to_client(&delivery, &"dev1".parse().unwrap(), "lock");

        let annotations = &told.message_annotations;
        assert_eq!(
            annotations.get(amqp::ENQUEUED_TIME),
            Some(&Value::Timestamp(holm_amqp::Timestamp(1_800_000_000_000)))
        );
        assert_eq!(annotations.get(amqp::DELIVERY_COUNT), Some(&Value::Ubyte(2)));
        assert_eq!(annotations.get(amqp::SEQUENCE_NUMBER), Some(&Value::Ulong(9)));
        assert_eq!(annotations.get(amqp::LOCK_TOKEN), Some(&Value::from("lock")));
        assert_eq!(
            told.properties.unwrap().to.unwrap(),
            "/devices/dev1/messages/devicebound"
        );
        assert_eq!(
            told.application_properties.get("iothub-ack"),
            Some(&Value::from("full"))
        );
        assert_eq!(told.application_properties.get("iothub-outputname"), None);
        assert_eq!(told.body, Body::Data(vec![Bytes::from_static(b"{}")]));
    }
}
