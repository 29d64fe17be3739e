//! Certificate signing requests (PKCS #10): a device keeps its key and asks for a certificate for it.
//!
//! Of what it asks for, the name and the key count; what the certificate may be used for, and how long, is the authority's to say.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// The largest request. Source: `hub-device-protocols.md` §5.7.
pub const MAX_REQUEST: usize = 8 * 1024;

/// The longest text of one: base64 in lines, between two more.
const MAX_TEXT: usize = MAX_REQUEST * 2;

/// Why a text is no request that can be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// It is longer than any that is read.
    #[error("the certificate signing request has more than {MAX_REQUEST} bytes")]
    TooLarge,
    /// It is not written as a text should be.
    #[error("the certificate signing request is not base64")]
    Base64,
    /// It is none.
    #[error("it is no certificate signing request; give PKCS #10 in DER")]
    Form,
    /// Somebody asks for a key that is not theirs.
    #[error("the certificate signing request is not signed by the key that it is for")]
    Signature,
    /// It names nobody.
    #[error("the subject of the certificate signing request has no common name")]
    Name,
    /// Its key is of a kind that no certificate is made for here.
    #[error(
        "the key of the certificate signing request is of a kind that is not known here; use ECDSA P-256, P-384, Ed25519 or RSA"
    )]
    Key,
}

/// A request that was signed by the key that it is for.
pub struct SigningRequest {
    common_name: String,
    key: SubjectPublicKeyInfo,
}

impl SigningRequest {
    /// Reads a request that is written in base64, with or without the lines of PEM around it.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn from_text(text: &str) -> Result<Self, InvalidRequest> {
        if text.len() > MAX_TEXT {
            return Err(InvalidRequest::TooLarge);
        }
        let bare: String = text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .flat_map(str::chars)
            .filter(|character| !character.is_ascii_whitespace())
            .collect();
        Self::from_der(&STANDARD.decode(bare).map_err(|_| InvalidRequest::Base64)?)
    }

    /// Reads a request, and checks that who made it has the key.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidRequest> {
        if der.len() > MAX_REQUEST {
            return Err(InvalidRequest::TooLarge);
        }
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(InvalidRequest::Form);
        };
        request.verify_signature().map_err(|_| InvalidRequest::Signature)?;
        let info = &request.certification_request_info;
        let name = info.subject.iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
        Ok(Self {
            common_name: name.ok_or(InvalidRequest::Name)?.to_owned(),
            key: SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| InvalidRequest::Key)?,
        })
    }

    /// Whom it is for.
    #[must_use]
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    pub(super) const fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

impl fmt::Debug for SigningRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningRequest")
            .field("common_name", &self.common_name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;
    use crate::CertificateAuthority;
    use crate::certificate::{CertificateDetails, parse};

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn request(name: Option<&str>, key: &KeyPair) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_made_for_the_key_of_the_request_and_for_nothing_else_that_it_asks() {
        let authority = CertificateAuthority::create("Hub", 3650, NOW).unwrap();
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let read = SigningRequest::from_der(&request(Some("dev-1"), &key)).unwrap();

            let issued = authority.issue_for(&read, 30, NOW).unwrap();

            let details = CertificateDetails::read(&issued).unwrap();
            let parsed = parse(&issued).unwrap();
            assert_eq!(read.common_name(), "dev-1");
            assert_eq!(details.info.subject_common_name.as_deref(), Some("dev-1"));
            assert!(!details.info.is_authority && details.info.is_valid_at(NOW));
            assert_eq!(details.info.not_after, NOW.plus_millis(30 * 86_400_000));
            assert_eq!(
                parsed.public_key().raw,
                rcgen::PublicKeyData::subject_public_key_info(&key)
            );
            let chain = [issued, authority.chain()[0].clone()];
            let signer = crate::SigningCertificate::new(&authority.chain()[0]).unwrap();
            signer.vouches_for(&chain, NOW).unwrap();
        }
    }

    #[test]
    fn a_text_is_read_with_and_without_the_lines_of_pem() {
        let key = KeyPair::generate().unwrap();
        let bare = STANDARD.encode(request(Some("dev-1"), &key));
        let (head, rest) = bare.split_at(64);
        let pem =
            format!("-----BEGIN CERTIFICATE REQUEST-----\r\n{head}\r\n{rest}\r\n-----END CERTIFICATE REQUEST-----\r\n");

        for text in [&bare, &pem] {
            assert_eq!(SigningRequest::from_text(text).unwrap().common_name(), "dev-1");
        }
        assert_eq!(SigningRequest::from_text("no!").unwrap_err(), InvalidRequest::Base64);
        let longer = "A".repeat(MAX_TEXT + 1);
        assert_eq!(
            SigningRequest::from_text(&longer).unwrap_err(),
            InvalidRequest::TooLarge
        );
    }

    #[test]
    fn what_is_no_request_is_told_why() {
        let key = KeyPair::generate().unwrap();
        let good = request(Some("dev-1"), &key);
        let mut spoiled = good.clone();
        *spoiled.last_mut().unwrap() ^= 1;
        let mut longer = good.clone();
        longer.push(0);

        for (der, wrong) in [
            (request(None, &key), InvalidRequest::Name),
            (spoiled, InvalidRequest::Signature),
            (longer, InvalidRequest::Form),
            (good[..40].to_vec(), InvalidRequest::Form),
            (Vec::new(), InvalidRequest::Form),
            (vec![0x30; MAX_REQUEST + 1], InvalidRequest::TooLarge),
        ] {
            assert_eq!(SigningRequest::from_der(&der).unwrap_err(), wrong);
        }
    }
}
