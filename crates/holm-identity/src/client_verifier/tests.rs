//! Real handshakes with clients of every kind of key, and with thieves.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{SignatureAlgorithm, SupportedProtocolVersion};

use crate::certificate::{TlsIdentity, parse};
use crate::tls::tests::{Outcome, Server};

use super::*;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn self_signed(algorithm: &'static rcgen::SignatureAlgorithm) -> TlsIdentity {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    TlsIdentity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

/// A self-signed certificate of X.509 version 1, made as guides for devices tell people to.
fn version_1(new_key: &[&str]) -> TlsIdentity {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let req = [
        "req", "-new", "-nodes", "-keyout", "key", "-subj", "/CN=dev1", "-out", "csr",
    ];
    openssl(path, &[&req, new_key].concat());
    let x509 = [
        "x509", "-req", "-in", "csr", "-signkey", "key", "-days", "30", "-out", "cert",
    ];
    openssl(path, &x509);
    let read = |name| std::fs::read(path.join(name)).unwrap();
    let identity = TlsIdentity::from_pem(&read("cert"), &read("key")).unwrap();
    let version = parse(&identity.chain()[0]).unwrap().version();
    assert_eq!(
        version,
        x509_parser::x509::X509Version::V1,
        "openssl made another version"
    );
    identity
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory)
        .output()
        .expect("this test needs the `openssl` command");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn log_in(
    server: &Server,
    identity: Option<&TlsIdentity>,
    version: &'static SupportedProtocolVersion,
) -> Result<Outcome, Error> {
    server.handshake(&Arc::new(server.client(identity, version)), "hub.test")
}

/// A handshake by a client that shows this chain and signs with this key, whether they belong together or not.
fn log_in_with(
    server: &Server,
    chain: &[CertificateDer<'static>],
    key: Arc<dyn SigningKey>,
    version: &'static SupportedProtocolVersion,
) -> Result<Outcome, Error> {
    let mut client = server.client(None, version);
    let shown = CertifiedKey::new(chain.to_vec(), key);
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
    server.handshake(&Arc::new(client), "hub.test")
}

#[test]
fn self_signed_certificates_of_every_kind_of_key_are_reported() {
    let server = Server::new();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let device = self_signed(algorithm);
        for version in VERSIONS {
            let outcome = log_in(&server, Some(&device), version).unwrap();

            assert_eq!(outcome.client_chain.as_deref(), Some(device.chain()), "{version:?}");
        }
    }
}

#[test]
fn a_version_1_certificate_is_reported() {
    let server = Server::new();
    let ec: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    for new_key in [&["-newkey", "rsa:2048"], ec] {
        let device = version_1(new_key);
        for version in VERSIONS {
            let outcome = log_in(&server, Some(&device), version).unwrap();

            assert_eq!(outcome.client_chain.as_deref(), Some(device.chain()), "{version:?}");
        }
    }
}

#[test]
fn somebody_elses_certificate_without_its_key_fails_the_handshake() {
    let server = Server::new();
    let stolen = [
        self_signed(&PKCS_ECDSA_P256_SHA256),
        self_signed(&PKCS_ED25519),
        version_1(&["-newkey", "rsa:2048"]),
    ];
    let thieves = [
        self_signed(&PKCS_ECDSA_P256_SHA256),
        self_signed(&PKCS_ECDSA_P384_SHA384),
        self_signed(&PKCS_ED25519),
        version_1(&["-newkey", "rsa:2048"]),
    ];
    for (victim, thief) in stolen
        .iter()
        .flat_map(|victim| thieves.iter().map(move |thief| (victim, thief)))
    {
        for version in VERSIONS {
            let key = Arc::clone(&thief.certified_key().unwrap().key);

            let refused = log_in_with(&server, victim.chain(), key, version).unwrap_err();

            assert_eq!(
                refused,
                Error::InvalidCertificate(CertificateError::BadSignature),
                "{version:?}"
            );
        }
    }
}

#[test]
fn a_client_without_a_certificate_is_let_in_and_none_is_reported() {
    let server = Server::new();
    for version in VERSIONS {
        let outcome = log_in(&server, None, version).unwrap();

        assert_eq!(outcome.client_chain, None);
    }
}

#[test]
fn what_is_no_certificate_fails_the_handshake() {
    let server = Server::new();
    let device = self_signed(&PKCS_ECDSA_P256_SHA256);
    let mut cut = device.chain()[0].to_vec();
    cut.pop();
    for garbage in [cut, b"not a certificate".to_vec()] {
        let key = Arc::clone(&device.certified_key().unwrap().key);

        let refused = log_in_with(&server, &[garbage.into()], key, &TLS13).unwrap_err();

        assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadEncoding));
    }
}

/// A key that signs with one scheme alone; if `rude`, even when the server did not offer it.
#[derive(Debug)]
struct Only {
    scheme: SignatureScheme,
    rude: bool,
    key: Arc<dyn SigningKey>,
}

impl SigningKey for Only {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let allowed = self.rude || offered.contains(&self.scheme);
        allowed.then(|| self.key.choose_scheme(&[self.scheme])).flatten()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[test]
fn every_rsa_scheme_is_offered_and_checked() {
    let server = Server::new();
    let device = version_1(&["-newkey", "rsa:2048"]);
    let key = Arc::clone(&device.certified_key().unwrap().key);
    let pss = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
    ];
    let pkcs1 = [
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ];
    let log_in = |scheme, version, rude| {
        let key = Arc::clone(&key);
        log_in_with(&server, device.chain(), Arc::new(Only { scheme, rude, key }), version)
    };

    for scheme in pss {
        assert!(log_in(scheme, &TLS13, false).is_ok_and(|outcome| outcome.client_chain.is_some()));
    }
    for scheme in pss.into_iter().chain(pkcs1) {
        assert!(log_in(scheme, &TLS12, false).is_ok_and(|outcome| outcome.client_chain.is_some()));
    }
    for scheme in pkcs1 {
        assert!(log_in(scheme, &TLS13, true).is_err(), "{scheme:?} is not for TLS 1.3");
    }
}
