//! Fetching a lane's records from memory or a file, without the log.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::rescue::entry_at;
use super::segment::Segment;
use crate::error::ReadError;
use crate::file_system::{File, FileSystem};
use crate::format::{Entry, Found, Scanner, Seal, Seed, Stream, decode_record, kind};
use crate::lane::LaneId;
use crate::record::Record;

/// A buffer larger than this is given back after use; it grew for one large record.
const KEPT_WINDOW_BYTES: usize = 128 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: Stream,
    pub(super) number: u64,
    pub(super) at: u64,
}

/// Bytes to be fetched.
#[derive(Debug)]
pub struct Fetch {
    pub(super) lane: LaneId,
    pub(super) from: u64,
    pub(super) since: Option<u64>,
    /// One beyond the last position to be found here.
    pub(super) until: u64,
    pub(super) place: Place,
    /// How long the segment was: reading up to here without finding a position means that it is gone.
    pub(super) segment_end: u64,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Memory {
        bytes: Bytes,
        at: u64,
    },
    Disk {
        files: Arc<dyn FileSystem>,
        name: String,
        seed: Seed,
        end: u64,
    },
    Seal {
        files: Arc<dyn FileSystem>,
        name: String,
        seed: Seed,
        at: u64,
    },
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    pub(super) records: Vec<Record>,
    pub(super) lost: Vec<Range<u64>>,
    pub(super) position: u64,
    pub(super) since: Option<u64>,
    pub(super) place: Option<Place>,
    /// The file that was to be read is gone.
    pub(super) missing: Option<(Stream, u64)>,
}

/// A reader's open file and buffer, kept from one read to the next.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    file: Option<(String, Arc<dyn File>)>,
    window: Vec<u8>,
}

impl Fetch {
    /// Fetches up to so many records and payload bytes, at least one record if there is one. Needs nothing of the log.
    ///
    /// # Errors
    /// The file system refused. A segment that was removed meanwhile is no error: planning again finds what it held.
    pub fn run(self, buffer: &mut ReadBuffer, max_records: usize, max_bytes: usize) -> Result<Fetched, ReadError> {
        let mut collector = Collector::new(&self, max_records, max_bytes);
        let place = match &self.source {
            Source::Memory { bytes, at } => collector.take_memory(bytes, *at, self.place.at),
            Source::Disk { files, name, seed, end } => {
                let read = buffer.open(files.as_ref(), name).and_then(|file| {
                    let window = std::mem::take(&mut buffer.window);
                    let mut scanner = Scanner::new(file.as_ref(), *seed, self.place.at, *end).with_window(window);
                    let read = collector.take_file(&mut scanner);
                    buffer.window = scanner.into_window();
                    buffer.window.shrink_to(KEPT_WINDOW_BYTES);
                    read
                });
                match read {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(collector.missing(self.place)),
                    result => result.map_err(|source| ReadError::Io {
                        name: name.clone(),
                        source,
                    })?,
                }
            }
            Source::Seal { files, name, seed, at } => {
                let read = buffer.open(files.as_ref(), name);
                let place = match read.and_then(|file| read_index(file.as_ref(), *seed, *at)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(collector.missing(self.place)),
                    Err(source) => {
                        return Err(ReadError::Io {
                            name: name.clone(),
                            source,
                        });
                    }
                    // Without its index the segment is read from its start.
                    Ok(seal) => seal.map_or(0, |seal| Segment::lookup(&seal.index, self.lane, self.from)),
                };
                return Ok(collector.unread(Place {
                    at: place,
                    ..self.place
                }));
            }
        };
        let is_whole = place >= self.segment_end;
        Ok(collector.finish(
            Place {
                at: place,
                ..self.place
            },
            is_whole.then_some(self.until),
        ))
    }
}

fn read_index(file: &dyn File, seed: Seed, at: u64) -> io::Result<Option<Seal>> {
    let mut scanner = Scanner::new(file, seed, at, file.len()?);
    Ok(match scanner.next()? {
        Some(Found::Entry(entry)) if entry.kind == kind::SEAL && entry.at == at => Seal::decode(entry.body),
        _ => None,
    })
}

impl ReadBuffer {
    fn open(&mut self, files: &dyn FileSystem, name: &str) -> io::Result<Arc<dyn File>> {
        match &self.file {
            Some((open, file)) if open == name => Ok(Arc::clone(file)),
            _ => {
                let file = files.open(name)?;
                self.file = Some((name.to_owned(), Arc::clone(&file)));
                Ok(file)
            }
        }
    }
}

/// Picks a lane's records out of entries.
struct Collector {
    lane: LaneId,
    until: u64,
    max_records: usize,
    max_bytes: usize,
    bytes: usize,
    fetched: Fetched,
}

impl Collector {
    fn new(fetch: &Fetch, max_records: usize, max_bytes: usize) -> Self {
        let fetched = Fetched {
            records: Vec::new(),
            lost: Vec::new(),
            position: fetch.from,
            since: fetch.since,
            place: None,
            missing: None,
        };
        Self {
            lane: fetch.lane,
            until: fetch.until,
            max_records,
            max_bytes,
            bytes: 0,
            fetched,
        }
    }

    fn is_full(&self) -> bool {
        let fetched = &self.fetched;
        fetched.records.len() >= self.max_records || self.bytes >= self.max_bytes || fetched.position >= self.until
    }

    /// Returns the place of the first entry not taken.
    fn take_memory(&mut self, bytes: &Bytes, start: u64, from: u64) -> u64 {
        let mut at = usize::try_from(from - start).unwrap_or(usize::MAX);
        while !self.is_full()
            && let Some((header, body)) = entry_at(bytes, at)
        {
            let size = header.entry_bytes();
            if !self.take(Entry {
                at: start + at as u64,
                kind: header.kind,
                body,
                size,
            }) {
                break;
            }
            at += usize::try_from(size).unwrap_or(usize::MAX);
        }
        start + at as u64
    }

    fn take_file(&mut self, scanner: &mut Scanner<'_>) -> io::Result<u64> {
        loop {
            let at = scanner.at();
            if self.is_full() {
                return Ok(at);
            }
            match scanner.next()? {
                Some(Found::Entry(entry)) => {
                    if !self.take(entry) {
                        return Ok(at);
                    }
                }
                // What is damaged shows as a gap between the positions before and after it.
                Some(Found::Damaged | Found::Version(_) | Found::Gap) => {}
                None => return Ok(scanner.at()),
            }
        }
    }

    /// Takes an entry's record if it is the lane's; `false`: it is the lane's, but beyond what may be read here.
    fn take(&mut self, entry: Entry<'_>) -> bool {
        if entry.kind != kind::RECORD {
            return true;
        }
        let Some(record) = decode_record(entry.body) else {
            return true;
        };
        let Some((_, position, expires_at)) = record.lanes().find(|&(lane, _, _)| lane == self.lane) else {
            return true;
        };
        let fetched = &mut self.fetched;
        if position >= self.until {
            return false;
        }
        if position < fetched.position {
            return true;
        }
        if fetched.since.is_some_and(|since| record.enqueued_at < since) {
            fetched.position = position + 1;
            return true;
        }
        fetched.since = None;
        if position > fetched.position {
            fetched.lost.push(fetched.position..position);
        }
        let record = record.to_record(position, expires_at);
        self.bytes += record.payload_len();
        fetched.position = position + 1;
        fetched.records.push(record);
        true
    }

    /// Nothing was read; the next plan starts from `place`.
    fn unread(mut self, place: Place) -> Fetched {
        self.fetched.place = Some(place);
        self.fetched
    }

    /// The file was not there; the next plan may find that another has taken its place.
    fn missing(mut self, place: Place) -> Fetched {
        self.fetched.missing = Some((place.stream, place.number));
        self.fetched
    }

    /// `whole`: the segment was read to its end, and this is where its positions ended.
    fn finish(mut self, place: Place, whole: Option<u64>) -> Fetched {
        let fetched = &mut self.fetched;
        if let Some(until) = whole
            && fetched.position < until
        {
            if fetched.since.is_none() {
                fetched.lost.push(fetched.position..until);
            }
            fetched.position = until;
        }
        fetched.place = Some(place);
        self.fetched
    }
}
