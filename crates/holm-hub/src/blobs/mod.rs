//! The hub's own blob store: where devices put their files, and back ends fetch them. It serves as much of the published interface
//! of block blobs as the SDKs' upload calls use, on the hub's HTTPS port, below [`CONTAINER`].
//!
//! ```text
//! PUT    /uploads/{blob}?{sas}                             Put Blob                 x-ms-blob-type: BlockBlob
//! PUT    /uploads/{blob}?comp=block&blockid={id}&{sas}     Put Block                waits until it is named
//! PUT    /uploads/{blob}?comp=blocklist&{sas}              Put Block List           the blob is those blocks
//! GET    /uploads/{blob}?comp=blocklist&{sas}              Get Block List
//! GET, HEAD, DELETE /uploads/{blob}?{sas}                  or with a service token instead of the signature
//! the same below /containers/{name}, see containers.rs
//!
//! request -> request.rs -> access.rs (may it?) -> put.rs | get.rs -> directory.rs (bytes), storage (names) -> answer.rs
//! ```
//!
//! - A blob is stored when the database says so, and not before its bytes are on disk: whatever fails in between leaves the
//!   blob that was there, and files without a name are removed.
//! - Names are looked up, never opened: a file of the store is called by random digits, so no name reaches out of the directory.
//! - Bodies go to disk as they come. How many come and go at once, how slowly, and how many bytes all of them may have is bounded.
//!
//! Source: `hub-device-protocols.md` §4.3.

mod access;
mod answer;
mod away;
mod block_list;
#[cfg(feature = "s3")]
mod bucket;
mod containers;
mod directory;
mod fault;
mod get;
mod held;
mod owner;
mod put;
mod request;
mod turns;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_identity::SymmetricKey;
use holm_model::{ServiceError, Timestamp, hex};
use holm_net::Scope;

use crate::Clock;
use crate::authority::Authority;
use crate::config::FileConfig;
use crate::storage::Repository;

use access::{Signature, sign};
use away::Away;
#[doc(hidden)]
pub use block_list::is_block_list;
pub(crate) use containers::{check_blob_name, check_container_name};
use directory::Directory;
pub(crate) use held::BlobsHeld;
pub(crate) use request::check_name;
use turns::Turns;

/// The one container: uploads of devices. No resource of the service API begins with it.
pub const CONTAINER: &str = "uploads";
/// Containers of back ends, for import and export jobs, are below this.
pub const CONTAINERS: &str = "containers";
/// Uploads that are received at once; each has its buffers, some 300 KiB. Who comes beyond it is told to come again.
const MAX_RECEIVING: usize = 512;
/// Files of blobs that are sent at once.
const MAX_SENDING: usize = 512;
/// Uploads, and downloads, of one device that are on their way at once: several times what SDKs do beside each other.
const MAX_OF_DEVICE: usize = 32;
/// Files of blobs that are open at once for those who are connected, each for a connection of its own.
pub const MAX_OPEN_FILES: usize = MAX_RECEIVING + MAX_SENDING;
/// How long blocks wait to be named.
const BLOCKS_WAIT_MS: i64 = 24 * 3_600_000;

/// The blob store. Clones are the same.
#[derive(Clone, Debug)]
pub struct Blobs {
    repository: Repository,
    directory: Directory,
    /// Where files are kept instead.
    away: Option<Arc<dyn Away>>,
    authority: Authority,
    clock: Clock,
    scope: Scope,
    key: Arc<SymmetricKey>,
    receiving: Turns,
    sending: Turns,
}

/// Why a blob store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobsError {
    /// The file system refused.
    #[error("can't use the directory `{path}` for blobs")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The bucket can't be used.
    #[error("can't use the bucket for blobs: {0}")]
    Bucket(String),
    /// What the store holds could not be read, or its key not kept.
    #[error("the names of the blobs can't be read")]
    State(#[source] ServiceError),
}

#[cfg(feature = "s3")]
fn away(config: &FileConfig) -> Result<Option<Arc<dyn Away>>, OpenBlobsError> {
    let Some(config) = &config.s3 else { return Ok(None) };
    let bucket = bucket::Bucket::open(config).map_err(OpenBlobsError::Bucket)?;
    Ok(Some(Arc::new(bucket)))
}

#[cfg(not(feature = "s3"))]
#[allow(clippy::unnecessary_wraps, reason = "with the feature `s3` it may fail")]
fn away(_config: &FileConfig) -> Result<Option<Arc<dyn Away>>, OpenBlobsError> {
    Ok(None)
}

/// What names this hub in its directory: as lasting as its key, and no help to find that.
fn owner(key: &SymmetricKey) -> String {
    let tag = key.hmac_sha256(b"the hub of a directory of blobs");
    hex::encode(tag.get(..16).unwrap_or_default())
}

impl Blobs {
    /// Opens the store in a directory, which is made if it is not there. Files that belong to no blob are removed.
    ///
    /// # Errors
    /// [`OpenBlobsError`].
    pub(crate) async fn open(
        path: &Path,
        config: &FileConfig,
        repository: Repository,
        authority: Authority,
        clock: Clock,
        scope: Scope,
    ) -> Result<Self, OpenBlobsError> {
        let (files, key) = repository
            .change(|transaction| {
                if transaction.blob_key()?.is_none() {
                    let fresh = SymmetricKey::from_bytes(crate::random::bytes::<32>()?)
                        .map_err(|error| ServiceError::server_error(error.to_string()))?;
                    transaction.put_blob_key(fresh.to_base64().expose())?;
                }
                Ok((transaction.blob_files()?, transaction.blob_key()?.unwrap_or_default()))
            })
            .await
            .map_err(OpenBlobsError::State)?;
        let key = SymmetricKey::from_base64(&key)
            .map_err(|_| OpenBlobsError::State(ServiceError::server_error("the key of the blob store is damaged")))?;
        let away = away(config)?;
        let directory =
            Directory::open(path, &owner(&key), &files, config.quota).map_err(|source| OpenBlobsError::Directory {
                path: path.to_owned(),
                source,
            })?;
        let blobs = Self {
            repository,
            directory,
            away,
            authority,
            clock,
            scope,
            key: Arc::new(key),
            receiving: Turns::new("uploads", MAX_RECEIVING, MAX_OF_DEVICE),
            sending: Turns::new("downloads", MAX_SENDING, MAX_OF_DEVICE),
        };
        if blobs.away.is_some() {
            let tidying = blobs.clone();
            blobs
                .scope
                .spawn_until_stopped(async move { tidying.tidy_away().await });
        }
        Ok(blobs)
    }

    /// Removes what an earlier process left elsewhere without a name.
    async fn tidy_away(&self) {
        let Some(away) = &self.away else { return };
        let names = match away.names().await {
            Ok(names) => names,
            Err(error) => {
                return tracing::warn!(%error, "what is kept elsewhere can't be listed; files without a name stay until the next start");
            }
        };
        let Ok(known) = self.repository.read(|view| view.blob_files()).await else {
            return;
        };
        let known: HashSet<String> = known.into_iter().map(|(file, _)| file).collect();
        let garbage = names
            .iter()
            .filter(|name| self.directory.is_of_earlier(name) && !known.contains(*name));
        for name in garbage {
            away::remove(away.as_ref(), name).await;
        }
    }

    /// Removes files that no name is left for.
    async fn discard(&self, garbage: Vec<(String, u64)>) {
        if let Some(away) = &self.away {
            for (file, _) in &garbage {
                away::remove(away.as_ref(), file).await;
            }
        }
        self.directory.remove(garbage).await;
    }

    /// The query by which its holder may store and read one blob until `expires`, with the `?` before it.
    pub(crate) fn upload_signature(&self, blob: &str, expires: Timestamp) -> String {
        sign(&self.key, &Signature::of_upload(expires), blob)
    }

    /// Keeps all files of the store for a copy, until what is given is dropped.
    pub(crate) fn hold_files(&self) -> BlobsHeld {
        self.directory.hold()
    }

    /// Where the files are.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Bytes of all blobs and waiting blocks.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.directory.used()
    }

    /// Removes blocks that nobody named, and closes uploads whose time is over.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub(crate) async fn tidy(&self) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let garbage = self
            .repository
            .change(move |transaction| {
                transaction.remove_ended_uploads(now)?;
                transaction.remove_waiting_blocks(now.plus_millis(-BLOCKS_WAIT_MS))
            })
            .await?;
        self.discard(garbage).await;
        Ok(())
    }
}
