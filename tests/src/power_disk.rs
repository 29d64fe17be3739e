//! A disk that loses what was not synced when its power is cut: ext4 in a file, on a loop device.
//!
//! ```text
//!   write ──> page cache ──sync──> file system ──> image file
//!                 └── lost at the cut: the kernel shuts the file system down as it stands, and replays its journal at the
//!                     next mount, as after a real power failure
//! ```
//!
//! `kill -9` alone loses nothing that was written: the page cache outlives the process. This disk is what makes a missing
//! sync visible, of a file or of a directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::need;
use crate::patience;

/// Large enough for an edge with a few modules; sparse, so it takes what is written.
const MEBIBYTES: u32 = 64;

/// `FS_IOC_SHUTDOWN` with "don't flush the log": nothing of what is in memory is written any more. A program of its own,
/// since a raw system call is unsafe code.
const SHUT_DOWN: &str = "
import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(directory, 2 << 30 | 4 << 16 | ord('X') << 8 | 125, struct.pack('I', 2))
";

/// A mounted disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct PowerDisk {
    image: PathBuf,
    path: PathBuf,
}

impl PowerDisk {
    /// Makes an empty disk in the file `image` and mounts it on a directory, which is made.
    ///
    /// # Panics
    /// When the system refuses.
    #[must_use]
    #[track_caller]
    pub fn mount(image: &Path, path: &Path) -> Self {
        Self::try_mount(image, path).unwrap_or_else(|error| panic!("`{}` can't be mounted: {error}", path.display()))
    }

    fn try_mount(image: &Path, path: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(path).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(u64::from(MEBIBYTES) << 20)
            .map_err(|error| error.to_string())?;
        let mkfs = need::find("mkfs.ext4").ok_or("there is no `mkfs.ext4`")?;
        run(Command::new(mkfs).args(["-q", "-F"]).arg(image))?;
        let disk = Self {
            image: image.to_owned(),
            path: path.to_owned(),
        };
        disk.attach()?;
        Ok(disk)
    }

    /// Whether this process may do all that: make, cut and mount such a disk.
    #[must_use]
    pub fn can_mount() -> bool {
        let Ok(directory) = tempfile::tempdir() else {
            return false;
        };
        let disk = Self::try_mount(&directory.path().join("image"), &directory.path().join("disk"));
        disk.is_ok_and(|disk| disk.try_cut().is_ok())
    }

    /// Cuts the power: from now on nothing reaches the disk, and every access fails.
    ///
    /// # Panics
    /// When the system refuses.
    #[track_caller]
    pub fn cut(&self) {
        self.try_cut()
            .unwrap_or_else(|error| panic!("the power of `{}` can't be cut: {error}", self.path.display()));
    }

    fn try_cut(&self) -> Result<(), String> {
        run(Command::new(need::python()).args(["-c", SHUT_DOWN]).arg(&self.path))
    }

    /// Gives the power back: what was synced is there. Whoever used the disk must have ended.
    ///
    /// # Panics
    /// When the disk is in use or its file system broken.
    #[track_caller]
    pub fn power_on(&self) {
        patience::wait("an unused disk", patience::short(), || {
            run(Command::new("umount").arg(&self.path))
        });
        // A process that has just ended may have held it in a mount namespace of its own.
        patience::wait("a free loop device", patience::short(), || {
            let losetup = need::find("losetup").ok_or("there is no `losetup`")?;
            let using = Command::new(losetup).arg("--associated").arg(&self.image).output();
            let using = using.map_err(|error| error.to_string())?.stdout;
            let is_free = using.is_empty();
            is_free
                .then_some(())
                .ok_or_else(|| String::from_utf8_lossy(&using).into_owned())
        });
        self.attach()
            .unwrap_or_else(|error| panic!("`{}` can't be mounted again: {error}", self.path.display()));
    }

    fn attach(&self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .args([&self.image, &self.path]))
    }
}

impl Drop for PowerDisk {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;
    use crate::Need;

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_loses_what_was_not() {
        if !Need::all(&[Need::PowerDisk]) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let disk = PowerDisk::mount(&directory.path().join("image"), &path);
        let mut synced = File::create(path.join("synced")).unwrap();
        synced.write_all(b"kept").unwrap();
        synced.sync_all().unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        std::fs::write(path.join("unsynced"), "lost").unwrap();

        disk.cut();
        drop(synced);
        disk.power_on();

        assert_eq!(std::fs::read_to_string(path.join("synced")).unwrap(), "kept");
        assert!(!path.join("unsynced").exists());
    }
}
