//! Writes a zip archive piece by piece, each file compressed, its size after it: nothing is kept but the list of files.
//!
//! ```text
//! local header · deflated bytes · descriptor (CRC-32, sizes) · … · central directory · end
//! ```
//!
//! Source: the published ZIP format (APPNOTE 6.3), §4.3. Files and archive are below 4 GiB, which `Zip::end_file` sees to.

use std::io::{self, Write};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// 2.0: deflate.
const VERSION: u16 = 20;
/// Sizes follow the file (bit 3), names are UTF-8 (bit 11).
const FLAGS: u16 = 0x0808;
const DEFLATED: u16 = 8;
/// 1980-01-01, the format's first day; files of a bundle are as old as the bundle.
const DATE: u16 = 0x21;

struct Entry {
    name: String,
    crc: u32,
    compressed: u32,
    size: u32,
    offset: u32,
}

struct Open {
    name: String,
    crc: Crc,
    offset: u64,
    /// Bytes of it that were taken already.
    taken: u64,
    size: u64,
    encoder: DeflateEncoder<Vec<u8>>,
}

impl std::fmt::Debug for Zip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zip")
            .field("files", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// An archive that is being written.
#[derive(Default)]
pub struct Zip {
    out: Vec<u8>,
    /// Bytes that were taken.
    taken: u64,
    entries: Vec<Entry>,
    open: Option<Open>,
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "the archive would be larger than 4 GiB")
}

impl Zip {
    /// Begins a file, and ends the one before.
    ///
    /// # Errors
    /// When the archive would be larger than 4 GiB.
    pub fn file(&mut self, name: &str) -> io::Result<()> {
        self.end_file()?;
        let offset = self.taken + self.out.len() as u64;
        let length = u16::try_from(name.len()).map_err(|_| too_large())?;
        self.out.extend_from_slice(b"PK\x03\x04");
        for number in [VERSION, FLAGS, DEFLATED, 0, DATE] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.out.extend_from_slice(&[0; 12]);
        self.out.extend_from_slice(&length.to_le_bytes());
        self.out.extend_from_slice(&[0; 2]);
        self.out.extend_from_slice(name.as_bytes());
        self.open = Some(Open {
            name: name.to_owned(),
            crc: Crc::new(),
            offset,
            taken: 0,
            size: 0,
            encoder: DeflateEncoder::new(Vec::new(), Compression::default()),
        });
        Ok(())
    }

    /// Adds to the file that has begun.
    ///
    /// # Errors
    /// None of the memory it writes to.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.crc.update(bytes);
        open.size += bytes.len() as u64;
        open.encoder.write_all(bytes)?;
        let ready = std::mem::take(open.encoder.get_mut());
        open.taken += ready.len() as u64;
        self.out.extend_from_slice(&ready);
        Ok(())
    }

    /// How much is ready to be sent.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.out.len()
    }

    /// What is ready to be sent.
    pub fn take(&mut self) -> Vec<u8> {
        self.taken += self.out.len() as u64;
        std::mem::take(&mut self.out)
    }

    fn end_file(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let rest = open.encoder.finish()?;
        let small = |number: u64| u32::try_from(number).map_err(|_| too_large());
        let entry = Entry {
            name: open.name,
            crc: open.crc.sum(),
            compressed: small(open.taken + rest.len() as u64)?,
            size: small(open.size)?,
            offset: small(open.offset)?,
        };
        self.out.extend_from_slice(&rest);
        self.out.extend_from_slice(b"PK\x07\x08");
        for number in [entry.crc, entry.compressed, entry.size] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The rest.
    ///
    /// # Errors
    /// When the archive would be larger than 4 GiB.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.end_file()?;
        let start = u32::try_from(self.taken + self.out.len() as u64).map_err(|_| too_large())?;
        let count = u16::try_from(self.entries.len()).map_err(|_| too_large())?;
        let mut directory = Vec::new();
        for entry in &self.entries {
            directory.extend_from_slice(b"PK\x01\x02");
            for number in [VERSION, VERSION, FLAGS, DEFLATED, 0, DATE] {
                directory.extend_from_slice(&number.to_le_bytes());
            }
            for number in [entry.crc, entry.compressed, entry.size] {
                directory.extend_from_slice(&number.to_le_bytes());
            }
            let length = u16::try_from(entry.name.len()).map_err(|_| too_large())?;
            directory.extend_from_slice(&length.to_le_bytes());
            directory.extend_from_slice(&[0; 12]);
            directory.extend_from_slice(&entry.offset.to_le_bytes());
            directory.extend_from_slice(entry.name.as_bytes());
        }
        let length = u32::try_from(directory.len()).map_err(|_| too_large())?;
        self.out.extend_from_slice(&directory);
        self.out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
        for number in [count, count] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [length, start] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        self.out.extend_from_slice(&[0; 2]);
        Ok(self.out)
    }
}
