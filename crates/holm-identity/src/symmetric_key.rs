//! Shared keys of devices, modules and policies, and the keys that are derived from them.
//!
//! ```text
//! enrollment group:  device key = HMAC-SHA256(group key, registration id)
//! edge module:       module key = HMAC-SHA256(master key, "<module>:<generation>:primary" | "…:secondary")
//! ```
//!
//! A derived key is made again when it is needed and never stored: only the master is worth stealing, and it stays in the key
//! store. Source: `hub-device-protocols.md` §1.2, §5.5; `edge-agent.md` §6.1.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_model::ModuleId;
use ring::hmac;
use ring::rand::SecureRandom;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The fewest and the most bytes of a shared key.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// The bytes of a key that we make: as many as HMAC-SHA256 gives out, more would add nothing.
pub const GENERATED_KEY_BYTES: usize = 32;
/// The bytes of an HMAC-SHA256.
pub const TAG_BYTES: usize = 32;

/// Why something is not a shared key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is not base64.
    #[error("the shared key is not base64; copy it whole, with the `=` at its end")]
    Base64,
    /// The key is too short or too long.
    #[error("the shared key has {0} bytes; give base64 of {least} to {most} bytes", least = KEY_BYTES.start(), most = KEY_BYTES.end())]
    Length(usize),
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes; check that `getrandom` is allowed")]
pub struct RandomUnavailable;

/// Which of the two keys that each identity has, so that one can be changed while the other is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySlot {
    /// The key in use.
    Primary,
    /// The key to change to.
    Secondary,
}

impl KeySlot {
    /// `primary` or `secondary`, as the published interfaces spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// A shared key of 16 to 64 bytes. It does not print, compares in constant time, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

impl SymmetricKey {
    /// A key from its bytes.
    ///
    /// # Errors
    /// [`InvalidKey::Length`] outside [`KEY_BYTES`].
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidKey> {
        let bytes = Zeroizing::new(bytes.into());
        if !KEY_BYTES.contains(&bytes.len()) {
            return Err(InvalidKey::Length(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// A key from the base64 in which the published interfaces write it.
    ///
    /// # Errors
    /// [`InvalidKey`] when the text is not base64 of a key.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        Self::from_bytes(STANDARD.decode(text).map_err(|_| InvalidKey::Base64)?)
    }

    /// A new random key of [`GENERATED_KEY_BYTES`]; pass `ring::rand::SystemRandom::new()`.
    ///
    /// # Errors
    /// [`RandomUnavailable`] when the random source fails.
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, RandomUnavailable> {
        let mut bytes = Zeroizing::new(vec![0; GENERATED_KEY_BYTES]);
        random.fill(&mut bytes).map_err(|_| RandomUnavailable)?;
        Ok(Self(bytes))
    }

    /// The key as base64.
    #[must_use]
    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(self.expose_bytes()))
    }

    /// The bytes of the key.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// HMAC-SHA256 of `data` under this key.
    #[must_use]
    pub fn hmac_sha256(&self, data: &[u8]) -> [u8; TAG_BYTES] {
        let tag = hmac::sign(&self.hmac_key(), data);
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.as_ref());
        bytes
    }

    /// Whether `tag` is the HMAC-SHA256 of `data` under this key; takes the same time whichever byte differs.
    #[must_use]
    pub fn verify_hmac_sha256(&self, data: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.hmac_key(), data, tag).is_ok()
    }

    /// As [`SymmetricKey::verify_hmac_sha256`], of somebody who takes the key's base64 as it stands for the key.
    #[must_use]
    pub fn verify_hmac_sha256_by_text(&self, data: &[u8], tag: &[u8]) -> bool {
        let text = self.to_base64();
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.expose().as_bytes());
        hmac::verify(&key, data, tag).is_ok()
    }

    /// The key of 32 bytes that this key and `label` determine.
    #[must_use]
    pub fn derive(&self, label: &[u8]) -> Self {
        Self(Zeroizing::new(self.hmac_sha256(label).to_vec()))
    }

    /// The key of a device of an enrollment group whose key this is. The registration id is taken exactly as given.
    #[must_use]
    pub fn derive_for_registration(&self, registration_id: &str) -> Self {
        self.derive(registration_id.as_bytes())
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.expose_bytes())
    }
}

/// The label from which an edge derives a module's key: `<module>:<generation>:primary`.
#[must_use]
pub fn module_key_label(module: &ModuleId, generation: &str, slot: KeySlot) -> String {
    format!("{module}:{generation}:{}", slot.as_str())
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose_bytes().ct_eq(other.expose_bytes()).into()
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn a_key_of_16_to_64_bytes_reads_back_and_others_are_refused() {
        for length in [16, 32, 64] {
            let text = STANDARD.encode(vec![7; length]);
            assert_eq!(SymmetricKey::from_base64(&text).unwrap().to_base64().expose(), text);
        }
        for length in [0, 15, 65] {
            let refused = SymmetricKey::from_base64(&STANDARD.encode(vec![7; length])).unwrap_err();
            assert_eq!(refused, InvalidKey::Length(length));
        }
        assert_eq!(
            SymmetricKey::from_base64("not base64!").unwrap_err(),
            InvalidKey::Base64
        );
    }

    #[test]
    fn generated_keys_differ_and_have_32_bytes() {
        let random = ring::rand::SystemRandom::new();

        let (one, other) = (
            SymmetricKey::generate(&random).unwrap(),
            SymmetricKey::generate(&random).unwrap(),
        );

        assert_eq!(one.expose_bytes().len(), 32);
        assert_ne!(one, other);
    }

    /// The example that the documentation of group enrollments has published for years.
    #[test]
    fn a_group_key_derives_the_published_device_key() {
        let group = SymmetricKey::from_base64(
            "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==",
        )
        .unwrap();

        let device = group.derive_for_registration("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6");

        assert_eq!(
            device.to_base64().expose(),
            "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="
        );
    }

    #[test]
    fn module_keys_depend_on_module_generation_and_slot() {
        let (a, b) = (ModuleId::new("a").unwrap(), ModuleId::new("b").unwrap());
        let labels = [
            module_key_label(&a, "1", KeySlot::Primary),
            module_key_label(&a, "1", KeySlot::Secondary),
            module_key_label(&a, "2", KeySlot::Primary),
            module_key_label(&b, "1", KeySlot::Primary),
        ];
        let master = SymmetricKey::from_base64(KEY).unwrap();

        let keys: std::collections::HashSet<_> = labels
            .iter()
            .map(|label| master.derive(label.as_bytes()).to_base64().expose().to_owned())
            .collect();

        assert_eq!(keys.len(), labels.len());
        assert_eq!(labels[0], "a:1:primary");
    }

    #[test]
    fn a_key_does_not_print() {
        let shown = format!("{:?}", SymmetricKey::from_base64(KEY).unwrap());

        assert_eq!(shown, "SymmetricKey(..)");
    }
}
