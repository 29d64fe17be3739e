//! The files of a hub's data directory other than database and event log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_identity::ca::AuthorityError;
use holm_identity::certificate::InvalidCertificate;
use holm_identity::private_file::{self, PrivateFileError};
use holm_identity::{CertificateAuthority, Credential, Secret, ServiceConnectionString, SymmetricKey, TlsIdentity};
use holm_model::Timestamp;

/// How long the hub's authority lives, in days.
const AUTHORITY_DAYS: u32 = 3650;
/// How long a server certificate lives, in days: clients on Apple's systems take no longer ones.
const SERVER_DAYS: u32 = 397;
/// The most bytes of a connection string's file.
const MAX_CONNECTION_STRING: u64 = 4096;

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirectoryError {
    /// Another process uses it.
    #[error("the data directory `{path}` is locked by another hub; stop that one or give another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("can't {operation} `{path}`")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file with a secret can't be used.
    #[error("a private file can't be used")]
    Private(#[from] PrivateFileError),
    /// The hub's certificate authority can't be used.
    #[error("the hub's certificate authority can't be used")]
    Authority(#[from] AuthorityError),
    /// The server certificate can't be used.
    #[error("the server certificate can't be used")]
    Certificate(#[source] InvalidCertificate),
    /// The directory holds no hub.
    #[error("`{path}` holds no hub; start one there first")]
    NoHub {
        /// The directory.
        path: PathBuf,
    },
}

/// A data directory, locked for this process. Clones share the lock.
#[derive(Clone, Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    _lock: Arc<File>,
}

/// Reads the service connection string of the hub in a data directory; the hub may be running.
///
/// # Errors
/// [`DataDirectoryError`].
pub fn connection_string(data: &Path) -> Result<Secret, DataDirectoryError> {
    match private_file::read(&data.join("connection-string"), MAX_CONNECTION_STRING) {
        Ok(bytes) => Ok(Secret::new(String::from_utf8_lossy(&bytes).trim_end())),
        Err(error) if error.is_not_found() => Err(DataDirectoryError::NoHub { path: data.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn connection_string_of(hostname: &str, policy: &str, key: &SymmetricKey) -> Secret {
    let string = ServiceConnectionString {
        host_name: hostname.to_owned(),
        credential: Credential::Key {
            key: key.clone(),
            policy: Some(policy.to_owned()),
        },
    };
    string.to_text()
}

impl DataDirectory {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`DataDirectoryError::InUse`], [`DataDirectoryError::Io`].
    pub(super) fn lock(path: &Path) -> Result<Self, DataDirectoryError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirectoryError::Io {
                operation,
                path,
                source,
            }
        };
        private_file::ensure_directory(path)?;
        let name = path.join("lock");
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&name)
            .map_err(failed("open", &name))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: Arc::new(lock),
            }),
            Err(fs::TryLockError::WouldBlock) => Err(DataDirectoryError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(failed("lock", &name)(source)),
        }
    }

    /// Where files of devices are, if nobody says otherwise.
    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("hub.db")
    }

    pub(super) fn events(&self) -> PathBuf {
        self.path.join("events")
    }

    /// The server's certificate for these names: the one in the directory, or a new one of the hub's own authority where
    /// that has other names or is near its end. The authority is made at the first start.
    ///
    /// # Errors
    /// [`DataDirectoryError`].
    pub(super) fn server_identity(&self, names: &[String], now: Timestamp) -> Result<TlsIdentity, DataDirectoryError> {
        let file = |name: &str| self.path.join(name);
        let authority = CertificateAuthority::load_or_create(
            &file("ca.pem"),
            &file("ca-key.pem"),
            &format!("Holm hub {}", names.first().map_or("", String::as_str)),
            AUTHORITY_DAYS,
            now,
        )?;
        let (chain, key, listed) = (file("server.pem"), file("server-key.pem"), file("server-names"));
        // The names stand beside the certificate, so that nothing needs to be read back from its extensions; the authority's
        // thumbprint with them, for an authority that was replaced.
        let wanted = format!("{}\n{}\n", authority.info().sha256, names.join("\n"));
        let known = match private_file::read_public(&listed, 64 * 1024) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.is_not_found() => String::new(),
            Err(error) => return Err(error.into()),
        };
        if known == wanted {
            let identity = TlsIdentity::load(&chain, &key).map_err(DataDirectoryError::Certificate)?;
            let info = identity.info().map_err(DataDirectoryError::Certificate)?;
            if !info.should_renew(SERVER_DAYS, now) {
                return Ok(identity);
            }
        }
        let identity = authority.issue_server(names, SERVER_DAYS, now)?;
        identity.store(&chain, &key).map_err(DataDirectoryError::Certificate)?;
        // Last: a crash before it makes the next start issue anew.
        private_file::write_public(&listed, wanted.as_bytes())?;
        Ok(identity)
    }

    pub(super) fn ca_pem(&self) -> Result<String, DataDirectoryError> {
        let bytes = private_file::read_public(&self.path.join("ca.pem"), 64 * 1024)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes the connection string where the file says something else.
    pub(super) fn write_connection_string(
        &self,
        hostname: &str,
        policy: &str,
        key: &SymmetricKey,
    ) -> Result<(), DataDirectoryError> {
        let wanted = format!("{}\n", connection_string_of(hostname, policy, key).expose());
        let path = self.path.join("connection-string");
        match private_file::read(&path, MAX_CONNECTION_STRING) {
            Ok(known) if **known == *wanted.as_bytes() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(private_file::write(&path, wanted.as_bytes())?)
    }
}
