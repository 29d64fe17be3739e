//! Encrypts what the state keeps: twins, documents, and the keys of devices below this edge.
//!
//! ```text
//! iv (12 random bytes) | what `KeyStore::encrypt` gives      key: derived from the stored key `state` and the place
//! ```
//!
//! The place is the table and the identity, so a text that was moved to another row can't be read there. A key a place keeps the
//! number of random vectors of each key far below where they could meet.

use std::path::Path;
use std::sync::Arc;

use holm_identity::key_store::{AeadContext, AeadError, KeyStoreError};
use holm_identity::{FileKeyStore, KeyHandle, KeyName, KeyStore};
use zeroize::Zeroizing;

use super::schema::{Clear, Sealed};
use super::{documents, twin_place};

/// Bytes of an initialisation vector.
const IV: usize = 12;

/// Encrypts with a key that stays in its store. Clones are the same.
#[derive(Clone, Debug)]
pub struct Vault {
    store: Arc<dyn KeyStore>,
    key: KeyName,
}

impl Vault {
    /// The vault over the key `state` of a store, which is made if it is not there.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn open(store: Arc<dyn KeyStore>) -> Result<Self, KeyStoreError> {
        let key = KeyName::new("state").expect("five letters keep the rule");
        store.ensure(&key).await?;
        Ok(Self { store, key })
    }

    /// The vault over a store of its own in a directory, for those who have no other.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub async fn in_directory(directory: &Path) -> Result<Self, KeyStoreError> {
        Self::open(Arc::new(FileKeyStore::open(directory)?)).await
    }

    pub(super) async fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, KeyStoreError> {
        let iv = self.store.random(IV).await?;
        let context = AeadContext {
            iv: &iv,
            associated_data: place.as_bytes(),
        };
        let sealed = self.store.encrypt(&self.key_of(place), context, plain).await?;
        Ok([iv.as_slice(), &sealed].concat())
    }

    /// Encrypts what an earlier version left in the clear.
    pub(super) async fn seal_all(&self, clear: Clear) -> Result<Sealed, KeyStoreError> {
        let mut sealed = Sealed::default();
        for (name, text) in clear.documents {
            let pieces = documents::seal(self, &name, text.as_bytes()).await?;
            sealed.documents.push((name, pieces));
        }
        let Some(clear) = clear.twins else {
            return Ok(sealed);
        };
        let mut twins = Vec::with_capacity(clear.len());
        for (identity, body, pending) in clear {
            let body = self.seal(&twin_place(&identity), body.as_bytes()).await?;
            twins.push((identity, body, pending));
        }
        sealed.twins = Some(twins);
        Ok(sealed)
    }

    pub(super) async fn unseal(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let (iv, sealed) = sealed
            .split_at_checked(IV)
            .ok_or(KeyStoreError::Aead(AeadError::Format))?;
        let context = AeadContext {
            iv,
            associated_data: place.as_bytes(),
        };
        self.store.decrypt(&self.key_of(place), context, sealed).await
    }

    fn key_of(&self, place: &str) -> KeyHandle {
        KeyHandle::Derived {
            base: self.key.clone(),
            label: place.to_owned(),
        }
    }
}
