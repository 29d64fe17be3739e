//! The key store: keys are used through handles, and their bytes stay inside.
//!
//! ```text
//! broker, agent, workload API --- handle + data ---> KeyStore --- signature, ciphertext --->
//!                                                       |
//!                                       stored key  <name>            32 random bytes, or imported
//!                                       derived key <name> + label    made again for each use, never stored
//! ```
//!
//! - Key bytes leave by [`KeyStore::export`] alone, which is for what the protocol requires: telling the hub a module's keys.
//! - A handle is plain data and no secret. So the store can become a process of its own (or a TPM) and callers stay as they
//!   are; for the same reason every operation is asynchronous and can fail.
//! - Derived keys come from stored keys only: a handle cannot say "derived from derived".
//!
//! Source: `edge-agent.md` §3.2, §6.1, §6.2.

mod aead;
mod file;

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use holm_model::ModuleId;
use zeroize::Zeroizing;

pub use aead::AeadError;
pub use file::FileKeyStore;

use crate::private_file::PrivateFileError;
use crate::symmetric_key::{self, KeySlot, RandomUnavailable, SymmetricKey, TAG_BYTES};

/// The answer of a store, as it can be given through `dyn`.
pub type KeyFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyStoreError>> + Send + 'a>>;

/// The longest name of a key, in characters.
pub const MAX_NAME_LENGTH: usize = 64;
/// The most random bytes of one call.
pub const MAX_RANDOM_BYTES: usize = 4096;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// There is no such key.
    #[error("the key store has no key `{0}`; create or import it first")]
    NotFound(KeyName),
    /// The file of a key cannot be used.
    #[error("the file of a key can't be used")]
    File(#[source] PrivateFileError),
    /// The file of a key holds something else.
    #[error("`{}` is not a key file of format {format}; restore it, or remove it to have a new key made", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The format that is read.
        format: u32,
    },
    /// Encryption or decryption failed.
    #[error("the data can't be encrypted or decrypted")]
    Aead(#[source] AeadError),
    /// No randomness.
    #[error("no random bytes")]
    Random(#[source] RandomUnavailable),
    /// More randomness was asked for than one call gives.
    #[error("{0} random bytes were asked for; at most {MAX_RANDOM_BYTES} are given at a time")]
    TooManyRandomBytes(usize),
}

/// Why a text is not the name of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name of a key; give 1 to {MAX_NAME_LENGTH} ASCII letters, digits, `-` or `_`")]
pub struct InvalidKeyName(String);

/// The name of a stored key: 1 to [`MAX_NAME_LENGTH`] ASCII letters, digits, `-` and `_`. It is also part of a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidKeyName`] when it has other characters or another length.
    pub fn new(name: &str) -> Result<Self, InvalidKeyName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(allowed) {
            return Err(InvalidKeyName(name.chars().take(MAX_NAME_LENGTH).collect()));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// Which key to use. Plain data: it grants nothing by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyHandle {
    /// A key that is stored.
    Stored(KeyName),
    /// The key that a stored key and a label determine: HMAC-SHA256 of the label.
    Derived {
        /// The stored key.
        base: KeyName,
        /// What makes it differ from others of the same base.
        label: String,
    },
}

impl KeyHandle {
    /// The key of a module, from the device's master key.
    #[must_use]
    pub fn of_module(master: KeyName, module: &ModuleId, generation: &str, slot: KeySlot) -> Self {
        Self::Derived {
            base: master,
            label: symmetric_key::module_key_label(module, generation, slot),
        }
    }

    /// The key of a device of an enrollment group, from the group's key.
    #[must_use]
    pub fn of_registration(group: KeyName, registration_id: &str) -> Self {
        Self::Derived {
            base: group,
            label: registration_id.to_owned(),
        }
    }
}

impl From<KeyName> for KeyHandle {
    fn from(name: KeyName) -> Self {
        Self::Stored(name)
    }
}

/// What a caller of [`KeyStore::encrypt`] gives besides the data, and must give again to decrypt.
#[derive(Clone, Copy, Debug)]
pub struct AeadContext<'a> {
    /// Initialisation vector, at least one byte. Never use one twice with a key for different data.
    pub iv: &'a [u8],
    /// Additional authenticated data, such as module id and generation.
    pub associated_data: &'a [u8],
}

/// Where keys are. All operations may be called at once, and a dropped future leaves a key as it was or as asked for.
pub trait KeyStore: fmt::Debug + Send + Sync {
    /// Whether a key is stored.
    fn contains<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, bool>;

    /// Makes a random key of 32 bytes unless there is one of this name.
    fn ensure<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, KeyHandle>;

    /// Stores a key that was made elsewhere, replacing one of the same name.
    fn import<'a>(&'a self, name: &'a KeyName, key: SymmetricKey) -> KeyFuture<'a, KeyHandle>;

    /// Removes a key, and with it all that were derived from it. It is no error when there is none.
    fn delete<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, ()>;

    /// HMAC-SHA256 of the data.
    fn sign_hmac_sha256<'a>(&'a self, key: &'a KeyHandle, data: &'a [u8]) -> KeyFuture<'a, [u8; TAG_BYTES]>;

    /// Whether `tag` is the HMAC-SHA256 of the data; compares in constant time.
    fn verify_hmac_sha256<'a>(&'a self, key: &'a KeyHandle, data: &'a [u8], tag: &'a [u8]) -> KeyFuture<'a, bool>;

    /// Encrypts with AES-256-GCM. The result begins with a format byte and is 17 bytes longer than the data.
    fn encrypt<'a>(
        &'a self,
        key: &'a KeyHandle,
        context: AeadContext<'a>,
        plaintext: &'a [u8],
    ) -> KeyFuture<'a, Vec<u8>>;

    /// Decrypts what [`KeyStore::encrypt`] gave with the same key and context.
    fn decrypt<'a>(
        &'a self,
        key: &'a KeyHandle,
        context: AeadContext<'a>,
        ciphertext: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<Vec<u8>>>;

    /// Random bytes, at most [`MAX_RANDOM_BYTES`].
    fn random(&self, length: usize) -> KeyFuture<'_, Zeroizing<Vec<u8>>>;

    /// The key itself, for the one case where a protocol wants it: setting the keys of a module at the hub.
    fn export<'a>(&'a self, key: &'a KeyHandle) -> KeyFuture<'a, SymmetricKey>;
}

/// Something that signs with one key: a key in hand, or one in a store.
pub trait Signer: fmt::Debug + Send + Sync {
    /// HMAC-SHA256 of the data.
    fn sign<'a>(&'a self, data: &'a [u8]) -> KeyFuture<'a, [u8; TAG_BYTES]>;
}

impl Signer for SymmetricKey {
    fn sign<'a>(&'a self, data: &'a [u8]) -> KeyFuture<'a, [u8; TAG_BYTES]> {
        Box::pin(async move { Ok(self.hmac_sha256(data)) })
    }
}

/// A key in a store, ready to sign.
#[derive(Clone, Debug)]
pub struct StoredKey {
    /// Where the key is.
    pub store: Arc<dyn KeyStore>,
    /// Which one it is.
    pub handle: KeyHandle,
}

impl Signer for StoredKey {
    fn sign<'a>(&'a self, data: &'a [u8]) -> KeyFuture<'a, [u8; TAG_BYTES]> {
        self.store.sign_hmac_sha256(&self.handle, data)
    }
}
