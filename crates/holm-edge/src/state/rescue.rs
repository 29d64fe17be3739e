//! A state whose file is damaged (flipped bits, a torn page): what can be read is taken over into a new file.
//!
//! ```text
//!   state.db ──is not sound──> state.db.damaged ──row by row, from both ends of each table──> state.db, new
//! ```
//!
//! An edge may be far from anybody who could restore a file, so it goes on with what is left: what is missing comes from the
//! hub again (deployment, routes, twins, devices below), and modules that run are left alone until then. Lost for good are only
//! reported properties that had not got to the hub. The damaged file is kept, the last one.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use super::OpenStateError;
use super::schema::{self, Clear};

/// The tables, and how many columns they have; the first is the key.
const TABLES: [(&str, &str, usize); 4] = [
    ("documents", "name", 4),
    ("twins", "identity", 3),
    ("children", "identity", 2),
    ("sessions", "identity", 2),
];

/// What became of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Where it is now.
    pub kept: PathBuf,
    /// What was wrong with it.
    pub damage: String,
    /// Rows that were taken over.
    pub rows: usize,
}

/// Opens the file as [`schema::open`] does; one that is ours and damaged is replaced.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<Clear>, Option<Rescue>), OpenStateError> {
    let damage = match schema::open(path) {
        Ok((connection, clear)) => match damage_of(&connection) {
            None => return Ok((connection, clear, None)),
            Some(damage) => damage,
        },
        Err(OpenStateError::Database { source, .. }) if is_damage(&source) && is_ours(path) => source.to_string(),
        Err(error) => return Err(error),
    };
    let kept = beside(path, ".damaged");
    move_aside(path, &kept).map_err(|source| OpenStateError::Io {
        path: path.to_owned(),
        source,
    })?;
    schema::make_private(path).map_err(|source| OpenStateError::Io {
        path: path.to_owned(),
        source,
    })?;
    let (connection, clear) = schema::open(path)?;
    let rows = take_over(&kept, &connection);
    tracing::error!(
        damage,
        kept = %kept.display(),
        rows,
        "the edge's state was damaged; what could be read was taken over, and the rest comes from the hub again"
    );
    Ok((connection, clear, Some(Rescue { kept, damage, rows })))
}

/// The first thing that is wrong with the file's structure.
fn damage_of(connection: &Connection) -> Option<String> {
    let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    match found {
        Ok(text) if text == "ok" => None,
        Ok(text) => Some(text),
        Err(error) if is_damage(&error) => Some(error.to_string()),
        // A disk that fails to be read says so at the next access, too.
        Err(_) => None,
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether the header of the file still says that it is an edge's, whatever else is wrong with it.
fn is_ours(path: &Path) -> bool {
    let mark = schema::APPLICATION.to_be_bytes();
    // Where SQLite keeps `application_id`: <https://www.sqlite.org/fileformat2.html>, 1.3.
    std::fs::read(path).is_ok_and(|header| header.get(68..72) == mark.get(4..))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Moves the file with its write-ahead log, which belongs to it by its name.
fn move_aside(path: &Path, to: &Path) -> io::Result<()> {
    for ending in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(path, ending), beside(to, ending)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // What an earlier damaged file left may not be taken for this one's.
                match std::fs::remove_file(beside(to, ending)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies every row that can be read; how many.
fn take_over(from: &Path, into: &Connection) -> usize {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(damaged) = Connection::open_with_flags(from, flags) else {
        return 0;
    };
    let both_ways = TABLES.iter().flat_map(|table| [(table, "ASC"), (table, "DESC")]);
    let copied = both_ways.map(|(&(table, key, columns), order)| {
        copy(
            &damaged,
            into,
            &format!("SELECT * FROM {table} ORDER BY {key} {order}"),
            (table, columns),
        )
    });
    // A table ends at the first page that can't be read; its other end may still be good.
    copied.map(Result::unwrap_or_default).sum()
}

fn copy(from: &Connection, into: &Connection, sql: &str, (table, columns): (&str, usize)) -> rusqlite::Result<usize> {
    let mut find = from.prepare(sql)?;
    let mut rows = find.query([])?;
    let places = vec!["?"; columns].join(", ");
    let mut put = into.prepare(&format!("INSERT OR IGNORE INTO {table} VALUES ({places})"))?;
    let mut copied = 0;
    while let Ok(Some(row)) = rows.next() {
        let values: rusqlite::Result<Vec<Value>> = (0..columns).map(|column| row.get(column)).collect();
        // A row that does not fit its table is one that can't be read.
        copied += values
            .and_then(|values| put.execute(params_from_iter(values)))
            .unwrap_or_default();
    }
    Ok(copied)
}
