//! One certificate authority and one server certificate for every broker of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use holm_identity::{CertificateAuthority, Roots};
use holm_model::Timestamp;
use rustls::ClientConfig;

/// Days that the certificates hold: longer than any run.
const DAYS: u32 = 30;

/// The files that servers are given, and what clients trust.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
    client: Arc<ClientConfig>,
}

impl Certificates {
    /// Makes them in a directory.
    ///
    /// # Errors
    /// They can't be made or written.
    pub fn create(directory: &Path) -> Result<Self> {
        let now = Timestamp::from(SystemTime::now());
        let authority = CertificateAuthority::create("Holm benchmark", DAYS, now).context("no CA can be made")?;
        let server = authority.issue_server(&["localhost", "127.0.0.1"], DAYS, now)?;
        server.store(&directory.join("server.pem"), &directory.join("server.key"))?;
        super::write(&directory.join("ca.pem"), &authority.certificate_pem())?;
        let roots = Roots::none().with_pem(authority.certificate_pem().as_bytes())?;
        let client = holm_identity::tls::client_config(roots, None)?;
        Ok(Self {
            directory: directory.to_owned(),
            client: Arc::new(client),
        })
    }

    /// The server's certificate with its chain, PEM, for `localhost` and 127.0.0.1.
    #[must_use]
    pub fn chain_path(&self) -> PathBuf {
        self.directory.join("server.pem")
    }

    /// Its key, PEM.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    /// The authority that made them, PEM.
    #[must_use]
    pub fn ca_path(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// TLS settings of a client that trusts these certificates.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}
