//! A module's output, in the multiplex framing of the Docker engine whatever kind of runtime keeps it.
//!
//! ```text
//! +--------+-------+----------------+---------------------+
//! | stream | 0 0 0 | length, 32 bit | length bytes        |   stream: 1 = standard output, 2 = standard error
//! +--------+-------+   big-endian   +---------------------+
//! ```
//!
//! Source: `edge-agent.md` §2.6 and §3.3. The management API hands the bytes on as they are.

use std::io;
use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use holm_model::Timestamp;
use serde::{Deserialize, Serialize};

/// The framed bytes; a chunk may hold part of a frame or many. Dropping it ends the reading.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How much of the past is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Everything that is kept.
    #[default]
    All,
    /// At most this many lines, the newest.
    Lines(u64),
}

/// Which part of a module's output is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogsOptions {
    /// Go on with what is written later, until the module ends.
    pub follow: bool,
    /// How much of the past.
    pub tail: Tail,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
    /// Begin each line with its point in time (RFC 3339 with nanoseconds) and a space.
    pub timestamps: bool,
}

/// How much of a module's output is kept, unless its create options say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file is closed before it grows beyond this, in bytes.
    pub max_bytes: u64,
    /// Files kept, the one written to included.
    pub files: u32,
}

impl Default for LogLimits {
    /// 30 MiB a module: fifty of them fit on a small device.
    fn default() -> Self {
        Self {
            max_bytes: 10 * 1024 * 1024,
            files: 3,
        }
    }
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Output {
    const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// Appends one frame; a payload longer than a frame can say (4 GiB) becomes several.
pub fn put_frame(output: Output, payload: &[u8], out: &mut BytesMut) {
    let longest = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    for piece in payload.chunks(longest) {
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        out.reserve(8 + piece.len());
        out.put_slice(&[output.number(), 0, 0, 0]);
        out.put_u32(length);
        out.put_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_has_stream_and_big_endian_length() {
        let mut out = BytesMut::new();

        put_frame(Output::Stderr, &[b'x'; 258], &mut out);

        assert_eq!(&out[..8], &[2, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(out.len(), 8 + 258);
    }

    #[test]
    fn nothing_to_say_makes_no_frame() {
        let mut out = BytesMut::new();

        put_frame(Output::Stdout, b"", &mut out);

        assert!(out.is_empty());
    }
}
