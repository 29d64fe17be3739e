//! The bytes of an archive.
//!
//! ```text
//! holm-backup.json │ ca.pem … │ hub.db │ events/… │ blobs/… │ SHA256SUMS │ two blocks of zeros
//!   each: header of 512 bytes, content, zeros to the next 512
//! ```
//!
//! That is a tar file, so that people can look into it with what they have. Nothing in it is left to choice: a header follows from name,
//! mode, size and the time of the archive, and is compared as a whole; padding is zeros; `SHA256SUMS` has the sum of each content before
//! it, in order. So a byte that is not as it was written is found, wherever it is.

use holm_model::{Timestamp, hex};
use serde::{Deserialize, Serialize};

/// The version of the archive. A change that an earlier release can't read is another version.
pub const FORMAT_VERSION: u32 = 1;
/// Headers, and what contents are filled up to.
pub(super) const BLOCK: usize = 512;
/// The first entry.
pub(super) const HEAD: &str = "holm-backup.json";
/// The last entry.
pub(super) const SUMS: &str = "SHA256SUMS";
/// The most bytes of the first entry.
pub(super) const MAX_HEAD: u64 = 64 * 1024;
/// The database.
pub(super) const DATABASE: &str = "hub.db";
/// The event log.
pub(super) const EVENTS: &str = "events";
/// The files of devices.
pub(super) const BLOBS: &str = "blobs";
/// The largest size that stands in a header in octal digits; above it stands in binary.
const MAX_OCTAL: u64 = 0o777_7777_7777;
/// The most characters of a name.
const MAX_NAME: usize = 100;

/// What an archive says of itself, in its first entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The version of the archive.
    pub format: u32,
    /// The release that made it.
    pub release: String,
    /// When it was made.
    pub created: Timestamp,
    /// The version of the database in it.
    pub database_format: i32,
    /// What the hub was called by its clients.
    #[serde(default)]
    pub host_name: String,
    /// How many files are in it, this and the sums not counted.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many files of devices the hub's database names and its store had not got.
    #[serde(default)]
    pub missing_blobs: u64,
}

/// An entry, as its header has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    /// 0600 for what holds secrets, else 0644.
    pub(super) mode: u32,
    pub(super) size: u64,
}

impl Entry {
    /// The header of this entry in an archive of this time, in seconds since 1970.
    pub(super) fn header(&self, time: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, 0, self.name.as_bytes());
        put(&mut block, 100, format!("{:07o}\0", self.mode).as_bytes());
        put(&mut block, 108, b"0000000\x000000000\0");
        if self.size <= MAX_OCTAL {
            put(&mut block, 124, format!("{:011o}\0", self.size).as_bytes());
        } else {
            put(&mut block, 124, &[0x80, 0, 0, 0]);
            put(&mut block, 128, &self.size.to_be_bytes());
        }
        put(&mut block, 136, format!("{:011o}\0", time & MAX_OCTAL).as_bytes());
        put(&mut block, 148, b"        0");
        put(&mut block, 257, b"ustar\x0000");
        put(&mut block, 329, b"0000000\x000000000\0");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Reads a header; `None` where it is not one that [`Entry::header`] has written, to the byte. `time` is that of the archive, where
    /// it is known.
    pub(super) fn of_header(block: &[u8; BLOCK], time: Option<u64>) -> Option<(Self, u64)> {
        let name = block.get(..MAX_NAME)?.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let size = match block.get(124..136)? {
            [0x80, 0, 0, 0, size @ ..] => u64::from_be_bytes(size.try_into().ok()?),
            digits => octal(digits)?,
        };
        let mode = u32::try_from(octal(block.get(100..108)?)?).ok()?;
        let told = octal(block.get(136..148)?)?;
        let entry = Self { name, mode, size };
        let is_same = time.is_none_or(|time| time & MAX_OCTAL == told) && entry.header(told) == *block;
        (is_same && matches!(mode, 0o600 | 0o644)).then_some((entry, told))
    }

    /// What it takes in the archive.
    pub(super) fn total(&self) -> u64 {
        BLOCK as u64 + self.size + padding(self.size)
    }
}

/// The zeros behind a content.
pub(super) const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// The line of a content in the sums, as `sha256sum` writes and reads it.
pub(super) fn sum_line(digest: &[u8], name: &str) -> String {
    format!("{}  {name}\n", hex::encode(digest))
}

/// How long such a line is.
pub(super) fn sum_line_length(name: &str) -> u64 {
    (64 + 2 + name.len() + 1) as u64
}

/// The time of an archive as its headers have it.
pub(super) fn header_time(created: Timestamp) -> u64 {
    u64::try_from(created.unix_seconds()).unwrap_or(0)
}

/// Where in a data directory a content belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the data directory itself.
    Root,
    /// In the event log.
    Events,
    /// In the blob store.
    Blobs,
}

/// Where a content of this name belongs; `None`: no release that writes this format gives such a name. None leads out of its directory.
pub(super) fn place(name: &str) -> Option<Place> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        [file] if is_root_file(file) => Some(Place::Root),
        [EVENTS, "format"] => Some(Place::Events),
        [EVENTS, directory, segment] if is_segment(segment) && is_queue_directory(directory) => Some(Place::Events),
        [BLOBS, file] if *file == "hub" || is_blob(file) => Some(Place::Blobs),
        _ => None,
    }
}

/// Whether a file of this name in the data directory belongs to what a hub is: not what is there while it runs.
pub(super) fn is_root_file(name: &str) -> bool {
    const RUNTIME: [&str; 3] = ["lock", "hub.db-wal", "hub.db-shm"];
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !RUNTIME.contains(&name)
        && name != crate::hub::RESTORING
        && name != HEAD
        && name != SUMS
        && (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(is_plain)
}

/// Whether a file of the blob store holds a piece of a blob.
pub(super) fn is_blob(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_segment(name: &str) -> bool {
    let digits = name.strip_suffix(".seg").unwrap_or_default();
    digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_queue_directory(name: &str) -> bool {
    let lane = name.strip_prefix("lane-").unwrap_or_default();
    name == "journal" || (lane.len() == 8 && lane.bytes().all(|byte| byte.is_ascii_digit()))
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (place, byte) in block.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.split(|byte| *byte == 0).next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, size: u64) -> Entry {
        Entry {
            name: name.to_owned(),
            mode: 0o600,
            size,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written_and_no_other() {
        for size in [0, 1, 511, 512, MAX_OCTAL, MAX_OCTAL + 1, u64::MAX] {
            let entry = entry("events/journal/0000000000000001.seg", size);
            let header = entry.header(1_800_000_000);

            assert_eq!(
                Entry::of_header(&header, Some(1_800_000_000)),
                Some((entry, 1_800_000_000))
            );
            assert_eq!(Entry::of_header(&header, Some(1)), None);
            for at in 0..BLOCK {
                let mut damaged = header;
                damaged[at] ^= 1;
                assert_eq!(Entry::of_header(&damaged, None), None, "{at}");
            }
        }
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }

    #[test]
    fn no_name_leads_out_of_the_data_directory() {
        for name in ["ca.pem", "hub.db", "id-scope", "a.new-file"] {
            assert_eq!(place(name), Some(Place::Root), "{name}");
        }
        for name in [
            "events/format",
            "events/journal/0000000000000001.seg",
            "events/lane-00000003/0000000000000002.seg",
        ] {
            assert_eq!(place(name), Some(Place::Events), "{name}");
        }
        assert_eq!(place(&format!("blobs/{}", "0a".repeat(16))), Some(Place::Blobs));
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "lock",
            "hub.db-wal",
            ".hidden",
            "events/../ca.pem",
            "events/journal/x.seg",
            "blobs/x",
            "events/lane-3/0000000000000002.seg",
            "blobs/../hub",
            "a/b",
            "restoring",
            "holm-backup.json",
            "SHA256SUMS",
        ] {
            assert_eq!(place(name), None, "{name}");
        }
    }
}
