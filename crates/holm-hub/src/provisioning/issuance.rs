//! Certificates for devices: one that registers may send a signing request for a key that it keeps, and gets a certificate by
//! which it goes at its hub.
//!
//! ```text
//! register {"csr": base64 DER}                  registrationState.issuedCertificateChain [base64 DER, …]   2025-07-01-preview
//!          {"clientCertificateCsr": base64}     issuedClientCertificate PEM, trustBundle                   2021-11-01-preview
//! ```
//!
//! - It has proved itself by what its enrollment says before, each time: the certificate opens the hub, not this service.
//! - Only an enrollment with a `clientCertificateIssuancePolicy` has certificates made. The hub's own authority makes them,
//!   whatever name the policy gives.
//! - A device that has one has it renewed here, or by its hub: `renewal.rs`.
//! - The common name must be the registration id, so that nobody gets another's certificate.
//!
//! Source: `hub-device-protocols.md` §5.7.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_identity::CertificateAuthority;
use holm_identity::ca::request::SigningRequest;
use holm_identity::certificate::certificates_to_pem;
use holm_identity::{CertificateDetails, Thumbprint};
use holm_model::{ProvisioningCode, ProvisioningError, RegistrationId, Timestamp};
use rustls::pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::enrollment::Enrollment;
use super::fields::Fields;

/// What a device is told whose certificate could not be made; the log tells more.
pub(super) const NOT_MADE: &str = "the certificate could not be made; try again later";

/// In which words a device asks, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// `csr`, `issuedCertificateChain`.
    Chain,
    /// `clientCertificateCsr`, `issuedClientCertificate`.
    Pem,
}

impl Words {
    const fn member(self) -> &'static str {
        match self {
            Self::Chain => "csr",
            Self::Pem => "clientCertificateCsr",
        }
    }
}

/// A request of a device.
#[derive(Debug)]
pub(super) struct Asked {
    request: SigningRequest,
    words: Words,
}

/// What a device is given.
#[derive(Debug)]
pub(super) struct Issued {
    /// By what its hub will know it.
    pub(super) thumbprint: Thumbprint,
    /// Members of its registration.
    pub(super) members: Map<String, Value>,
}

/// A certificate that was made for a device.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) thumbprint: Thumbprint,
    /// It and those above it, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Makes certificates for devices.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) authority: CertificateAuthority,
    /// How long they live.
    pub(super) days: u32,
}

/// Reads what a device asks in the body of its registration; `None` where it asks for no certificate.
///
/// # Errors
/// `ArgumentInvalid`.
pub(super) fn read(document: &Map<String, Value>) -> Result<Option<Asked>, ProvisioningError> {
    for words in [Words::Chain, Words::Pem] {
        let member = words.member();
        let Some(text) = Fields::new(document, "").text(member)? else {
            continue;
        };
        let wrong = |why: String| ProvisioningError::argument_invalid(format!("`{member}` can't be used: {why}"));
        let request = SigningRequest::from_text(text).map_err(|error| wrong(error.to_string()))?;
        return Ok(Some(Asked { request, words }));
    }
    Ok(None)
}

impl Issuer {
    /// Makes what a device has asked for.
    ///
    /// # Errors
    /// `ArgumentInvalid` for one that its enrollment has no certificates made for, and for another's name; `ServerError`.
    pub(super) fn issue(
        &self,
        asked: &Asked,
        id: &RegistrationId,
        enrollment: &Enrollment,
        now: Timestamp,
    ) -> Result<Issued, ProvisioningError> {
        let member = asked.words.member();
        if enrollment.issuance.is_none() {
            let text = format!(
                "`{member}` was sent, and the enrollment `{}` has no `clientCertificateIssuancePolicy`; register without, or have it set",
                enrollment.id
            );
            return Err(ProvisioningError::argument_invalid(text));
        }
        let name = asked.request.common_name();
        if !name.eq_ignore_ascii_case(id.as_str()) {
            let text =
                format!("the common name of `{member}` is `{name}`, and the registration id `{id}`; give the same");
            return Err(ProvisioningError::argument_invalid(text));
        }
        let made = self.make(&asked.request, now).map_err(|why| {
            tracing::error!(registration = %id, why, "a certificate could not be made");
            ProvisioningError::new(ProvisioningCode::ServerError, NOT_MADE)
        })?;
        Ok(Issued {
            members: self.members(&made.chain, asked.words),
            thumbprint: made.thumbprint,
        })
    }

    /// Makes a certificate for whom a request names; that it may have one is the caller's to know. The error is for the log.
    pub(super) fn make(&self, request: &SigningRequest, now: Timestamp) -> Result<Made, String> {
        let leaf = self.authority.issue_for(request, self.days, now);
        let leaf = leaf.map_err(|error| holm_net::error_chain(&error))?;
        let info = CertificateDetails::read(&leaf).map_err(|error| error.to_string())?.info;
        let thumbprint = info.sha256.parse();
        tracing::info!(name = request.common_name(), thumbprint = info.sha256, until = %info.not_after, "a certificate was made for a device");
        Ok(Made {
            thumbprint: thumbprint.map_err(|_| "its thumbprint can't be read".to_owned())?,
            chain: std::iter::once(leaf)
                .chain(self.authority.chain().iter().cloned())
                .collect(),
        })
    }

    fn members(&self, chain: &[CertificateDer<'static>], words: Words) -> Map<String, Value> {
        let members = match words {
            Words::Chain => {
                let chain: Vec<_> = chain.iter().map(|certificate| STANDARD.encode(certificate)).collect();
                json!({ "issuedCertificateChain": chain })
            }
            Words::Pem => json!({
                "issuedClientCertificate": certificates_to_pem(chain),
                "trustBundle": { "certificates": [{ "certificate": self.authority.certificate_pem() }] },
            }),
        };
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}
