//! Values, performatives and frames on the wire: as the standard writes them, and back.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::{frame, performative, value};
use crate::codec::{Frame, FrameBody, ProtocolHeader, decode_frame, decode_value, encode_frame, encode_value};
use crate::performative::{Close, DeliveryTag, Detach, Disposition, Flow, Outcome, Performative, Role, Transfer};
use crate::testing::{check_frames, check_value};
use crate::{Array, Fields, Kind, Limits, Symbol, Text, Timestamp, Value};

fn encoded(value: &Value) -> Bytes {
    let mut out = BytesMut::new();
    encode_value(value, &mut out);
    out.freeze()
}

fn decoded(bytes: &[u8]) -> Value {
    decode_value(&Bytes::copy_from_slice(bytes), Limits::default()).unwrap()
}

#[test]
fn values_are_written_as_in_the_standard() {
    let symbols = Array::new(
        Kind::Symbol,
        None,
        vec![Symbol::from_static("a").into(), Symbol::from_static("bc").into()],
    );
    let cases: [(Value, &[u8]); 20] = [
        (Value::Null, b"\x40"),
        (true.into(), b"\x41"),
        (false.into(), b"\x42"),
        (0u32.into(), b"\x43"),
        (255u32.into(), b"\x52\xff"),
        (256u32.into(), b"\x70\0\0\x01\0"),
        (0u64.into(), b"\x44"),
        (16u64.into(), b"\x53\x10"),
        ((-1i32).into(), b"\x54\xff"),
        (128i32.into(), b"\x71\0\0\0\x80"),
        (200i64.into(), b"\x81\0\0\0\0\0\0\0\xc8"),
        (7u8.into(), b"\x50\x07"),
        (7u16.into(), b"\x60\0\x07"),
        ('a'.into(), b"\x73\0\0\0a"),
        (1.5f64.into(), b"\x82\x3f\xf8\0\0\0\0\0\0"),
        (Timestamp(1).into(), b"\x83\0\0\0\0\0\0\0\x01"),
        ("hi".into(), b"\xa1\x02hi"),
        (Symbol::from_static("hi").into(), b"\xa3\x02hi"),
        (Value::List(vec![1u32.into(), Value::Null]), b"\xc0\x04\x02\x52\x01\x40"),
        (symbols.unwrap().into(), b"\xe0\x07\x02\xa3\x01a\x02bc"),
    ];

    for (value, bytes) in cases {
        assert_eq!(encoded(&value), bytes, "{value:?}");
        assert_eq!(decoded(bytes), value);
    }
}

#[test]
fn every_width_of_a_type_is_read() {
    let same: [&[&[u8]]; 6] = [
        &[b"\x43", b"\x52\0", b"\x70\0\0\0\0"],
        &[b"\x44", b"\x53\0", b"\x80\0\0\0\0\0\0\0\0"],
        &[b"\x41", b"\x56\x01"],
        &[b"\x45", b"\xc0\x01\0", b"\xd0\0\0\0\x04\0\0\0\0"],
        &[b"\xa1\x01x", b"\xb1\0\0\0\x01x"],
        &[b"\xe0\x03\x01\x50\x07", b"\xf0\0\0\0\x06\0\0\0\x01\x50\x07"],
    ];

    for forms in same {
        for form in forms {
            assert_eq!(decoded(form), decoded(forms[0]), "{form:?}");
        }
    }
}

#[test]
fn long_compounds_get_sizes_of_four_bytes() {
    let text: Text = "x".repeat(252).into();
    let list = |count: usize| Value::List(vec![text.clone().into(); count]);

    assert_eq!(
        encoded(&list(1))[..3],
        *b"\xc0\xff\x01",
        "255 bytes with the count are the most for one byte"
    );
    assert_eq!(encoded(&list(2))[..9], *b"\xd0\0\0\x02\x00\0\0\0\x02");
    assert_eq!(decoded(&encoded(&list(2))), list(2));
}

#[test]
fn described_arrays_keep_their_descriptor() {
    let array = Array::new(
        Kind::Uint,
        Some(Symbol::from_static("k").into()),
        vec![1u32.into(), 2u32.into()],
    )
    .unwrap();

    let bytes = encoded(&Value::Array(array.clone()));

    assert_eq!(bytes, &b"\xe0\x0e\x02\x00\xa3\x01k\x70\0\0\0\x01\0\0\0\x02"[..]);
    assert_eq!(decoded(&bytes), Value::Array(array));
}

#[test]
fn strings_and_binaries_are_slices_of_what_was_read() {
    let bytes = Bytes::from_static(b"\xc0\x0b\x02\xa1\x05hello\xa0\x01x");

    let Value::List(items) = decode_value(&bytes, Limits::default()).unwrap() else {
        panic!("a list");
    };

    let Value::String(text) = &items[0] else {
        panic!("a string")
    };
    assert!(bytes.as_ptr_range().contains(&text.as_bytes().as_ptr()));
}

#[test]
fn every_performative_has_all_its_fields() {
    let performatives = proptest_samples();

    for performative in performatives {
        let mut out = BytesMut::new();
        performative.encode(&mut out);
        let count = match performative {
            Performative::Open(_) => 10,
            Performative::Begin(_) => 8,
            Performative::Attach(_) => 14,
            Performative::Flow(_) | Performative::Transfer(_) => 11,
            Performative::Disposition(_) => 6,
            Performative::Detach(_) => 3,
            Performative::End(_) | Performative::Close(_) => 1,
        };
        assert_eq!(out[..2], *b"\x00\x53", "the descriptor is a small ulong");
        let written = match out[3] {
            0xc0 => u32::from(out[5]),
            0xd0 => u32::from_be_bytes(out[8..12].try_into().unwrap()),
            other => panic!("{other:#x} is no list"),
        };
        assert_eq!(written, count, "{}", performative.name());
    }
}

/// A few of every kind.
fn proptest_samples() -> Vec<Performative> {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    (0..200)
        .map(|_| performative().new_tree(&mut runner).unwrap().current())
        .collect()
}

#[test]
fn frames_are_written_as_in_the_standard() {
    let close = Performative::Close(Close { error: None });
    let accepted = Performative::Disposition(Disposition {
        role: Role::Receiver,
        first: 0,
        last: Some(3),
        settled: true,
        state: Some(Outcome::Accepted.into()),
        batchable: false,
    });
    let transfer = Performative::Transfer(Transfer {
        handle: 0,
        delivery_id: Some(1),
        delivery_tag: Some(DeliveryTag::try_from(Bytes::from_static(b"t")).unwrap()),
        message_format: Some(0),
        settled: Some(false),
        more: false,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    });
    let cases: [(Frame, &[u8]); 4] = [
        (frame_of(0, FrameBody::Empty), b"\0\0\0\x08\x02\0\0\0"),
        (
            frame_of(0, FrameBody::Amqp(close, Bytes::new())),
            b"\0\0\0\x0f\x02\0\0\0\0\x53\x18\xc0\x02\x01\x40",
        ),
        (
            frame_of(1, FrameBody::Amqp(accepted, Bytes::new())),
            b"\0\0\0\x18\x02\0\0\x01\0\x53\x15\xc0\x0b\x06\x41\x43\x52\x03\x41\0\x53\x24\x45\x42",
        ),
        (
            frame_of(258, FrameBody::Amqp(transfer, Bytes::from_static(b"body"))),
            b"\0\0\0\x20\x02\0\x01\x02\0\x53\x14\xc0\x0f\x0b\x43\x52\x01\xa0\x01t\x43\x42\x42\x40\x40\x42\x42\x42body",
        ),
    ];

    for (frame, bytes) in cases {
        let mut out = BytesMut::new();
        encode_frame(&frame, &mut out);
        assert_eq!(out, bytes, "{frame:?}");
        assert_eq!(decode_frame(&mut out, 512, Limits::default()), Ok(Some(frame)));
    }
}

fn frame_of(channel: u16, body: FrameBody) -> Frame {
    Frame { channel, body }
}

#[test]
fn performatives_without_their_last_fields_or_with_names_for_numbers_are_read() {
    let detach = |bytes: &'static [u8]| {
        Performative::decode(&Bytes::from_static(bytes), Limits::default())
            .unwrap()
            .0
    };
    let expected = Performative::Detach(Detach {
        handle: 0,
        closed: false,
        error: None,
    });

    assert_eq!(detach(b"\0\x53\x16\xc0\x02\x01\x43"), expected);
    assert_eq!(detach(b"\0\x80\0\0\0\0\0\0\0\x16\xc0\x02\x01\x43"), expected);
    assert_eq!(detach(b"\0\xa3\x10amqp:detach:list\xc0\x02\x01\x43"), expected);
}

#[test]
fn extended_headers_are_read_over() {
    let mut input = BytesMut::from(&b"\0\0\0\x13\x03\0\0\x05what\0\x53\x18\xc0\x02\x01\x40"[..]);

    let frame = decode_frame(&mut input, 512, Limits::default()).unwrap().unwrap();

    assert_eq!(frame.channel, 5);
    assert_eq!(
        frame.body,
        FrameBody::Amqp(Performative::Close(Close { error: None }), Bytes::new())
    );
}

#[test]
fn protocol_headers_are_told_by_their_id_and_version() {
    for header in [ProtocolHeader::Amqp, ProtocolHeader::Tls, ProtocolHeader::Sasl] {
        assert_eq!(ProtocolHeader::of(header.bytes()), Some(header));
    }
    assert_eq!(ProtocolHeader::Sasl.bytes(), *b"AMQP\x03\x01\0\0");
    assert_eq!(ProtocolHeader::of(*b"AMQP\0\0\x09\x01"), None, "0.9.1");
    assert_eq!(ProtocolHeader::of(*b"GET / HT"), None);
}

#[test]
fn secrets_do_not_show_when_printed() {
    let init = crate::performative::SaslInit {
        mechanism: Symbol::from_static("PLAIN"),
        initial_response: Some(crate::performative::Secret(Bytes::from_static(b"\0user\0SharedAccess"))),
        hostname: None,
    };

    let printed = format!("{init:?}");

    assert!(
        printed.contains("PLAIN") && !printed.contains("SharedAccess"),
        "{printed}"
    );
}

#[test]
fn flow_without_a_link_has_nulls_for_it() {
    let flow = Flow {
        next_incoming_id: Some(0),
        incoming_window: 1,
        next_outgoing_id: 2,
        outgoing_window: 3,
        handle: None,
        delivery_count: None,
        link_credit: None,
        available: None,
        drain: false,
        echo: false,
        properties: Fields::new(),
    };
    let mut out = BytesMut::new();

    Performative::Flow(Box::new(flow)).encode(&mut out);

    assert_eq!(
        out,
        &b"\0\x53\x13\xc0\x0f\x0b\x43\x52\x01\x52\x02\x52\x03\x40\x40\x40\x40\x42\x42\x40"[..]
    );
}

proptest! {
    #[test]
    fn any_value_comes_back_as_itself(value in value()) {
        let bytes = encoded(&value);

        prop_assert_eq!(decode_value(&bytes, Limits::default()), Ok(value));
        check_value(&bytes);
    }

    #[test]
    fn any_frames_come_back_as_themselves_whole_and_byte_by_byte(frames in vec(frame(), 1..5)) {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| encode_frame(frame, &mut bytes));
        let mut input = bytes.clone();
        let mut decoded = Vec::new();
        while let Some(frame) = decode_frame(&mut input, u32::MAX, Limits::default()).unwrap() {
            decoded.push(frame);
        }

        prop_assert_eq!(&decoded, &frames);
        prop_assert!(input.is_empty());
        check_frames(&bytes, u32::MAX);
    }

    #[test]
    fn any_prefix_of_a_frame_needs_more_and_takes_nothing(frame in frame(), cut in any::<prop::sample::Index>()) {
        let mut bytes = BytesMut::new();
        encode_frame(&frame, &mut bytes);
        let mut prefix = BytesMut::from(&bytes[..cut.index(bytes.len())]);
        let before = prefix.clone();

        prop_assert_eq!(decode_frame(&mut prefix, u32::MAX, Limits::default()), Ok(None));
        prop_assert_eq!(prefix, before);
    }
}
