//! What a certificate says of itself beyond name and dates, as the provisioning service publishes it.

use rustls::pki_types::CertificateDer;

use super::{CertificateInfo, InvalidCertificate, parse};

/// Names, number and version of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Common name, dates, thumbprints.
    pub info: CertificateInfo,
    /// The subject, such as `CN=reg-1, O=Example`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
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
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial_number: certificate.raw_serial_as_string().replace(':', "").to_ascii_uppercase(),
            version: certificate.version().0.saturating_add(1),
            path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
            may_sign: usage.is_none_or(|usage| usage.value.key_cert_sign()),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
        })
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
