//! Whether this release can read a data directory, found out without opening it: another edge may be using it.
//!
//! ```text
//!   DATA/state.db       bytes 60..64   the version of the tables, big-endian
//!   DATA/queue/format   line 1         `holm-queue format N`
//! ```
//!
//! What is missing or has another shape is no matter of this file: the edge that opens it says so, with more knowledge.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::state;

/// Where a SQLite file has `user_version`: <https://www.sqlite.org/fileformat2.html>, 1.3.
const USER_VERSION: u64 = 60;
/// The longest format file: two short lines.
const FORMAT_BYTES: u64 = 256;

/// A data directory that this release can't read.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` has version {found}, and this release reads {known}; install the release that wrote it")]
pub struct UnreadableData {
    /// The file.
    pub path: PathBuf,
    /// Its version.
    pub found: u32,
    /// Those that are read here.
    pub known: String,
}

/// Looks at the versions of what is kept in a data directory.
///
/// # Errors
/// [`UnreadableData`]: the first file whose version is not read here.
pub fn look_at(data: &Path) -> Result<(), UnreadableData> {
    let path = data.join("state.db");
    match state_version(&path) {
        // A file of version 0 is new.
        Some(found) if found != 0 && !state::READABLE.contains(&i64::from(found)) => {
            let known = state::READABLE.map(|version| version.to_string()).join(", ");
            return Err(UnreadableData { path, found, known });
        }
        _ => {}
    }
    let path = data.join("queue").join("format");
    match queue_version(&path) {
        Some(found) if found != holm_queue::FORMAT_VERSION => Err(UnreadableData {
            path,
            found,
            known: holm_queue::FORMAT_VERSION.to_string(),
        }),
        _ => Ok(()),
    }
}

fn state_version(path: &Path) -> Option<u32> {
    let mut number = [0; 4];
    let file = File::open(path).ok()?;
    file.read_exact_at(&mut number, USER_VERSION).ok()?;
    Some(u32::from_be_bytes(number))
}

fn queue_version(path: &Path) -> Option<u32> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(FORMAT_BYTES).read_to_string(&mut text).ok()?;
    text.lines().next()?.strip_prefix("holm-queue format ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(state: u32, queue: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut header = vec![0; 100];
        header.splice(60..64, state.to_be_bytes());
        std::fs::write(directory.path().join("state.db"), header).unwrap();
        std::fs::create_dir(directory.path().join("queue")).unwrap();
        let text = format!("holm-queue format {queue}\nsalt 00\n");
        std::fs::write(directory.path().join("queue/format"), text).unwrap();
        directory
    }

    #[test]
    fn data_of_this_release_and_of_those_before_it_is_readable_and_so_is_none() {
        for version in state::READABLE {
            look_at(data(u32::try_from(version).unwrap(), holm_queue::FORMAT_VERSION).path()).unwrap();
        }
        look_at(tempfile::tempdir().unwrap().path()).unwrap();
    }

    #[test]
    fn data_of_a_later_release_is_told_with_both_versions() {
        let state = look_at(data(9, holm_queue::FORMAT_VERSION).path()).unwrap_err();
        let queue = look_at(data(2, 9).path()).unwrap_err();

        assert!(state.to_string().contains("state.db` has version 9"), "{state}");
        assert!(state.to_string().contains("reads 1, 2, 3"), "{state}");
        assert!(queue.to_string().contains("format` has version 9"), "{queue}");
    }
}
