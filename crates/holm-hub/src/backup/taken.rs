//! The moment: what belongs to a hub is named and measured, so that it can be copied afterwards.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use holm_model::{ServiceError, Timestamp};

use super::contents::{Content, Contents, Source};
use super::format::{BLOBS, DATABASE, EVENTS, Entry, FORMAT_VERSION, Head, is_blob, is_root_file};
use crate::events::LogError;
use crate::file_error::{FileError, failed};
use crate::hub::DataDirectoryError;
use crate::storage::{self, OpenError, Snapshot, SnapshotError};

/// Where what is needed for a backup is kept while it is made; within the data directory.
const WORK: &str = "backup.part";
/// The most bytes of a file in the data directory itself, but for the database: keys, certificates and names are small.
const MAX_ROOT_FILE: u64 = 1 << 20;
/// How often those files are read until two readings are the same: what replaces several of them takes milliseconds.
const READINGS: usize = 20;
/// What must be left of the disk beside the copy of the database: the hub goes on writing.
const LEFT_FREE: u64 = 64 << 20;

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// One is being made.
    #[error("another backup is being made; wait until it has ended")]
    Busy,
    /// There is no room for a copy of the database.
    #[error(
        "a copy of the database takes {needed} bytes beside it for a while, and the disk of `{path}` has {free} bytes free; free space on it"
    )]
    NoRoom {
        /// Where the copy would be.
        path: PathBuf,
        /// What it takes, with what is left to the hub.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// The data directory can't be used.
    #[error("the data directory can't be used")]
    Directory(#[from] DataDirectoryError),
    /// The database can't be opened.
    #[error("the hub's database can't be used")]
    Database(#[from] OpenError),
    /// The database can't be copied.
    #[error("the database can't be copied")]
    Snapshot(#[from] SnapshotError),
    /// The event log can't be held.
    #[error("the event log can't be copied")]
    Log(#[from] LogError),
    /// What the hub keeps can't be read or written.
    #[error("the hub's state can't be used")]
    State(#[from] ServiceError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nobody wants it any more, or the hub stops.
    #[error("the backup was given up")]
    GivenUp,
}

/// Where a hub is.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) data: PathBuf,
    pub(super) blobs: PathBuf,
    /// What its clients call it.
    pub(super) host_name: String,
}

impl Places {
    pub(super) fn database(&self) -> PathBuf {
        self.data.join(DATABASE)
    }

    pub(super) fn events(&self) -> PathBuf {
        self.data.join(EVENTS)
    }
}

/// The directory for what is needed meanwhile; it goes with this value.
#[derive(Debug)]
pub(super) struct Work(PathBuf);

impl Work {
    /// An empty one.
    pub(super) fn new(data: &Path) -> Result<Self, FileError> {
        remove_left(data)?;
        let path = data.join(WORK);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(failed("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "what a backup needed stays until the next one");
        }
    }
}

/// Removes what a backup that was cut off has left.
pub(super) fn remove_left(data: &Path) -> Result<(), FileError> {
    let path = data.join(WORK);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
        _ => Ok(()),
    }
}

/// The event log's files with their lengths, as they are now.
pub(super) fn event_files(places: &Places) -> Result<Vec<(String, u64)>, FileError> {
    let events = places.events();
    holm_queue::files_to_copy(&events).map_err(failed("read", &events))
}

/// What goes into the archive, of a database and an event log at one moment. Copies the database; blocks for as long as that takes.
///
/// # Errors
/// [`BackupError`].
pub(super) fn contents(
    places: &Places,
    work: &Work,
    (snapshot, events): (Snapshot, Vec<(String, u64)>),
    now: Timestamp,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Contents, BackupError> {
    let mut files = steady_root_files(&places.data)?;
    let (blob_files, missing_blobs) = blob_files(&snapshot, &places.blobs)?;
    files.push(copied_database(snapshot, work, is_wanted)?);
    for (name, size) in events {
        let source = Source::File(places.events().join(&name));
        let name = format!("{EVENTS}/{name}");
        let entry = Entry {
            name,
            mode: 0o600,
            size,
        };
        files.push(Content { entry, source });
    }
    // It says whose the directory is.
    files.extend(small_file(&places.blobs.join("hub"), format!("{BLOBS}/hub"))?);
    let mut contents = Contents {
        head: Head {
            format: FORMAT_VERSION,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            created: now,
            database_format: storage::FORMAT_VERSION,
            host_name: places.host_name.clone(),
            files: 0,
            bytes: 0,
            missing_blobs,
        },
        files,
        blobs: places.blobs.clone(),
        blob_files,
        work: work.0.clone(),
    };
    contents.count();
    Ok(contents)
}

fn copied_database(snapshot: Snapshot, work: &Work, is_wanted: &dyn Fn() -> bool) -> Result<Content, BackupError> {
    let needed = snapshot.bytes().map_err(SnapshotError::from)? + LEFT_FREE;
    let disk = rustix::fs::statvfs(&work.0).map_err(|error| failed("look at", &work.0)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        let path = work.0.clone();
        return Err(BackupError::NoRoom { path, needed, free });
    }
    let target = work.0.join(DATABASE);
    snapshot.copy_to(&target, is_wanted).map_err(|error| match error {
        SnapshotError::GivenUp => BackupError::GivenUp,
        other => other.into(),
    })?;
    let size = fs::metadata(&target).map_err(failed("look at", &target))?.len();
    let entry = Entry {
        name: DATABASE.to_owned(),
        mode: 0o600,
        size,
    };
    Ok(Content {
        entry,
        source: Source::File(target),
    })
}

/// The files of the blob store that the database names and that are there, and how many are not: kept in a bucket, or lost.
fn blob_files(snapshot: &Snapshot, directory: &Path) -> Result<(Vec<(String, u64)>, u64), BackupError> {
    let mut named = snapshot.view().blob_files()?;
    let all = named.len();
    named.retain(|(file, size)| {
        let there = fs::metadata(directory.join(file));
        is_blob(file) && there.is_ok_and(|there| there.is_file() && there.len() == *size)
    });
    let missing = (all - named.len()) as u64;
    Ok((named, missing))
}

/// The small files of the data directory, as they are together: a certificate is not taken from before a renewal and its key from
/// after it.
fn steady_root_files(data: &Path) -> Result<Vec<Content>, FileError> {
    let mut before = root_files(data)?;
    for _ in 0..READINGS {
        let after = root_files(data)?;
        if is_same(&before, &after) {
            return Ok(after);
        }
        before = after;
    }
    let changing = io::Error::other("its files change again and again; try again");
    Err(failed("read", data)(changing))
}

fn is_same(one: &[Content], other: &[Content]) -> bool {
    let is_same_content = |(one, other): (&Content, &Content)| match (&one.source, &other.source) {
        (Source::Bytes(bytes), Source::Bytes(others)) => one.entry == other.entry && bytes == others,
        _ => false,
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same_content)
}

fn root_files(data: &Path) -> Result<Vec<Content>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(data).map_err(failed("read", data))? {
        let name = entry.map_err(failed("read", data))?.file_name();
        names.extend(
            name.to_str()
                .filter(|name| is_root_file(name) && *name != DATABASE)
                .map(str::to_owned),
        );
    }
    names.sort_unstable();
    let files = names
        .into_iter()
        .filter_map(|name| small_file(&data.join(&name), name).transpose());
    files.collect()
}

/// A file in hand; `None` if there is none, or it is nothing that a hub keeps.
fn small_file(path: &Path, name: String) -> Result<Option<Content>, FileError> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed("look at", path))?,
    };
    if !metadata.is_file() || metadata.len() > MAX_ROOT_FILE {
        return Ok(None);
    }
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(failed("read", path))?,
    };
    let is_private = metadata.permissions().mode() & 0o077 == 0;
    let entry = Entry {
        name,
        mode: if is_private { 0o600 } else { 0o644 },
        size: bytes.len() as u64,
    };
    Ok(Some(Content {
        entry,
        source: Source::Bytes(bytes),
    }))
}
