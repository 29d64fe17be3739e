//! What the workload API asks of whoever guards keys and certificates.

use std::future::Future;
use std::pin::Pin;

use holm_model::{ModuleId, Timestamp};

/// Something that is being done with a key.
pub type Guarding<'a, T> = Pin<Box<dyn Future<Output = Result<T, GuardError>> + Send + 'a>>;

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// There is no such module.
    #[error("module `{0}` is not known on this device")]
    UnknownModule(ModuleId),
    /// What the module gave can't be used.
    #[error("{0}")]
    Invalid(String),
    /// The key store or the authority failed; the text is for the log and the module alike, and holds no secret.
    #[error("{0}")]
    Failed(String),
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The key, PKCS #8 as PEM.
    pub private_key_pem: String,
    /// The chain as PEM, leaf first, with the edge's authority.
    pub certificate_pem: String,
    /// When it ends.
    pub expiration: Timestamp,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// Guards the keys and certificates of this edge.
pub trait Guard: Send + Sync + 'static {
    /// HMAC-SHA256 of `data` with the module's key.
    fn sign<'a>(&'a self, module: &'a ModuleId, data: &'a [u8]) -> Guarding<'a, [u8; 32]>;

    /// Encrypts for a module of a generation; only the same can decrypt it.
    fn encrypt<'a>(
        &'a self,
        module: &'a ModuleId,
        generation: &'a str,
        plaintext: &'a [u8],
        initialization_vector: &'a [u8],
    ) -> Guarding<'a, Vec<u8>>;

    /// Decrypts what [`Guard::encrypt`] made.
    fn decrypt<'a>(
        &'a self,
        module: &'a ModuleId,
        generation: &'a str,
        ciphertext: &'a [u8],
        initialization_vector: &'a [u8],
    ) -> Guarding<'a, Vec<u8>>;

    /// Issues a server certificate for a name and the module's id, with a new key.
    fn server_certificate<'a>(&'a self, module: &'a ModuleId, common_name: &'a str) -> Guarding<'a, Issued>;

    /// Issues a client certificate that names the module, with a new key.
    fn identity_certificate<'a>(&'a self, module: &'a ModuleId) -> Guarding<'a, Issued>;

    /// The certificates that modules are to trust, as PEM.
    fn trust_bundle(&self) -> Guarding<'_, String>;
}
