//! Makes a data directory of an archive: all of it or nothing.
//!
//! ```text
//! empty ─> marked `restoring` ─every content written─> the archive was whole ─synced─> the mark goes: a hub
//!                  │
//!                  └─ damage, full disk ─> emptied again          killed ─> a hub does not start there; the next restore begins anew
//! ```
//!
//! The mark is a file, and not a directory of another name that is moved into place: the data directory may be where a volume is mounted.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::format::{BLOBS, Entry, Place};
use super::read::{ArchiveError, Sink, Summary, read_all};
use crate::file_error::{FileError, failed};
use crate::hub::{DataDirectoryError, RESTORING, lock_directory};

/// What a new file system has, and is no content.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something.
    #[error("`{path}` is not empty; give a directory that is, or is not there yet")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory can't be used.
    #[error("the data directory can't be used")]
    Directory(#[from] DataDirectoryError),
    /// The archive can't be used.
    #[error("the backup can't be used")]
    Archive(#[source] ArchiveError),
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes the data directory `data` of an archive; `blobs` is where files of devices go, if not to `blobs` there. `progress` learns how
/// many bytes were read. Blocks.
///
/// # Errors
/// [`RestoreError`]; the directories are then as empty as they were.
pub fn restore(
    source: &mut dyn io::Read,
    data: &Path,
    blobs: Option<&Path>,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, RestoreError> {
    let inside = data.join(BLOBS);
    let directories: Vec<&Path> = [Some(data), blobs].into_iter().flatten().collect();
    for directory in &directories {
        if !may_be_used(directory)? {
            let path = (*directory).to_owned();
            return Err(RestoreError::NotEmpty { path });
        }
    }
    let is_new: Vec<bool> = directories.iter().map(|directory| !directory.exists()).collect();
    let _lock = lock_directory(data)?;
    let mut target = Target {
        data,
        blobs: blobs.unwrap_or(&inside),
        file: None,
    };
    let restored = fill(source, &directories, &mut target, progress);
    if restored.is_err() {
        give_up(&directories, &is_new);
    }
    restored
}

fn fill(
    source: &mut dyn io::Read,
    directories: &[&Path],
    target: &mut Target<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, RestoreError> {
    prepare(directories)?;
    let summary = read_all(source, target, progress).map_err(RestoreError::Archive)?;
    keep(directories)?;
    Ok(summary)
}

/// Whether a directory is empty, or not there, or what a restore has left that did not end.
fn may_be_used(directory: &Path) -> Result<bool, FileError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries.map_err(failed("read", directory))?,
    };
    let mut is_empty = true;
    for entry in entries {
        let name = entry.map_err(failed("read", directory))?.file_name();
        if name == RESTORING {
            return Ok(true);
        }
        is_empty &= name == OF_THE_FILE_SYSTEM || name == "lock";
    }
    Ok(is_empty)
}

/// Marks directories, and removes what an earlier restore has left there.
fn prepare(directories: &[&Path]) -> Result<(), FileError> {
    for directory in directories {
        make_directory(directory)?;
        let mark = directory.join(RESTORING);
        let mut file = File::create(&mark).map_err(failed("create", &mark))?;
        let text = "a restore goes on here, or was cut off; run it again\n";
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(failed("write", &mark))?;
        sync(directory)?;
        empty(directory)?;
    }
    Ok(())
}

/// What was written stays: it is brought to the disk, then the marks go, that of the data directory last.
fn keep(directories: &[&Path]) -> Result<(), FileError> {
    for directory in directories {
        let open = File::open(directory).map_err(failed("open", directory))?;
        // One call for all files: there may be millions.
        rustix::fs::syncfs(&open).map_err(|error| failed("sync", directory)(error.into()))?;
    }
    for directory in directories.iter().rev() {
        let mark = directory.join(RESTORING);
        fs::remove_file(&mark).map_err(failed("remove", &mark))?;
        sync(directory)?;
    }
    Ok(())
}

/// Nothing of it stays; what can't be removed is told, and marked still.
fn give_up(directories: &[&Path], is_new: &[bool]) {
    for (directory, is_new) in directories.iter().zip(is_new).rev() {
        let mark = directory.join(RESTORING);
        let emptied = empty(directory).and_then(|()| {
            if *is_new {
                return fs::remove_dir_all(directory).map_err(failed("remove", directory));
            }
            fs::remove_file(&mark).map_err(failed("remove", &mark))
        });
        if let Err(error) = emptied {
            tracing::warn!(error = %holm_net::error_chain(&error), "what was restored in part stays; the next restore removes it");
        }
    }
}

/// Removes everything but the mark and the lock.
fn empty(directory: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(failed("read", directory))? {
        let entry = entry.map_err(failed("read", directory))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name == RESTORING || name == "lock" || name == OF_THE_FILE_SYSTEM {
            continue;
        }
        let is_directory = entry.file_type().map_err(failed("look at", &path))?.is_dir();
        let removed = if is_directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("create", path))
}

fn sync(directory: &Path) -> Result<(), FileError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("sync", directory))
}

/// Writes contents where they belong.
struct Target<'t> {
    data: &'t Path,
    blobs: &'t Path,
    file: Option<(PathBuf, File)>,
}

impl Sink for Target<'_> {
    fn begin(&mut self, entry: &Entry, place: Place) -> io::Result<()> {
        let path = match (place, entry.name.strip_prefix("blobs/")) {
            (Place::Blobs, Some(file)) => self.blobs.join(file),
            _ => self.data.join(&entry.name),
        };
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        // A name that comes twice is no backup's.
        let file = File::options()
            .create_new(true)
            .write(true)
            .mode(entry.mode)
            .open(&path);
        self.file = Some((path.clone(), file.map_err(|error| named("create", &path, &error))?));
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some((path, file)) => file.write_all(bytes).map_err(|error| named("write", path, &error)),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.file = None;
        Ok(())
    }
}

fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    let text = format!("can't {operation} `{}`: {error}", path.display());
    io::Error::new(error.kind(), text)
}
