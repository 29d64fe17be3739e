//! The directory of everything that the edge keeps: made, and taken for this process alone.
//!
//! ```text
//!   DATA            0711   made by the edge, whatever the umask says
//!     modules/      0755   a directory for each module, with its socket; module users pass through DATA to it
//!     keys/, …      0700   each keeps its own secrets to itself
//! ```
//!
//! - What the edge makes lets other users through and shows them nothing: a process module may have a user of its own, and its
//!   socket is in there.
//! - What an operator made stays as it is. Where it bars a module, the runtime says so when it starts that module.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::edge::StartEdgeError;

/// Others may pass through, and see nothing.
const MODE: u32 = 0o711;

/// Makes the data directory if it is not there, and takes it for this process; the lock ends with the file.
///
/// # Errors
/// [`StartEdgeError::Directory`], [`StartEdgeError::Locked`].
pub(crate) fn open(data: &Path) -> Result<File, StartEdgeError> {
    let failed = |source| StartEdgeError::Directory {
        path: data.to_owned(),
        source,
    };
    make(data).map_err(failed)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data.join("lock"))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartEdgeError::Locked { path: data.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Looks whether there is a data directory, or can be one, without making it.
///
/// # Errors
/// [`StartEdgeError::Directory`]: what is there, or above it, is none.
pub fn look_at(data: &Path) -> Result<(), StartEdgeError> {
    for path in data.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        let source = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => io::Error::new(
                io::ErrorKind::NotADirectory,
                "it is a file; name a directory in `holm.data`",
            ),
            // What is above it tells.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => error,
        };
        let path = path.to_owned();
        return Err(StartEdgeError::Directory { path, source });
    }
    Ok(())
}

/// Makes a directory and those above it that are missing. The mode is set afterwards too, since the umask takes from it.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    match DirBuilder::new().mode(MODE).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_the_edge_makes_lets_module_users_through_and_what_was_there_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let theirs = directory.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, Permissions::from_mode(0o700)).unwrap();

        let _lock = open(&theirs.join("a/b")).unwrap();
        let _other = open(&theirs).unwrap();

        assert_eq!(mode(&theirs.join("a/b")), 0o711);
        assert_eq!(mode(&theirs.join("a")), 0o711);
        assert_eq!(mode(&theirs), 0o700);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_or_above_it_is_found_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "text").unwrap();

        for data in [file.clone(), file.join("below")] {
            let Err(StartEdgeError::Directory { path, .. }) = look_at(&data) else {
                panic!("`{}` is no directory", data.display());
            };
            assert_eq!(path, file);
        }
        look_at(&directory.path().join("not/yet")).unwrap();
        look_at(directory.path()).unwrap();
    }

    #[test]
    fn a_second_edge_is_refused_the_directory_of_the_first() {
        let directory = tempfile::tempdir().unwrap();

        let first = open(directory.path()).unwrap();

        assert!(matches!(open(directory.path()), Err(StartEdgeError::Locked { .. })));
        drop(first);
        open(directory.path()).unwrap();
    }
}
