//! TLS settings for servers and clients: versions 1.2 and 1.3, one cryptographic provider, named wherever one is needed.
//!
//! - A server's certificate can be replaced while it runs; connections that are open go on, new ones see the new one.
//! - It is shown whatever name the client asks for, or none: devices connect by IP address, and old clients ask for nothing.
//! - Sessions resume by ticket (both versions), and from memory for clients of TLS 1.2 that know no tickets.
//! - A client trusts exactly the roots that it is given.
//!
//! The provider is never taken from the process-wide default: two providers in one program would make that panic.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::certificate::{InvalidCertificate, MAX_PEM_BYTES, TlsIdentity, certificates_from_pem};
use crate::private_file;

/// The roots that Debian and its relatives trust.
pub const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// TLS 1.2 sessions kept for clients without tickets; about 1 KiB each, the oldest go first.
const SESSIONS_IN_MEMORY: usize = 1024;
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key cannot be used.
    #[error("a certificate for TLS can't be used")]
    Certificate(#[source] InvalidCertificate),
    /// A certificate cannot be a root.
    #[error("a certificate can't be used as a root of trust")]
    Root(#[source] rustls::Error),
    /// A client has nothing to trust.
    #[error("there is no root of trust; give the CA certificate of the server, or use the system's")]
    NoRoots(#[source] VerifierBuilderError),
    /// The library refused.
    #[error("TLS can't be set up")]
    Library(#[source] rustls::Error),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server certificate that can be replaced while the server runs.
#[derive(Debug)]
pub struct ReloadableCertificate {
    /// Read for each handshake, written at a renewal; held for the copy of a pointer.
    current: RwLock<Arc<CertifiedKey>>,
}

impl ReloadableCertificate {
    /// Begins with this certificate.
    ///
    /// # Errors
    /// [`InvalidCertificate`] when certificate and key cannot be used.
    pub fn new(identity: &TlsIdentity) -> Result<Self, InvalidCertificate> {
        Ok(Self {
            current: RwLock::new(identity.certified_key()?),
        })
    }

    /// Shows this certificate from the next handshake on.
    ///
    /// # Errors
    /// [`InvalidCertificate`]; the earlier one then stays.
    pub fn replace(&self, identity: &TlsIdentity) -> Result<(), InvalidCertificate> {
        let new = identity.certified_key()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The certificate that is shown now.
    #[must_use]
    pub fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Settings of a server. Application protocols (ALPN) are the caller's to add.
///
/// # Errors
/// [`TlsError::Library`] when no random bytes are to be had for the tickets' key.
pub fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Library)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Library)?;
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_IN_MEMORY);
    Ok(config)
}

/// Settings of a client that trusts `roots` and shows `identity`, if there is one, when the server asks.
///
/// # Errors
/// [`TlsError`].
pub fn client_config(roots: Roots, identity: Option<&TlsIdentity>) -> Result<ClientConfig, TlsError> {
    client_config_of_versions(roots, identity, VERSIONS)
}

fn client_config_of_versions(
    roots: Roots,
    identity: Option<&TlsIdentity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.store), provider())
        .build()
        .map_err(TlsError::NoRoots)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Library)?
        .with_webpki_verifier(verifier);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let key = identity.certified_key().map_err(TlsError::Certificate)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))))
}

/// The certificates that a client trusts.
#[derive(Clone, Debug)]
pub struct Roots {
    store: RootCertStore,
}

impl Roots {
    /// Trusts nobody yet.
    #[must_use]
    pub fn none() -> Self {
        Self {
            store: RootCertStore::empty(),
        }
    }

    /// Trusts each certificate of a PEM text too.
    ///
    /// # Errors
    /// [`TlsError`] when it holds none, or one that cannot be a root.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, TlsError> {
        for certificate in certificates_from_pem(pem).map_err(TlsError::Certificate)? {
            self.store.add(certificate).map_err(TlsError::Root)?;
        }
        Ok(self)
    }

    /// Trusts each certificate of a PEM file too.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn with_file(self, path: &Path) -> Result<Self, TlsError> {
        self.with_pem(&read(path)?)
    }

    /// Trusts what the operating system trusts too: the file `replacement` (the value of `SSL_CERT_FILE`, if it is set), else
    /// [`SYSTEM_ROOTS`]. Certificates in it that cannot be roots are passed over, as everybody does with these bundles.
    ///
    /// # Errors
    /// [`TlsError`] when the file cannot be read or holds no certificate.
    pub fn with_system(mut self, replacement: Option<&Path>) -> Result<Self, TlsError> {
        let pem = read(replacement.unwrap_or_else(|| Path::new(SYSTEM_ROOTS)))?;
        let certificates = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TlsError::Certificate(InvalidCertificate::Pem(error)))?;
        let (added, _passed_over) = self.store.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(TlsError::Certificate(InvalidCertificate::NoCertificate));
        }
        Ok(self)
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    private_file::read_public(path, MAX_PEM_BYTES)
        .map_err(InvalidCertificate::File)
        .map_err(TlsError::Certificate)
}

#[cfg(test)]
pub(crate) mod tests;
