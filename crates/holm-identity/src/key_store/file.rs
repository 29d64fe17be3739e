//! A key store in a directory.
//!
//! ```text
//! DIR/            0700
//! DIR/NAME.key    0600   holm-key 1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
//!                                 |  '- the key in base64, 16 to 64 bytes; then a line end
//!                                 '- format
//! ```
//!
//! A file is written whole or not at all (see [`crate::private_file`]). Keys that were read stay in memory, up to a bound, so
//! signing needs no disk. One process at a time uses the directory. Operations take microseconds once a key was read, so they
//! run in place and not on a thread of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::{AeadContext, KeyFuture, KeyHandle, KeyName, KeyStore, KeyStoreError, MAX_RANDOM_BYTES, aead};
use crate::private_file::{self, PrivateFileError};
use crate::symmetric_key::{RandomUnavailable, SymmetricKey, TAG_BYTES};

const FORMAT: u32 = 1;
const WORD: &str = "holm-key";
/// A key of 64 bytes takes 100 bytes.
const MAX_FILE_BYTES: u64 = 256;
/// An edge has a handful; beyond this, a key is read from disk at each use.
const MAX_CACHED_KEYS: usize = 256;

type Cache = BTreeMap<KeyName, SymmetricKey>;

/// Keys in files of one directory.
#[derive(Debug)]
pub struct FileKeyStore {
    directory: PathBuf,
    /// Also held while a key is made or removed, so that two callers never make the same key. Never held over an `.await`.
    cache: Mutex<Cache>,
    random: SystemRandom,
}

impl FileKeyStore {
    /// Opens the store of a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`KeyStoreError::File`] when the directory cannot be made or others may write it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, KeyStoreError> {
        private_file::ensure_directory(directory.as_ref()).map_err(KeyStoreError::File)?;
        Ok(Self {
            directory: directory.as_ref().to_owned(),
            cache: Mutex::default(),
            random: SystemRandom::new(),
        })
    }

    fn path(&self, name: &KeyName) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // A panic elsewhere leaves the map whole: each change is one insert or one removal.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, cache: &mut Cache, name: &KeyName) -> Result<Option<SymmetricKey>, KeyStoreError> {
        if let Some(key) = cache.get(name) {
            return Ok(Some(key.clone()));
        }
        let path = self.path(name);
        let content = match private_file::read(&path, MAX_FILE_BYTES) {
            Ok(content) => content,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(PrivateFileError::TooLarge { path, .. }) => {
                return Err(KeyStoreError::Content { path, format: FORMAT });
            }
            Err(error) => return Err(KeyStoreError::File(error)),
        };
        let key = decode(&content).ok_or(KeyStoreError::Content { path, format: FORMAT })?;
        remember(cache, name, &key);
        Ok(Some(key))
    }

    fn store(&self, cache: &mut Cache, name: &KeyName, key: &SymmetricKey) -> Result<(), KeyStoreError> {
        private_file::write(&self.path(name), encode(key).as_bytes()).map_err(KeyStoreError::File)?;
        cache.remove(name);
        remember(cache, name, key);
        Ok(())
    }

    fn resolve(&self, handle: &KeyHandle) -> Result<SymmetricKey, KeyStoreError> {
        let (KeyHandle::Stored(name) | KeyHandle::Derived { base: name, .. }) = handle;
        let key = self.find(&mut self.lock(), name)?;
        let key = key.ok_or_else(|| KeyStoreError::NotFound(name.clone()))?;
        Ok(match handle {
            KeyHandle::Stored(_) => key,
            KeyHandle::Derived { label, .. } => key.derive(label.as_bytes()),
        })
    }
}

impl KeyStore for FileKeyStore {
    fn contains<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, bool> {
        Box::pin(async move { Ok(self.find(&mut self.lock(), name)?.is_some()) })
    }

    fn ensure<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, KeyHandle> {
        Box::pin(async move {
            let mut cache = self.lock();
            if self.find(&mut cache, name)?.is_none() {
                let key = SymmetricKey::generate(&self.random).map_err(KeyStoreError::Random)?;
                self.store(&mut cache, name, &key)?;
            }
            Ok(KeyHandle::Stored(name.clone()))
        })
    }

    fn import<'a>(&'a self, name: &'a KeyName, key: SymmetricKey) -> KeyFuture<'a, KeyHandle> {
        Box::pin(async move {
            let mut cache = self.lock();
            // Known already, it is not written again: commands that only look must work on a full or read-only disk.
            let known = self.find(&mut cache, name).ok().flatten();
            if known.as_ref() != Some(&key) {
                self.store(&mut cache, name, &key)?;
            }
            Ok(KeyHandle::Stored(name.clone()))
        })
    }

    fn delete<'a>(&'a self, name: &'a KeyName) -> KeyFuture<'a, ()> {
        Box::pin(async move {
            let mut cache = self.lock();
            cache.remove(name);
            private_file::remove(&self.path(name)).map_err(KeyStoreError::File)
        })
    }

    fn sign_hmac_sha256<'a>(&'a self, key: &'a KeyHandle, data: &'a [u8]) -> KeyFuture<'a, [u8; TAG_BYTES]> {
        Box::pin(async move { Ok(self.resolve(key)?.hmac_sha256(data)) })
    }

    fn verify_hmac_sha256<'a>(&'a self, key: &'a KeyHandle, data: &'a [u8], tag: &'a [u8]) -> KeyFuture<'a, bool> {
        Box::pin(async move { Ok(self.resolve(key)?.verify_hmac_sha256(data, tag)) })
    }

    fn encrypt<'a>(
        &'a self,
        key: &'a KeyHandle,
        context: AeadContext<'a>,
        plaintext: &'a [u8],
    ) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(async move { aead::encrypt(&self.resolve(key)?, context, plaintext).map_err(KeyStoreError::Aead) })
    }

    fn decrypt<'a>(
        &'a self,
        key: &'a KeyHandle,
        context: AeadContext<'a>,
        ciphertext: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<Vec<u8>>> {
        Box::pin(async move { aead::decrypt(&self.resolve(key)?, context, ciphertext).map_err(KeyStoreError::Aead) })
    }

    fn random(&self, length: usize) -> KeyFuture<'_, Zeroizing<Vec<u8>>> {
        Box::pin(async move {
            if length > MAX_RANDOM_BYTES {
                return Err(KeyStoreError::TooManyRandomBytes(length));
            }
            let mut bytes = Zeroizing::new(vec![0; length]);
            let filled = self.random.fill(&mut bytes);
            filled.map_err(|_| KeyStoreError::Random(RandomUnavailable))?;
            Ok(bytes)
        })
    }

    fn export<'a>(&'a self, key: &'a KeyHandle) -> KeyFuture<'a, SymmetricKey> {
        Box::pin(async move { self.resolve(key) })
    }
}

fn remember(cache: &mut Cache, name: &KeyName, key: &SymmetricKey) {
    if cache.len() < MAX_CACHED_KEYS {
        cache.insert(name.clone(), key.clone());
    }
}

fn encode(key: &SymmetricKey) -> Zeroizing<String> {
    Zeroizing::new(format!("{WORD} {FORMAT} {}\n", key.to_base64().expose()))
}

fn decode(content: &[u8]) -> Option<SymmetricKey> {
    let mut words = std::str::from_utf8(content).ok()?.split_ascii_whitespace();
    let head = (words.next()?, words.next()?.parse().ok()?);
    let key = words.next()?;
    if head != (WORD, FORMAT) || words.next().is_some() {
        return None;
    }
    SymmetricKey::from_base64(key).ok()
}

#[cfg(test)]
mod tests;
