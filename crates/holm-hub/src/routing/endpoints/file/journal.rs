//! What was taken and is in no finished file yet: a file that is only appended to, and synced before anything counts as delivered.
//!
//! ```text
//! file    header, records                                     all numbers little endian
//! header  "HOLMROUT" | version 1 | has mark 1 | 0 0 | mark: sequence 8, enqueued 8 | crc 4               32 bytes
//! record  length 4 | crc 4 | partition 2 | sequence 8 | enqueued 8 | written 8 | message                 length and crc of all behind
//!
//! append --written, synced--> delivered --start over: a new file with the mark, renamed over this one--> the records are forgotten
//! ```
//!
//! - The *mark* is the last message that was taken. What comes again after a crash, or because an answer was lost, is recognised by it and
//!   not taken twice: its sequence is not above the mark's, and it was not enqueued later. The time is for a hub that was restored from a
//!   backup and gives out the sequences of lost messages to others.
//! - A record that is not whole ends the file: its append did not end, so nobody was told that it is there. It is cut off at the opening.
//! - After an append that failed the file is cut to what was synced before, whatever the disk has of the rest.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holm_model::{Message, Timestamp};

use crate::routing::Routed;

const MAGIC: &[u8; 8] = b"HOLMROUT";
const VERSION: u8 = 1;
const HEADER: usize = 32;
/// Bytes of a record before its message: length, checksum, and what stands in [`Entry`].
const BEFORE_LENGTH: usize = 8;
const FIELDS: usize = 26;
/// The largest record that is read: several times what any message has.
const MAX_RECORD: usize = 16 * 1024 * 1024;

/// A message as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) partition: u16,
    pub(super) mark: Mark,
    /// The message, encoded.
    pub(super) message: Bytes,
}

/// Which message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) enqueued: Timestamp,
}

impl Entry {
    pub(super) fn of(routed: &Routed) -> Self {
        Self {
            partition: routed.partition,
            mark: Mark {
                sequence: routed.sequence,
                enqueued: routed.enqueued,
            },
            message: routed.message.encode(),
        }
    }
}

/// A message as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) mark: Mark,
    pub(super) message: Message,
}

/// What has gathered since the last files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// When its first message was written.
    pub(super) started: Timestamp,
    /// Bytes of each partition.
    pub(super) bytes: BTreeMap<u16, u64>,
}

/// The journal of an endpoint.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Up to here everything is whole and synced.
    length: u64,
    /// The file may be longer than that.
    is_doubtful: bool,
    mark: Option<Mark>,
    window: Option<Window>,
}

impl Journal {
    /// Opens the journal at `path`, or makes it.
    ///
    /// # Errors
    /// What the file system refused; that the file is no journal, or one of another version.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.try_exists()? {
            make(path, None)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut journal = Self {
            path: path.to_owned(),
            mark: read_header(&file)?,
            file,
            length: HEADER as u64,
            is_doubtful: true,
            window: None,
        };
        let mut records = Records::new(path)?;
        while let Ok(Some(record)) = records.next_record() {
            journal.count(record.partition, record.mark, record.written, record.bytes);
        }
        let cut = journal.file.metadata()?.len() - journal.length;
        if cut > 0 {
            tracing::warn!(path = %path.display(), bytes = cut, "messages that were not whole were cut off; they come again");
        }
        journal.cut()?;
        Ok(journal)
    }

    /// Whether there is a journal at `path`.
    ///
    /// # Errors
    /// What the file system refused.
    pub(super) fn is_at(path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    /// What has gathered, if anything.
    pub(super) const fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// Takes messages; when this returns, they are on disk. Those that were taken before are passed over.
    ///
    /// # Errors
    /// What the file system refused. None of them counts as taken then.
    pub(super) fn append(&mut self, entries: &[Entry], now: Timestamp) -> io::Result<()> {
        if self.is_doubtful {
            self.cut()?;
        }
        let fresh: Vec<&Entry> = entries.iter().filter(|entry| !self.has(entry.mark)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let mut sizes = Vec::with_capacity(fresh.len());
        for entry in &fresh {
            let before = buffer.len();
            write_record(entry, now, &mut buffer)?;
            sizes.push((buffer.len() - before) as u64);
        }
        self.is_doubtful = true;
        self.file.write_all_at(&buffer, self.length)?;
        self.file.sync_data()?;
        self.is_doubtful = false;
        for (entry, size) in fresh.into_iter().zip(sizes) {
            self.count(entry.partition, entry.mark, now, size);
        }
        Ok(())
    }

    /// The messages of a partition, in their order.
    ///
    /// # Errors
    /// What the file system refused.
    pub(super) fn messages(&self, partition: u16) -> io::Result<Messages> {
        Ok(Messages {
            records: Records::new(&self.path)?,
            end: self.length,
            partition,
        })
    }

    /// Forgets the messages, which are in finished files now, but for the mark.
    ///
    /// # Errors
    /// What the file system refused; they are all still there then.
    pub(super) fn start_over(&mut self) -> io::Result<()> {
        make(&self.path, self.mark)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.length = HEADER as u64;
        self.window = None;
        Ok(())
    }

    fn has(&self, mark: Mark) -> bool {
        self.mark
            .is_some_and(|last| mark.sequence <= last.sequence && mark.enqueued <= last.enqueued)
    }

    fn count(&mut self, partition: u16, mark: Mark, written: Timestamp, bytes: u64) {
        self.length += bytes;
        self.mark = Some(match self.mark {
            // A sequence that falls was given out anew.
            Some(last) => Mark {
                sequence: mark.sequence,
                enqueued: mark.enqueued.max(last.enqueued),
            },
            None => mark,
        });
        let window = self.window.get_or_insert_with(|| Window {
            started: written,
            bytes: BTreeMap::new(),
        });
        *window.bytes.entry(partition).or_default() += bytes;
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.sync_data()?;
        self.is_doubtful = false;
        Ok(())
    }
}

/// Makes an empty journal in the place of whatever is there.
fn make(path: &Path, mark: Option<Mark>) -> io::Result<()> {
    let mut header = MAGIC.to_vec();
    header.extend([VERSION, u8::from(mark.is_some()), 0, 0]);
    header.extend(mark.map_or(0, |mark| mark.sequence).to_le_bytes());
    header.extend(mark.map_or(0, |mark| mark.enqueued.unix_millis()).to_le_bytes());
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    let fresh = path.with_extension("new");
    let file = File::create(&fresh)?;
    file.write_all_at(&header, 0)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes what was renamed into a directory last.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn read_header(file: &File) -> io::Result<Option<Mark>> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let (content, sum) = header.split_at(HEADER - 4);
    if !content.starts_with(MAGIC) || crc32c::crc32c(content).to_le_bytes() != sum {
        return Err(wrong("it is no journal of an endpoint, or damaged; move it away"));
    }
    let mut fields = Fields(content.get(8..).unwrap_or_default());
    let ([version, has_mark, ..], sequence, enqueued) = (fields.take::<4>(), fields.take(), fields.take());
    if version != VERSION {
        return Err(wrong(
            "it is a journal of another release; use that release, or move it away",
        ));
    }
    Ok((has_mark == 1).then(|| Mark {
        sequence: u64::from_le_bytes(sequence),
        enqueued: Timestamp::from_unix_millis(i64::from_le_bytes(enqueued)),
    }))
}

fn write_record(entry: &Entry, now: Timestamp, out: &mut Vec<u8>) -> io::Result<()> {
    let mut record = Vec::with_capacity(FIELDS + entry.message.len());
    record.extend(entry.partition.to_le_bytes());
    record.extend(entry.mark.sequence.to_le_bytes());
    record.extend(entry.mark.enqueued.unix_millis().to_le_bytes());
    record.extend(now.unix_millis().to_le_bytes());
    record.extend_from_slice(&entry.message);
    let length = u32::try_from(record.len()).map_err(io::Error::other)?;
    out.extend(length.to_le_bytes());
    out.extend(crc32c::crc32c(&record).to_le_bytes());
    out.append(&mut record);
    Ok(())
}

/// Numbers at the beginning of bytes. What is not there is zero; the caller knows the length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk::<N>() else {
            return [0; N];
        };
        self.0 = rest;
        *first
    }
}

/// A record as it is read.
struct Record {
    partition: u16,
    mark: Mark,
    written: Timestamp,
    /// Of the record with what stands before it.
    bytes: u64,
    message: Bytes,
}

/// Reads records from the first on.
struct Records {
    reader: BufReader<File>,
    at: u64,
}

impl Records {
    fn new(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(HEADER as u64))?;
        Ok(Self {
            reader: BufReader::with_capacity(256 * 1024, file),
            at: HEADER as u64,
        })
    }

    /// The next record; none at the end of the file.
    fn next_record(&mut self) -> io::Result<Option<Record>> {
        let mut begin = [0; BEFORE_LENGTH];
        match self.reader.read_exact(&mut begin) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let mut fields = Fields(&begin);
        let (length, sum) = (u32::from_le_bytes(fields.take()), fields.take::<4>());
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a record is damaged");
        let length = usize::try_from(length).map_err(|_| damaged())?;
        if !(FIELDS..=MAX_RECORD).contains(&length) {
            return Err(damaged());
        }
        let mut content = vec![0; length];
        self.reader.read_exact(&mut content)?;
        if crc32c::crc32c(&content).to_le_bytes() != sum {
            return Err(damaged());
        }
        let mut content = Bytes::from(content);
        let mut fields = Fields(&content);
        let (partition, sequence) = (u16::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take()));
        let mut time = || Timestamp::from_unix_millis(i64::from_le_bytes(fields.take()));
        let (enqueued, written) = (time(), time());
        let bytes = (BEFORE_LENGTH + length) as u64;
        self.at += bytes;
        Ok(Some(Record {
            partition,
            mark: Mark { sequence, enqueued },
            written,
            bytes,
            message: content.split_off(FIELDS),
        }))
    }
}

/// The messages of a partition.
pub(super) struct Messages {
    records: Records,
    end: u64,
    partition: u16,
}

impl Messages {
    /// The next one.
    ///
    /// # Errors
    /// What the file system refused, and damage: all of them were whole when they were taken.
    pub(super) fn next(&mut self) -> io::Result<Option<Kept>> {
        while self.records.at < self.end {
            let Some(record) = self.records.next_record()? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if record.partition == self.partition {
                let message = Message::decode(record.message).map_err(io::Error::other)?;
                return Ok(Some(Kept {
                    mark: record.mark,
                    message,
                }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
