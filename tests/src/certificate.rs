//! Client certificates, made by the `openssl` command, as device makers make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// SHA-1 of the certificate, 40 hex digits.
    pub sha1: String,
    /// SHA-256 of the certificate, 64 hex digits.
    pub sha256: String,
}

impl Certificate {
    /// A self-signed certificate, version 3, P-256.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn self_signed(directory: &Path, name: &str) -> Self {
        let [key, certificate] = paths(directory, name);
        openssl(&[
            "ecparam",
            "-name",
            "prime256v1",
            "-genkey",
            "-noout",
            "-out",
            text(&key),
        ]);
        let subject = format!("/CN={name}");
        let request = [
            "req",
            "-x509",
            "-new",
            "-days",
            "30",
            "-subj",
            &subject,
            "-key",
            text(&key),
        ];
        openssl(&[request.as_slice(), &["-out", text(&certificate)]].concat());
        Self::from_files(certificate, key)
    }

    /// An authority: self-signed, with a key as PKCS #8 and mode 0600.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn authority(directory: &Path, name: &str) -> Self {
        let [key, certificate] = paths(directory, name);
        let subject = format!("/CN={name}");
        let make = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
        ];
        let files = ["-subj", &subject, "-keyout", text(&key), "-out", text(&certificate)];
        openssl(&[make.as_slice(), &files].concat());
        Self::from_files(certificate, key)
    }

    /// A certificate that this one signs: of a device, or with `is_authority` of another that signs. The file holds its chain too,
    /// as clients have to show it.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn sign(&self, directory: &Path, name: &str, is_authority: bool) -> Self {
        let [key, certificate] = paths(directory, name);
        let (request, extensions) = (
            directory.join(format!("{name}.csr")),
            directory.join(format!("{name}.ext")),
        );
        let usage = if is_authority {
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
        } else {
            "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n"
        };
        std::fs::write(&extensions, usage).expect("a file can be written");
        let subject = format!("/CN={name}");
        let make = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let files = ["-subj", &subject, "-keyout", text(&key), "-out", text(&request)];
        openssl(&[make.as_slice(), &files].concat());
        let sign = [
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            text(&request),
            "-CA",
            text(&self.certificate),
        ];
        let with = [
            "-CAkey",
            text(&self.key),
            "-CAcreateserial",
            "-extfile",
            text(&extensions),
        ];
        openssl(&[sign.as_slice(), &with, &["-out", text(&certificate)]].concat());
        let made = Self::from_files(certificate.clone(), key);
        let read = |path: &Path| std::fs::read_to_string(path).expect("a certificate can be read");
        let chain = read(&certificate) + &read(&self.certificate);
        std::fs::write(&certificate, chain).expect("a file can be written");
        made
    }

    /// A self-signed certificate of version 1, RSA: what `openssl x509 -req -signkey` makes of a request, and many guides say.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn self_signed_version_1(directory: &Path, name: &str) -> Self {
        let [key, certificate] = paths(directory, name);
        let request = directory.join(format!("{name}.csr"));
        openssl(&["genrsa", "-out", text(&key), "2048"]);
        openssl(&[
            "req",
            "-new",
            "-subj",
            &format!("/CN={name}"),
            "-key",
            text(&key),
            "-out",
            text(&request),
        ]);
        let sign = [
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            text(&request),
            "-signkey",
            text(&key),
        ];
        openssl(&[sign.as_slice(), &["-out", text(&certificate)]].concat());
        Self::from_files(certificate, key)
    }

    /// A new key in a file, and a request for a certificate for it under a name: PKCS #10 in DER.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn request(directory: &Path, file: &str, name: &str) -> (PathBuf, Vec<u8>) {
        let [key, request] = [
            directory.join(format!("{file}.key.pem")),
            directory.join(format!("{file}.csr")),
        ];
        let subject = format!("/CN={name}");
        let make = [
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
        ];
        let files = [
            "-subj",
            &subject,
            "-keyout",
            text(&key),
            "-outform",
            "DER",
            "-out",
            text(&request),
        ];
        openssl(&[make.as_slice(), &files].concat());
        (key, std::fs::read(&request).expect("openssl has written a request"))
    }

    /// One that was issued: its chain as it is told, DER in base64, leaf first.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    #[track_caller]
    pub fn issued(directory: &Path, file: &str, chain: &Value, key: PathBuf) -> Self {
        let chain = chain.as_array().unwrap_or_else(|| panic!("no chain: {chain}")).iter();
        let pem = |der: &Value| {
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                der.as_str().unwrap_or_default()
            )
        };
        let certificate = directory.join(format!("{file}.pem"));
        std::fs::write(&certificate, chain.map(pem).collect::<String>()).expect("a file can be written");
        Self::from_files(certificate, key)
    }

    /// One that was made otherwise.
    ///
    /// # Panics
    /// When `openssl` can't read it.
    #[must_use]
    pub fn from_files(certificate: PathBuf, key: PathBuf) -> Self {
        let fingerprint = |kind: &str| {
            let answer = openssl(&["x509", "-noout", "-fingerprint", kind, "-in", text(&certificate)]);
            let (_, digits) = answer.trim().split_once('=').expect("openssl prints `NAME=DIGITS`");
            digits.replace(':', "")
        };
        Self {
            sha1: fingerprint("-sha1"),
            sha256: fingerprint("-sha256"),
            certificate,
            key,
        }
    }
}

fn paths(directory: &Path, name: &str) -> [PathBuf; 2] {
    [
        directory.join(format!("{name}.key.pem")),
        directory.join(format!("{name}.cert.pem")),
    ]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn openssl(arguments: &[&str]) -> String {
    let done = Command::new("openssl")
        .args(arguments)
        .output()
        .expect("openssl can be started");
    assert!(
        done.status.success(),
        "openssl {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8_lossy(&done.stdout).into_owned()
}
