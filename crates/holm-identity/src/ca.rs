//! A small certificate authority: what a hub or an edge makes for itself at its first start.
//!
//! ```text
//! authority (self-signed, P-256, CA, path length 0)      or one that was given: certificate chain + key
//!   |-- server certificate: names and addresses as subject alternative names
//!   '-- client certificate: common name
//! ```
//!
//! - An authority begins in 1970 and a certificate [`CLOCK_ALLOWANCE_DAYS`] before it is made, for clocks that were not set yet
//!   or are moved back. Some systems refuse a server's certificate of more than 825 days, so those don't begin in 1970 too.
//! - Lives are counted from [`EARLIEST`] when the clock says an earlier time, which can't be right. No certificate outlasts its
//!   authority.
//! - Authority and leaves carry the extensions that strict checking asks for (key identifiers, key usages): recent Python
//!   versions refuse certificates without them.
//! - The key file has mode 0600. When a certificate is there and its key is not, a new authority is *not* made: every device
//!   that trusts the old one would be cut off.

pub mod request;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr as _;

use holm_model::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use self::request::SigningRequest;
use crate::certificate::{self, CertificateInfo, InvalidCertificate, TlsIdentity, certificates_to_pem};

/// How long before its making a certificate becomes valid.
pub const CLOCK_ALLOWANCE_DAYS: u32 = 400;
/// No clock that is right says an earlier time than this: 1 January 2026, before any release.
pub const EARLIEST: Timestamp = Timestamp::from_unix_seconds(1_767_225_600);
const SECONDS_A_DAY: i64 = 86_400;

/// Why an authority did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name that cannot stand in a certificate.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
    /// A server certificate without a name.
    #[error("a server certificate needs at least one name or address")]
    NoNames,
    /// The authority's own time is over.
    #[error("the certificate authority ended at {0}; make a new one")]
    Ended(Timestamp),
    /// The certificate is not that of an authority.
    #[error("the certificate is not that of a certificate authority; give one with `CA:TRUE`")]
    NotAnAuthority,
    /// The authority's key is of a kind that cannot sign here.
    #[error(
        "the authority's private key can't be used; give an unencrypted PKCS #8 key (`openssl pkcs8 -topk8 -nodes`)"
    )]
    Key(#[source] rcgen::Error),
    /// Making a certificate failed.
    #[error("the certificate can't be made")]
    Make(#[source] rcgen::Error),
    /// The authority's certificate or its files cannot be used.
    #[error("the certificate authority can't be used")]
    Certificate(#[source] InvalidCertificate),
}

/// A key that signs certificates, with its own certificate. The key does not print.
pub struct CertificateAuthority {
    identity: TlsIdentity,
    info: CertificateInfo,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a self-signed authority with a new key.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn create(common_name: &str, days: u32, now: Timestamp) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let mut params = params(common_name, Timestamp::from_unix_seconds(0), end(now, days));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key).map_err(AuthorityError::Make)?;
        Self::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes())
    }

    /// An authority from its certificate (with the chain to its root, if it has one above it) and key.
    ///
    /// # Errors
    /// [`AuthorityError`], also when the two do not belong together.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, AuthorityError> {
        let identity = TlsIdentity::from_pem(chain_pem, key_pem).map_err(AuthorityError::Certificate)?;
        Self::from_identity(identity)
    }

    /// Loads an authority from two files; that of the key must have mode 0600.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load(chain_path: &Path, key_path: &Path) -> Result<Self, AuthorityError> {
        Self::from_identity(TlsIdentity::load(chain_path, key_path).map_err(AuthorityError::Certificate)?)
    }

    /// Loads an authority, or makes and stores one when there is no certificate.
    ///
    /// # Errors
    /// [`AuthorityError`], also when there is a certificate without its key.
    pub fn load_or_create(
        chain_path: &Path,
        key_path: &Path,
        common_name: &str,
        days: u32,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        // The key is written before the certificate: a crash between the two leaves a key that nobody knows of.
        if chain_path.exists() {
            return Self::load(chain_path, key_path);
        }
        let authority = Self::create(common_name, days, now)?;
        authority.store(chain_path, key_path)?;
        Ok(authority)
    }

    /// Writes two files: the key with mode 0600, the certificate with mode 0644.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`].
    pub fn store(&self, chain_path: &Path, key_path: &Path) -> Result<(), AuthorityError> {
        let stored = self.identity.store(chain_path, key_path);
        stored.map_err(AuthorityError::Certificate)
    }

    fn from_identity(identity: TlsIdentity) -> Result<Self, AuthorityError> {
        let info = identity.info().map_err(AuthorityError::Certificate)?;
        if !info.is_authority {
            return Err(AuthorityError::NotAnAuthority);
        }
        let key = KeyPair::from_pem(identity.key_pem().expose()).map_err(AuthorityError::Key)?;
        let [certificate, ..] = identity.chain() else {
            return Err(AuthorityError::Certificate(InvalidCertificate::NoCertificate));
        };
        let parsed = certificate::parse(certificate).map_err(AuthorityError::Certificate)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(AuthorityError::Certificate(InvalidCertificate::Mismatch));
        }
        let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(AuthorityError::Make)?;
        Ok(Self { identity, info, issuer })
    }

    /// The authority's certificate, then those above it, as PEM: what others have to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        certificates_to_pem(self.identity.chain())
    }

    /// The authority's certificate, then those above it.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        self.identity.chain()
    }

    /// What the authority's certificate says of itself.
    #[must_use]
    pub const fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// Makes a key and a server certificate for all of `names`: DNS names and IP addresses. The first is also its common name.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue_server(
        &self,
        names: &[impl AsRef<str>],
        days: u32,
        now: Timestamp,
    ) -> Result<TlsIdentity, AuthorityError> {
        let first = names.first().ok_or(AuthorityError::NoNames)?.as_ref();
        let mut params = self.leaf_params(first, days, now)?;
        for name in names {
            let name = subject_alternative_name(name.as_ref())?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// Makes a key and a client certificate with this common name; `uris` become subject alternative names, written as DNS
    /// names, as the original daemon does with `URI: azureiot://…`.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue_client(
        &self,
        common_name: &str,
        uris: &[impl AsRef<str>],
        days: u32,
        now: Timestamp,
    ) -> Result<TlsIdentity, AuthorityError> {
        let mut params = self.leaf_params(common_name, days, now)?;
        for uri in uris {
            let name = Ia5String::from_str(uri.as_ref()).map_err(|_| AuthorityError::Name(uri.as_ref().to_owned()))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    /// Makes a client certificate for the key and the common name of a request.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn issue_for(
        &self,
        request: &SigningRequest,
        days: u32,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = self.leaf_params(request.common_name(), days, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(request.key(), &self.issuer);
        Ok(leaf.map_err(AuthorityError::Make)?.der().clone())
    }

    fn leaf_params(&self, common_name: &str, days: u32, now: Timestamp) -> Result<CertificateParams, AuthorityError> {
        if !self.info.is_valid_at(now) && now > self.info.not_before {
            return Err(AuthorityError::Ended(self.info.not_after));
        }
        let allowance = i64::from(CLOCK_ALLOWANCE_DAYS) * SECONDS_A_DAY * 1000;
        let begin = now.plus_millis(-allowance).max(Timestamp::from_unix_seconds(0));
        let mut params = params(common_name, begin, end(now, days).min(self.info.not_after));
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        Ok(params)
    }

    fn issue(&self, params: &CertificateParams) -> Result<TlsIdentity, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Make)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(AuthorityError::Make)?;
        let chain_pem = leaf.pem() + &self.certificate_pem();
        TlsIdentity::from_pem(chain_pem.as_bytes(), key.serialize_pem().as_bytes()).map_err(AuthorityError::Certificate)
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

fn params(common_name: &str, not_before: Timestamp, not_after: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(not_before);
    params.not_after = moment(not_after);
    params
}

fn end(now: Timestamp, days: u32) -> Timestamp {
    // u32 days in milliseconds fit in an i64.
    now.max(EARLIEST).plus_millis(days as i64 * SECONDS_A_DAY * 1000)
}

fn moment(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.unix_seconds()).expect("a timestamp lies within the years 1 to 9999")
}

fn subject_alternative_name(name: &str) -> Result<SanType, AuthorityError> {
    let refused = || AuthorityError::Name(name.to_owned());
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*$".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
        return Err(refused());
    }
    Ok(SanType::DnsName(Ia5String::from_str(name).map_err(|_| refused())?))
}

#[cfg(test)]
mod tests;
