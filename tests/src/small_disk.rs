//! A disk of a few MiB that a test can fill, free and make read-only: a file system in memory, mounted where data will be.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that takes all the space that is left.
const BALLAST: &str = "ballast";
/// What a page of the file system has: filling by pages leaves none.
const PAGE: [u8; 4096] = [0xb5; 4096];

/// A small disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty disk on a directory, which is made.
    ///
    /// # Panics
    /// When the system refuses.
    #[must_use]
    #[track_caller]
    pub fn mount(path: &Path, mebibytes: u32) -> Self {
        std::fs::create_dir_all(path).expect("a directory of the test can be made");
        let options = format!("size={mebibytes}m,mode=0700");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "holm-e2e"])
            .arg(path))
        .unwrap_or_else(|error| panic!("`{}` can't be mounted: {error}", path.display()));
        Self { path: path.to_owned() }
    }

    /// Whether this process may mount.
    #[must_use]
    pub fn can_mount() -> bool {
        let Ok(directory) = tempfile::tempdir() else {
            return false;
        };
        let mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "holm-e2e"])
            .arg(directory.path()));
        mounted.is_ok_and(|()| run(Command::new("umount").arg(directory.path())).is_ok())
    }

    /// Takes all the space that is left.
    ///
    /// # Panics
    /// When writing fails otherwise than by a full disk.
    #[track_caller]
    pub fn fill(&self) {
        let mut ballast = File::create(self.path.join(BALLAST)).expect("a file can be made");
        loop {
            match ballast.write_all(&PAGE) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("`{}` can't be filled: {error}", self.path.display()),
            }
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// When it was not taken.
    #[track_caller]
    pub fn free(&self) {
        std::fs::remove_file(self.path.join(BALLAST)).expect("the disk was filled before");
    }

    /// Lets nobody write from now on. Nobody may have a file open for writing.
    ///
    /// # Panics
    /// When the system refuses.
    #[track_caller]
    pub fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path))
            .unwrap_or_else(|error| panic!("`{}` can't be made read-only: {error}", self.path.display()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still has a file open there is about to end, and the directory is to be removed now.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.path)) {
            eprintln!("`{}` stays mounted: {error}", self.path.display());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| error.to_string())?;
    if done.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }
}
