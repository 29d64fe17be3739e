//! The disks of this device.
//!
//! A disk is shown once, wherever it is mounted. File systems of the network are not asked: one that hangs would hold
//! everything up.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Disks that are shown.
const MAX_DISKS: usize = 32;

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its device, such as `/dev/sda1`; `overlay` where the root of a container is.
    pub name: String,
    /// Such as `ext4`.
    pub file_system: String,
    /// `SSD`, `HDD` or `Unknown`.
    pub kind: &'static str,
    /// Bytes that can still be written.
    pub available: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Disk {
    /// The published form.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "available_space": self.available,
            "total_space": self.total,
            "file_system": self.file_system,
            "file_type": self.kind,
        })
    }
}

/// Every disk that is mounted, and the one that holds `data` whatever it is.
pub(super) fn read(data: &Path) -> Vec<Disk> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holder = mounts
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| data.starts_with(&mount.place))
        .max_by_key(|mount| mount.place.len());
    let mut seen = BTreeSet::new();
    let all = mounts.lines().filter_map(Mount::parse);
    let local = all.filter(|mount| mount.device.starts_with("/dev/"));
    local
        .chain(holder)
        .filter_map(|mount| {
            let space = rustix::fs::statvfs(mount.place.as_str()).ok()?;
            let is_new = space.f_blocks > 0 && seen.insert(mount.device.clone());
            is_new.then(|| Disk {
                kind: kind(&mount.place),
                name: mount.device,
                file_system: mount.file_system,
                available: space.f_bavail.saturating_mul(space.f_frsize),
                total: space.f_blocks.saturating_mul(space.f_frsize),
            })
        })
        .take(MAX_DISKS)
        .collect()
}

/// A line of `/proc/self/mounts` (fstab(5)).
struct Mount {
    device: String,
    place: String,
    file_system: String,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().map(unescaped);
        Some(Self {
            device: word()?,
            place: word()?,
            file_system: word()?,
        })
    }
}

/// Spaces and the like stand there as `\040`.
fn unescaped(word: &str) -> String {
    let mut text = word.to_owned();
    for (escape, sign) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escape, sign);
    }
    text
}

/// What the kernel says of the block device below a mount.
fn kind(place: &str) -> &'static str {
    let device = rustix::fs::stat(place).map(|stat| (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)));
    let Ok((major, minor)) = device else { return "Unknown" };
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has it one level above.
    let read = |path: &str| fs::read_to_string(format!("{device}/{path}")).ok();
    match read("queue/rotational")
        .or_else(|| read("../queue/rotational"))
        .as_deref()
        .map(str::trim)
    {
        Some("0") => "SSD",
        Some("1") => "HDD",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_are_read_whole() {
        let mount = Mount::parse("/dev/sda1 /mnt/my\\040disk ext4 rw,relatime 0 0").unwrap();

        assert_eq!(
            (mount.device.as_str(), mount.place.as_str()),
            ("/dev/sda1", "/mnt/my disk")
        );
        assert_eq!(mount.file_system, "ext4");
        assert!(Mount::parse("/dev/sda1 /mnt").is_none());
    }

    #[test]
    fn the_disk_of_the_data_directory_is_there_and_none_twice() {
        let disks = read(Path::new("/"));

        let names: BTreeSet<_> = disks.iter().map(|disk| &disk.name).collect();
        assert_eq!(names.len(), disks.len());
        assert!(disks.iter().any(|disk| disk.total > 0), "{disks:?}");
    }
}
