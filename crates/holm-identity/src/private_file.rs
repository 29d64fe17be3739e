//! Files that hold secrets: mode 0600, refused when wider, replaced whole or not at all.
//!
//! ```text
//! write:  DIR/.NAME.new (created 0600) -> fsync -> rename to DIR/NAME -> fsync of DIR
//! read:   open -> look at the mode of what was opened -> read at most N bytes
//! ```
//!
//! A file that others may read is refused, not repaired: by then the secret may be known, and a person must decide. After a
//! crash there is the old file or the new one; `.NAME.new` may be left and the next write takes its place. Two processes must
//! not write the same file; the data directory's lock sees to that.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The mode of a file with a secret: its owner may read and write it.
const FILE_MODE: u32 = 0o600;
/// The mode of a file that belongs to a secret and is none, such as a certificate.
const PUBLIC_FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

/// Why a file with a secret could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// The operating system refused.
    #[error("can't {operation} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner have access.
    #[error("`{}` holds a secret but has mode {mode:04o}, so others have access; replace the secret if they may have read it, then `chmod {wanted:o}` it", path.display())]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// It is a directory, a device or the like.
    #[error("`{}` is not a regular file; name a file", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
    },
    /// It is larger than anything that belongs there.
    #[error("`{}` has more than {limit} bytes; it is not what it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
}

impl PrivateFileError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PrivateFileError {
    let path = path.to_owned();
    move |source| PrivateFileError::Io {
        operation,
        path,
        source,
    }
}

/// Reads a file with a secret of at most `limit` bytes.
///
/// # Errors
/// [`PrivateFileError`]; [`PrivateFileError::is_not_found`] tells a missing file apart.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let (file, metadata) = open(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let (path, wanted) = (path.to_owned(), FILE_MODE);
        return Err(PrivateFileError::TooOpen { path, mode, wanted });
    }
    read_open(path, file, &metadata, limit)
}

/// Reads a file of at most `limit` bytes that belongs to a secret and is none, whoever may read it.
///
/// # Errors
/// [`PrivateFileError`], never [`PrivateFileError::TooOpen`].
pub fn read_public(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let (file, metadata) = open(path)?;
    read_open(path, file, &metadata, limit)
}

fn open(path: &Path) -> Result<(File, Metadata), PrivateFileError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path.to_owned() });
    }
    Ok((file, metadata))
}

fn read_open(path: &Path, file: File, metadata: &Metadata, limit: u64) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    // Room for all of it from the start: growing would leave copies of the secret behind.
    let room = metadata.len().min(limit).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(room).unwrap_or(0)));
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    if bytes.len() as u64 > limit {
        let path = path.to_owned();
        return Err(PrivateFileError::TooLarge { path, limit });
    }
    Ok(bytes)
}

/// Writes a file with a secret, replacing an earlier one; on return it is on disk.
///
/// # Errors
/// [`PrivateFileError::Io`]; the earlier file is then still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    write_with_mode(path, bytes, FILE_MODE)
}

/// Writes a file that belongs to a secret and is none, such as a certificate, in the same way but with mode 0644.
///
/// # Errors
/// [`PrivateFileError::Io`]; the earlier file is then still there.
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), PrivateFileError> {
    write_with_mode(path, bytes, PUBLIC_FILE_MODE)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateFileError> {
    let name = path
        .file_name()
        .ok_or_else(|| PrivateFileError::NotAFile { path: path.to_owned() })?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(".new");
    let new_path = parent.join(new_name);
    match fs::remove_file(&new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new_path)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new_path)
        .map_err(failed("create", &new_path))?;
    file.write_all(bytes).map_err(failed("write", &new_path))?;
    file.sync_all().map_err(failed("sync", &new_path))?;
    fs::rename(&new_path, path).map_err(failed("replace", path))?;
    sync_directory(parent)
}

/// Removes a file; on return its name is gone from disk. It is no error when there is none.
///
/// # Errors
/// [`PrivateFileError::Io`].
pub fn remove(path: &Path) -> Result<(), PrivateFileError> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or_else(|| Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

/// Makes a directory for secrets with mode 0700, with those above it, unless it is there; refuses one that others may write.
///
/// # Errors
/// [`PrivateFileError`].
pub fn ensure_directory(path: &Path) -> Result<(), PrivateFileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
        .map_err(failed("create the directory", path))?;
    let metadata = fs::metadata(path).map_err(failed("look at", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        let (path, wanted) = (path.to_owned(), DIRECTORY_MODE);
        return Err(PrivateFileError::TooOpen { path, mode, wanted });
    }
    Ok(())
}

fn sync_directory(path: &Path) -> Result<(), PrivateFileError> {
    let directory = File::open(path).map_err(failed("open the directory", path))?;
    directory.sync_all().map_err(failed("sync the directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back_with_mode_0600_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(directory.path().join(".secret.new"), "left by a crash").unwrap();

        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();

        assert_eq!(read(&path, 3).unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, b"one").unwrap();

        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = read(&path, 100).unwrap_err();

            assert!(matches!(&refused, PrivateFileError::TooOpen { mode: found, .. } if *found == mode));
            assert!(refused.to_string().contains(&format!("{mode:04o}")) && refused.to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn missing_large_and_strange_files_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write(&path, b"four").unwrap();

        assert!(read(&directory.path().join("none"), 9).unwrap_err().is_not_found());
        assert!(matches!(
            read(&path, 3),
            Err(PrivateFileError::TooLarge { limit: 3, .. })
        ));
        assert!(matches!(
            read(directory.path(), 3),
            Err(PrivateFileError::NotAFile { .. })
        ));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");

        ensure_directory(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();

        assert!(matches!(
            ensure_directory(&path),
            Err(PrivateFileError::TooOpen { mode: 0o770, .. })
        ));
    }
}
