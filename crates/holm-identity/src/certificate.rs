//! Certificates and the private keys that belong to them: PEM, names, dates, thumbprints.
//!
//! Nothing here judges trust; see [`crate::x509_auth`] for that. Certificates of X.509 version 1, which have no extensions,
//! are read like others.

mod details;

use std::path::Path;
use std::sync::Arc;

use holm_model::{Timestamp, hex};
use ring::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use details::CertificateDetails;

use crate::private_file::{self, PrivateFileError};
use crate::secret::Secret;

const MILLIS_A_DAY: i64 = 86_400_000;
/// The most bytes of a file with certificates or a key. The bundle of a whole operating system has a quarter of this.
pub const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// The text holds no certificate.
    #[error("there is no certificate in the PEM text; it needs a section `-----BEGIN CERTIFICATE-----`")]
    NoCertificate,
    /// The text is broken.
    #[error("the PEM text is broken; copy it whole, with its BEGIN and END lines")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// What should be a certificate is none.
    #[error("the certificate is not X.509 in DER")]
    Der,
    /// The text holds no private key that can be used.
    #[error("there is no private key in the PEM text; it needs a section `-----BEGIN PRIVATE KEY-----`, not encrypted")]
    NoKey,
    /// The key is of a kind that is not supported.
    #[error(
        "the private key is of an unsupported kind; use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519"
    )]
    Key(#[source] rustls::Error),
    /// The key is another one than that of the certificate.
    #[error("the private key does not belong to the certificate; give the pair that was made together")]
    Mismatch,
    /// A file cannot be used.
    #[error("a file of the certificate can't be used")]
    File(#[source] PrivateFileError),
}

/// Reads all certificates of a PEM text; at least one.
///
/// # Errors
/// [`InvalidCertificate`] when the text is broken, holds none, or one is not X.509.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(InvalidCertificate::Pem)?;
    if certificates.is_empty() {
        return Err(InvalidCertificate::NoCertificate);
    }
    certificates
        .iter()
        .try_for_each(|certificate| parse(certificate).map(drop))?;
    Ok(certificates)
}

/// Writes certificates as PEM, one after the other.
#[must_use]
pub fn certificates_to_pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut pem = String::new();
    for certificate in certificates {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        // Base64 is ASCII, so every character is a byte.
        for (index, character) in text.chars().enumerate() {
            if index > 0 && index % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END CERTIFICATE-----\n");
    }
    pem
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(InvalidCertificate::Der),
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The (first) common name of the subject.
    pub subject_common_name: Option<String>,
    /// The first moment of validity.
    pub not_before: Timestamp,
    /// The last second of validity.
    pub not_after: Timestamp,
    /// Whether it is marked as that of a certificate authority.
    pub is_authority: bool,
    /// SHA-1 of the certificate in 40 lower-case hex digits.
    pub sha1: String,
    /// SHA-256 of the certificate in 64 lower-case hex digits.
    pub sha256: String,
}

impl CertificateInfo {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`InvalidCertificate::Der`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let certificate = parse(der)?;
        let name = certificate.subject().iter_common_name().next();
        let validity = certificate.validity();
        Ok(Self {
            subject_common_name: name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
            is_authority: certificate.is_ca(),
            sha1: hex::encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
            sha256: hex::encode(digest::digest(&digest::SHA256, der).as_ref()),
        })
    }

    /// Whether `now` lies within the dates, the last second included.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now.unix_seconds() <= self.not_after.unix_seconds()
    }

    /// Whether a certificate that is made for so many days should be renewed: at `now`, 80 % of them are over, or it is not valid
    /// yet. Source: `edge-agent.md` §6.6.
    #[must_use]
    pub fn should_renew(&self, days: u32, now: Timestamp) -> bool {
        self.has_left_at_most(20, days, now) || now < self.not_before
    }

    /// Whether at most so many percent of its life are left, of a certificate that is made for so many days.
    #[must_use]
    pub fn has_left_at_most(&self, percent: u8, days: u32, now: Timestamp) -> bool {
        // One from elsewhere, or from when the configuration was another, may have a shorter life.
        let life = self.not_after.millis_since(self.not_before);
        let life = life.min(i64::from(days) * MILLIS_A_DAY);
        self.not_after.millis_since(now) <= life * i64::from(percent) / 100
    }
}

/// A private key and the chain that certifies it: what a server or a client shows in TLS. The key does not print.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key_pem: Secret,
}

impl TlsIdentity {
    /// From PEM: the certificate with its chain, and its key (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// [`InvalidCertificate`], also when the two do not belong together.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, InvalidCertificate> {
        let key_pem = std::str::from_utf8(key_pem).map_err(|_| InvalidCertificate::NoKey)?;
        let identity = Self {
            chain: certificates_from_pem(chain_pem)?,
            key_pem: Secret::new(key_pem),
        };
        identity.certified_key()?;
        Ok(identity)
    }

    /// From two files; that of the key must have mode 0600.
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub fn load(chain_path: &Path, key_path: &Path) -> Result<Self, InvalidCertificate> {
        let key_pem = private_file::read(key_path, MAX_PEM_BYTES).map_err(InvalidCertificate::File)?;
        let chain_pem = private_file::read_public(chain_path, MAX_PEM_BYTES).map_err(InvalidCertificate::File)?;
        Self::from_pem(&chain_pem, &key_pem)
    }

    /// Writes two files: first the key with mode 0600, then the chain with mode 0644.
    ///
    /// # Errors
    /// [`InvalidCertificate::File`].
    pub fn store(&self, chain_path: &Path, key_path: &Path) -> Result<(), InvalidCertificate> {
        private_file::write(key_path, self.key_pem.expose().as_bytes()).map_err(InvalidCertificate::File)?;
        private_file::write_public(chain_path, self.chain_pem().as_bytes()).map_err(InvalidCertificate::File)
    }

    /// The certificate, then those that lead to its root.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        certificates_to_pem(&self.chain)
    }

    /// The key as PEM.
    #[must_use]
    pub const fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// What the first certificate says of itself.
    ///
    /// # Errors
    /// [`InvalidCertificate`]; never for a value made by this type's constructors.
    pub fn info(&self) -> Result<CertificateInfo, InvalidCertificate> {
        CertificateInfo::read(self.chain.first().ok_or(InvalidCertificate::NoCertificate)?)
    }

    /// The form that TLS works with.
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, InvalidCertificate> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes()).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => InvalidCertificate::NoKey,
            error => InvalidCertificate::Pem(error),
        })?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(InvalidCertificate::Key)?;
        let leaf = parse(self.chain.first().ok_or(InvalidCertificate::NoCertificate)?)?;
        // By hand, because the check of the TLS library refuses certificates of version 1.
        let certified = SubjectPublicKeyInfoDer::from(leaf.public_key().raw);
        if key.public_key().is_some_and(|own| own != certified) {
            return Err(InvalidCertificate::Mismatch);
        }
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), key)))
    }
}

#[cfg(test)]
mod tests;
