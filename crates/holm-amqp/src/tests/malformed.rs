//! Bytes that are no AMQP: each form has its verdict, and costs little.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::{frame, message, value};
use crate::codec::{FrameError, decode_frame, decode_value, encode_frame, encode_value};
use crate::performative::Performative;
use crate::testing::{check_frames, check_message, check_value};
use crate::{DecodeError, Fault, Kind, Limits, Message};

fn value_fault(bytes: &[u8]) -> Fault {
    decode_value(&Bytes::copy_from_slice(bytes), Limits::default())
        .expect_err("malformed")
        .fault
}

fn frame_error(bytes: &[u8]) -> FrameError {
    decode_frame(&mut BytesMut::from(bytes), 512, Limits::default()).expect_err("malformed")
}

fn performative_error(bytes: &'static [u8]) -> String {
    Performative::decode(&Bytes::from_static(bytes), Limits::default())
        .expect_err("malformed")
        .to_string()
}

#[test]
fn values_that_break_a_rule_are_refused_by_it() {
    let cases: [(&[u8], Fault); 19] = [
        (b"", Fault::Truncated),
        (b"\x70\0\0", Fault::Truncated),
        (b"\xa1\x05hi", Fault::Truncated),
        (b"\xb1\xff\xff\xff\xffhi", Fault::Truncated),
        (b"\xc0\x05\x01\x43", Fault::Truncated),
        (b"\xd0\xff\xff\xff\xff\0\0\0\0", Fault::Truncated),
        (b"\x43\x43", Fault::TrailingBytes(1)),
        (b"\x46", Fault::UnknownConstructor(0x46)),
        (b"\xff", Fault::UnknownConstructor(0xff)),
        (b"\x56\x02", Fault::NotABoolean(2)),
        (b"\x73\0\0\xd8\0", Fault::NotAChar(0xd800)),
        (b"\xa1\x01\xff", Fault::NotUtf8),
        (b"\xa3\x01\xff", Fault::NotAscii),
        (b"\xc1\x02\x01\x43", Fault::OddMap(1)),
        (b"\xc0\x03\x01\x43\x43", Fault::SizeMismatch),
        (b"\xc0\x02\x02\x43", Fault::Truncated),
        (b"\xe0\x03\x02\x50\x07", Fault::Truncated),
        (b"\xe0\x06\x01\0\x43\0\x43\x43", Fault::DescribedDescriptor),
        (b"\0\x53\x01", Fault::Truncated),
    ];

    for (bytes, fault) in cases {
        assert_eq!(value_fault(bytes), fault, "{bytes:?}");
    }
}

#[test]
fn nesting_beyond_the_limit_is_refused_in_all_compounds_and_at_the_limit_taken() {
    fn nested(depth: usize, layer: fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
        (0..depth).fold(vec![0x43], |inner, _| layer(inner))
    }
    fn wide(code: u8, count: u32, inner: &[u8]) -> Vec<u8> {
        let size = u32::try_from(inner.len() + 4).unwrap();
        [&[code], &size.to_be_bytes()[..], &count.to_be_bytes(), inner].concat()
    }
    let layers: [fn(Vec<u8>) -> Vec<u8>; 3] = [
        |inner| wide(0xd0, 1, &inner),
        |inner| wide(0xd1, 2, &[&[0x43], &inner[..]].concat()),
        |inner| [&[0, 0x43], &inner[..]].concat(),
    ];

    for layer in layers {
        assert!(decode_value(&nested(32, layer).into(), Limits::default()).is_ok());
        assert_eq!(value_fault(&nested(33, layer)), Fault::TooDeep(32));
    }
    let arrays = (0..40).fold(wide(0xf0, 0, b"\x40"), |inner, _| {
        wide(0xf0, 1, &[&[0xf0], &inner[1..]].concat())
    });
    assert_eq!(value_fault(&arrays), Fault::TooDeep(32));
    let bomb: Vec<u8> = [0u8, 0x43].repeat(30_000);
    assert_eq!(value_fault(&bomb), Fault::TooDeep(32), "descriptors of descriptors");
}

#[test]
fn counts_beyond_the_limit_are_refused_before_anything_is_made() {
    assert_eq!(
        value_fault(b"\xf0\0\0\0\x05\xff\xff\xff\xff\x40"),
        Fault::TooManyValues(16_384),
        "nulls have no bytes"
    );
    assert_eq!(
        value_fault(b"\xf0\0\0\0\x05\xff\xff\xff\xff\x45"),
        Fault::TooManyValues(16_384)
    );
    assert_eq!(
        value_fault(b"\xd0\0\0\0\x04\xff\xff\xff\xff"),
        Fault::TooManyValues(16_384)
    );
    let many = [b"\xd0\0\0\x4e\x24\0\0\x4e\x20", &[0x43; 20_000][..]].concat();
    assert_eq!(value_fault(&many), Fault::TooManyValues(16_384));
}

#[test]
fn frames_are_refused_by_their_header() {
    assert_eq!(frame_error(b"\0\0\0\x07"), FrameError::TooSmall(7));
    assert_eq!(
        frame_error(b"\0\0\x02\x01"),
        FrameError::TooLarge { bytes: 513, limit: 512 }
    );
    assert_eq!(
        frame_error(b"GET / HT"),
        FrameError::TooLarge {
            bytes: 0x4745_5420,
            limit: 512
        }
    );
    assert_eq!(
        frame_error(b"\0\0\0\x08\x01\0\0\0"),
        FrameError::DataOffset { size: 8, offset: 1 }
    );
    assert_eq!(
        frame_error(b"\0\0\0\x08\x03\0\0\0"),
        FrameError::DataOffset { size: 8, offset: 3 }
    );
    assert_eq!(frame_error(b"\0\0\0\x08\x02\x02\0\0"), FrameError::Type(2));
}

#[test]
fn bodies_of_frames_are_refused_by_the_name_of_the_field() {
    let cases: [(&'static [u8], &str); 11] = [
        (
            b"\x45",
            "the `performative` of `frame` is of type list; send a described list",
        ),
        (
            b"\0\x53\x19\x45",
            "the `performative` of `frame` has a descriptor that does not belong here",
        ),
        (
            b"\0\xa3\x01x\x45",
            "the `performative` of `frame` has a descriptor that does not belong here",
        ),
        (
            b"\0\x53\x10\x45",
            "the `container-id` of `open` is missing; it is mandatory",
        ),
        (
            b"\0\x53\x10\xc0\x02\x01\x43",
            "the `container-id` of `open` is of type uint; send string",
        ),
        (
            b"\0\x53\x18\x45\x43",
            "the `list of fields` of `close` has 1 bytes after its end; make sizes and counts agree",
        ),
        (
            b"\0\x53\x18\xc0\x03\x02\x40\x40",
            "the `list of fields` of `close` is one of 2 fields; send at most 1",
        ),
        (
            b"\0\x53\x18\xc0\x05\x01\0\x53\x1d\x45",
            "the `error` of `close` is wrong: the `condition` of `error` is missing; it is mandatory",
        ),
        (
            b"\0\x53\x12\xc0\x06\x04\xa1\0\x43\x42\x43",
            "the `snd-settle-mode` of `attach` is of type uint; send ubyte",
        ),
        (
            b"\0\x53\x12\xc0\x07\x04\xa1\0\x43\x42\x50\x03",
            "the `snd-settle-mode` of `attach` is 3; send 0 for unsettled, 1 for settled or 2 for mixed",
        ),
        (
            b"\0\x53\x14\xc0\x26\x03\x43\x43\xa0\x21012345678901234567890123456789012",
            "the `delivery-tag` of `transfer` has 33 bytes; send at most 32",
        ),
    ];

    for (bytes, expected) in cases {
        assert_eq!(performative_error(bytes), expected);
    }
}

#[test]
fn coordinator_of_transactions_is_refused_as_a_target() {
    let error = performative_error(b"\0\x53\x12\xc0\x0c\x07\xa1\0\x43\x42\x40\x40\x40\0\x53\x30\x45");

    assert_eq!(
        error,
        "the `target` of `attach` has a descriptor that does not belong here"
    );
}

#[test]
fn messages_are_refused_by_the_name_of_the_section() {
    let cases: [(&'static [u8], &str); 7] = [
        (
            b"x",
            "the `section` of `message` begins with 0x78, which is no constructor of AMQP 1.0",
        ),
        (
            b"\0\x53\x10\x45",
            "the `section` of `message` has a descriptor that does not belong here",
        ),
        (
            b"\0\x53\x75\xa1\x01x",
            "the `body` of `message` is of type string; send binary",
        ),
        (
            b"\0\x53\x77\x43\0\x53\x75\xa0\0",
            "the `body` of `message` comes a second time, or beside another kind of body; send one",
        ),
        (
            b"\0\x53\x70\x45\0\x53\x70\x45",
            "the `header` of `message` comes a second time, or beside another kind of body; send one",
        ),
        (
            b"\0\x53\x74\xc1\x03\x02\x43\x43",
            "the `application-properties` of `message` is of type uint; send string",
        ),
        (
            b"\0\x53\x73\xc0\x02\x01\x43",
            "the `message-id` of `properties` is of type uint; send ulong, uuid, binary or string",
        ),
    ];

    for (bytes, expected) in cases {
        let error = Message::decode(&Bytes::from_static(bytes), Limits::default()).expect_err("malformed");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn announced_size_makes_nothing_grow_before_the_bytes_are_there() {
    let mut input = BytesMut::with_capacity(16);
    input.extend_from_slice(b"\x7f\xff\xff\xff\x02\0\0\0");
    let capacity = input.capacity();

    assert_eq!(decode_frame(&mut input, u32::MAX, Limits::default()), Ok(None));
    assert_eq!(input.capacity(), capacity);
}

#[test]
fn wrong_types_are_named() {
    let error = DecodeError {
        of: "open",
        field: "hostname",
        fault: Fault::WrongType {
            expected: "string",
            found: Kind::Uuid,
        },
    };

    assert_eq!(
        error.to_string(),
        "the `hostname` of `open` is of type uuid; send string"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_give_values_or_a_verdict(bytes in vec(any::<u8>(), 0..300)) {
        check_value(&bytes);
        check_message(&bytes);
        check_frames(&bytes, 512);
    }

    #[test]
    fn mutated_values_give_values_or_a_verdict(
        value in value(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::new();
        encode_value(&value, &mut bytes);

        check_value(&mutated(&bytes, &mutations));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn mutated_frames_give_frames_or_need_more_or_a_verdict(
        frames in vec(frame(), 1..3),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|frame| encode_frame(frame, &mut bytes));

        check_frames(&mutated(&bytes, &mutations), 10_000);
    }

    #[test]
    fn mutated_messages_give_messages_or_a_verdict(
        message in message(),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let bytes = message.to_bytes();
        if !bytes.is_empty() {
            check_message(&mutated(&bytes, &mutations));
        }
    }
}

fn mutated(bytes: &[u8], mutations: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (index, value) in mutations {
        let index = index.index(bytes.len());
        bytes[index] = *value;
    }
    bytes
}
