//! What decoding promises for any bytes.

use bytes::{Bytes, BytesMut};

use crate::codec::{self, Frame, FrameError, Limits, decode_frame, encode_frame};
use crate::message::{Message, messages_of_batch};

/// Checks frames: whole and byte by byte give the same frames and the same verdict, and each has a form on the wire that
/// decodes to itself.
///
/// # Panics
/// When a promise is broken.
pub fn check_frames(data: &[u8], max_frame_size: u32) {
    let whole = decode_all(&[data], max_frame_size);
    let single: Vec<&[u8]> = data.chunks(1).collect();
    let pieces = decode_all(&single, max_frame_size);

    assert_eq!(whole, pieces, "pieces change nothing");
    for frame in &whole.0 {
        let mut bytes = BytesMut::new();
        encode_frame(frame, &mut bytes);
        let again = decode_frame(&mut bytes, u32::MAX, generous());
        assert_eq!(again.as_ref(), Ok(&Some(frame.clone())), "encoding keeps the value");
        assert!(bytes.is_empty(), "encoding adds nothing");
    }
}

/// Decodes pieces that arrive one after the other: the frames, and what ended it.
fn decode_all(pieces: &[&[u8]], max_frame_size: u32) -> (Vec<Frame>, Option<FrameError>) {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decode_frame(&mut input, max_frame_size, Limits::default()) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Checks that a value is refused, or is encoded to itself.
///
/// # Panics
/// When a promise is broken.
pub fn check_value(data: &[u8]) {
    let Ok(value) = codec::decode_value(&Bytes::copy_from_slice(data), Limits::default()) else {
        return;
    };
    let mut bytes = BytesMut::new();
    codec::encode_value(&value, &mut bytes);
    assert_eq!(codec::decode_value(&bytes.freeze(), generous()), Ok(value));
}

/// Checks that a message, and each message of it as a batch, is refused, or is encoded to itself.
///
/// # Panics
/// When a promise is broken.
pub fn check_message(data: &[u8]) {
    let Ok(message) = Message::decode(&Bytes::copy_from_slice(data), Limits::default()) else {
        return;
    };
    keeps_itself(&message);
    if let Ok(messages) = messages_of_batch(&message, Limits::default()) {
        messages.flatten().for_each(|message| keeps_itself(&message));
    }
}

fn keeps_itself(message: &Message) {
    assert_eq!(Message::decode(&message.to_bytes(), generous()).as_ref(), Ok(message));
}

/// The limits of what was decoded already: structures are written with all their fields, which count as values.
fn generous() -> Limits {
    Limits {
        values: usize::MAX,
        ..Limits::default()
    }
}
