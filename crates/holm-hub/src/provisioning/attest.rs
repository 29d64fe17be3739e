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
//! - A device whose last registration names its group is proved by that group before any other, so that what a proof costs does not
//!   grow with the groups (groups.rs, searches.rs).
//! - What is wrong goes to the log; the device learns only that it is not authorized.
//!
//! Source: `hub-device-protocols.md` §5.1, §5.5.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use holm_gateway::Credential;
use holm_gateway::provisioning::Applicant;
use holm_identity::x509_auth::thumbprint_matches;
use holm_identity::{CertificateDetails, SasToken, Scope, SymmetricKey, Thumbprint};
use holm_model::{ProvisioningError, RegistrationId, Timestamp};
use rustls::pki_types::CertificateDer;

use super::Shared;
use super::enrollment::{Attestation, Enrollment, Kind, Signer};
use super::moving;
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

/// Why a proof is not good.
enum Refused {
    /// This is wrong with it, for the log.
    Denied(String),
    /// It was not looked at.
    TooMany(ProvisioningError),
}

use Refused::Denied;

/// Who asks from where, and the group that the last registration names.
struct Asker<'a> {
    id: &'a RegistrationId,
    group: Option<String>,
    source: Option<IpAddr>,
}

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
        let found = self.repository.read(move |view| {
            let own = view.enrollment(Kind::Individual, &wanted)?;
            let last = match own {
                Some(_) => None,
                None => moving::registration_now(view, &wanted)?,
            };
            Ok((own, last.and_then(|last| last.group)))
        });
        let ((own, group), now) = (found.await?, self.clock.now());
        let source = applicant.source;
        let proved = match (&applicant.credential, own) {
            (Credential::None, _) => Err(Denied("it sent neither a token nor a certificate".to_owned())),
            (Credential::Token(text), Some(own)) => self
                .token(text, &id, now)
                .and_then(|token| self.by_own_key(&token, id, own, now)),
            (Credential::Token(text), None) => self.token(text, &id, now).and_then(|token| {
                let id = &id;
                self.by_derived_key(&token, &Asker { id, group, source })
            }),
            (Credential::Certificate(chain), own) => self.by_certificate(chain, id, own, source, now),
        };
        proved.map_err(|refused| match refused {
            Denied(why) => denied(&why),
            Refused::TooMany(error) => error,
        })
    }

    fn token(&self, text: &str, id: &RegistrationId, now: Timestamp) -> Result<SasToken, Refused> {
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
    ) -> Result<Attested, Refused> {
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

    fn by_derived_key(&self, token: &SasToken, asker: &Asker<'_>) -> Result<Attested, Refused> {
        let groups = self.groups.now();
        let last = asker.group.as_ref().and_then(|group| groups.find(group));
        if let Some(attested) = last.and_then(|group| by_key_of(group, token, asker.id)) {
            return Ok(attested);
        }
        let (tried, now) = (groups.keyed().len(), Instant::now());
        let begun = self.searches.begin(asker.source, tried, now);
        begun.map_err(Refused::TooMany)?;
        let mut found = groups
            .keyed()
            .iter()
            .filter_map(|group| by_key_of(group, token, asker.id));
        if let Some(attested) = found.next() {
            self.searches.found(asker.source, tried, now);
            return Ok(attested);
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
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Attested, Refused> {
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
            None => self.by_group_certificate(chain, &shown, source, now)?,
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
        source: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(Arc<Enrollment>, Authentication), Refused> {
        let candidates = self.groups.now().named_in(shown, &self.certificates);
        let (tried, began) = (candidates.len(), Instant::now());
        let begun = self.searches.begin(source, tried, began);
        begun.map_err(Refused::TooMany)?;
        let leaf = shown.first();
        let mut denied = "it has no enrollment of its own, and its certificates lead to none of a group".to_owned();
        for group in candidates {
            match leaf.map(|leaf| self.signed_by(&group, chain, leaf, now)) {
                Some(Ok(authentication)) => {
                    self.searches.found(source, tried, began);
                    return Ok((group, authentication));
                }
                Some(Err(Denied(why))) => denied = format!("group `{}`: {why}", group.id),
                Some(Err(other)) => return Err(other),
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
    ) -> Result<Authentication, Refused> {
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
    ) -> Result<Authentication, Refused> {
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

/// Whether the key of a device of a group signed its token: as it writes its id, else in lower case, since who derives the key by hand
/// may have lowered it.
fn by_key_of(group: &Arc<Enrollment>, token: &SasToken, id: &RegistrationId) -> Option<Attested> {
    let Attestation::SymmetricKey(keys) = &group.attestation else {
        return None;
    };
    let lower = (id.key() != id.as_str()).then(|| id.key());
    let labels = [Some(id.as_str()), lower].into_iter().flatten();
    let keys = labels
        .map(|label| derived(keys, label))
        .find(|keys| signed(token, keys))?;
    Some(Attested {
        id: id.clone(),
        enrollment: Arc::clone(group),
        authentication: Authentication::Sas(keys),
        certificate: None,
        sealed: None,
    })
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

fn thumbprint(certificate: &CertificateDetails) -> Result<Thumbprint, Refused> {
    certificate
        .info
        .sha256
        .parse()
        .map_err(|_| Denied("a thumbprint can't be read".to_owned()))
}
