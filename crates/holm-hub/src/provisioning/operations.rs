//! Names of operations. A device is given one when it begins to register, and asks for its state by it.
//!
//! ```text
//! 4.9f2c11d07be84a31.5b0a…      4 . sixteen random digits . HMAC(secret of this service, registration id . digits)
//! ```
//!
//! Nothing is kept for an operation: its name proves that it was begun for this registration id, and what it came to is what the
//! registration now is. So a device that registers thirty times at once is answered thirty times alike, and a restart in between
//! loses nothing.

use holm_identity::SymmetricKey;
use holm_model::{ProvisioningError, RegistrationId, hex};

use crate::random;

/// Makes and recognises names of operations.
#[derive(Clone, Debug)]
pub(super) struct Operations(SymmetricKey);

impl Operations {
    pub(super) const fn new(secret: SymmetricKey) -> Self {
        Self(secret)
    }

    /// A new name.
    pub(super) fn begin(&self, id: &RegistrationId) -> Result<String, ProvisioningError> {
        let random: [u8; 8] = random::bytes()?;
        let digits = hex::encode(&random);
        let tag = self.tag(id, &digits);
        Ok(format!("4.{digits}.{tag}"))
    }

    /// Whether a name was given for this registration id.
    pub(super) fn is_of(&self, id: &RegistrationId, operation: &str) -> bool {
        let Some((digits, tag)) = operation.strip_prefix("4.").and_then(|rest| rest.split_once('.')) else {
            return false;
        };
        // Who can guess a tag learns the state of a registration that he has proved to be his.
        digits.len() == 16 && self.tag(id, digits) == tag
    }

    fn tag(&self, id: &RegistrationId, digits: &str) -> String {
        let tag = self.0.hmac_sha256(format!("{}.{digits}", id.key()).as_bytes());
        hex::encode(tag.get(..16).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_the_registration_that_it_was_made_for_and_of_no_other() {
        let operations = Operations::new(SymmetricKey::from_bytes([7; 32]).unwrap());
        let id = |text| RegistrationId::new(text).unwrap();

        let name = operations.begin(&id("reg-1")).unwrap();

        assert!(operations.is_of(&id("REG-1"), &name));
        assert!(!operations.is_of(&id("reg-2"), &name));
        let other = name.replacen("4.", "4.0", 1);
        for wrong in ["", "4.", "4.a.b", other.as_str(), "4.0000000000000000."] {
            assert!(!operations.is_of(&id("reg-1"), wrong), "{wrong}");
        }
    }
}
