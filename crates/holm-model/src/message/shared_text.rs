//! Text that a message carries: a slice of the buffer that it was read from, or of one that several messages share.
//!
//! What the platform stamps on a message is the same for many, and what a node reads from disk it mostly passes on as it is:
//! neither needs a copy for each message. A text that is kept for long keeps its buffer alive.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// UTF-8; cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SharedText(Bytes);

impl SharedText {
    /// A text of the program.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Checks that the bytes are UTF-8.
    ///
    /// # Errors
    /// They are not.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, std::str::Utf8Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }

    /// A text that is a part of a buffer, without a copy.
    ///
    /// # Panics
    /// When it is no part of it.
    #[must_use]
    pub fn part_of(buffer: &Bytes, text: &str) -> Self {
        Self(buffer.slice_ref(text.as_bytes()))
    }

    /// The text as a string slice. It checks the encoding again (this crate has no `unsafe`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a text was checked when it was made")
    }

    /// The bytes of the text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for SharedText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for SharedText {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&String> for SharedText {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<Cow<'_, str>> for SharedText {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl fmt::Debug for SharedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_text_are_refused_and_others_are_shared() {
        let bytes = Bytes::from_static("größer".as_bytes());

        let text = SharedText::from_utf8(bytes.clone()).unwrap();

        assert!(SharedText::from_utf8(Bytes::from_static(b"\xff")).is_err());
        assert_eq!((text.as_str(), text.as_bytes().as_ptr()), ("größer", bytes.as_ptr()));
    }
}
