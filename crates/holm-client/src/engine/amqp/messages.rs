//! Messages, twin requests and method calls in the form of AMQP. `hub-device-protocols.md` §3.4.

use holm_amqp::message::{MessageId, Properties};
use holm_amqp::{Fields, Message, Symbol, Text, Value};
use holm_model::method::MethodResponse;
use holm_model::wire::amqp;
use holm_model::{Message as Event, SystemProperty, Timestamp};
use serde_json::Value as Json;

/// Another spelling of what is an application property, too.
const OUTPUT_ANNOTATION: &str = "x-opt-output-name";

/// Annotations of a message to a device or module.
const ANNOTATIONS_DOWN: &[(&str, SystemProperty)] = &[
    (amqp::ENQUEUED_TIME, SystemProperty::EnqueuedTime),
    (amqp::DELIVERY_COUNT, SystemProperty::DeliveryCount),
    (amqp::SEQUENCE_NUMBER, SystemProperty::SequenceNumber),
    (amqp::CONNECTION_DEVICE_ID, SystemProperty::ConnectionDeviceId),
    (amqp::CONNECTION_MODULE_ID, SystemProperty::ConnectionModuleId),
    ("iothub-interface-id", SystemProperty::InterfaceId),
    ("dt-subject", SystemProperty::Subject),
];

/// A message as a client sends it.
///
/// # Errors
/// In words, when it has no form.
pub(super) fn to_server(event: &Event) -> Result<Message, String> {
    let system = |name| event.system.get(name);
    let symbol = |name: &str, value: Option<&str>| {
        let symbol = value.map(Symbol::try_from).transpose();
        symbol.map_err(|error| format!("its {name} has no form in AMQP: {error}"))
    };
    let id = |name| system(name).map(MessageId::from);
    // One that can't be read says nothing to those who count by it.
    let expiry = system(SystemProperty::AbsoluteExpiryTime).and_then(Timestamp::parse);
    let properties = Properties {
        message_id: id(SystemProperty::MessageId),
        user_id: system(SystemProperty::UserId).map(|user| user.to_owned().into()),
        to: system(SystemProperty::To).map(Text::from),
        correlation_id: id(SystemProperty::CorrelationId),
        content_type: symbol("content type", system(SystemProperty::ContentType))?,
        content_encoding: symbol("content encoding", system(SystemProperty::ContentEncoding))?,
        absolute_expiry_time: expiry.map(|expiry| holm_amqp::Timestamp(expiry.unix_millis())),
        ..Properties::default()
    };
    let mut message = Message::of_data(event.body.clone());
    message.properties = (properties != Properties::default()).then(|| Box::new(properties));
    let annotations = amqp::ANNOTATIONS_UP
        .iter()
        .filter(|(name, _)| *name != OUTPUT_ANNOTATION);
    for (name, property) in annotations {
        if let Some(value) = system(*property) {
            message.message_annotations.push(Symbol::from_static(name), value);
        }
    }
    for (name, property) in amqp::RESERVED {
        if let Some(value) = system(*property) {
            message.application_properties.push(Text::from_static(name), value);
        }
    }
    for (name, value) in event.properties.iter() {
        // A name of the platform's does not come from an application.
        if !amqp::is_reserved(name) {
            let value = value.unwrap_or_default();
            message.application_properties.push(name.into(), value);
        }
    }
    Ok(message)
}

/// A message as the node above sends it, and the input that it is for.
pub(super) fn from_server(message: &Message) -> (Event, Option<String>) {
    let mut event = Event::new(message.body.data().unwrap_or_default());
    let mut set = |name, value: Option<String>| {
        if let Some(value) = value {
            event.system.set(name, value);
        }
    };
    if let Some(properties) = &message.properties {
        let user = properties.user_id.as_ref();
        let expiry = properties.absolute_expiry_time.map(timestamp);
        set(
            SystemProperty::MessageId,
            properties.message_id.as_ref().map(ToString::to_string),
        );
        set(
            SystemProperty::CorrelationId,
            properties.correlation_id.as_ref().map(ToString::to_string),
        );
        set(
            SystemProperty::UserId,
            user.map(|user| String::from_utf8_lossy(user).into_owned()),
        );
        set(SystemProperty::To, properties.to.as_ref().map(ToString::to_string));
        set(SystemProperty::AbsoluteExpiryTime, expiry);
        set(
            SystemProperty::ContentType,
            properties.content_type.as_ref().map(ToString::to_string),
        );
        set(
            SystemProperty::ContentEncoding,
            properties.content_encoding.as_ref().map(ToString::to_string),
        );
    }
    for (name, property) in ANNOTATIONS_DOWN {
        set(*property, message.message_annotations.get(name).and_then(text));
    }
    for (name, value) in message.application_properties.iter() {
        let known = amqp::RESERVED.iter().find(|(known, _)| *known == name.as_str());
        match (known, text(value)) {
            (Some((_, property)), value) => set(*property, value),
            (None, value) => event.properties.set(name.as_str(), value),
        }
    }
    let input = message.message_annotations.get(amqp::INPUT_NAME);
    (event, input.and_then(text))
}

/// A value as the text that it has over MQTT; none for what has none.
fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Boolean(value) => value.to_string(),
        Value::Ulong(value) => value.to_string(),
        Value::Timestamp(value) => timestamp(*value),
        Value::Uuid(value) => MessageId::Uuid(*value).to_string(),
        value => match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.as_i64()?.to_string(),
        },
    })
}

fn timestamp(value: holm_amqp::Timestamp) -> String {
    Timestamp::from_unix_millis(value.0).to_string()
}

/// What is asked of a twin.
#[derive(Clone, Copy, Debug)]
pub(super) enum TwinOperation<'p> {
    Get,
    PatchReported(&'p Json),
    /// Changes of desired properties shall be told, or not any more.
    Subscribe,
    Unsubscribe,
}

/// A twin request.
pub(super) fn twin_request(operation: TwinOperation<'_>, correlation: &str) -> Message {
    let (word, resource, body) = match operation {
        TwinOperation::Get => ("GET", None, " ".to_owned()),
        TwinOperation::PatchReported(patch) => ("PATCH", Some(amqp::REPORTED), patch.to_string()),
        TwinOperation::Subscribe => ("PUT", Some(amqp::DESIRED_NOTIFICATIONS), " ".to_owned()),
        TwinOperation::Unsubscribe => ("DELETE", Some(amqp::DESIRED_NOTIFICATIONS), " ".to_owned()),
    };
    let mut annotations = Fields::new().with(Symbol::from_static(amqp::TWIN_OPERATION), word);
    if let Some(resource) = resource {
        annotations.push(Symbol::from_static(amqp::TWIN_RESOURCE), resource);
    }
    Message {
        message_annotations: annotations,
        properties: Some(Box::new(Properties {
            correlation_id: Some(correlation.into()),
            ..Properties::default()
        })),
        ..Message::of_data(body)
    }
}

/// What came on the twin link.
#[derive(Debug)]
pub(super) enum TwinNews {
    Answer {
        correlation: String,
        status: u16,
        version: Option<u64>,
    },
    Desired,
}

/// Reads what came on the twin link; its body is the message's.
pub(super) fn twin_news(message: &Message) -> TwinNews {
    let correlation = message.properties.as_ref().and_then(|all| all.correlation_id.as_ref());
    let Some(correlation) = correlation else {
        return TwinNews::Desired;
    };
    let number = |name: &str| message.message_annotations.get(name).and_then(Value::as_i64);
    TwinNews::Answer {
        correlation: correlation.to_string(),
        // No status is no answer that anybody could rely on.
        status: number(amqp::TWIN_STATUS)
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(500),
        version: number(amqp::TWIN_VERSION).and_then(|version| u64::try_from(version).ok()),
    }
}

/// Reads a method call: its id, name and argument. None without an id or a name.
pub(super) fn method_call(message: &Message) -> Option<(MessageId, String, Json)> {
    let id = message.properties.as_ref()?.correlation_id.clone()?;
    let name = message.application_properties.get(amqp::METHOD_NAME)?.as_str()?;
    let body = message.body.data().unwrap_or_default();
    Some((id, name.to_owned(), serde_json::from_slice(&body).unwrap_or(Json::Null)))
}

/// The answer of a method call.
pub(super) fn method_answer(id: MessageId, response: &MethodResponse) -> Message {
    let mut message = Message::of_data(response.payload.to_string());
    let status = Value::Int(response.status);
    message
        .application_properties
        .push(Text::from_static(amqp::METHOD_STATUS), status);
    message.properties = Some(Box::new(Properties {
        correlation_id: Some(id),
        ..Properties::default()
    }));
    message
}
