//! Questions about the Event Hub (`$management`) and their answers.
//!
//! ```text
//! application properties  operation=READ, type=com.microsoft:eventhub | com.microsoft:partition, name, [partition]
//! answer                  correlation-id = message-id, of the same type; status-code (int), status-description; a map
//! ```
//!
//! Names and operations come as strings, symbols or binaries: `azure-eventhub` sends bytes. Source: `hub-service-api.md` §6.

use std::borrow::Cow;

use holm_amqp::{ApplicationProperties, Array, Message, Properties, Text, Value};
use holm_model::Timestamp;

use super::event_message::{amqp_time, last_of, long};
use crate::service::{EventHub, PartitionBounds};

/// Answers a question. `bounds` tells what a partition holds, and none for one that there is not.
#[must_use]
pub(crate) fn answer(
    request: &Message,
    event_hub: Option<&EventHub>,
    bounds: impl FnOnce(u16) -> Option<PartitionBounds>,
) -> Message {
    let (status, description, body) = match find(request, event_hub, bounds) {
        Ok(found) => (200, Cow::Borrowed("OK"), Value::Map(found)),
        Err((status, why)) => (status, Cow::Owned(why), Value::Null),
    };
    let mut application_properties = ApplicationProperties::new()
        .with(Text::from_static("status-code"), status)
        .with(Text::from_static("status-description"), description.as_ref());
    let condition = match status {
        200 => None,
        404 => Some("amqp:not-found"),
        _ => Some("com.microsoft:argument-error"),
    };
    if let Some(condition) = condition {
        application_properties.push(Text::from_static("error-condition"), condition);
    }
    let asked = request.properties.as_deref();
    Message {
        properties: Some(Box::new(Properties {
            correlation_id: asked.and_then(|asked| asked.message_id.clone().or_else(|| asked.correlation_id.clone())),
            ..Properties::default()
        })),
        application_properties,
        ..Message::of_value(body)
    }
}

type Found = Vec<(Value, Value)>;

fn find(
    request: &Message,
    event_hub: Option<&EventHub>,
    bounds: impl FnOnce(u16) -> Option<PartitionBounds>,
) -> Result<Found, (i32, String)> {
    let operation = property(request, "operation")?;
    if !operation.eq_ignore_ascii_case("READ") {
        return Err((400, format!("the operation `{operation}` is not known; ask `READ`")));
    }
    let (kind, name) = (property(request, "type")?, property(request, "name")?);
    let event_hub = event_hub.filter(|hub| hub.name.eq_ignore_ascii_case(&name));
    let event_hub = event_hub.ok_or_else(|| (404, format!("the messaging entity `{name}` could not be found")))?;
    match kind.as_ref() {
        "com.microsoft:eventhub" => Ok(describe(event_hub)),
        "com.microsoft:partition" => {
            let partition = property(request, "partition")?;
            let missing = || {
                let last = event_hub.partitions.saturating_sub(1);
                (
                    404,
                    format!("there is no partition `{partition}`; there are 0 to {last}"),
                )
            };
            let number = partition.parse().map_err(|_| missing())?;
            let bounds = bounds(number).ok_or_else(missing)?;
            Ok(describe_partition(event_hub, number, &bounds))
        }
        other => Err((
            400,
            format!("the type `{other}` is not known; ask for `com.microsoft:eventhub` or `com.microsoft:partition`"),
        )),
    }
}

fn describe(event_hub: &EventHub) -> Found {
    let ids = (0..event_hub.partitions).map(|number| Text::from(number.to_string()));
    vec![
        ("type".into(), "com.microsoft:eventhub".into()),
        ("name".into(), event_hub.name.as_str().into()),
        ("created_at".into(), amqp_time(event_hub.created).into()),
        ("partition_count".into(), i32::from(event_hub.partitions).into()),
        ("partition_ids".into(), Array::of_strings(ids).into()),
        ("georeplication_factor".into(), 1i32.into()),
    ]
}

fn describe_partition(event_hub: &EventHub, partition: u16, bounds: &PartitionBounds) -> Found {
    let (last, offset) = last_of(bounds);
    let enqueued = bounds.last_enqueued.unwrap_or(Timestamp::NEVER);
    vec![
        ("type".into(), "com.microsoft:partition".into()),
        ("name".into(), event_hub.name.as_str().into()),
        ("partition".into(), partition.to_string().into()),
        ("begin_sequence_number".into(), long(bounds.first).into()),
        ("last_enqueued_sequence_number".into(), last.into()),
        ("last_enqueued_offset".into(), offset.into()),
        ("last_enqueued_time_utc".into(), amqp_time(enqueued).into()),
        ("is_partition_empty".into(), (bounds.first >= bounds.next).into()),
    ]
}

fn property<'m>(request: &'m Message, name: &str) -> Result<Cow<'m, str>, (i32, String)> {
    let missing = || {
        let text = format!("the application property `{name}` is missing or no text; send it as a string");
        (400, text)
    };
    let value = request.application_properties.get(name).ok_or_else(missing)?;
    match value {
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        other => match other.as_str() {
            Some(text) => Some(Cow::Borrowed(text)),
            None => other.as_i64().map(|number| Cow::Owned(number.to_string())),
        },
    }
    .ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holm_amqp::{Body, MessageId, Timestamp as AmqpTimestamp};

    use super::*;

    fn event_hub() -> EventHub {
        EventHub {
            name: "eh".to_owned(),
            created: Timestamp::from_unix_millis(5),
            partitions: 2,
            host: "hub.test".to_owned(),
            port: 5671,
        }
    }

    fn bounds(partition: u16) -> Option<PartitionBounds> {
        (partition < 2).then_some(PartitionBounds {
            first: 3,
            next: 10,
            last_enqueued: Some(Timestamp::from_unix_millis(7)),
        })
    }

    fn ask(properties: &[(&'static str, Value)]) -> Message {
        let application_properties = properties
            .iter()
            .map(|(name, value)| (Text::from_static(name), value.clone()))
            .collect();
        Message {
            properties: Some(Box::new(Properties {
                message_id: Some(MessageId::Ulong(0)),
                ..Properties::default()
            })),
            application_properties,
            ..Message::default()
        }
    }

    fn asked(properties: &[(&'static str, Value)]) -> (Option<Value>, Message) {
        let answer = answer(&ask(properties), Some(&event_hub()), bounds);
        (answer.application_properties.get("status-code").cloned(), answer)
    }

    fn member(answer: &Message, name: &str) -> Option<Value> {
        let Body::Value(Value::Map(members)) = &answer.body else {
            return None;
        };
        let found = members.iter().find(|(key, _)| key.as_str() == Some(name));
        found.map(|(_, value)| value.clone())
    }

    #[test]
    fn the_event_hub_is_described_to_who_asks_with_the_same_id() {
        for name in [Value::from("eh"), Value::Binary(Bytes::from_static(b"EH"))] {
            let read = Value::Binary(Bytes::from_static(b"READ"));
            let kind = Value::from("com.microsoft:eventhub");
            let (status, answer) = asked(&[("operation", read), ("type", kind), ("name", name)]);

            assert_eq!(status, Some(Value::Int(200)));
            assert_eq!(
                answer.properties.as_ref().unwrap().correlation_id,
                Some(MessageId::Ulong(0))
            );
            assert_eq!(member(&answer, "partition_count"), Some(Value::Int(2)));
            assert_eq!(
                member(&answer, "partition_ids"),
                Some(Array::of_strings(["0".into(), "1".into()]).into())
            );
            assert_eq!(member(&answer, "created_at"), Some(AmqpTimestamp(5).into()));
        }
    }

    #[test]
    fn a_partition_is_described_with_what_it_holds() {
        let (status, answer) = asked(&[
            ("operation", "READ".into()),
            ("type", "com.microsoft:partition".into()),
            ("name", "eh".into()),
            ("partition", "1".into()),
        ]);

        assert_eq!(status, Some(Value::Int(200)));
        for (name, value) in [
            ("partition", Value::from("1")),
            ("begin_sequence_number", Value::Long(3)),
            ("last_enqueued_sequence_number", Value::Long(9)),
            ("last_enqueued_offset", "9".into()),
            ("last_enqueued_time_utc", AmqpTimestamp(7).into()),
            ("is_partition_empty", false.into()),
        ] {
            assert_eq!(member(&answer, name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_partition_of_nothing_has_no_last_event() {
        let nothing = PartitionBounds {
            first: 0,
            next: 0,
            last_enqueued: None,
        };
        let request = ask(&[
            ("operation", "READ".into()),
            ("type", "com.microsoft:partition".into()),
            ("name", "eh".into()),
            ("partition", 0i32.into()),
        ]);

        let answer = answer(&request, Some(&event_hub()), |_| Some(nothing));

        assert_eq!(member(&answer, "last_enqueued_sequence_number"), Some(Value::Long(-1)));
        assert_eq!(member(&answer, "last_enqueued_offset"), Some("-1".into()));
        assert_eq!(member(&answer, "is_partition_empty"), Some(true.into()));
    }

    #[test]
    fn a_question_without_an_answer_is_told_why() {
        let read = || ("operation", Value::from("READ"));
        let kind = || ("type", Value::from("com.microsoft:partition"));
        for (question, code) in [
            (vec![read(), kind(), ("name", "other".into())], 404),
            (
                vec![read(), kind(), ("name", "eh".into()), ("partition", "7".into())],
                404,
            ),
            (
                vec![read(), kind(), ("name", "eh".into()), ("partition", "x".into())],
                404,
            ),
            (vec![read(), kind(), ("name", "eh".into())], 400),
            (vec![read(), ("type", "x".into()), ("name", "eh".into())], 400),
            (vec![("operation", "DELETE".into()), kind(), ("name", "eh".into())], 400),
            (vec![], 400),
        ] {
            let (status, answer) = asked(&question);

            assert_eq!(status, Some(Value::Int(code)), "{question:?}");
            let told = answer.application_properties.get("status-description").cloned();
            assert!(told.is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty())));
        }
    }
}
