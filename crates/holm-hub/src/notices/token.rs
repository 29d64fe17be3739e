//! The name of a lease on a notice: sixteen random bytes, shown as a UUID.
//!
//! Random, so that one from before a restart of the hub, or of another reader, never names a lease by chance. Sixteen bytes,
//! since AMQP clients make a GUID of a delivery's tag (`hub-service-api.md` §5.3).

use std::fmt;
use std::str::FromStr;

use holm_model::ServiceError;

/// Names a lease.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockToken([u8; 16]);

impl LockToken {
    /// A new name.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub(super) fn random() -> Result<Self, ServiceError> {
        let mut bytes: [u8; 16] = crate::random::bytes()?;
        // Version 4, variant of RFC 9562.
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Ok(Self(bytes))
    }

    /// The bytes, as a delivery's tag has them.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The lease of a delivery's tag.
    #[must_use]
    pub const fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockToken({self})")
    }
}

/// A text that names no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no lock token; give what the header `ETag` said")]
pub struct NoToken;

impl FromStr for LockToken {
    type Err = NoToken;

    /// Reads a token in any case, with or without the quotes of an `ETag`.
    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut bytes = [0; 16];
        let mut digits = text.trim_matches('"').chars().filter(|sign| *sign != '-');
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|sign| sign.to_digit(16)).ok_or(NoToken);
            let value = digit()? * 16 + digit()?;
            *byte = u8::try_from(value).map_err(|_| NoToken)?;
        }
        match digits.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(NoToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_shown_and_nothing_else_is() {
        let token = LockToken::random().unwrap();
        let shown = token.to_string();

        assert_eq!(shown.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        for text in [shown.clone(), shown.to_uppercase(), format!("\"{shown}\"")] {
            assert_eq!(text.parse(), Ok(token), "{text}");
        }
        let shorter = shown.chars().skip(1).collect();
        for text in [String::new(), shorter, format!("{shown}0"), shown.replace('4', "g")] {
            assert_eq!(text.parse::<LockToken>(), Err(NoToken), "{text}");
        }
    }
}
