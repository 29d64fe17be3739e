//! The files of a hub's data directory other than database and event log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_identity::ca::AuthorityError;
use holm_identity::certificate::InvalidCertificate;
use holm_identity::private_file::{self, PrivateFileError};
use holm_identity::{CertificateAuthority, Credential, Secret, ServiceConnectionString, SymmetricKey, TlsIdentity};
use holm_model::Timestamp;
use zeroize::Zeroizing;

use crate::file_error::{FileError, failed};
use crate::provisioning::Provisioning;
use crate::service::event_hub_name;

/// How long the hub's authority lives, in days.
const AUTHORITY_DAYS: u32 = 3650;
/// How long a server certificate lives, in days: clients on Apple's systems take no longer ones.
const SERVER_DAYS: u32 = 397;
/// The most bytes of a connection string's file.
const MAX_CONNECTION_STRING: u64 = 4096;
/// The file with the connection string of the provisioning service.
const PROVISIONING_CONNECTION_STRING: &str = "provisioning-connection-string";
/// The file that is there while a restore goes on.
pub(crate) const RESTORING: &str = "restoring";
/// The file with the id scope.
const ID_SCOPE: &str = "id-scope";

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
    #[error(transparent)]
    File(#[from] FileError),
    /// A file with a secret can't be used.
    #[error("a private file can't be used")]
    Private(#[from] PrivateFileError),
    /// The hub's certificate authority can't be used.
    #[error("the hub's certificate authority can't be used")]
    Authority(#[from] AuthorityError),
    /// The server certificate can't be used.
    #[error("the server certificate can't be used")]
    Certificate(#[source] InvalidCertificate),
    /// The file of the connection string holds something else.
    #[error("`{path}` holds no connection string of a policy; start the hub, which writes it anew")]
    ConnectionString {
        /// The file.
        path: PathBuf,
    },
    /// A restore into it did not end.
    #[error("a restore into `{path}` did not end; run `holm hub restore` again, which begins anew")]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
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
    _lock: Lock,
}

/// Keeps others out of a data directory until it is dropped. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    _file: Arc<File>,
}

/// Makes a data directory if it is not there, and locks it, whatever is in it.
///
/// # Errors
/// [`DataDirectoryError::InUse`], [`DataDirectoryError::File`].
pub(crate) fn lock_directory(path: &Path) -> Result<Lock, DataDirectoryError> {
    private_file::ensure_directory(path)?;
    let name = path.join("lock");
    let lock = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(failed("open", &name))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock { _file: Arc::new(lock) }),
        Err(fs::TryLockError::WouldBlock) => Err(DataDirectoryError::InUse { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(failed("lock", &name)(source).into()),
    }
}

/// As [`lock_directory`], for a directory that holds a hub or nothing.
///
/// # Errors
/// As [`lock_directory`]; [`DataDirectoryError::Unfinished`].
pub(crate) fn lock_data(path: &Path) -> Result<Lock, DataDirectoryError> {
    let lock = lock_directory(path)?;
    if path.join(RESTORING).exists() {
        return Err(DataDirectoryError::Unfinished { path: path.to_owned() });
    }
    Ok(lock)
}

/// What clients call the hub in a data directory, if that can be read; with the port, where it is not the published one.
#[must_use]
pub fn host_name(data: &Path) -> Option<String> {
    let text = connection_string(data).ok()?;
    Some(ServiceConnectionString::parse(text.expose()).ok()?.host_name)
}

/// Reads the service connection string of the hub in a data directory; the hub may be running.
///
/// # Errors
/// [`DataDirectoryError`].
pub fn connection_string(data: &Path) -> Result<Secret, DataDirectoryError> {
    line(
        data,
        private_file::read(&data.join("connection-string"), MAX_CONNECTION_STRING),
    )
}

/// Reads the service connection string of the provisioning service of the hub in a data directory; the hub may be running.
///
/// # Errors
/// [`DataDirectoryError`].
pub fn provisioning_connection_string(data: &Path) -> Result<Secret, DataDirectoryError> {
    let path = data.join(PROVISIONING_CONNECTION_STRING);
    line(data, private_file::read(&path, MAX_CONNECTION_STRING))
}

/// Reads what devices call the provisioning service of the hub in a data directory; the hub may be running.
///
/// # Errors
/// [`DataDirectoryError`].
pub fn id_scope(data: &Path) -> Result<String, DataDirectoryError> {
    let read = private_file::read_public(&data.join(ID_SCOPE), MAX_CONNECTION_STRING);
    Ok(line(data, read)?.expose().to_owned())
}

/// The line that was read from a file of a data directory; where there is no such file, there is no hub.
fn line(data: &Path, read: Result<Zeroizing<Vec<u8>>, PrivateFileError>) -> Result<Secret, DataDirectoryError> {
    match read {
        Ok(bytes) => Ok(Secret::new(String::from_utf8_lossy(&bytes).trim_end())),
        Err(error) if error.is_not_found() => Err(DataDirectoryError::NoHub { path: data.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

/// Reads the connection string for clients of Event Hubs of the hub in a data directory; the hub may be running. Source:
/// `hub-service-api.md` §6.
///
/// # Errors
/// [`DataDirectoryError`].
pub fn event_hub_connection_string(data: &Path) -> Result<Secret, DataDirectoryError> {
    let text = connection_string(data)?;
    let unusable = || DataDirectoryError::ConnectionString {
        path: data.join("connection-string"),
    };
    let string = ServiceConnectionString::parse(text.expose()).map_err(|_| unusable())?;
    let Credential::Key {
        key,
        policy: Some(policy),
    } = &string.credential
    else {
        return Err(unusable());
    };
    // Clients of Event Hubs know one port, that of AMQP.
    let host = match string.host_name.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => &string.host_name,
    };
    Ok(Secret::new(format!(
        "Endpoint=sb://{host}/;SharedAccessKeyName={policy};SharedAccessKey={};EntityPath={}",
        key.to_base64().expose(),
        event_hub_name(host)
    )))
}

/// The service connection string of a policy.
pub(crate) fn connection_string_of(hostname: &str, policy: &str, key: &SymmetricKey) -> Secret {
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
    /// As [`lock_data`].
    pub(super) fn lock(path: &Path) -> Result<Self, DataDirectoryError> {
        Ok(Self {
            _lock: lock_data(path)?,
            path: path.to_owned(),
        })
    }

    /// The directory itself.
    pub(super) fn path(&self) -> &Path {
        &self.path
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

    /// The hub's own authority, which is made at the first start.
    ///
    /// # Errors
    /// [`DataDirectoryError`].
    pub(super) fn authority(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<CertificateAuthority, DataDirectoryError> {
        let authority = CertificateAuthority::load_or_create(
            &self.path.join("ca.pem"),
            &self.path.join("ca-key.pem"),
            &format!("Holm hub {}", names.first().map_or("", String::as_str)),
            AUTHORITY_DAYS,
            now,
        );
        Ok(authority?)
    }

    /// The server's certificate for these names: the one in the directory, or a new one of the hub's own authority where
    /// that has other names or is near its end. The authority is made at the first start.
    ///
    /// # Errors
    /// [`DataDirectoryError`].
    pub(super) fn server_identity(&self, names: &[String], now: Timestamp) -> Result<TlsIdentity, DataDirectoryError> {
        let file = |name: &str| self.path.join(name);
        let authority = self.authority(names, now)?;
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

    /// Writes what clients of the provisioning service need, where the files say something else.
    pub(super) fn write_provisioning(&self, service: &Provisioning) -> Result<(), DataDirectoryError> {
        let scope = format!("{}\n", service.id_scope());
        let path = self.path.join(ID_SCOPE);
        match private_file::read_public(&path, MAX_CONNECTION_STRING) {
            Ok(known) if *known == *scope.as_bytes() => {}
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => private_file::write_public(&path, scope.as_bytes())?,
        }
        match service.connection_string() {
            Some(text) => self.write_secret(PROVISIONING_CONNECTION_STRING, &format!("{}\n", text.expose())),
            None => Ok(()),
        }
    }

    /// Writes the connection string where the file says something else.
    pub(super) fn write_connection_string(
        &self,
        hostname: &str,
        policy: &str,
        key: &SymmetricKey,
    ) -> Result<(), DataDirectoryError> {
        let wanted = format!("{}\n", connection_string_of(hostname, policy, key).expose());
        self.write_secret("connection-string", &wanted)
    }

    fn write_secret(&self, name: &str, wanted: &str) -> Result<(), DataDirectoryError> {
        let path = self.path.join(name);
        match private_file::read(&path, MAX_CONNECTION_STRING) {
            Ok(known) if **known == *wanted.as_bytes() => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(private_file::write(&path, wanted.as_bytes())?)
    }
}
