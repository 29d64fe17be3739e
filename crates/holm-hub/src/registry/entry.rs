//! What the registry knows of a device or module.

use holm_identity::SymmetricKey;
use holm_identity::x509_auth::Thumbprint;
use holm_model::{Identity, ServiceError, Timestamp, etag};

use crate::random;

/// A device or module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who it is.
    pub identity: Identity,
    /// Differs for another device of the same id: digits, growing with time.
    pub generation: String,
    /// Changes with every change of this entry; shown by [`Entry::etag_text`].
    pub etag: i64,
    /// Whether it may connect. Only devices are ever disabled; their modules with them.
    pub enabled: bool,
    /// Why it is enabled or not.
    pub status_reason: Option<String>,
    /// When `enabled` last changed.
    pub status_updated: Timestamp,
    /// How it proves who it is.
    pub authentication: Authentication,
    /// Whether it is an edge device.
    pub edge: bool,
    /// Its own scope if it is an edge device, else its parent's.
    pub device_scope: Option<String>,
    /// The scope of its parent; at most one.
    pub parent_scopes: Vec<String>,
    /// Who made this module; `iotEdge` for deployments.
    pub managed_by: Option<String>,
}

/// How an identity proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// With tokens signed by one of two keys.
    Sas(Keys),
    /// With a certificate of one of two thumbprints, at least one of which is there.
    SelfSigned(Thumbprints),
    /// With a certificate of a registered authority.
    CertificateAuthority,
    /// Not at all: nobody can log in yet.
    None,
}

/// The primary and the secondary thumbprint of an identity.
pub type Thumbprints = (Option<Thumbprint>, Option<Thumbprint>);

/// The two shared keys of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The key in use.
    pub primary: SymmetricKey,
    /// The key to change to.
    pub secondary: SymmetricKey,
}

impl Keys {
    /// Two new random keys.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub fn generate() -> Result<Self, ServiceError> {
        let random = ring::rand::SystemRandom::new();
        let key = || SymmetricKey::generate(&random).map_err(|error| ServiceError::server_error(error.to_string()));
        Ok(Self {
            primary: key()?,
            secondary: key()?,
        })
    }
}

impl Authentication {
    /// The published name of the kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sas(_) => "sas",
            Self::SelfSigned(_) => "selfSigned",
            Self::CertificateAuthority => "certificateAuthority",
            Self::None => "none",
        }
    }
}

impl Entry {
    /// A new identity that nobody has configured yet: enabled, without proof.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub fn new(identity: Identity, now: Timestamp) -> Result<Self, ServiceError> {
        Ok(Self {
            identity,
            generation: new_generation(now)?,
            etag: new_etag()?,
            enabled: true,
            status_reason: None,
            status_updated: Timestamp::NEVER,
            authentication: Authentication::None,
            edge: false,
            device_scope: None,
            parent_scopes: Vec::new(),
            managed_by: None,
        })
    }

    /// When it was made, as its generation tells.
    #[must_use]
    pub fn made(&self) -> Option<Timestamp> {
        let millis = self.generation.get(..self.generation.len().checked_sub(4)?)?;
        Some(Timestamp::NEVER.plus_millis(millis.parse().ok()?))
    }

    /// The etag as it stands in bodies.
    #[must_use]
    pub fn etag_text(&self) -> String {
        etag::of_counter(self.etag.unsigned_abs())
    }

    /// Gives the entry another etag, as every change must.
    ///
    /// # Errors
    /// `ServerError` when the operating system gives no random bytes.
    pub fn renew_etag(&mut self) -> Result<(), ServiceError> {
        self.etag = new_etag()?;
        Ok(())
    }

    /// Makes the entry that of an edge device. Its scope is made of id and generation, so it never changes again.
    pub fn become_edge(&mut self) {
        self.edge = true;
        self.device_scope = Some(format!(
            "ms-azure-iot-edge://{}-{}",
            self.identity.device, self.generation
        ));
    }
}

/// Random and not counted: an etag from before a device was deleted and made again must not match.
fn new_etag() -> Result<i64, ServiceError> {
    Ok(i64::from_be_bytes(random::bytes()?) & i64::MAX)
}

/// Eighteen digits: the time in units of 100 ns since the year 1 as on the original, with random units below a
/// millisecond, so that two made in the same one differ.
fn new_generation(now: Timestamp) -> Result<String, ServiceError> {
    let millis = now.millis_since(Timestamp::NEVER).max(0);
    let below = u16::from_be_bytes(random::bytes()?) % 10_000;
    Ok(format!("{}{below:04}", millis))
}
