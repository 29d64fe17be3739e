//! What the edge must know again after a restart, whatever the hub is doing: twins, sessions, routes, and small documents of
//! its other parts. One SQLite file, described in `docs/formats/edge-state.md`.
//!
//! ```text
//!   async caller --change--> writer thread: one transaction for all that wait --commit--> answers
//!                --look----> the same thread, between transactions
//! ```
//!
//! - An answer means that the change is on disk (write-ahead log, `synchronous = FULL`). Operations that wait share a commit.
//! - A file of another version is refused with both versions named, and not touched. A damaged one is replaced ([`Rescue`]).
//! - Messages are not here: they are in the queue.
//!
//! Twins, documents (routes, the deployment) and what is known of the devices below this edge are encrypted ([`Vault`]); names
//! and sessions are in the clear, in a file of mode 0600.

mod children;
mod documents;
mod rescue;
mod schema;
mod vault;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use holm_model::Identity;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use holm_identity::key_store::KeyStoreError;

pub use rescue::Rescue;
pub use schema::{READABLE, VERSION};
pub use vault::Vault;
use writer::Writer;

/// Why the state did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenStateError {
    /// The file was written by another release. It was not touched.
    #[error(
        "the state in `{path}` has version {found} and this release reads version {VERSION}; use a release that reads \
         version {found}", path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found in it.
        found: i64,
    },
    /// It is a database, but not an edge's. It was not touched.
    #[error("`{path}` is not the state of an edge; give another data directory", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a state database, or SQLite can't work with it.
    #[error("the state in `{path}` can't be opened; restore the file, or move it away to start without memory", path = path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's answer.
        #[source]
        source: rusqlite::Error,
    },
    /// What an earlier release left in the clear can't be encrypted. It was not touched.
    #[error("the state in `{path}` can't be encrypted", path = path.display())]
    Encrypt {
        /// The file.
        path: PathBuf,
        /// The key store's answer.
        #[source]
        source: KeyStoreError,
    },
    /// The file or the writer's thread can't be made.
    #[error("the state in `{path}` can't be made", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Why the state could not be read or changed. Nothing of the change is kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// SQLite refused: a full disk, a failing one.
    #[error("the edge's state can't be read or written")]
    Database(#[source] rusqlite::Error),
    /// What is stored is not what this release writes.
    #[error("the stored {what} is not readable")]
    Content {
        /// What was read.
        what: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The key store can't encrypt or decrypt.
    #[error(
        "the key store can't encrypt or decrypt what the state keeps; is `keys/state.key` the one that belongs to it?"
    )]
    Sealed(#[source] KeyStoreError),
    /// The commit failed, or the state is closed.
    #[error("the edge's state was not written; the disk may be full or failing")]
    NotCommitted,
}

/// The state database. Clones are the same one; it closes when the last is dropped, or by [`State::close`].
#[derive(Clone, Debug)]
pub struct State {
    writer: std::sync::Arc<Writer>,
    vault: Vault,
    rescue: Option<Rescue>,
}

impl State {
    /// Opens the state in a file, or makes it with mode 0600. What the release before left in the clear is encrypted.
    ///
    /// # Errors
    /// [`OpenStateError`].
    pub async fn open(path: &Path, vault: Vault) -> Result<Self, OpenStateError> {
        let io = |source| OpenStateError::Io {
            path: path.to_owned(),
            source,
        };
        schema::make_private(path).map_err(io)?;
        let (connection, clear, rescue) = rescue::open(path)?;
        if let Some(clear) = clear {
            let sealed = vault.seal_all(clear).await.map_err(|source| OpenStateError::Encrypt {
                path: path.to_owned(),
                source,
            })?;
            schema::encrypt(path, &connection, &sealed)?;
        }
        let writer = Writer::start(connection).map_err(io)?;
        Ok(Self {
            writer: std::sync::Arc::new(writer),
            vault,
            rescue,
        })
    }

    /// Carries out what is queued and puts everything into the one file, whoever else has a clone: reads and changes fail from
    /// now on.
    pub async fn close(&self) {
        let writer = std::sync::Arc::clone(&self.writer);
        if tokio::task::spawn_blocking(move || writer.close()).await.is_err() {
            tracing::error!("the state was not closed in good order; the next start does the rest");
        }
    }

    /// What became of a damaged file at the opening.
    #[must_use]
    pub const fn rescue(&self) -> Option<&Rescue> {
        self.rescue.as_ref()
    }

    /// The twin kept of an identity.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn twin<T: DeserializeOwned>(&self, of: &Identity) -> Result<Option<T>, StateError> {
        let key = of.to_string();
        let sealed = self
            .look(move |db| {
                let mut find = db.prepare_cached("SELECT body FROM twins WHERE identity = ?1")?;
                find.query_row([key], |row| row.get::<_, Vec<u8>>(0)).optional()
            })
            .await?;
        let Some(sealed) = sealed else { return Ok(None) };
        let text = self.unseal(&twin_place(&of.to_string()), &sealed).await?;
        read(&text, || format!("twin of `{of}`")).map(Some)
    }

    /// Keeps a twin of an identity; replaces an earlier one. `pending` says whether it holds changes that the node above
    /// does not know yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn put_twin<T: Serialize>(&self, of: &Identity, twin: &T, pending: bool) -> Result<(), StateError> {
        let body = serde_json::to_vec(twin).map_err(|source| StateError::Content {
            what: format!("twin of `{of}`"),
            source,
        })?;
        let key = of.to_string();
        let body = self.seal(&twin_place(&key), &body).await?;
        self.change(move |db| {
            let mut put =
                db.prepare_cached("INSERT OR REPLACE INTO twins (identity, body, pending) VALUES (?1, ?2, ?3)")?;
            put.execute(params![key, body, pending]).map(|_| ())
        })
        .await
    }

    /// The identities whose twins hold changes that the node above does not know yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn pending_twins(&self) -> Result<Vec<Identity>, StateError> {
        let names = self
            .look(|db| {
                let mut find = db.prepare_cached("SELECT identity FROM twins WHERE pending ORDER BY identity")?;
                let rows = find.query_map([], |row| row.get::<_, String>(0))?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        // An identity that can't be read was not written by us; there is nobody to send its changes for.
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// What the last session of an identity was subscribed to, as filter and quality of service; `None` when it left nothing.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn session(&self, of: &Identity) -> Result<Option<Vec<(String, u8)>>, StateError> {
        let key = of.to_string();
        let text = self
            .look(move |db| {
                let mut find = db.prepare_cached("SELECT filters FROM sessions WHERE identity = ?1")?;
                find.query_row([key], |row| row.get::<_, String>(0)).optional()
            })
            .await?;
        text.map(|text| read(text, || format!("session of `{of}`"))).transpose()
    }

    /// Keeps what a session is subscribed to; `None` forgets it.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn put_session(&self, of: &Identity, filters: Option<&[(String, u8)]>) -> Result<(), StateError> {
        let key = of.to_string();
        let filters = filters.map(|filters| serde_json::json!(filters).to_string());
        self.change(move |db| match filters {
            Some(filters) => {
                let mut put =
                    db.prepare_cached("INSERT OR REPLACE INTO sessions (identity, filters) VALUES (?1, ?2)")?;
                put.execute([key, filters]).map(|_| ())
            }
            None => db
                .execute("DELETE FROM sessions WHERE identity = ?1", [key])
                .map(|_| ()),
        })
        .await
    }

    /// Everybody of whom a twin or a session is kept.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remembered(&self) -> Result<Vec<Identity>, StateError> {
        let names = self
            .look(|db| {
                let mut find = db.prepare_cached("SELECT identity FROM twins UNION SELECT identity FROM sessions")?;
                let rows = find.query_map([], |row| row.get::<_, String>(0))?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Forgets twin and session of an identity that is no more.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget(&self, identity: &Identity) -> Result<(), StateError> {
        let key = identity.to_string();
        self.change(move |db| {
            db.execute("DELETE FROM twins WHERE identity = ?1", [&key])?;
            db.execute("DELETE FROM sessions WHERE identity = ?1", [&key])
                .map(|_| ())
        })
        .await
    }

    async fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, StateError> {
        self.vault.seal(place, plain).await.map_err(StateError::Sealed)
    }

    async fn unseal(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StateError> {
        self.vault.unseal(place, sealed).await.map_err(StateError::Sealed)
    }

    /// Whether changes reach the disk.
    ///
    /// # Errors
    /// SQLite's answer to the last change.
    pub fn health(&self) -> Result<(), String> {
        self.writer.trouble().map_or(Ok(()), Err)
    }

    /// Waits until changes don't reach the disk. Cancel-safe.
    pub async fn in_trouble(&self) {
        self.writer.in_trouble().await;
    }

    /// Tries again whether changes reach the disk, where the last one did not.
    pub async fn try_again(&self) {
        if self.health().is_err()
            && let Err(error) = self.change(|_| Ok(())).await
        {
            tracing::debug!(%error, "the edge's state still can't be written");
        }
    }

    async fn look<T, F>(&self, operation: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.look(operation).await
    }

    async fn change<T, F>(&self, operation: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.writer.change(operation).await
    }
}

fn twin_place(identity: &str) -> String {
    format!("twin:{identity}")
}

fn read<T: DeserializeOwned>(text: impl AsRef<[u8]>, what: impl FnOnce() -> String) -> Result<T, StateError> {
    serde_json::from_slice(text.as_ref()).map_err(|source| StateError::Content { what: what(), source })
}
