//! Frames and protocol headers. AMQP 1.0, part 2, 2.2 and 2.3; part 5, 5.3.1.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::{DecodeError, Limits, write};
use crate::performative::{Performative, SaslFrame};

/// The smallest limit on frames that a peer may announce. AMQP 1.0, part 2, 2.8.20.
pub const MIN_MAX_FRAME_SIZE: u32 = 512;

/// The bytes of a frame before its body, as they are written here.
const HEADER: u32 = 8;

/// What a connection says before its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolHeader {
    /// AMQP follows.
    Amqp,
    /// TLS would follow within the connection; never offered here.
    Tls,
    /// SASL follows.
    Sasl,
}

impl ProtocolHeader {
    /// How many bytes a header has.
    pub const BYTES: usize = 8;

    /// The bytes on the wire: version 1.0.0.
    #[must_use]
    pub const fn bytes(self) -> [u8; Self::BYTES] {
        let id = match self {
            Self::Amqp => 0,
            Self::Tls => 2,
            Self::Sasl => 3,
        };
        [b'A', b'M', b'Q', b'P', id, 1, 0, 0]
    }

    /// Which header these bytes are; none for another protocol or version.
    #[must_use]
    pub fn of(bytes: [u8; Self::BYTES]) -> Option<Self> {
        [Self::Amqp, Self::Tls, Self::Sasl]
            .into_iter()
            .find(|header| header.bytes() == bytes)
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The channel; 0 for SASL, and without a meaning for open, close and empty frames.
    pub channel: u16,
    /// What it says.
    pub body: FrameBody,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameBody {
    /// Nothing: the sender is there.
    Empty,
    /// A performative with the bytes after it, which only a transfer has.
    Amqp(Performative, Bytes),
    /// A step of SASL.
    Sasl(SaslFrame),
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A size below that of the header.
    #[error("the frame has a size of {0}; the least is 8")]
    TooSmall(u32),
    /// A size beyond the limit.
    #[error("the frame has {bytes} bytes; at most {limit} are accepted: split the delivery over several transfers")]
    TooLarge {
        /// Its size.
        bytes: u32,
        /// The size accepted.
        limit: u32,
    },
    /// A body that begins within the header or after the end.
    #[error("the frame of {size} bytes has the data offset {offset}; send 2")]
    DataOffset {
        /// The size of the frame.
        size: u32,
        /// The offset, in words of four bytes.
        offset: u8,
    },
    /// Neither AMQP nor SASL.
    #[error("the frame is of type {0}; send 0 for AMQP or 1 for SASL")]
    Type(u8),
    /// The body.
    #[error(transparent)]
    Body(DecodeError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Amqp,
    Sasl,
}

/// The first eight bytes of a frame, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) size: usize,
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    body_at: usize,
}

/// Reads the header of a frame, as soon as it is there; the rest may not be.
pub(crate) fn read_frame_header(input: &[u8], limit: u32) -> Result<Option<FrameHeader>, FrameError> {
    let Some(size) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let bytes = u32::from_be_bytes(*size);
    if bytes < HEADER {
        return Err(FrameError::TooSmall(bytes));
    }
    if bytes > limit {
        return Err(FrameError::TooLarge { bytes, limit });
    }
    let Some(&[.., offset, kind, channel_high, channel_low]) = input.first_chunk::<8>() else {
        return Ok(None);
    };
    let body_at = u32::from(offset) * 4;
    if offset < 2 || body_at > bytes {
        return Err(FrameError::DataOffset { size: bytes, offset });
    }
    let kind = match kind {
        0 => FrameKind::Amqp,
        1 => FrameKind::Sasl,
        kind => return Err(FrameError::Type(kind)),
    };
    let in_memory = |length: u32| usize::try_from(length).unwrap_or(usize::MAX);
    Ok(Some(FrameHeader {
        size: in_memory(bytes),
        kind,
        channel: u16::from_be_bytes([channel_high, channel_low]),
        body_at: in_memory(body_at),
    }))
}

impl FrameHeader {
    /// Takes the body of the frame out of the input, which holds the frame whole.
    pub(crate) fn take_body(self, input: &mut BytesMut) -> Bytes {
        if self.size == self.body_at {
            input.advance(self.size);
            return Bytes::new();
        }
        let mut frame = input.split_to(self.size).freeze();
        frame.advance(self.body_at);
        frame
    }
}

/// Takes the frame at the front of `input`, or gives `None` when it has not arrived whole. `max_frame_size` is the most bytes
/// of a frame with its header.
///
/// # Errors
/// A [`FrameError`]; `input` is then of no further use.
pub fn decode_frame(input: &mut BytesMut, max_frame_size: u32, limits: Limits) -> Result<Option<Frame>, FrameError> {
    let Some(header) = read_frame_header(input, max_frame_size)? else {
        return Ok(None);
    };
    if input.len() < header.size {
        return Ok(None);
    }
    let channel = header.channel;
    let bytes = header.take_body(input);
    let body = match header.kind {
        FrameKind::Amqp if bytes.is_empty() => FrameBody::Empty,
        FrameKind::Amqp => {
            let (performative, payload) = Performative::decode(&bytes, limits).map_err(FrameError::Body)?;
            FrameBody::Amqp(performative, payload)
        }
        FrameKind::Sasl => FrameBody::Sasl(SaslFrame::decode(&bytes, limits).map_err(FrameError::Body)?),
    };
    Ok(Some(Frame { channel, body }))
}

/// Appends a frame.
///
/// # Panics
/// When it has 4 GiB.
pub fn encode_frame(frame: &Frame, out: &mut BytesMut) {
    let kind = match frame.body {
        FrameBody::Empty | FrameBody::Amqp(..) => FrameKind::Amqp,
        FrameBody::Sasl(_) => FrameKind::Sasl,
    };
    let start = begin_frame(kind, frame.channel, out);
    match &frame.body {
        FrameBody::Empty => {}
        FrameBody::Amqp(performative, payload) => {
            performative.encode(out);
            out.put_slice(payload);
        }
        FrameBody::Sasl(sasl) => sasl.encode(out),
    }
    end_frame(start, out);
}

/// Appends a header whose size [`end_frame`] fills in; gives where it begins.
pub(crate) fn begin_frame(kind: FrameKind, channel: u16, out: &mut BytesMut) -> usize {
    let start = out.len();
    let [high, low] = channel.to_be_bytes();
    let kind = match kind {
        FrameKind::Amqp => 0,
        FrameKind::Sasl => 1,
    };
    out.put_slice(&[0, 0, 0, 0, 2, kind, high, low]);
    start
}

/// Fills in the size of the frame that began at `start`.
pub(crate) fn end_frame(start: usize, out: &mut BytesMut) {
    let size = write::length(out.len() - start);
    write::put_at(out, start, &size.to_be_bytes());
}
