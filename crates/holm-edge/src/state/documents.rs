//! Small documents of the edge's other parts, by name, encrypted: a deployment holds passwords of registries and what people
//! put into environments.
//!
//! One encryption takes [`PIECE`] bytes, so a larger document is several rows, which are written in one commit:
//!
//! ```text
//! name | piece | of | body        `document:<name>#<piece>/<of>` is the place of a row
//! ```

use rusqlite::params;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{State, StateError, Vault, read};
use holm_identity::key_store::KeyStoreError;

/// The bytes of a document that one row holds.
pub(super) const PIECE: usize = 512 * 1024;

/// A document as its rows hold it: the bodies, in order.
pub(super) type Pieces = Vec<Vec<u8>>;

fn place(name: &str, piece: usize, of: usize) -> String {
    format!("document:{name}#{piece}/{of}")
}

/// Encrypts a document for its rows.
pub(super) async fn seal(vault: &Vault, name: &str, text: &[u8]) -> Result<Pieces, KeyStoreError> {
    let pieces = text.chunks(PIECE);
    let of = pieces.len();
    let mut sealed = Vec::with_capacity(of);
    for (number, piece) in pieces.enumerate() {
        sealed.push(vault.seal(&place(name, number, of), piece).await?);
    }
    Ok(sealed)
}

/// Writes the rows of a document that has none.
pub(super) fn insert(db: &rusqlite::Connection, name: &str, pieces: &Pieces) -> rusqlite::Result<()> {
    let mut put = db.prepare_cached("INSERT INTO documents (name, piece, of, body) VALUES (?1, ?2, ?3, ?4)")?;
    let of = i64::try_from(pieces.len()).unwrap_or(i64::MAX);
    for (number, piece) in (0_i64..).zip(pieces) {
        put.execute(params![name, number, of, piece])?;
    }
    Ok(())
}

impl State {
    /// A document by its name; `None` when there is none. One that is damaged is told of, and is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn document(&self, name: &str) -> Result<Option<Value>, StateError> {
        let key = name.to_owned();
        let pieces: Pieces = self
            .look(move |db| {
                let mut find = db.prepare_cached("SELECT body FROM documents WHERE name = ?1 ORDER BY piece")?;
                let rows = find.query_map([key], |row| row.get(0))?;
                rows.collect()
            })
            .await?;
        if pieces.is_empty() {
            return Ok(None);
        }
        match self.open_document(name, &pieces).await {
            Ok(document) => Ok(Some(document)),
            Err(error @ (StateError::Content { .. } | StateError::Sealed(KeyStoreError::Aead(_)))) => {
                let error = holm_net::error_chain(&error);
                tracing::error!(
                    name,
                    error,
                    "what the edge kept is damaged; it goes on without it, until the hub has told it again"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn open_document(&self, name: &str, pieces: &Pieces) -> Result<Value, StateError> {
        let mut text = Zeroizing::new(Vec::with_capacity(pieces.iter().map(Vec::len).sum()));
        for (number, piece) in pieces.iter().enumerate() {
            // A piece that is missing changes the place of the others.
            let opened = self.unseal(&place(name, number, pieces.len()), piece).await?;
            text.extend_from_slice(&opened);
        }
        read(&*text, || format!("document `{name}`"))
    }

    /// Stores a document under a name; replaces an earlier one.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn put_document(&self, name: &str, body: &Value) -> Result<(), StateError> {
        let text = Zeroizing::new(body.to_string());
        let pieces = seal(&self.vault, name, text.as_bytes())
            .await
            .map_err(StateError::Sealed)?;
        let name = name.to_owned();
        self.change(move |db| {
            let mut remove = db.prepare_cached("DELETE FROM documents WHERE name = ?1")?;
            remove.execute([&name])?;
            insert(db, &name, &pieces)
        })
        .await
    }

    /// Removes a document; one that is not there is fine.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remove_document(&self, name: &str) -> Result<(), StateError> {
        let name = name.to_owned();
        self.change(move |db| db.execute("DELETE FROM documents WHERE name = ?1", [name]).map(|_| ()))
            .await
    }
}
