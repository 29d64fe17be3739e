//! Whether a client certificate, whose key was proved in the handshake, is that of an identity.
//!
//! ```text
//! self-signed:  SHA-1 or SHA-256 of the certificate = primary or secondary thumbprint of the registry
//! CA-signed:    chain leads to an authority that is registered, and common name of the leaf = device id (case-sensitive)
//! both:         the dates are checked; what authorities say of themselves holds (signing.rs)
//! ```
//!
//! Source: `hub-device-protocols.md` §1.4, `edge-broker.md` §1.3.

mod signing;

use std::fmt;
use std::str::FromStr;

use holm_model::{DeviceId, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::server::VerifierBuilderError;

pub use signing::SigningCertificate;

use crate::certificate::{CertificateInfo, InvalidCertificate};

/// Why a certificate does not open an identity.
#[derive(Debug, thiserror::Error)]
pub enum CertificateRefused {
    /// The client showed none.
    #[error("the client sent no certificate; connect with the certificate of this identity")]
    None,
    /// What it showed cannot be read.
    #[error("the client's certificate can't be read")]
    Unreadable(#[source] InvalidCertificate),
    /// Its dates do not hold.
    #[error("the client's certificate is valid from {from} to {to}, which is not now; renew it or set the clock")]
    Dates {
        /// Its first moment.
        from: Timestamp,
        /// Its last second.
        to: Timestamp,
    },
    /// Neither thumbprint is its own.
    #[error(
        "the thumbprint {sha256} of the client's certificate is neither of the two that are registered; register it"
    )]
    Thumbprint {
        /// SHA-256 of what was shown.
        sha256: String,
    },
    /// Its common name is another.
    #[error("the common name of the client's certificate is not the device id `{0}`")]
    CommonName(DeviceId),
    /// It does not lead to an authority that is registered.
    #[error("the client's certificate leads to no certificate authority that is registered")]
    Chain(#[source] rustls::Error),
    /// What is between it and the authority may not be there.
    #[error(
        "the client's certificate leads to the authority only by intermediates that may not sign certificates, or by more than its \
         path length allows; show a chain that obeys both"
    )]
    Constraints(#[source] rustls::Error),
    /// The dates of what it leads to do not hold.
    #[error(
        "the client's certificate leads to `{name}`, which is valid from {from} to {to}, and that is not now; register the one \
         that came after it, or set the clock"
    )]
    AuthorityDates {
        /// The common name of that one.
        name: String,
        /// Its first moment.
        from: Timestamp,
        /// Its last second.
        to: Timestamp,
    },
    /// What it leads to is not for signing.
    #[error(
        "the client's certificate leads to `{name}`, which may not sign certificates: it is not marked as that of a certificate \
         authority, or the uses of its key do not include `keyCertSign`; register one that may"
    )]
    NoAuthority {
        /// The common name of that one.
        name: String,
    },
    /// There is no authority to lead to.
    #[error("no certificate authority can be used; register one")]
    Roots(#[source] VerifierBuilderError),
}

/// A text is not a thumbprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits, without separators; this has {0} characters")]
pub struct InvalidThumbprint(usize);

/// A thumbprint of a certificate, SHA-1 or SHA-256, kept in the case in which it was given and compared without it.
#[derive(Clone, Debug)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// The hex digits as they were given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the thumbprint of a certificate.
    #[must_use]
    pub fn matches(&self, certificate: &CertificateInfo) -> bool {
        self.0.eq_ignore_ascii_case(&certificate.sha1) || self.0.eq_ignore_ascii_case(&certificate.sha256)
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(text: &str) -> Result<Self, InvalidThumbprint> {
        let hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || ![40, 64].contains(&text.len()) {
            return Err(InvalidThumbprint(text.chars().count()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq for Thumbprint {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Thumbprint {}

/// Checks a client certificate against the thumbprints of an identity (primary and secondary; at least one should be set); gives the
/// one by which it is known.
///
/// # Errors
/// [`CertificateRefused`].
pub fn thumbprint_matches(
    chain: &[CertificateDer<'_>],
    thumbprints: &[Thumbprint],
    now: Timestamp,
) -> Result<Thumbprint, CertificateRefused> {
    let certificate = leaf_valid_at(chain, now)?;
    let found = thumbprints.iter().find(|thumbprint| thumbprint.matches(&certificate));
    found.cloned().ok_or(CertificateRefused::Thumbprint {
        sha256: certificate.sha256,
    })
}

/// Checks that a client certificate leads to one of the authorities, as [`SigningCertificate::vouches_for`] says, and names the
/// device.
///
/// # Errors
/// [`CertificateRefused`]; of several authorities what tells most: the one that it leads to and that may not vouch for it.
pub fn authority_vouches_for(
    chain: &[CertificateDer<'_>],
    authorities: &[SigningCertificate],
    device: &DeviceId,
    now: Timestamp,
) -> Result<(), CertificateRefused> {
    let certificate = leaf_valid_at(chain, now)?;
    if certificate.subject_common_name.as_deref() != Some(device.as_str()) {
        return Err(CertificateRefused::CommonName(device.clone()));
    }
    let mut refused = CertificateRefused::Roots(VerifierBuilderError::NoRootAnchors);
    for authority in authorities {
        match authority.vouches_for(chain, now) {
            Ok(_) => return Ok(()),
            Err(error) => {
                let tells_nothing = matches!(refused, CertificateRefused::Roots(_) | CertificateRefused::Chain(_));
                if tells_nothing {
                    refused = error;
                }
            }
        }
    }
    Err(refused)
}

fn leaf_valid_at(chain: &[CertificateDer<'_>], now: Timestamp) -> Result<CertificateInfo, CertificateRefused> {
    let leaf = chain.first().ok_or(CertificateRefused::None)?;
    let certificate = CertificateInfo::read(leaf).map_err(CertificateRefused::Unreadable)?;
    if !certificate.is_valid_at(now) {
        return Err(CertificateRefused::Dates {
            from: certificate.not_before,
            to: certificate.not_after,
        });
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests;
