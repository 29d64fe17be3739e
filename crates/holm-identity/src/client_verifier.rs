//! The server's half of client certificates: whoever shows one must hold its key.
//!
//! ```text
//! client -> Certificate         any chain, any issuer, any version, or none at all: accepted here
//! client -> CertificateVerify   signature over the handshake: checked against the key in the certificate, always
//! later  -> x509_auth           thumbprint or issuer: decided from the registry
//! ```
//!
//! Trust cannot be decided in the handshake, because the identity is known only when the client names itself. But the
//! signature must be checked here: certificates are public, and without this check anyone who has seen one could log in as
//! that device.
//!
//! The TLS library's own check refuses certificates of X.509 version 1, which `openssl x509 -req -signkey` makes and many a
//! device has. So the key is taken from the certificate by a parser that reads them, and the signature is checked with the
//! library's own cryptography. Source: `hub-device-protocols.md` §1.4.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::parse;

/// Requests a client certificate, requires none, believes none without its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProofOfKeyVerifier;

impl ClientCertVerifier for ProofOfKeyVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a client with a self-signed certificate would find none of its issuers and send nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        parse(end_entity).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, dss, algorithm_tls12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, cert, dss, algorithm_tls13)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}

/// What kind of key a certificate holds, as far as we can check signatures with it.
#[derive(Clone, Copy)]
enum KeyKind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

impl KeyKind {
    fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let algorithm = &key.algorithm;
        if algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
            return Some(Self::Rsa);
        }
        if algorithm.algorithm == OID_SIG_ED25519 {
            return Some(Self::Ed25519);
        }
        if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = algorithm.parameters.as_ref()?.as_oid().ok()?;
        if curve == OID_EC_P256 {
            Some(Self::P256)
        } else if curve == OID_NIST_EC_P384 {
            Some(Self::P384)
        } else {
            None
        }
    }
}

type Algorithm = &'static dyn VerificationAlgorithm;

fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    algorithm: impl Fn(SignatureScheme, KeyKind) -> Option<Algorithm>,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = parse(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let bad_signature = || Error::InvalidCertificate(CertificateError::BadSignature);
    let key = certificate.public_key();
    let algorithm = KeyKind::of(key)
        .and_then(|kind| algorithm(signed.scheme, kind))
        .ok_or_else(bad_signature)?;
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data)
        .verify(message, signed.signature())
        .map_err(|_| bad_signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// RFC 8446 §4.2.3: an ECDSA scheme fixes the curve; PKCS #1 v1.5 is not for handshakes.
fn algorithm_tls13(scheme: SignatureScheme, key: KeyKind) -> Option<Algorithm> {
    Some(match (scheme, key) {
        (SignatureScheme::ECDSA_NISTP256_SHA256, KeyKind::P256) => &signature::ECDSA_P256_SHA256_ASN1,
        (SignatureScheme::ECDSA_NISTP384_SHA384, KeyKind::P384) => &signature::ECDSA_P384_SHA384_ASN1,
        (SignatureScheme::ED25519, KeyKind::Ed25519) => &signature::ED25519,
        (SignatureScheme::RSA_PSS_SHA256, KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA256,
        (SignatureScheme::RSA_PSS_SHA384, KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA384,
        (SignatureScheme::RSA_PSS_SHA512, KeyKind::Rsa) => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// RFC 5246 §7.4.1.4.1: an ECDSA scheme fixes the hash alone, and PKCS #1 v1.5 is allowed.
fn algorithm_tls12(scheme: SignatureScheme, key: KeyKind) -> Option<Algorithm> {
    Some(match (scheme, key) {
        (SignatureScheme::ECDSA_NISTP256_SHA256, KeyKind::P384) => &signature::ECDSA_P384_SHA256_ASN1,
        (SignatureScheme::ECDSA_NISTP384_SHA384, KeyKind::P256) => &signature::ECDSA_P256_SHA384_ASN1,
        (SignatureScheme::RSA_PKCS1_SHA256, KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (SignatureScheme::RSA_PKCS1_SHA384, KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (SignatureScheme::RSA_PKCS1_SHA512, KeyKind::Rsa) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return algorithm_tls13(scheme, key),
    })
}

#[cfg(test)]
mod tests;
