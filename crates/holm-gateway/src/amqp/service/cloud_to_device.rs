//! A message to a device as a back end sends it over AMQP: whom it is for, and what the device gets.
//!
//! ```text
//! properties.to     /devices/{id}/messages/devicebound, /devices/{id}/modules/{m}/messages/devicebound
//! properties        message-id, correlation-id, user-id, content-type, content-encoding, absolute-expiry-time
//! app. properties   iothub-ack: none | positive | negative | full; the rest are the device's
//! body              data
//! ```
//!
//! Source: `hub-service-api.md` §5.2.

use bytes::Bytes;
use holm_amqp::Limits;
use holm_model::error::ServiceError;
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, Message, ModuleId, SystemProperty, Timestamp};

use super::super::message::{body, text};

/// The application property by which a sender says which feedback it wants; compared without case.
const ACK: &str = "iothub-ack";

/// A message and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addressed {
    /// Whom it is for: the id as it is when the address is percent-encoded, and, where that differs and can be an id, as it
    /// stands, which is to be tried where nobody has the first. Some SDKs encode it and some do not.
    pub(crate) to: (Identity, Option<Identity>),
    /// The message.
    pub(crate) message: Message,
}

/// Reads the payload of a delivery.
///
/// # Errors
/// `ArgumentInvalid`, which names the part that is wrong.
pub(crate) fn read(payload: &Bytes, limits: Limits) -> Result<Addressed, ServiceError> {
    let message = holm_amqp::Message::decode(payload, limits)
        .map_err(|error| ServiceError::argument_invalid(format!("the delivery is no message: {error}")))?;
    let properties = message.properties.as_deref().cloned().unwrap_or_default();
    let to = properties.to.as_ref().map(|to| to.as_str()).unwrap_or_default();
    let to = destination(to)?;
    let body = body(message.body).map_err(|error| ServiceError::argument_invalid(error.to_string()))?;
    let mut read = Message::new(body);
    let system = &mut read.system;
    for (property, id) in [
        (SystemProperty::MessageId, &properties.message_id),
        (SystemProperty::CorrelationId, &properties.correlation_id),
    ] {
        if let Some(id) = id {
            system.set(property, id.to_string());
        }
    }
    if let Some(user) = &properties.user_id {
        let user = std::str::from_utf8(user)
            .map_err(|_| ServiceError::argument_invalid("`user-id` is not UTF-8; devices get it as text"))?;
        system.set(SystemProperty::UserId, user);
    }
    for (property, symbol) in [
        (SystemProperty::ContentType, &properties.content_type),
        (SystemProperty::ContentEncoding, &properties.content_encoding),
    ] {
        if let Some(symbol) = symbol {
            system.set(property, symbol.as_str());
        }
    }
    if let Some(time) = properties.absolute_expiry_time {
        let time = Timestamp::from_unix_millis(time.0);
        system.set(SystemProperty::AbsoluteExpiryTime, time.to_string());
    }
    for (name, value) in message.application_properties.iter() {
        let name = name.as_str();
        let text = text(value).ok_or_else(|| {
            let kind = value.kind();
            ServiceError::argument_invalid(format!(
                "the application property `{name}` is a {kind}; devices get text: send a string, a number or a boolean"
            ))
        })?;
        if name.eq_ignore_ascii_case(ACK) {
            read.system.set(SystemProperty::Ack, text.to_ascii_lowercase());
        } else {
            read.properties.set(name, Some(text));
        }
    }
    Ok(Addressed { to, message: read })
}

/// Reads `properties.to`.
fn destination(to: &str) -> Result<(Identity, Option<Identity>), ServiceError> {
    let wrong = |why: &str| {
        let shown: String = to.chars().take(300).collect();
        ServiceError::argument_invalid(format!(
            "`to` is `{shown}`, {why}; give `/devices/{{id}}/messages/devicebound` or \
             `/devices/{{id}}/modules/{{module}}/messages/devicebound`"
        ))
    };
    let path = match to.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => to,
    };
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is = |segment: &str, word: &str| segment.eq_ignore_ascii_case(word);
    let (device, module) = match segments.as_slice() {
        [a, device, b, c] if is(a, "devices") && is(b, "messages") && is(c, "devicebound") => (*device, None),
        [a, device, b, module, c, d]
            if is(a, "devices") && is(b, "modules") && is(c, "messages") && is(d, "devicebound") =>
        {
            (*device, Some(*module))
        }
        _ => return Err(wrong("which names no mailbox")),
    };
    let raw = identity(device, module);
    let decoded = percent::try_decode(device)
        .zip(module.map_or(Some(None), |module| percent::try_decode(module).map(Some)))
        .map(|(device, module)| identity(&device, module.as_deref()));
    match (decoded, raw) {
        (Some(Ok(decoded)), Ok(raw)) if decoded != raw => Ok((decoded, Some(raw))),
        (Some(Ok(decoded)), _) => Ok((decoded, None)),
        (_, Ok(raw)) => Ok((raw, None)),
        (_, Err(error)) => Err(wrong(&format!("where the id is none: {error}"))),
    }
}

fn identity(device: &str, module: Option<&str>) -> Result<Identity, holm_model::InvalidId> {
    let device = DeviceId::new(device)?;
    Ok(match module {
        Some(module) => Identity::of_module(device, ModuleId::new(module)?),
        None => Identity::of_device(device),
    })
}

#[cfg(test)]
mod tests {
    use holm_amqp::{ApplicationProperties, Body, MessageId, Properties, Symbol, Timestamp as AmqpTimestamp, Value};

    use super::*;

    fn to(address: &str) -> holm_amqp::Message {
        holm_amqp::Message {
            properties: Some(Box::new(Properties {
                to: Some(address.into()),
                ..Properties::default()
            })),
            ..holm_amqp::Message::of_data("hello")
        }
    }

    fn read_it(message: &holm_amqp::Message) -> Result<Addressed, ServiceError> {
        read(&message.to_bytes(), Limits::default())
    }

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_names_a_device_or_a_module_in_any_spelling() {
        for (address, name) in [
            ("/devices/d1/messages/devicebound", "d1"),
            ("/Devices/d1/Messages/deviceBound/", "d1"),
            ("amqps://hub.test/devices/d1/messages/devicebound", "d1"),
            ("/devices/d1/modules/m1/messages/devicebound", "d1/m1"),
        ] {
            assert_eq!(read_it(&to(address)).unwrap().to, (identity(name), None), "{address}");
        }
    }

    #[test]
    fn an_encoded_id_is_decoded_first_and_as_it_stands_second() {
        assert_eq!(
            read_it(&to("/devices/a%23b/messages/devicebound")).unwrap().to,
            (identity("a#b"), Some(identity("a%23b")))
        );
        // A space is part of no id.
        assert_eq!(
            read_it(&to("/devices/a%20b/messages/devicebound")).unwrap().to,
            (identity("a%20b"), None)
        );
    }

    #[test]
    fn an_address_that_names_no_mailbox_is_told_with_the_right_form() {
        for address in [
            "",
            "/devices/d1",
            "/devices/d1/messages/events",
            "/devices/a b/messages/devicebound",
        ] {
            let refused = read_it(&to(address)).unwrap_err();
            assert!(
                refused.message.contains("/devices/{id}/messages/devicebound"),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn properties_become_those_of_the_device() {
        let message = holm_amqp::Message {
            properties: Some(Box::new(Properties {
                to: Some("/devices/d1/messages/devicebound".into()),
                message_id: Some(MessageId::Uuid([1; 16])),
                correlation_id: Some(MessageId::Ulong(0)),
                user_id: Some(Bytes::from_static(b"me")),
                content_type: Some(Symbol::from_static("application/json")),
                absolute_expiry_time: Some(AmqpTimestamp(1_795_225_981_000)),
                ..Properties::default()
            })),
            application_properties: ApplicationProperties::new()
                .with("iothub-ack".into(), "Full")
                .with("text".into(), "value")
                .with("number".into(), 5i32)
                .with("yes".into(), true),
            ..holm_amqp::Message::of_data("{}")
        };

        let message = read_it(&message).unwrap().message;

        let system: Vec<_> = message.system.iter().collect();
        assert_eq!(
            system,
            [
                (SystemProperty::MessageId, "01010101-0101-0101-0101-010101010101"),
                (SystemProperty::CorrelationId, "0"),
                (SystemProperty::UserId, "me"),
                (SystemProperty::AbsoluteExpiryTime, "2026-11-21T01:53:01.0000000Z"),
                (SystemProperty::ContentType, "application/json"),
                (SystemProperty::Ack, "full"),
            ]
        );
        let properties: Vec<_> = message.properties.iter().collect();
        assert_eq!(
            properties,
            [("text", Some("value")), ("number", Some("5")), ("yes", Some("true"))]
        );
        assert_eq!(message.body, "{}");
    }

    #[test]
    fn bodies_are_bytes_however_they_are_sent() {
        for (body, bytes) in [
            (
                Body::Data(vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]),
                "ab",
            ),
            (Body::Value("text".into()), "text"),
            (Body::Value(Value::Null), ""),
            (Body::Empty, ""),
        ] {
            let message = holm_amqp::Message {
                body,
                ..to("/devices/d1/messages/devicebound")
            };
            assert_eq!(read_it(&message).unwrap().message.body, bytes);
        }
        let list = holm_amqp::Message {
            body: Body::Value(Value::List(Vec::new())),
            ..to("/devices/d1/messages/devicebound")
        };
        assert!(read_it(&list).is_err());
    }

    #[test]
    fn a_property_with_parts_is_named() {
        let message = holm_amqp::Message {
            application_properties: ApplicationProperties::new().with("parts".into(), Value::List(Vec::new())),
            ..to("/devices/d1/messages/devicebound")
        };

        let refused = read_it(&message).unwrap_err();

        assert!(refused.message.contains("`parts` is a list"), "{refused:?}");
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let refused = read(&Bytes::from_static(b"\0\x53\xff"), Limits::default()).unwrap_err();

        assert!(refused.message.contains("no message"), "{refused:?}");
    }
}
