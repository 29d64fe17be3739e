//! Messages: sections, ids, batches.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::strategies::message;
use crate::message::{Batch, MessageWriter, messages_of_batch};
use crate::testing::check_message;
use crate::{
    ApplicationProperties, Body, Fields, Limits, Message, MessageId, Properties, Symbol, Text, Timestamp, Value,
};

fn telemetry(body: &'static str) -> Message {
    Message {
        properties: Some(Box::new(Properties {
            message_id: Some("m-1".into()),
            content_type: Some(Symbol::from_static("application/json")),
            ..Properties::default()
        })),
        application_properties: ApplicationProperties::new().with(Text::from_static("level"), "high"),
        ..Message::of_data(body)
    }
}

#[test]
fn message_is_written_as_in_the_standard() {
    let bytes = telemetry("{}").to_bytes();

    let expected: &[u8] =
        b"\0\x53\x73\xc0\x23\x0d\xa1\x03m-1\x40\x40\x40\x40\x40\xa3\x10application/json\x40\x40\x40\x40\x40\x40\
        \0\x53\x74\xc1\x0e\x02\xa1\x05level\xa1\x04high\0\x53\x75\xa0\x02{}";
    assert_eq!(bytes, expected);
}

#[test]
fn ids_keep_their_type() {
    for id in [
        MessageId::Ulong(0),
        MessageId::Uuid([7; 16]),
        MessageId::Binary(Bytes::from_static(b"x")),
        MessageId::from("0"),
    ] {
        let message = Message {
            properties: Some(Box::new(Properties {
                message_id: Some(id.clone()),
                correlation_id: Some(id.clone()),
                ..Properties::default()
            })),
            ..Message::default()
        };

        let read = Message::decode(&message.to_bytes(), Limits::default())
            .unwrap()
            .properties
            .unwrap();

        assert_eq!((read.message_id, read.correlation_id), (Some(id.clone()), Some(id)));
    }
}

#[test]
fn uuid_as_text_is_that_of_rfc_4122() {
    let uuid = MessageId::Uuid([
        0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0,
    ]);

    assert_eq!(uuid.to_string(), "123e4567-e89b-12d3-a456-426614174000");
    assert_eq!(MessageId::Ulong(7).to_string(), "7");
}

#[test]
fn body_of_several_sections_of_data_is_one_and_of_one_is_not_copied() {
    let bytes = telemetry("hello").to_bytes();
    let one = Message::decode(&bytes, Limits::default()).unwrap().body.data().unwrap();
    let several = Body::Data(vec![Bytes::from_static(b"hel"), Bytes::from_static(b"lo")]);

    assert!(bytes.as_ptr_range().contains(&one.as_ptr()));
    assert_eq!(one, several.data().unwrap());
    assert_eq!(Body::Empty.data(), Some(Bytes::new()));
    assert_eq!(Body::Value(Value::Null).data(), None);
}

#[test]
fn annotations_with_strings_for_symbols_are_taken() {
    let bytes = Bytes::from_static(b"\0\x53\x72\xc1\x06\x02\xa1\x01k\xa1\x00\0\x53\x75\xa0\x00");

    let message = Message::decode(&bytes, Limits::default()).unwrap();

    assert_eq!(
        message.message_annotations,
        Fields::new().with(Symbol::from_static("k"), "")
    );
}

#[test]
fn batch_gives_its_messages_back_and_keeps_its_limit() {
    let whole = Message {
        message_annotations: Fields::new().with(Symbol::from_static("x-opt-partition-key"), "k"),
        ..Message::default()
    };
    let messages = [telemetry("1"), telemetry("22"), telemetry("333")];
    let mut batch = Batch::new(&whole, 1000);
    for message in &messages {
        assert!(batch.try_push(message));
    }
    assert_eq!(batch.len(), 3);
    let mut small = Batch::new(&whole, 100);
    assert!(small.try_push(&Message::of_data("x")));
    assert!(!small.try_push(&telemetry("too large for what is left")));
    assert!(small.into_bytes().len() <= 100);

    let read = Message::decode(&batch.into_bytes(), Limits::default()).unwrap();
    let inner: Result<Vec<Message>, _> = messages_of_batch(&read, Limits::default()).unwrap().collect();

    assert_eq!(read.message_annotations, whole.message_annotations);
    assert_eq!(inner.unwrap(), messages);
}

#[test]
fn batch_without_data_is_refused() {
    let error = messages_of_batch(&Message::of_value(1i32), Limits::default())
        .err()
        .unwrap();

    assert_eq!(
        error.to_string(),
        "the `body` of `batch` is not of data; send a section of data for each message"
    );
}

proptest! {
    #[test]
    fn any_message_comes_back_as_itself(message in message()) {
        let bytes = message.to_bytes();

        prop_assert_eq!(Message::decode(&bytes, Limits::default()), Ok(message));
        check_message(&bytes);
    }
}

#[test]
fn what_is_written_section_by_section_is_what_a_whole_message_is_written_as() {
    let long = "x".repeat(300);
    let whole = Message {
        delivery_annotations: Fields::new().with(Symbol::from_static("last"), 7i64),
        message_annotations: Fields::new()
            .with(Symbol::from_static("x-opt-offset"), long.as_str())
            .with(Symbol::from_static("x-opt-time"), Timestamp(1_700_000_000_000)),
        properties: Some(Box::new(Properties {
            message_id: Some("m-1".into()),
            ..Properties::default()
        })),
        application_properties: ApplicationProperties::new()
            .with("k".into(), "v")
            .with("n".into(), 5i32),
        ..Message::of_data("body")
    };

    let mut out = BytesMut::new();
    let mut writer = MessageWriter::new(&mut out);
    writer.delivery_annotations(|entries| entries.long("last", 7));
    writer.message_annotations(|entries| {
        entries.string("x-opt-offset", &long);
        entries.timestamp("x-opt-time", Timestamp(1_700_000_000_000));
    });
    writer.properties(whole.properties.as_deref().unwrap());
    writer.application_properties(|entries| {
        entries.string("k", "v");
        entries.value("n", &Value::Int(5));
    });
    writer.data(b"body");

    assert_eq!(out.freeze(), whole.to_bytes());
}

#[test]
fn a_section_without_entries_is_not_written() {
    let mut out = BytesMut::new();

    let mut writer = MessageWriter::new(&mut out);
    writer.message_annotations(|_| {});
    writer.application_properties(|_| {});
    writer.data(b"");

    assert_eq!(out.freeze(), Message::of_data("").to_bytes());
}
