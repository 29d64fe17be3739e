//! The tables, and the version that they carry. `docs/formats/edge-state.md` describes them for people.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::OpenStateError;
use super::documents::{self, Pieces};

/// The version of the tables that this release reads and writes (`user_version`).
pub const VERSION: i64 = 3;

/// The version whose twins and documents are in the clear: it is read once, and rewritten.
const CLEAR_TWINS: i64 = 1;

/// The version whose documents are in the clear.
const CLEAR_DOCUMENTS: i64 = 2;

/// The versions that this release takes over.
pub const READABLE: [i64; 3] = [CLEAR_TWINS, CLEAR_DOCUMENTS, VERSION];

/// Marks the file as ours (`application_id`): `HOLM`.
pub(super) const APPLICATION: i64 = 0x484f_4c4d;

/// Twins and devices below this edge, encrypted.
const IDENTITIES: &str = "
    CREATE TABLE twins (identity TEXT PRIMARY KEY, body BLOB NOT NULL, pending INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE children (identity TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
";

/// Documents, encrypted. With row ids: pieces are large.
const DOCUMENTS: &str = "
    CREATE TABLE documents (
        name TEXT NOT NULL, piece INTEGER NOT NULL, of INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (name, piece)
    ) STRICT;
";

/// What is in the clear.
const OPEN: &str = "
    CREATE TABLE sessions (identity TEXT PRIMARY KEY, filters TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// Makes the file if it is not there, so that it has mode 0600 from its first moment. SQLite gives its side files the same.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!(
            "the file has mode {mode:o} and holds what only the edge may read; run `chmod 600 {}`",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

/// What a file of a version before holds in the clear.
pub(super) struct Clear {
    /// Identity, twin and whether it has pending changes; `None` where they are encrypted.
    pub twins: Option<Vec<(String, String, bool)>>,
    /// Name and text.
    pub documents: Vec<(String, String)>,
}

/// The same, encrypted.
#[derive(Default)]
pub(super) struct Sealed {
    pub twins: Option<Vec<(String, Vec<u8>, bool)>>,
    pub documents: Vec<(String, Pieces)>,
}

/// Opens the file; also gives what a version before left in the clear, which is to be encrypted and given to [`encrypt`].
pub(super) fn open(path: &Path) -> Result<(Connection, Option<Clear>), OpenStateError> {
    let database = |source| OpenStateError::Database {
        path: path.to_owned(),
        source,
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(database)?;
    // Nobody shares the file: whoever finds it locked is told at once.
    connection.busy_timeout(std::time::Duration::ZERO).map_err(database)?;
    // Before the first access: so the index of the write-ahead log is in memory, and no file of shared memory is needed, for
    // which a full disk has no room.
    exclusive(&connection).map_err(database)?;
    // Before anything that writes: a file of another version is left as it is.
    let found = number(&connection, "user_version").map_err(database)?;
    let is_new = found == 0 && is_empty(&connection).map_err(database)?;
    if !is_new && number(&connection, "application_id").map_err(database)? != APPLICATION {
        return Err(OpenStateError::Foreign { path: path.to_owned() });
    }
    if !is_new && !READABLE.contains(&found) {
        return Err(OpenStateError::Version {
            path: path.to_owned(),
            found,
        });
    }
    prepare(&connection, is_new).map_err(database)?;
    let is_clear = [CLEAR_TWINS, CLEAR_DOCUMENTS].contains(&found);
    let clear = is_clear.then(|| read_clear(&connection, found)).transpose();
    Ok((connection, clear.map_err(database)?))
}

fn read_clear(connection: &Connection, version: i64) -> rusqlite::Result<Clear> {
    let mut find = connection.prepare("SELECT name, body FROM documents")?;
    let documents = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let documents = documents.collect::<Result<_, _>>()?;
    let read_twins = || {
        let mut find = connection.prepare("SELECT identity, body, pending FROM twins")?;
        let twins = find.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        twins.collect()
    };
    let twins = (version == CLEAR_TWINS).then(read_twins).transpose()?;
    Ok(Clear { twins, documents })
}

/// Makes a file of a version before one of this version, in one commit, and wipes what was in the clear.
pub(super) fn encrypt(path: &Path, connection: &Connection, sealed: &Sealed) -> Result<(), OpenStateError> {
    rewrite(connection, sealed).map_err(|source| OpenStateError::Database {
        path: path.to_owned(),
        source,
    })?;
    let wiped = connection
        .execute_batch("VACUUM")
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = wiped {
        tracing::warn!(%error, "the state is encrypted now, and pages of before may still hold some in the clear: the disk is full?");
    }
    Ok(())
}

fn rewrite(connection: &Connection, sealed: &Sealed) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA secure_delete = ON")?;
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(&format!("DROP TABLE documents; {DOCUMENTS}"))?;
    for (name, pieces) in &sealed.documents {
        documents::insert(&transaction, name, pieces)?;
    }
    if let Some(twins) = &sealed.twins {
        transaction.execute_batch(&format!("DROP TABLE twins; {IDENTITIES}"))?;
        for (identity, body, pending) in twins {
            let sql = "INSERT INTO twins (identity, body, pending) VALUES (?1, ?2, ?3)";
            transaction.execute(sql, rusqlite::params![identity, body, pending])?;
        }
    }
    transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    transaction.commit()
}

fn exclusive(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))
}

fn prepare(connection: &Connection, is_new: bool) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    if is_new {
        connection.execute_batch(&format!(
            "BEGIN; {OPEN} {DOCUMENTS} {IDENTITIES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    // Takes the lock now, so that a second process is refused at its opening and not at its first write.
    connection.execute_batch("BEGIN IMMEDIATE; COMMIT;")
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables == 0)
}
