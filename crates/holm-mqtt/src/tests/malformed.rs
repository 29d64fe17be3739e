//! Bytes that are no MQTT: each form has its verdict, and nothing else happens.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::packet;
use crate::codec::MAX_FILTERS;
use crate::testing::{check_decode, wire};
use crate::{Packet, PacketKind, Violation, decode};

fn verdict(bytes: &[u8]) -> Violation {
    decode(&mut BytesMut::from(bytes), 100_000).expect_err("malformed")
}

#[test]
fn reserved_types_and_flags_are_refused_by_the_first_byte() {
    assert_eq!(verdict(&[0x00]), Violation::ReservedType(0));
    assert_eq!(verdict(&[0xf0]), Violation::ReservedType(15));
    assert_eq!(
        verdict(b"GET / HTTP/1.1"),
        Violation::ReservedFlags {
            packet: PacketKind::Puback,
            flags: 7
        }
    );
    for (first, packet) in [
        (0x80, PacketKind::Subscribe),
        (0x60, PacketKind::Pubrel),
        (0xc1, PacketKind::Pingreq),
    ] {
        assert_eq!(
            verdict(&[first]),
            Violation::ReservedFlags {
                packet,
                flags: first & 0x0f
            }
        );
    }
}

#[test]
fn remaining_length_of_five_bytes_is_refused() {
    assert_eq!(
        verdict(&[0x30, 0xff, 0xff, 0xff, 0xff]),
        Violation::RemainingLength(PacketKind::Publish)
    );
}

#[test]
fn packet_that_ends_within_a_field_is_refused_by_the_name_of_the_field() {
    let cases: [(&[u8], PacketKind, &str); 11] = [
        (b"\x30\x00", PacketKind::Publish, "topic"),
        (b"\x30\x03\x00\x05a", PacketKind::Publish, "topic"),
        (b"\x32\x04\x00\x01a\x00", PacketKind::Publish, "packet id"),
        (b"\x40\x01\x00", PacketKind::Puback, "packet id"),
        (b"\x20\x01\x00", PacketKind::Connack, "return code"),
        (b"\x82\x05\x00\x01\x00\x01a", PacketKind::Subscribe, "requested QoS"),
        (b"\xa2\x05\x00\x01\x00\x02a", PacketKind::Unsubscribe, "filter"),
        (b"\x10\x02\x00\x04", PacketKind::Connect, "protocol name"),
        (b"\x10\x06\x00\x04MQTT", PacketKind::Connect, "protocol level"),
        (b"\x10\x08\x00\x04MQTT\x04\x00", PacketKind::Connect, "keep-alive"),
        (
            b"\x10\x0d\x00\x04MQTT\x04\x82\x00\x00\x00\x01a",
            PacketKind::Connect,
            "user name",
        ),
    ];

    for (bytes, packet, field) in cases {
        assert_eq!(verdict(bytes), Violation::Truncated { packet, field });
    }
}

#[test]
fn bytes_after_the_last_field_are_refused() {
    assert_eq!(
        verdict(b"\xc0\x01\x00"),
        Violation::TrailingBytes {
            packet: PacketKind::Pingreq,
            bytes: 1
        }
    );
    assert_eq!(
        verdict(b"\x40\x04\x00\x01\x00\x00"),
        Violation::TrailingBytes {
            packet: PacketKind::Puback,
            bytes: 2
        }
    );
}

#[test]
fn bad_text_is_refused_by_the_name_of_the_field() {
    let (packet, field) = (PacketKind::Publish, "topic");

    assert_eq!(
        verdict(b"\x30\x05\x00\x03a\x00b"),
        Violation::NullCharacter { packet, field }
    );
    assert_eq!(verdict(b"\x30\x05\x00\x03a\xffb"), Violation::NotUtf8 { packet, field });
    assert_eq!(
        verdict(b"\x30\x05\x00\x03\xed\xa0\x80"),
        Violation::NotUtf8 { packet, field }
    );
    assert_eq!(verdict(b"\x30\x02\x00\x00"), Violation::EmptyField { packet, field });
}

#[test]
fn bad_values_of_publish_and_acknowledgements_are_refused() {
    let packet = PacketKind::Publish;

    assert_eq!(
        verdict(b"\x36\x05\x00\x01a\x00\x01"),
        Violation::InvalidQos { packet, value: 3 }
    );
    assert_eq!(verdict(b"\x38\x03\x00\x01a"), Violation::DupAtMostOnce);
    assert_eq!(verdict(b"\x32\x05\x00\x01a\x00\x00"), Violation::PacketIdZero(packet));
    assert_eq!(
        verdict(b"\x40\x02\x00\x00"),
        Violation::PacketIdZero(PacketKind::Puback)
    );
    assert_eq!(
        verdict(b"\x20\x02\x02\x00"),
        Violation::ConnackCode { flags: 2, code: 0 }
    );
    assert_eq!(
        verdict(b"\x20\x02\x01\x05"),
        Violation::ConnackCode { flags: 1, code: 5 }
    );
    assert_eq!(
        verdict(b"\x20\x02\x00\x06"),
        Violation::ConnackCode { flags: 0, code: 6 }
    );
    assert_eq!(verdict(b"\x90\x03\x00\x01\x03"), Violation::SubackCode(3));
}

#[test]
fn bad_filters_are_refused() {
    let packet = PacketKind::Subscribe;

    assert_eq!(verdict(b"\x82\x02\x00\x01"), Violation::NoFilters(packet));
    assert_eq!(
        verdict(b"\x82\x06\x00\x01\x00\x01a\x03"),
        Violation::InvalidQos { packet, value: 3 }
    );
    assert_eq!(
        verdict(b"\x82\x06\x00\x01\x00\x01a\x81"),
        Violation::InvalidQos { packet, value: 0x81 }
    );
    let mut many = vec![0x82, 0, 0, 0, 1];
    for _ in 0..=MAX_FILTERS {
        many.extend_from_slice(b"\x00\x01a\x00");
    }
    let remaining = many.len() - 3;
    many[1] = u8::try_from(remaining & 0x7f).unwrap() | 0x80;
    many[2] = u8::try_from(remaining >> 7).unwrap();
    assert_eq!(
        verdict(&many),
        Violation::TooManyFilters {
            packet,
            limit: MAX_FILTERS
        }
    );
}

#[test]
fn bad_flags_of_connect_are_refused_by_the_rule() {
    let rules = [
        (0b0000_0001, "reserved"),
        (0b0000_1000, "without a will"),
        (0b0010_0000, "without a will"),
        (0b0100_0000, "needs a user name"),
        (0b0001_1100, "QoS 3"),
    ];

    for (flags, rule) in rules {
        let mut bytes = b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x00\x00\x00".to_vec();
        bytes[9] = flags;
        let violation = verdict(&bytes);
        assert!(matches!(violation, Violation::ConnectFlags { .. }), "{violation}");
        assert!(violation.to_string().contains(rule), "{violation}");
    }
}

#[test]
fn other_protocols_and_levels_are_told_apart() {
    assert_eq!(verdict(b"\x10\x09\x00\x06MQIsdp\x03"), Violation::ProtocolLevel(3));
    assert_eq!(verdict(b"\x10\x07\x00\x04MQTT\x05"), Violation::ProtocolLevel(5));
    assert_eq!(verdict(b"\x10\x07\x00\x04AMQP\x04"), Violation::ProtocolName);
}

#[test]
fn announced_length_makes_nothing_grow_before_the_bytes_are_there() {
    let mut input = BytesMut::with_capacity(16);
    input.extend_from_slice(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    let capacity = input.capacity();

    assert_eq!(decode(&mut input, usize::MAX), Ok(None));
    assert_eq!(input.capacity(), capacity);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_give_packets_or_need_more_or_a_verdict(bytes in vec(any::<u8>(), 0..300)) {
        check_decode(&bytes, 200);
    }

    #[test]
    fn mutated_packets_give_packets_or_need_more_or_a_verdict(
        packets in vec(packet(), 1..4),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = wire(&packets);
        for (index, value) in mutations {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }

        check_decode(&bytes, 10_000);
    }

    #[test]
    fn violations_name_a_way_out_in_one_line(bytes in vec(any::<u8>(), 2..60)) {
        if let Err(violation) = decode(&mut BytesMut::from(&bytes[..]), 50) {
            let printed = violation.to_string();
            prop_assert!(!printed.contains('\n') && !printed.ends_with('.'), "{}", printed);
        }
    }

    #[test]
    fn decoded_lists_are_bounded(bytes in vec(any::<u8>(), 0..3000)) {
        let mut input = wire(&[]);
        input.extend_from_slice(&[0x82, 0x80 | u8::try_from(bytes.len() & 0x7f).unwrap(), u8::try_from(bytes.len() >> 7).unwrap()]);
        input.extend_from_slice(&bytes);

        if let Ok(Some(Packet::Subscribe(subscribe))) = decode(&mut input, 10_000) {
            prop_assert!(subscribe.filters.len() <= MAX_FILTERS);
        }
    }
}
