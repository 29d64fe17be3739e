//! SAS tokens, made as the published text says and in the shapes that the SDKs make. Source: `hub-device-protocols.md` §1.2.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A token, field by field. [`Token::text`] is in the shape of the Python SDK; other shapes are put together from the fields.
#[derive(Clone, Debug)]
pub struct Token {
    /// The resource exactly as it stands in the token, which is also what is signed.
    pub resource: String,
    /// End of validity, in seconds since 1970.
    pub expiry: i64,
    /// The signature, base64, not percent-encoded.
    pub signature: String,
    /// The policy, when it is not a key of the identity.
    pub policy: Option<String>,
}

impl Token {
    /// Signs for a resource given as it shall stand in the token; valid for `seconds` from now (negative: it ended then).
    ///
    /// # Panics
    /// When the key is not base64.
    #[must_use]
    pub fn sign(key: &str, resource: &str, seconds: i64) -> Self {
        Self::sign_until(key, resource, now() + seconds)
    }

    /// Signs for a resource until a point in time, in seconds since 1970.
    ///
    /// # Panics
    /// When the key is not base64.
    #[must_use]
    pub fn sign_until(key: &str, resource: &str, expiry: i64) -> Self {
        let key = STANDARD
            .decode(key)
            .unwrap_or_else(|error| panic!("the key `{key}` is not base64: {error}"));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let tag = ring::hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
        Self {
            resource: resource.to_owned(),
            expiry,
            signature: STANDARD.encode(tag),
            policy: None,
        }
    }

    /// Names the policy whose key signed.
    #[must_use]
    pub fn of_policy(mut self, policy: &str) -> Self {
        self.policy = Some(policy.to_owned());
        self
    }

    /// The token as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "SharedAccessSignature sr={}&sig={}&se={}",
            self.resource,
            encode(&self.signature),
            self.expiry
        );
        if let Some(policy) = &self.policy {
            text += &format!("&skn={policy}");
        }
        text
    }
}

/// Percent-encodes all but unreserved characters, upper-case hex.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            write!(out, "%{byte:02X}").expect("a text takes more text");
        }
        out
    })
}

/// The value of a key in a connection string.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn part<'a>(connection_string: &'a str, key: &str) -> &'a str {
    connection_string
        .split(';')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
        .unwrap_or_else(|| panic!("`{key}` is not in the connection string"))
}

/// The key with its first character changed: a key of the right form that is not the right one.
#[must_use]
pub fn spoiled(key: &str) -> String {
    let first = if key.starts_with('A') { "B" } else { "A" };
    key.chars().skip(1).fold(first.to_owned(), |mut key, next| {
        key.push(next);
        key
    })
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is past 1970");
    since.as_secs().try_into().expect("seconds since 1970 fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_equal_the_published_vectors() {
        let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

        let encoded = Token::sign_until(key, "hub.test%2Fdevices%2Fdev1", 1_800_000_000);
        let raw = Token::sign_until(key, "hub.test/devices/dev1", 1_800_000_000);

        assert_eq!(encoded.signature, "+iU2uQm/vPNxOu/8K0Et/5+p3UpY6H3fFIQGUKN/MKA=");
        assert_eq!(raw.signature, "yquI4TCdncuZXUSUHvLlYGcJ/buTYKhtPXmK55w0Mp0=");
    }
}
