//! Text as MQTT carries it: a slice of the packet that it came in, known to be valid.
//!
//! ```text
//!   | length, 2 bytes, big endian | that many bytes of UTF-8 without U+0000 |     MQTT 3.1.1, 1.5.3
//! ```
//!
//! A [`Text`] holds at most 65,535 bytes of UTF-8 and no U+0000, because it exists. It shares the buffer that it was cut
//! from, so a text that is kept for long keeps that buffer alive; copy it with [`Text::to_owned_text`] in that case.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// UTF-8 without U+0000, at most [`Text::MAX_BYTES`] long; cheap to clone.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(Bytes);

/// Why bytes are not a [`Text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidText {
    /// More bytes than a two-byte length can say.
    #[error("the text has {0} bytes; MQTT carries at most 65535")]
    TooLong(usize),
    /// Not UTF-8.
    #[error("the text is not UTF-8 after its first {0} bytes; send UTF-8")]
    NotUtf8(usize),
    /// Holds U+0000 (MQTT-1.5.3-2).
    #[error("the text holds the character U+0000; leave it out")]
    NullCharacter,
}

impl Text {
    /// The most bytes that a two-byte length can announce. Source: MQTT 3.1.1, 1.5.3.
    pub const MAX_BYTES: usize = 65_535;

    /// The text as a string slice. It checks the encoding again (this crate has no `unsafe`), so keep the answer rather
    /// than asking repeatedly on a hot path; [`Text::as_bytes`] is free.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a text was checked when it was made")
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text as a part of the buffer that it was cut from.
    #[must_use]
    pub const fn buffer(&self) -> &Bytes {
        &self.0
    }

    /// The length in bytes, 0 to 65,535.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy in a buffer of its own, for a text that outlives the packet it came in.
    #[must_use]
    pub fn to_owned_text(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = InvalidText;

    fn try_from(bytes: Bytes) -> Result<Self, InvalidText> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(InvalidText::TooLong(bytes.len()));
        }
        if let Err(error) = std::str::from_utf8(&bytes) {
            return Err(InvalidText::NotUtf8(error.valid_up_to()));
        }
        // Without an early end, so that the compiler compares many bytes at a time.
        if bytes.iter().fold(false, |found, byte| found | (*byte == 0)) {
            return Err(InvalidText::NullCharacter);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Text {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::try_from(Bytes::from(text))
    }
}

impl TryFrom<&str> for Text {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, InvalidText> {
        Self::try_from(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
