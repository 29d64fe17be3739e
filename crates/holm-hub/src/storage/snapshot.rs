//! The database as it was at one moment, copied to another file while everybody goes on.
//!
//! A snapshot is a reading transaction on a connection of its own: writers go on beside it, and what they write is kept in the
//! write-ahead log until it ends. It ends with the copy, however long the copy is then read.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::schema::{self, OpenError};
use super::to_u64;

/// Pages copied between two looks at whether anybody still wants the copy: a few milliseconds.
const PAGES: i32 = 1024;

/// Why a database was not copied.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It can't be opened.
    #[error("the hub's database can't be opened")]
    Open(#[from] OpenError),
    /// There is no room for the copy.
    #[error("the disk has no room for a copy of the database in `{0}`; free space on it, and try again")]
    DiskFull(PathBuf),
    /// Nobody wants it any more.
    #[error("the copy was given up")]
    GivenUp,
    /// SQLite could not do it.
    #[error("the hub's database can't be copied")]
    Sqlite(#[from] rusqlite::Error),
    /// The copy could not be made to last.
    #[error("the copy of the hub's database can't be written")]
    Io(#[from] std::io::Error),
}

/// A database at one moment.
#[derive(Debug)]
pub struct Snapshot(Connection);

impl Snapshot {
    /// A connection for it. What it reads is fixed with [`Snapshot::fix`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self(schema::open_for_reading(path)?))
    }

    /// A connection to a database that nobody has open, of which a crash may have left something in its write-ahead log.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_alone(path: &Path) -> Result<Self, OpenError> {
        Ok(Self(schema::open_for_writing(path)?))
    }

    /// The moment is now.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn fix(&self) -> rusqlite::Result<()> {
        // The transaction begins with the first read.
        self.0.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
    }

    /// How many bytes a copy has.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn bytes(&self) -> rusqlite::Result<u64> {
        let number = |sql| self.0.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(to_u64(number("PRAGMA page_count")?) * to_u64(number("PRAGMA page_size")?))
    }

    /// What a reader of that moment sees.
    #[must_use]
    pub const fn view(&self) -> super::View<'_> {
        super::View::new(&self.0)
    }

    /// Copies it to a new file for this user alone, on disk on return, and ends it. Goes on for as long as `is_wanted`.
    ///
    /// # Errors
    /// [`SnapshotError`]; what was written of the file is left to the caller.
    pub fn copy_to(self, target: &Path, is_wanted: &dyn Fn() -> bool) -> Result<(), SnapshotError> {
        let copied = self.copy(target, is_wanted);
        copied.map_err(|error| match error {
            SnapshotError::Sqlite(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) => {
                SnapshotError::DiskFull(target.to_owned())
            }
            SnapshotError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                SnapshotError::DiskFull(target.to_owned())
            }
            other => other,
        })
    }

    fn copy(&self, target: &Path, is_wanted: &dyn Fn() -> bool) -> Result<(), SnapshotError> {
        schema::make_private(target)?;
        let mut copy = Connection::open(target)?;
        // Nothing to fall back on: a copy that breaks off is thrown away, and it is synced as a whole.
        copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
        let backup = Backup::new(&self.0, &mut copy)?;
        loop {
            if !is_wanted() {
                return Err(SnapshotError::GivenUp);
            }
            if backup.step(PAGES)? == StepResult::Done {
                break;
            }
        }
        drop(backup);
        copy.close().map_err(|(_, error)| error)?;
        Ok(std::fs::File::open(target)?.sync_all()?)
    }
}
