//! Random operations on a joined pair, and any bytes at one end; the promises are checked by the test language.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::frame;
use crate::codec::{FrameBody, ProtocolHeader, encode_frame};
use crate::testing::{check_client, check_operations, check_server, raw_frame};

/// The first bytes of a client without SASL: header, open, begin.
fn opening() -> BytesMut {
    let mut bytes = BytesMut::from(&ProtocolHeader::Amqp.bytes()[..]);
    bytes.extend_from_slice(&raw_frame(0, 0x10, &[b"\xa1\x01c"]));
    bytes.extend_from_slice(&raw_frame(0, 0x11, &[b"\x40", b"\x43", b"\x52\x0a", b"\x52\x0a"]));
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn honest_peers_keep_every_promise_under_random_operations(data in vec(any::<u8>(), 0..800)) {
        // Connected first, with a session and two links, so that most operations find something to do.
        let step = [26, 0];
        let links = [0, 0, 2, 0, 2, 1];
        let open = [&step.repeat(12)[..], &links, &step.repeat(4), &[5, 0, 5, 0], &step.repeat(4)].concat();
        check_operations(&[&open[..], &data].concat());
    }

    #[test]
    fn any_frames_leave_a_connection_within_its_bounds(frames in vec(frame(), 0..40), client in any::<bool>()) {
        let mut bytes = opening();
        for mut frame in frames {
            if matches!(frame.body, FrameBody::Sasl(_)) {
                continue;
            }
            frame.channel %= 2;
            encode_frame(&frame, &mut bytes);
        }
        if client {
            check_client(&[&[1], &bytes[..]].concat());
        } else {
            check_server(&bytes);
        }
    }

    #[test]
    fn any_bytes_leave_a_connection_within_its_bounds(bytes in vec(any::<u8>(), 0..600)) {
        check_server(&bytes);
        check_client(&bytes);
    }
}
