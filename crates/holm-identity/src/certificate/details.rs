//! What a certificate says of itself beyond name and dates, as the provisioning service publishes it.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::{CertificateInfo, InvalidCertificate, parse};

/// Names, number and version of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Common name, dates, thumbprints.
    pub info: CertificateInfo,
    /// The serial number in upper-case hexadecimal.
    pub serial_number: String,
    /// 1 or 3.
    pub version: u32,
    /// How many authorities may stand between it and a leaf, where it says so (`pathLenConstraint`).
    pub path_length: Option<u32>,
    /// Whether its key may sign certificates: where it names uses of its key, `keyCertSign` is among them.
    pub may_sign: bool,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
}

impl CertificateDetails {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`InvalidCertificate::Der`].
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let certificate = parse(der)?;
        let constraints = certificate.basic_constraints().map_err(|_| InvalidCertificate::Der)?;
        let usage = certificate.key_usage().map_err(|_| InvalidCertificate::Der)?;
        Ok(Self {
            info: CertificateInfo::read(der)?,
            serial_number: certificate.raw_serial_as_string().replace(':', "").to_ascii_uppercase(),
            version: certificate.version().0.saturating_add(1),
            path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
            may_sign: usage.is_none_or(|usage| usage.value.key_cert_sign()),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// Whether it is that of somebody who signs certificates: marked as such, where its version has marks, with a key that may.
    #[must_use]
    pub const fn is_issuer(&self) -> bool {
        (self.version != 3 || self.info.is_authority) && self.may_sign
    }

    /// The subject, such as `CN=reg-1, O=Example`. Written out only where it is asked for: the names of all that may stand in one are
    /// a large table, which an edge has no use for.
    #[must_use]
    pub fn subject(&self) -> String {
        name(&self.subject_der)
    }

    /// Who signed it, in the same form.
    #[must_use]
    pub fn issuer(&self) -> String {
        name(&self.issuer_der)
    }

    /// Its subject as DER: by this, certificates name who has signed them.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    /// The subject of who has signed it, as DER.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer_der
    }
}

/// A name in words; it comes from a certificate that could be read.
fn name(der: &[u8]) -> String {
    X509Name::from_der(der).map_or_else(|_| String::new(), |(_, name)| name.to_string())
}
