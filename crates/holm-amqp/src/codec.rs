//! Bytes to frames, performatives, messages and values, and back.
//!
//! ```text
//!   | size, 4 bytes | data offset | type | channel, 2 bytes | extended header … | performative | payload |       a frame
//!   | 'A' 'M' 'Q' 'P' | 0 AMQP, 2 TLS, 3 SASL | 1 | 0 | 0 |                               before the first frame of each
//! ```
//!
//! Invariants: a frame is refused by its size before the rest of it is here; nothing is allocated in proportion to a length
//! or count before as many bytes are there; the depth and the number of values of a frame or message are limited; whatever is
//! written is read back as the same value.

pub(crate) mod code;
mod fault;
pub(crate) mod fields;
mod frame;
pub(crate) mod read;
pub(crate) mod write;

use bytes::{Bytes, BytesMut};

pub use fault::{DecodeError, Fault};
pub use frame::{Frame, FrameBody, FrameError, MIN_MAX_FRAME_SIZE, ProtocolHeader, decode_frame, encode_frame};
pub(crate) use frame::{FrameKind, begin_frame, end_frame, read_frame_header};

use crate::value::Value;

/// What one frame or message may hold, whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How deep lists, maps, arrays and described values may stand in each other. Default 32 (`libraries.md`, AMQP fact
    /// 10): the messages of clients have four levels at most.
    pub depth: usize,
    /// How many values all compounds may have together. Default 16,384, of about 40 bytes each: a value of one byte on the
    /// wire costs that much in memory.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 32,
            values: 16_384,
        }
    }
}

/// Reads one value, which must be all there is.
///
/// # Errors
/// A [`DecodeError`] of the field `value`.
pub fn decode_value(bytes: &Bytes, limits: Limits) -> Result<Value, DecodeError> {
    let error = |fault| DecodeError::new("bytes", "value", fault);
    let mut reader = read::Reader::new(bytes, limits);
    let value = reader.value().map_err(error)?;
    match reader.left() {
        0 => Ok(value),
        left => Err(error(Fault::TrailingBytes(left))),
    }
}

/// Appends a value.
///
/// # Panics
/// When a part of it has 4 GiB.
pub fn encode_value(value: &Value, out: &mut BytesMut) {
    write::value(value, out);
}
