//! The codec on valid packets: bytes as the standard draws them, round trips whole and in pieces, encoder's refusals.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::packet;
use crate::codec::MAX_FILTERS;
use crate::testing::{check_decode, connect, subscription, text, will, wire};
use crate::{
    Connack, Connect, Credentials, Delivery, EncodeError, Granted, Packet, PacketId, PacketKind, Publish, Qos, Refusal,
    Suback, Subscribe, Unsubscribe, Violation, decode, encode,
};

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

#[test]
fn packets_have_the_bytes_that_the_standard_draws() {
    let minimal = Connect {
        client_id: text("a"),
        clean_session: true,
        keep_alive_seconds: 60,
        credentials: None,
        ..connect()
    };
    let publish = Publish {
        topic: text("a/b"),
        payload: Bytes::from_static(b"hi"),
        retain: true,
        delivery: Delivery::AtLeastOnce {
            id: id(0x1234),
            dup: true,
        },
    };
    let subscribe = Subscribe {
        id: id(10),
        filters: vec![
            subscription("a/#", Qos::AtLeastOnce),
            subscription("b", Qos::AtMostOnce),
        ],
    };
    let suback = Suback {
        id: id(10),
        granted: vec![Granted::Qos(Qos::AtLeastOnce), Granted::Failure],
    };
    let cases: [(Packet, &[u8]); 14] = [
        (
            Packet::Connect(Box::new(minimal)),
            b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
        ),
        (
            Packet::Connack(Connack::Refused(Refusal::NotAuthorized)),
            b"\x20\x02\x00\x05",
        ),
        (Packet::Publish(publish), b"\x3b\x09\x00\x03a/b\x12\x34hi"),
        (Packet::Puback(id(2)), b"\x40\x02\x00\x02"),
        (Packet::Pubrec(id(2)), b"\x50\x02\x00\x02"),
        (Packet::Pubrel(id(2)), b"\x62\x02\x00\x02"),
        (Packet::Pubcomp(id(2)), b"\x70\x02\x00\x02"),
        (
            Packet::Subscribe(subscribe),
            b"\x82\x0c\x00\x0a\x00\x03a/#\x01\x00\x01b\x00",
        ),
        (Packet::Suback(suback), b"\x90\x04\x00\x0a\x01\x80"),
        (
            Packet::Unsubscribe(Unsubscribe {
                id: id(3),
                filters: vec![text("a")],
            }),
            b"\xa2\x05\x00\x03\x00\x01a",
        ),
        (Packet::Unsuback(id(3)), b"\xb0\x02\x00\x03"),
        (Packet::Pingreq, b"\xc0\x00"),
        (Packet::Pingresp, b"\xd0\x00"),
        (Packet::Disconnect, b"\xe0\x00"),
    ];

    for (packet, bytes) in cases {
        assert_eq!(wire(std::slice::from_ref(&packet)), bytes, "{packet:?}");
        assert_eq!(decode(&mut BytesMut::from(bytes), 100), Ok(Some(packet)));
    }
}

#[test]
fn connect_with_everything_carries_its_fields_in_order() {
    let full = Connect {
        will: Some(will()),
        ..connect()
    };

    let bytes = wire(&[Packet::Connect(Box::new(full.clone()))]);

    assert_eq!(bytes[9], 0b1100_1100, "user name, password, will QoS 1, will");
    let decoded = decode(&mut bytes.clone(), bytes.len());
    assert_eq!(decoded, Ok(Some(Packet::Connect(Box::new(full)))));
}

#[test]
fn topic_with_wildcard_characters_is_kept_as_it_is() {
    let publish = Publish {
        topic: text("devices/a+b#/messages/events/x=+ /#"),
        payload: Bytes::new(),
        retain: false,
        delivery: Delivery::AtMostOnce,
    };

    check_decode(&wire(&[Packet::Publish(publish)]), 1000);
}

#[test]
fn remaining_length_takes_one_byte_more_at_each_power_of_128() {
    for (payload, header) in [
        (123, 2),
        (124, 3),
        (16_379, 3),
        (16_380, 4),
        (2_097_147, 4),
        (2_097_148, 5),
    ] {
        let publish = Publish {
            topic: text("abc"),
            payload: vec![7; payload - 1].into(),
            retain: false,
            delivery: Delivery::AtMostOnce,
        };
        let mut bytes = wire(&[Packet::Publish(publish.clone())]);

        assert_eq!(bytes.len(), header + 2 + 3 + payload - 1);
        let limit = bytes.len();
        assert_eq!(decode(&mut bytes, limit), Ok(Some(Packet::Publish(publish))));
    }
}

#[test]
fn payload_is_a_slice_of_the_input_buffer() {
    let publish = Publish {
        topic: text("t"),
        payload: vec![7; 1000].into(),
        retain: false,
        delivery: Delivery::AtMostOnce,
    };
    let mut input = wire(&[Packet::Publish(publish)]);
    let buffer = input.as_ptr_range();

    let Ok(Some(Packet::Publish(decoded))) = decode(&mut input, 2000) else {
        panic!("a PUBLISH");
    };

    assert!(buffer.contains(&decoded.payload.as_ptr()) && buffer.contains(&decoded.topic.as_bytes().as_ptr()));
}

#[test]
fn packet_of_exactly_the_limit_is_accepted_and_one_byte_more_is_refused_by_its_header_alone() {
    let limit = 262_144;

    let at_limit = [0x30, 0xfc, 0xff, 0x0f];
    let over = [0x30, 0xfd, 0xff, 0x0f];

    assert_eq!(decode(&mut BytesMut::from(&at_limit[..]), limit), Ok(None));
    assert_eq!(
        decode(&mut BytesMut::from(&over[..]), limit),
        Err(Violation::PacketTooLarge {
            packet: PacketKind::Publish,
            bytes: limit + 1,
            limit
        })
    );
}

#[test]
fn what_has_no_form_on_the_wire_is_refused_and_nothing_is_written() {
    let long = Bytes::from(vec![1; 65_536]);
    let password = Connect {
        credentials: Some(Credentials {
            user_name: text("u"),
            password: Some(long.clone()),
        }),
        ..connect()
    };
    let long_will = Connect {
        will: Some(crate::Will {
            payload: long,
            ..will()
        }),
        ..connect()
    };
    let no_topic = Publish {
        topic: text(""),
        payload: Bytes::new(),
        retain: false,
        delivery: Delivery::AtMostOnce,
    };
    let huge = Publish {
        topic: text("t"),
        payload: Bytes::from(vec![0; crate::codec::MAX_REMAINING_LENGTH]),
        ..no_topic.clone()
    };
    let filters = vec![text("a"); MAX_FILTERS + 1];
    let cases = [
        (
            Packet::Connect(Box::new(password)),
            EncodeError::FieldTooLong {
                field: "password",
                bytes: 65_536,
            },
        ),
        (
            Packet::Connect(Box::new(long_will)),
            EncodeError::FieldTooLong {
                field: "will payload",
                bytes: 65_536,
            },
        ),
        (
            Packet::Publish(no_topic),
            EncodeError::EmptyField {
                packet: PacketKind::Publish,
                field: "topic",
            },
        ),
        (
            Packet::Publish(huge),
            EncodeError::PacketTooLarge {
                packet: PacketKind::Publish,
                bytes: crate::codec::MAX_REMAINING_LENGTH + 3,
            },
        ),
        (
            Packet::Unsubscribe(Unsubscribe { id: id(1), filters }),
            EncodeError::FilterCount {
                packet: PacketKind::Unsubscribe,
                count: MAX_FILTERS + 1,
            },
        ),
        (
            Packet::Subscribe(Subscribe {
                id: id(1),
                filters: vec![],
            }),
            EncodeError::FilterCount {
                packet: PacketKind::Subscribe,
                count: 0,
            },
        ),
    ];

    for (packet, error) in cases {
        let mut out = BytesMut::from(&b"before"[..]);
        assert_eq!(encode(&packet, &mut out), Err(error));
        assert_eq!(out, &b"before"[..]);
    }
}

#[test]
fn passwords_do_not_show_when_printed() {
    let printed = format!("{:?}", connect());

    assert!(printed.contains("hub.test/dev1"));
    assert!(!printed.contains("SharedAccessSignature"));
}

proptest! {
    #[test]
    fn decoding_what_was_encoded_gives_it_back_whole_and_byte_by_byte(packets in vec(packet(), 1..8)) {
        let bytes = wire(&packets);
        let mut input = bytes.clone();
        let mut decoded = Vec::new();
        while let Some(packet) = decode(&mut input, usize::MAX).unwrap() {
            decoded.push(packet);
        }

        prop_assert_eq!(&decoded, &packets);
        prop_assert!(input.is_empty());
        check_decode(&bytes, usize::MAX);
    }

    #[test]
    fn any_prefix_of_a_packet_needs_more_and_takes_nothing(packet in packet(), cut in any::<prop::sample::Index>()) {
        let bytes = wire(&[packet]);
        let mut prefix = BytesMut::from(&bytes[..cut.index(bytes.len())]);
        let before = prefix.clone();

        prop_assert_eq!(decode(&mut prefix, usize::MAX), Ok(None));
        prop_assert_eq!(prefix, before);
    }
}
