//! The certificate by which this device proves itself. It is in two files, and somebody else renews it.
//!
//! ```text
//! a connection is made --> the files are the ones that were read?   yes: what was read is shown
//!                                                                   no: read; a pair that can be used is shown from now on
//!                                                                       half replaced, damaged, gone: the last good one is shown
//! ```
//!
//! - So a renewal needs no word to the edge, and one that is cut short in the middle costs nothing.
//! - No session is resumed: that would show the certificate that the session began with.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_identity::TlsIdentity;
use holm_identity::certificate::InvalidCertificate;
use holm_net::error_chain;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use crate::config::CertificateFiles;

/// By what a file is told from the one that was read before: its inode, size and time in nanoseconds.
type Stamp = [Option<(u64, u64, i64, i64)>; 2];

/// The device's certificate, as it is on disk.
#[derive(Debug)]
pub(crate) struct DeviceCertificate {
    files: CertificateFiles,
    /// Held while a pair of small files is read.
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    certified: Arc<CertifiedKey>,
    stamp: Stamp,
    /// A pair that could not be used, of which was told.
    complained: Option<Stamp>,
}

impl DeviceCertificate {
    /// Reads the pair.
    ///
    /// # Errors
    /// [`InvalidCertificate`].
    pub(crate) fn open(files: CertificateFiles) -> Result<Self, InvalidCertificate> {
        let stamp = stamp_of(&files);
        let held = Held {
            certified: read(&files)?,
            stamp,
            complained: None,
        };
        Ok(Self {
            files,
            held: Mutex::new(held),
        })
    }

    /// Reads the pair again.
    ///
    /// # Errors
    /// [`InvalidCertificate`]; what was read before stays.
    pub(super) fn reload(&self) -> Result<(), InvalidCertificate> {
        let mut held = self.lock();
        held.reload(&self.files, stamp_of(&self.files))
    }

    /// What is shown now.
    fn current(&self) -> Arc<CertifiedKey> {
        let mut held = self.lock();
        let stamp = stamp_of(&self.files);
        if stamp != held.stamp {
            match held.reload(&self.files, stamp) {
                Ok(()) => tracing::info!(file = %self.files.cert.display(), "the device's certificate was replaced"),
                Err(error) if held.complained != Some(stamp) => {
                    held.complained = Some(stamp);
                    tracing::warn!(error = %error_chain(&error), "the device's new certificate can't be used; the last good one is shown");
                }
                Err(_) => {}
            }
        }
        Arc::clone(&held.certified)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn reload(&mut self, files: &CertificateFiles, stamp: Stamp) -> Result<(), InvalidCertificate> {
        let certified = read(files)?;
        *self = Self {
            certified,
            stamp,
            complained: None,
        };
        Ok(())
    }
}

impl ResolvesClientCert for DeviceCertificate {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The same settings, showing the certificate.
pub(super) fn shown_by(mut tls: ClientConfig, certificate: &Arc<DeviceCertificate>) -> ClientConfig {
    tls.client_auth_cert_resolver = Arc::<DeviceCertificate>::clone(certificate);
    tls.resumption = Resumption::disabled();
    tls
}

fn read(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, InvalidCertificate> {
    TlsIdentity::load(&files.cert, &files.pk)?.certified_key()
}

fn stamp_of(files: &CertificateFiles) -> Stamp {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
    };
    [stamp(&files.cert), stamp(&files.pk)]
}

#[cfg(test)]
mod tests {
    use holm_identity::CertificateAuthority;
    use holm_identity::certificate::CertificateInfo;
    use holm_model::Timestamp;

    use super::*;

    fn replace(files: &CertificateFiles, name: &str) -> String {
        let now = Timestamp::from(std::time::SystemTime::now());
        let authority = CertificateAuthority::create(name, 10, now).unwrap();
        let identity = authority.issue_client(name, &[""; 0], 10, now).unwrap();
        identity.store(&files.cert, &files.pk).unwrap();
        identity.info().unwrap().sha256
    }

    fn shown(certificate: &DeviceCertificate) -> String {
        CertificateInfo::read(&certificate.current().cert[0]).unwrap().sha256
    }

    #[test]
    fn a_renewed_pair_is_shown_as_soon_as_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = CertificateFiles {
            cert: path("cert.pem"),
            pk: path("key.pem"),
        };
        let first = replace(&files, "box-1");
        let certificate = DeviceCertificate::open(files.clone()).unwrap();
        let old_key = std::fs::read(&files.pk).unwrap();

        let second = replace(&files, "box-1");
        let new_key = std::fs::read(&files.pk).unwrap();
        holm_identity::private_file::write(&files.pk, &old_key).unwrap();

        assert_eq!(shown(&certificate), first, "half of a renewal is none");
        assert!(certificate.reload().is_err());
        holm_identity::private_file::write(&files.pk, &new_key).unwrap();
        assert_eq!(shown(&certificate), second);
        std::fs::remove_file(&files.cert).unwrap();
        assert_eq!(shown(&certificate), second, "what is gone was good a moment ago");
    }
}
