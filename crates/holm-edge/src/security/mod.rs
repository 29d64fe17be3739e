//! What the edge holds to prove itself and to let others prove themselves: keys, its certificate authority, its server
//! certificate, and whom it trusts.
//!
//! ```text
//! DATA/keys/            device-id.key         the device's key, from the configuration; none where it has a certificate
//!                       module-master.key     every module's key is derived from it
//!                       module-encryption.key what modules encrypt through the workload API
//! DATA/certificates/    edge-ca.pem, edge-ca.key.pem; edge-ca-next.*, edge-ca-previous.pem around a change
//!
//! edge CA --signs--> server certificate   host name, localhost, bind and gateway addresses; in memory only
//!         --signs--> certificates of modules
//!         --is in--> trust bundle         with the previous and the next edge CA, and the operator's own roots
//! ```
//!
//! - The server certificate is made again when its names change and at 80 % of its life, and replaced without closing a
//!   connection. It needs no file: a new one at each start is trusted as the old one was.
//! - An authority that the edge made is followed by another, which is in the trust bundle from 80 % of the first one's life,
//!   and signs from 95 %; the first stays in the bundle until its end. One that was given is never touched.
//! - A device with a certificate shows it where it speaks as itself: to the provisioning service, and to the hub's registry.
//!   Its modules, the runtime's own among them, have keys of their own whatever the device has.
//! - Key bytes stay in the key store.
//!
//! Source: `edge-agent.md` §3.2, §5, §6.6.

mod authority;
mod device_certificate;
mod kept;
mod module_secrets;
mod trust;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_identity::ca::AuthorityError;
use holm_identity::certificate::InvalidCertificate;
use holm_identity::key_store::KeyStoreError;
use holm_identity::private_file::{self, PrivateFileError};
use holm_identity::symmetric_key::InvalidKey;
use holm_identity::tls::TlsError;
use holm_identity::x509_auth::CertificateRefused;
use holm_identity::{
    CertificateInfo, FileKeyStore, KeyHandle, KeyName, KeyStore, ReloadableCertificate, SigningCertificate, StoredKey,
    SymmetricKey,
};
use holm_model::{DeviceId, Timestamp};
use holm_net::{Clock, Scope, error_chain};
use rustls::ClientConfig;

use self::authority::Authorities;
use self::device_certificate::DeviceCertificate;
use crate::config::{DeviceProof, EdgeCa, EdgeConfig};

/// The life of certificates that the edge issues; the published default.
const LEAF_DAYS: u32 = 30;
/// How often certificates are looked at. A clock that was set shows a certificate of the wrong time, and until it is looked at
/// nobody can connect.
const MAINTENANCE_PERIOD: Duration = Duration::from_secs(60);
/// A key of 64 bytes in base64 takes 88; some air for line ends.
const MAX_KEY_FILE_BYTES: u64 = 256;

/// Why keys or certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The key store refused.
    #[error("the key store can't be used")]
    KeyStore(#[source] KeyStoreError),
    /// The file of the device's key can't be read.
    #[error("the file of the device's key can't be used")]
    DeviceKeyFile(#[source] PrivateFileError),
    /// The file of the device's key holds none.
    #[error("the file of the device's key holds no key")]
    DeviceKey(#[source] InvalidKey),
    /// The device's certificate or its key can't be used.
    #[error("the device's certificate can't be used")]
    DeviceCertificate(#[source] InvalidCertificate),
    /// A directory can't be used.
    #[error("the directory for certificates can't be used")]
    Directory(#[source] PrivateFileError),
    /// The edge's certificate authority can't be used.
    #[error("the edge's certificate authority can't be used")]
    Authority(#[source] AuthorityError),
    /// A certificate that the edge issued can't be used.
    #[error("the edge's certificate can't be used")]
    Certificate(#[source] InvalidCertificate),
    /// The operator's roots can't be read.
    #[error("the file of `trust_bundle_cert` can't be used")]
    TrustBundle(#[source] TlsError),
    /// One of the operator's roots can't vouch for anybody.
    #[error("a certificate in the file of `trust_bundle_cert` can't be used")]
    Root(#[source] CertificateRefused),
    /// Nobody can be trusted.
    #[error("the hub's certificate can't be judged")]
    Upstream(#[source] TlsError),
}

/// What is needed to open it.
#[derive(Clone, Debug)]
pub struct SecurityOptions {
    /// The edge's data directory.
    pub data: PathBuf,
    /// The device that this edge is.
    pub device: DeviceId,
    /// The hub's name.
    pub hub_host: String,
    /// What the device proves itself by.
    pub proof: DeviceProof,
    /// Where certificates come from.
    pub edge_ca: EdgeCa,
    /// The operator's own roots.
    pub trust_bundle_cert: Option<PathBuf>,
    /// The system's roots; `None`: the usual file.
    pub system_roots: Option<PathBuf>,
    /// Names and addresses by which this edge is reached.
    pub names: Vec<String>,
}

impl SecurityOptions {
    /// From the configuration, with the names that it implies; addresses of networks that are made later are added with
    /// [`Security::set_names`].
    #[must_use]
    pub fn from_config(config: &EdgeConfig) -> Self {
        Self {
            data: config.data.clone(),
            device: config.device.clone(),
            hub_host: config.hub.host.clone(),
            proof: config.proof.clone(),
            edge_ca: config.edge_ca.clone(),
            trust_bundle_cert: config.trust_bundle_cert.clone(),
            system_roots: std::env::var_os("SSL_CERT_FILE").map(PathBuf::from),
            names: server_names(config),
        }
    }
}

/// The names that a configuration implies for the server certificate: host name, `localhost`, and the address that is bound.
#[must_use]
pub fn server_names(config: &EdgeConfig) -> Vec<String> {
    let mut names = vec![config.hostname.clone(), "localhost".to_owned(), "127.0.0.1".to_owned()];
    if !config.bind.is_unspecified() {
        names.push(config.bind.to_string());
    }
    names
}

/// The keys and certificates of this edge.
#[derive(Debug)]
pub struct Security {
    options: SecurityOptions,
    keys: Arc<dyn KeyStore>,
    proof: Proof,
    master_key: KeyName,
    encryption_key: KeyHandle,
    server: Arc<ReloadableCertificate>,
    /// Held for copies and for the making of a certificate, never over an `.await`.
    issued: Mutex<Issued>,
}

/// What the device proves itself by.
#[derive(Debug)]
enum Proof {
    Key(KeyHandle),
    Certificate(Arc<DeviceCertificate>),
}

/// What changes while the edge runs.
#[derive(Debug)]
struct Issued {
    authorities: Authorities,
    names: Vec<String>,
    server: CertificateInfo,
}

impl Security {
    /// Opens keys and certificates, making those that the edge makes for itself.
    ///
    /// # Errors
    /// [`SecurityError`].
    pub async fn open(options: SecurityOptions, now: Timestamp) -> Result<Self, SecurityError> {
        let keys = FileKeyStore::open(options.data.join("keys")).map_err(SecurityError::KeyStore)?;
        let keys: Arc<dyn KeyStore> = Arc::new(keys);
        let proof = match read_device_proof(&options.proof)? {
            Held::Key(key) => {
                let handle = keys.import(&name("device-id"), key).await;
                Proof::Key(handle.map_err(SecurityError::KeyStore)?)
            }
            Held::Certificate(certificate) => Proof::Certificate(certificate),
        };
        let master_key = name("module-master");
        keys.ensure(&master_key).await.map_err(SecurityError::KeyStore)?;
        let encryption_key = keys
            .ensure(&name("module-encryption"))
            .await
            .map_err(SecurityError::KeyStore)?;
        let certificates = options.data.join("certificates");
        private_file::ensure_directory(&certificates).map_err(SecurityError::Directory)?;
        let authorities = Authorities::open(&options, now)?;
        trust::read_operators(options.trust_bundle_cert.as_deref())?;
        let identity = authorities
            .current
            .issue_server(&options.names, LEAF_DAYS, now)
            .map_err(SecurityError::Authority)?;
        let server = ReloadableCertificate::new(&identity).map_err(SecurityError::Certificate)?;
        let issued = Issued {
            authorities,
            names: options.names.clone(),
            server: identity.info().map_err(SecurityError::Certificate)?,
        };
        Ok(Self {
            options,
            keys,
            proof,
            master_key,
            encryption_key,
            server: Arc::new(server),
            issued: Mutex::new(issued),
        })
    }

    /// The key store.
    #[must_use]
    pub const fn keys(&self) -> &Arc<dyn KeyStore> {
        &self.keys
    }

    /// The device that this edge is.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.options.device
    }

    /// The hub's name, as it stands in tokens and user names.
    #[must_use]
    pub fn hub_host(&self) -> &str {
        &self.options.hub_host
    }

    /// What signs in the device's name; `None` where its certificate speaks, which [`Security::device_tls`] shows.
    #[must_use]
    pub fn device_signer(&self) -> Option<StoredKey> {
        match &self.proof {
            Proof::Key(handle) => Some(StoredKey {
                store: Arc::clone(&self.keys),
                handle: handle.clone(),
            }),
            Proof::Certificate(_) => None,
        }
    }

    /// The key from which those of modules are derived.
    #[must_use]
    pub const fn master_key(&self) -> &KeyName {
        &self.master_key
    }

    /// The certificate that the edge's listeners show; it is replaced in place.
    #[must_use]
    pub const fn server_certificate(&self) -> &Arc<ReloadableCertificate> {
        &self.server
    }

    /// TLS towards the hub: trusts the system's roots and the operator's own.
    ///
    /// # Errors
    /// [`SecurityError`] when there is nobody to trust.
    pub fn upstream_tls(&self) -> Result<ClientConfig, SecurityError> {
        trust::upstream(
            self.options.system_roots.as_deref(),
            self.options.trust_bundle_cert.as_deref(),
        )
    }

    /// TLS towards the hub for who speaks as the device itself: shows its certificate, if it has one, as that then is on disk.
    ///
    /// # Errors
    /// As [`Security::upstream_tls`].
    pub fn device_tls(&self) -> Result<ClientConfig, SecurityError> {
        let tls = self.upstream_tls()?;
        Ok(match &self.proof {
            Proof::Key(_) => tls,
            Proof::Certificate(certificate) => device_certificate::shown_by(tls, certificate),
        })
    }

    /// The operator's own authorities, which may vouch for devices below this edge; empty when there are none.
    ///
    /// # Errors
    /// [`SecurityError::TrustBundle`], [`SecurityError::Root`] when the operator's file can't be used.
    pub fn operators_authorities(&self) -> Result<Vec<SigningCertificate>, SecurityError> {
        let pem = trust::read_operators(self.options.trust_bundle_cert.as_deref())?;
        if pem.is_empty() {
            return Ok(Vec::new());
        }
        SigningCertificate::all_of(pem.as_bytes()).map_err(SecurityError::Root)
    }

    /// What modules and downstream devices have to trust, in PEM.
    ///
    /// # Errors
    /// [`SecurityError::TrustBundle`] when the operator's file has gone.
    pub fn trust_bundle_pem(&self, now: Timestamp) -> Result<String, SecurityError> {
        let mut bundle = {
            let authorities = &self.lock().authorities;
            authorities.pem() + &authorities.kept_pem()
        };
        bundle.push_str(&authority::previous_pem(&self.options, now));
        bundle.push_str(&trust::read_operators(self.options.trust_bundle_cert.as_deref())?);
        Ok(bundle)
    }

    /// The edge's certificate authority, and the one that follows it if that is known, in PEM: what `holm edge ca` prints.
    #[must_use]
    pub fn edge_ca_pem(&self) -> String {
        self.lock().authorities.pem()
    }

    /// The names that the server certificate has now.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.lock().names.clone()
    }

    /// Changes the names of the server certificate; when they differ, a new one is shown from the next handshake on.
    ///
    /// # Errors
    /// [`SecurityError`]; the earlier certificate then stays.
    pub fn set_names(&self, names: Vec<String>, now: Timestamp) -> Result<(), SecurityError> {
        let mut issued = self.lock();
        if issued.names == names {
            return Ok(());
        }
        let authorities = issued.authorities.clone();
        self.issue(&mut issued, authorities, names, now)
    }

    /// Replaces what is due. Says whether anything was.
    ///
    /// # Errors
    /// [`SecurityError`]; what was there stays.
    pub fn maintain(&self, now: Timestamp) -> Result<bool, SecurityError> {
        let mut issued = self.lock();
        let authorities = match issued.authorities.maintained(&self.options, now)? {
            Some(changed) => changed,
            None if issued.server.should_renew(LEAF_DAYS, now) => issued.authorities.clone(),
            None => return Ok(false),
        };
        let names = issued.names.clone();
        self.issue(&mut issued, authorities, names, now)?;
        Ok(true)
    }

    /// Reads again what an operator may have replaced: the device's certificate, the given authority and the operator's roots. For SIGHUP. The authority
    /// before stays in the trust bundle until its end.
    ///
    /// # Errors
    /// [`SecurityError`]; what was there stays.
    pub fn reload(&self, now: Timestamp) -> Result<(), SecurityError> {
        trust::read_operators(self.options.trust_bundle_cert.as_deref())?;
        if let Proof::Certificate(certificate) = &self.proof {
            certificate.reload().map_err(SecurityError::DeviceCertificate)?;
        }
        let authorities = Authorities::open(&self.options, now)?;
        let mut issued = self.lock();
        let before = Arc::clone(&issued.authorities.current);
        let names = issued.names.clone();
        self.issue(&mut issued, authorities, names, now)?;
        if before.chain() != issued.authorities.current.chain() {
            authority::keep_previous(&self.options, &before)?;
        }
        Ok(())
    }

    /// Looks after the certificates until the scope stops.
    pub async fn run(self: Arc<Self>, scope: Scope, clock: Clock) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(MAINTENANCE_PERIOD) => {}
                () = scope.stopping() => return,
            }
            self.look_after(&clock);
        }
    }

    /// Renews what is due by the time of day, and tells of it.
    pub fn look_after(&self, clock: &Clock) {
        match self.maintain(clock.now().into()) {
            Ok(true) => tracing::info!("the edge's certificate was renewed"),
            Ok(false) => {}
            Err(error) => tracing::error!(error = %error_chain(&error), "the edge's certificate was not renewed"),
        }
    }

    fn issue(
        &self,
        issued: &mut Issued,
        authorities: Authorities,
        names: Vec<String>,
        now: Timestamp,
    ) -> Result<(), SecurityError> {
        let identity = authorities
            .current
            .issue_server(&names, LEAF_DAYS, now)
            .map_err(SecurityError::Authority)?;
        let info = identity.info().map_err(SecurityError::Certificate)?;
        self.server.replace(&identity).map_err(SecurityError::Certificate)?;
        *issued = Issued {
            authorities,
            names,
            server: info,
        };
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Issued> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the device holds to prove itself.
pub(crate) enum Held {
    /// A key.
    Key(SymmetricKey),
    /// A certificate, as it is on disk.
    Certificate(Arc<DeviceCertificate>),
}

/// TLS towards whoever is above an edge of this configuration, for who speaks as the device by `held`.
pub(crate) fn device_tls_of(config: &EdgeConfig, held: &Held) -> Result<ClientConfig, SecurityError> {
    let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let tls = trust::upstream(system.as_deref(), config.trust_bundle_cert.as_deref())?;
    Ok(match held {
        Held::Key(_) => tls,
        Held::Certificate(certificate) => device_certificate::shown_by(tls, certificate),
    })
}

/// The device's key or certificate, from the configuration or the files that it names.
pub(crate) fn read_device_proof(proof: &DeviceProof) -> Result<Held, SecurityError> {
    let path = match proof {
        DeviceProof::Key(key) => return Ok(Held::Key(key.clone())),
        DeviceProof::KeyFile(path) => path,
        DeviceProof::Certificate(files) => {
            let certificate = DeviceCertificate::open(files.clone());
            return certificate
                .map(|certificate| Held::Certificate(Arc::new(certificate)))
                .map_err(SecurityError::DeviceCertificate);
        }
    };
    let bytes = private_file::read(path, MAX_KEY_FILE_BYTES).map_err(SecurityError::DeviceKeyFile)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    SymmetricKey::from_base64(text)
        .or_else(|_| SymmetricKey::from_bytes(bytes.to_vec()))
        .map(Held::Key)
        .map_err(SecurityError::DeviceKey)
}

fn name(text: &str) -> KeyName {
    KeyName::new(text).expect("the names in this file keep the rule")
}

#[cfg(test)]
mod tests;
