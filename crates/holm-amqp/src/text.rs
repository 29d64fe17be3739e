//! Text as AMQP carries it: a slice of the frame that it came in, known to be valid.
//!
//! ```text
//!   string  0xa1 | length, 1 byte  | UTF-8        0xb1 | length, 4 bytes | UTF-8         AMQP 1.0, part 1, 1.6.20
//!   symbol  0xa3 | length, 1 byte  | ASCII        0xb3 | length, 4 bytes | ASCII                           1.6.21
//! ```
//!
//! A [`Text`] is UTF-8 and a [`Symbol`] is ASCII because it exists. Both share the buffer that they were cut from, so one
//! that is kept for long keeps that buffer alive; copy it with `to_owned_buffer` in that case.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

/// Why bytes are no text or symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidText {
    /// Not UTF-8.
    #[error("the text is not UTF-8 after its first {0} bytes; send UTF-8")]
    NotUtf8(usize),
    /// Not ASCII.
    #[error("the symbol is not ASCII; send a string, or ASCII")]
    NotAscii,
}

/// Both kinds of text have the same methods and differ in what they check.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Bytes);

        impl $name {
            /// The text as a string slice. It checks the encoding again (this crate has no `unsafe`), so keep the answer
            /// rather than asking repeatedly on a hot path; `as_bytes` is free.
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

            /// The length in bytes.
            #[must_use]
            pub const fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether the text has no bytes.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// A copy in a buffer of its own, for a text that outlives the frame it came in.
            #[must_use]
            pub fn to_owned_buffer(&self) -> Self {
                Self(Bytes::copy_from_slice(&self.0))
            }
        }

        impl TryFrom<Bytes> for $name {
            type Error = InvalidText;

            fn try_from(bytes: Bytes) -> Result<Self, InvalidText> {
                let check: fn(&[u8]) -> Result<(), InvalidText> = $check;
                check(&bytes)?;
                Ok(Self(bytes))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

text_type!(
    /// A string: UTF-8; cheap to clone.
    Text,
    |bytes| match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(InvalidText::NotUtf8(error.valid_up_to())),
    }
);

text_type!(
    /// A symbol: ASCII, a name from a known set; cheap to clone.
    Symbol,
    |bytes| if bytes.is_ascii() {
        Ok(())
    } else {
        Err(InvalidText::NotAscii)
    }
);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Symbol> for Text {
    fn from(symbol: Symbol) -> Self {
        Self(symbol.0)
    }
}

impl Text {
    /// A text that lives as long as the program.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl Symbol {
    /// A symbol that lives as long as the program.
    ///
    /// # Panics
    /// When the text is not ASCII.
    #[must_use]
    pub const fn from_static(symbol: &'static str) -> Self {
        assert!(symbol.is_ascii(), "a symbol is ASCII");
        Self(Bytes::from_static(symbol.as_bytes()))
    }
}

impl TryFrom<&str> for Symbol {
    type Error = InvalidText;

    fn try_from(text: &str) -> Result<Self, InvalidText> {
        Self::try_from(Bytes::copy_from_slice(text.as_bytes()))
    }
}
