//! Whether a device is who it says it is, and by which enrollment.
//!
//! ```text
//! enrollment of its own      token: signed by one of its keys      certificate: one of its two, or signed by one of them
//!                            token of a TPM: by what this was given to open (challenge.rs)
//! else the groups            token: by what is derived from a key  certificate: signed by one of theirs, the nearest counts
//! ```
//!
//! - An enrollment of its own decides alone: where its proof is another, no group is asked.
//! - A certificate names its device: the common name is the registration id.
//! - A disabled enrollment proves as well as any: the device learns that it is disabled, and not that it is unknown.
//! - What is wrong goes to the log; the device learns only that it is not authorized.
//!
//! Source: `hub-device-protocols.md` §5.1, §5.5.

use std::sync::Arc;

use holm_gateway::Credential;
use holm_gateway::provisioning::Applicant;
use holm_identity::x509_auth::thumbprint_matches;
use holm_identity::{CertificateDetails, SasToken, Scope, SymmetricKey, Thumbprint};
use holm_model::{ProvisioningError, RegistrationId, Timestamp};
use rustls::pki_types::CertificateDer;

use super::Shared;
use super::enrollment::{Attestation, Enrollment, Kind, Signer};
use crate::registry::{Authentication, Keys};

/// A device that has proved itself.
#[derive(Clone, Debug)]
pub(super) struct Attested {
    pub(super) id: RegistrationId,
    pub(super) enrollment: Arc<Enrollment>,
    /// How it will prove itself at its hub.
    pub(super) authentication: Authentication,
    /// What it showed, if that was a certificate.
    pub(super) certificate: Option<CertificateDetails>,
    /// What it is given at the end, sealed for its TPM, if it proved itself by one.
    pub(super) sealed: Option<String>,
}

/// Why a proof is not good, for the log.
struct Denied(String);

impl Shared {
    /// Checks a proof.
    ///
    /// # Errors
    /// `Unauthorized`; that it can't be told now.
    pub(super) async fn attest(&self, applicant: &Applicant) -> Result<Attested, ProvisioningError> {
        let registrant = &applicant.registrant;
        let denied = |why: &str| {
            tracing::info!(registration = %registrant.registration_id, reason = why, "a device was not let register");
            ProvisioningError::unauthorized()
        };
        if !registrant.id_scope.eq_ignore_ascii_case(&self.id_scope) {
            return Err(denied("it asks for another id scope"));
        }
        let id = RegistrationId::new(&registrant.registration_id).map_err(|error| denied(&error.to_string()))?;
        let wanted = id.clone();
        let own = self
            .repository
            .read(move |view| view.enrollment(Kind::Individual, &wanted));
        let (own, now) = (own.await?, self.clock.now());
        let proved = match (&applicant.credential, own) {
            (Credential::None, _) => Err(Denied("it sent neither a token nor a certificate".to_owned())),
            (Credential::Token(text), Some(own)) => self
                .token(text, &id, now)
                .and_then(|token| self.by_own_key(&token, id, own, now)),
            (Credential::Token(text), None) => self
                .token(text, &id, now)
                .and_then(|token| self.by_derived_key(&token, &id)),
            (Credential::Certificate(chain), own) => self.by_certificate(chain, id, own, now),
        };
        proved.map_err(|Denied(why)| denied(&why))
    }

    fn token(&self, text: &str, id: &RegistrationId, now: Timestamp) -> Result<SasToken, Denied> {
        let token = SasToken::parse(text).map_err(|error| Denied(error.to_string()))?;
        if token.is_expired(now) {
            return Err(Denied("its token has ended; check its clock".to_owned()));
        }
        let resource = token.resource();
        let names_it = match &resource.scope {
            Scope::Other(path) => path.split_once('/').is_some_and(|(word, named)| {
                word.eq_ignore_ascii_case("registrations") && named.eq_ignore_ascii_case(id.as_str())
            }),
            _ => false,
        };
        if !names_it || !resource.host.eq_ignore_ascii_case(&self.id_scope) {
            let resource = token.raw_resource();
            return Err(Denied(format!(
                "the `sr` `{resource}` of its token does not name it here"
            )));
        }
        Ok(token)
    }

    fn by_own_key(
        &self,
        token: &SasToken,
        id: RegistrationId,
        own: Enrollment,
        now: Timestamp,
    ) -> Result<Attested, Denied> {
        let keys = match &own.attestation {
            Attestation::SymmetricKey(keys) if signed(token, keys) => keys.clone(),
            Attestation::SymmetricKey(_) => {
                return Err(Denied("no key of its enrollment signed its token".to_owned()));
            }
            Attestation::Tpm(tpm) => {
                let keys = self.challenges.answered_by(&id, tpm, token, now);
                keys.ok_or_else(|| {
                    Denied("its TPM was given no key that signed its token, or that key has ended".to_owned())
                })?
            }
            other => {
                return Err(Denied(format!("its enrollment is by `{}`, not by keys", other.kind())));
            }
        };
        Ok(Attested {
            id,
            authentication: Authentication::Sas(keys),
            enrollment: Arc::new(own),
            certificate: None,
            sealed: None,
        })
    }

    fn by_derived_key(&self, token: &SasToken, id: &RegistrationId) -> Result<Attested, Denied> {
        let groups = self.groups.all();
        // As it writes its id, else in lower case: who derives the key by hand may have lowered it.
        let lower = (id.key() != id.as_str()).then(|| id.key());
        for label in [Some(id.as_str()), lower].into_iter().flatten() {
            for group in groups.iter() {
                let Attestation::SymmetricKey(keys) = &group.attestation else {
                    continue;
                };
                let keys = derived(keys, label);
                if signed(token, &keys) {
                    return Ok(Attested {
                        id: id.clone(),
                        enrollment: Arc::clone(group),
                        authentication: Authentication::Sas(keys),
                        certificate: None,
                        sealed: None,
                    });
                }
            }
        }
        Err(Denied(
            "it has no enrollment of its own, and no group's key signed its token".to_owned(),
        ))
    }

    fn by_certificate(
        &self,
        chain: &[CertificateDer<'static>],
        id: RegistrationId,
        own: Option<Enrollment>,
        now: Timestamp,
    ) -> Result<Attested, Denied> {
        let shown: Result<Vec<_>, _> = chain.iter().map(CertificateDetails::read).collect();
        let shown = shown.map_err(|error| Denied(holm_net::error_chain(&error)))?;
        let leaf = shown
            .first()
            .ok_or_else(|| Denied("it sent no certificate".to_owned()))?;
        let name = leaf.info.subject_common_name.as_deref().unwrap_or_default();
        if !name.eq_ignore_ascii_case(id.as_str()) {
            return Err(Denied(format!("the common name of its certificate is `{name}`")));
        }
        let (enrollment, authentication) = match own {
            Some(own) => {
                let authentication = self.by_own_certificate(&own, chain, leaf, now)?;
                (Arc::new(own), authentication)
            }
            None => self.by_group_certificate(chain, &shown, now)?,
        };
        Ok(Attested {
            id,
            enrollment,
            authentication,
            certificate: Some(leaf.clone()),
            sealed: None,
        })
    }

    /// The group whose certificate signed it and stands nearest to the leaf. Names tell who may have; authorities that were
    /// renewed share theirs.
    fn by_group_certificate(
        &self,
        chain: &[CertificateDer<'static>],
        shown: &[CertificateDetails],
        now: Timestamp,
    ) -> Result<(Arc<Enrollment>, Authentication), Denied> {
        let distance = |group: &Enrollment| {
            let signers = self.signers(&group.attestation);
            signers
                .iter()
                .filter_map(|signer| signer.verifier.distance(shown))
                .min()
        };
        let (groups, leaf) = (self.groups.all(), shown.first());
        let mut candidates: Vec<_> = groups
            .iter()
            .filter_map(|group| Some((distance(group)?, group)))
            .collect();
        candidates.sort_by_key(|(distance, _)| *distance);
        let mut denied = "it has no enrollment of its own, and its certificates lead to none of a group".to_owned();
        for (_, group) in candidates {
            match leaf.map(|leaf| self.signed_by(group, chain, leaf, now)) {
                Some(Ok(authentication)) => return Ok((Arc::clone(group), authentication)),
                Some(Err(Denied(why))) => denied = format!("group `{}`: {why}", group.id),
                None => {}
            }
        }
        Err(Denied(denied))
    }
}

impl Shared {
    fn by_own_certificate(
        &self,
        own: &Enrollment,
        chain: &[CertificateDer<'static>],
        leaf: &CertificateDetails,
        now: Timestamp,
    ) -> Result<Authentication, Denied> {
        let Attestation::ClientCertificates(primary, secondary) = &own.attestation else {
            return self.signed_by(own, chain, leaf, now);
        };
        let first = thumbprint(&primary.details)?;
        let second = secondary
            .as_ref()
            .map(|secondary| thumbprint(&secondary.details))
            .transpose()?;
        let known: Vec<Thumbprint> = [Some(first.clone()), second.clone()].into_iter().flatten().collect();
        thumbprint_matches(chain, &known, now).map_err(|error| Denied(holm_net::error_chain(&error)))?;
        Ok(Authentication::SelfSigned((Some(first), second)))
    }

    /// Whether a certificate of the enrollment has signed what is shown. At its hub the device goes by the thumbprint of its own: a
    /// new certificate counts there after it has registered with it.
    fn signed_by(
        &self,
        enrollment: &Enrollment,
        chain: &[CertificateDer<'static>],
        leaf: &CertificateDetails,
        now: Timestamp,
    ) -> Result<Authentication, Denied> {
        let kind = enrollment.attestation.kind();
        let mut denied = match &enrollment.attestation {
            Attestation::Authorities(..) => "the certificates that its enrollment names are not kept".to_owned(),
            _ => format!("its enrollment is by `{kind}`, not by a certificate"),
        };
        for signer in self.signers(&enrollment.attestation) {
            match signer.verifier.vouches_for(chain, now) {
                Ok(_) => return Ok(Authentication::SelfSigned((Some(thumbprint(leaf)?), None))),
                Err(error) => denied = holm_net::error_chain(&error),
            }
        }
        Err(Denied(denied))
    }

    /// The certificates that sign for the devices of an enrollment: its own, or those that it names.
    fn signers(&self, attestation: &Attestation) -> Vec<Signer> {
        match attestation {
            Attestation::SigningCertificates(primary, secondary) => {
                std::iter::once(primary).chain(secondary).cloned().collect()
            }
            Attestation::Authorities(primary, secondary) => {
                let named = std::iter::once(primary).chain(secondary);
                named.filter_map(|name| self.certificates.signer(name)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn signed(token: &SasToken, keys: &Keys) -> bool {
    token.verify(&keys.primary) || token.verify(&keys.secondary)
}

fn derived(keys: &Keys, label: &str) -> Keys {
    let derive = |key: &SymmetricKey| key.derive_for_registration(label);
    Keys {
        primary: derive(&keys.primary),
        secondary: derive(&keys.secondary),
    }
}

fn thumbprint(certificate: &CertificateDetails) -> Result<Thumbprint, Denied> {
    certificate
        .info
        .sha256
        .parse()
        .map_err(|_| Denied("a thumbprint can't be read".to_owned()))
}
