//! Attestation by a TPM: a device is given a key that only its TPM can open, and proves itself by a token that this key signed.
//!
//! ```text
//! device: EK, SRK     --> session key, sealed for both (tpm/)      HTTPS: 401 with `authenticationKey`     AMQP: SASL challenges
//! its TPM opens it
//! device: token       --> signed by that key: it is the TPM that was enrolled
//!                     <-- assigned, and the key by which it is known at its hub, sealed for both
//! ```
//!
//! - Nothing is kept for a challenge: its key is made of the secret of this service, the registration id, the enrolled EK and the
//!   time, and made again when the token comes. So nobody can fill a memory or push out another's challenge, and a restart in
//!   between loses nothing.
//! - It is good for ten minutes at least and twenty at most. Within that a token may be sent again, as any token may: it proves the
//!   same TPM, and registers the same device.
//! - Which SRK is named does not matter to the proof: the TPM opens what is sealed only with the private halves of both.
//! - The key for the hub is random, new with each registration, and stands nowhere but in the registry.
//!
//! Source: `hub-device-protocols.md` §5.3 to §5.5.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_gateway::provisioning::Applicant;
use holm_identity::{SasToken, SymmetricKey};
use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, Timestamp};
use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};

use super::Shared;
use super::attest::Attested;
use super::attestation;
use super::enrollment::{Attestation, Kind, Tpm};
use super::fields::Fields;
use crate::registry::{Authentication, Keys};
use crate::tpm::{PublicArea, SealError, seal};

/// For so long keys of challenges stay the same; each is good for this one and the next.
const SECONDS: i64 = 600;

/// Makes the keys of challenges, and recognises what they signed.
#[derive(Clone, Debug)]
pub(super) struct Challenges(SymmetricKey);

impl Challenges {
    pub(super) const fn new(secret: SymmetricKey) -> Self {
        Self(secret)
    }

    fn key(&self, id: &RegistrationId, tpm: &Tpm, period: i64) -> SymmetricKey {
        // A line end is in no registration id, and so in no name of an operation, which the same secret makes.
        let label = format!("challenge\n{}\n{period}\n", id.key());
        self.0.derive(&[label.as_bytes(), tpm.endorsement_key.wire()].concat())
    }

    /// The keys that a device may have been given, if one of them signed its token.
    pub(super) fn answered_by(&self, id: &RegistrationId, tpm: &Tpm, token: &SasToken, now: Timestamp) -> Option<Keys> {
        let period = period(now);
        let keys = Keys {
            primary: self.key(id, tpm, period),
            secondary: self.key(id, tpm, period - 1),
        };
        (token.verify(&keys.primary) || token.verify(&keys.secondary)).then_some(keys)
    }
}

const fn period(now: Timestamp) -> i64 {
    now.unix_seconds().div_euclid(SECONDS)
}

/// The keys of a TPM that a body names, if it does.
pub(super) fn named(document: &Map<String, Value>) -> Result<Option<Tpm>, ProvisioningError> {
    let Some(tpm) = Fields::new(document, "").object("tpm")? else {
        return Ok(None);
    };
    let fields = Fields::new(tpm, "tpm.");
    let key = |name: &str| {
        let text = fields.text(name)?;
        text.map(|text| attestation::public_area(text, &format!("tpm.{name}")))
            .transpose()
    };
    let endorsement_key = key("endorsementKey")?;
    let endorsement_key =
        endorsement_key.ok_or_else(|| fields.wrong("endorsementKey", "given: base64 of a `TPM2B_PUBLIC`"))?;
    Ok(Some(Tpm {
        endorsement_key,
        storage_root_key: key("storageRootKey")?,
    }))
}

/// The keys of a TPM that were shown as bytes.
pub(super) fn shown(endorsement_key: &[u8], storage_root_key: &[u8]) -> Result<Tpm, ProvisioningError> {
    let read = |bytes, name: &str| {
        let wrong = |error| ProvisioningError::argument_invalid(format!("the {name} key can't be used: {error}"));
        PublicArea::read(bytes).map_err(wrong)
    };
    Ok(Tpm {
        endorsement_key: read(endorsement_key, "endorsement")?,
        storage_root_key: Some(read(storage_root_key, "storage root")?),
    })
}

impl Shared {
    /// Gives a device what only its TPM can open.
    ///
    /// # Errors
    /// `Unauthorized` where no such TPM is enrolled under that id; `ArgumentInvalid`; `TooManyRequests`.
    pub(super) async fn challenge(&self, applicant: &Applicant, shown: &Tpm) -> Result<Vec<u8>, ProvisioningError> {
        let registrant = &applicant.registrant;
        let denied = |why: &str| {
            tracing::info!(registration = %registrant.registration_id, reason = why, "a TPM was given no challenge");
            ProvisioningError::unauthorized()
        };
        if !registrant.id_scope.eq_ignore_ascii_case(&self.id_scope) {
            return Err(denied("it asks for another id scope"));
        }
        let id = RegistrationId::new(&registrant.registration_id).map_err(|error| denied(&error.to_string()))?;
        let wanted = id.clone();
        let own = self
            .repository
            .read(move |view| view.enrollment(Kind::Individual, &wanted))
            .await?;
        let tpm = match own.map(|own| own.attestation) {
            Some(Attestation::Tpm(tpm)) => tpm,
            Some(other) => {
                return Err(denied(&format!(
                    "its enrollment is by `{}`, not by a TPM",
                    other.kind()
                )));
            }
            None => return Err(denied("it has no enrollment of its own")),
        };
        let root = storage_root(&tpm, shown).map_err(|refused| match refused {
            Refused::Denied(why) => denied(why),
            Refused::Missing => missing(),
        })?;
        self.throttle.challenge(id.key(), applicant.source, Instant::now())?;
        let key = self.challenges.key(&id, &tpm, period(self.clock.now()));
        seal(&key, &tpm.endorsement_key, root, &SystemRandom::new()).map_err(|error| unsealed(&error))
    }

    /// Gives a device that a TPM has proved the key by which its hub will know it.
    ///
    /// # Errors
    /// `Unauthorized` for another TPM than the enrolled one; `ArgumentInvalid`.
    pub(super) fn seal_for_hub(&self, attested: &mut Attested, shown: Option<&Tpm>) -> Result<(), ProvisioningError> {
        let Attestation::Tpm(tpm) = &attested.enrollment.attestation else {
            return Ok(());
        };
        let shown = shown.ok_or_else(missing)?;
        let root = storage_root(tpm, shown).map_err(|refused| match refused {
            Refused::Denied(why) => {
                tracing::info!(registration = %attested.id, reason = why, "a device was not let register");
                ProvisioningError::unauthorized()
            }
            Refused::Missing => missing(),
        })?;
        let keys = Keys::generate()?;
        let sealed = seal(&keys.primary, &tpm.endorsement_key, root, &SystemRandom::new());
        attested.sealed = Some(STANDARD.encode(sealed.map_err(|error| unsealed(&error))?));
        attested.authentication = Authentication::Sas(keys);
        Ok(())
    }
}

/// Why no storage key can be sealed for.
enum Refused {
    Denied(&'static str),
    Missing,
}

/// The storage key to seal for, of a device that shows these.
fn storage_root<'k>(enrolled: &'k Tpm, shown: &'k Tpm) -> Result<&'k PublicArea, Refused> {
    if shown.endorsement_key != enrolled.endorsement_key {
        return Err(Refused::Denied("its endorsement key is not the enrolled one"));
    }
    match (&enrolled.storage_root_key, &shown.storage_root_key) {
        (Some(enrolled), Some(shown)) if enrolled != shown => {
            Err(Refused::Denied("its storage root key is not the enrolled one"))
        }
        (_, Some(shown)) => Ok(shown),
        (Some(enrolled), None) => Ok(enrolled),
        (None, None) => Err(Refused::Missing),
    }
}

fn missing() -> ProvisioningError {
    ProvisioningError::argument_invalid("`tpm.storageRootKey` is missing; send `tpm` with both public keys of the TPM")
}

fn unsealed(error: &SealError) -> ProvisioningError {
    match error {
        SealError::Random => ProvisioningError::new(ProvisioningCode::ServerError, error.to_string()),
        SealError::Point | SealError::Key => {
            ProvisioningError::argument_invalid(format!("a public key of the TPM can't be used: {error}"))
        }
    }
}

/// What a device is answered that has shown its TPM and proved nothing yet. Source: `hub-device-protocols.md` §5.3.
pub(super) fn of_challenge(sealed: &[u8]) -> ProvisioningError {
    let text = "Authorization required: sign a token with the key that the TPM opens";
    let mut answer = ProvisioningError::new(ProvisioningCode::Unauthorized, text);
    answer
        .extra
        .insert("authenticationKey".to_owned(), json!(STANDARD.encode(sealed)));
    answer.extra.insert("keyName".to_owned(), json!("registration"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::tests::EK;

    fn tpm(change: u8) -> Tpm {
        let mut bytes = STANDARD.decode(EK).unwrap();
        bytes[100] ^= change;
        Tpm {
            endorsement_key: PublicArea::read(&bytes).unwrap(),
            storage_root_key: None,
        }
    }

    #[test]
    fn a_challenge_is_answered_by_its_tpm_under_its_id_for_ten_minutes_at_least_and_never_after_twenty() {
        let challenges = Challenges::new(SymmetricKey::from_bytes([7; 32]).unwrap());
        let [own, other] = ["reg-1", "reg-2"].map(|id| RegistrationId::new(id).unwrap());
        let begun = Timestamp::from_unix_seconds(1_800_000_599);
        let key = challenges.key(&own, &tpm(0), period(begun));
        let token = SasToken::sign("0ne1/registrations/reg-1", 1_900_000_000, None, &key);
        let answered = |id: &RegistrationId, tpm: &Tpm, minutes: i64| {
            let now = begun.plus_millis(minutes * 60_000);
            challenges.answered_by(id, tpm, &token, now).is_some()
        };

        for minutes in [0, 1, 5, 10] {
            assert!(answered(&own, &tpm(0), minutes), "after {minutes} minutes");
        }
        for minutes in [-20, 20, 60, 1440] {
            assert!(!answered(&own, &tpm(0), minutes), "after {minutes} minutes");
        }
        assert!(!answered(&other, &tpm(0), 0), "a token of one id opens no other");
        assert!(!answered(&own, &tpm(1), 0), "nor of one TPM another's");
        let elsewhere = Challenges::new(SymmetricKey::from_bytes([8; 32]).unwrap());
        assert!(elsewhere.answered_by(&own, &tpm(0), &token, begun).is_none());
    }
}
