//! Reading a lane: what to read is decided with the log, the bytes are fetched without it, and what came is settled with it.
//!
//! ```text
//!  plan_read ──> Nothing              nothing visible at the cursor
//!            ├─> Ready (memory) ─┐
//!            ├─> Ready (file) ───┼─fetch──> Fetched ──settle_read──> records; acknowledged and expired ones left out
//!            └─> Ready (seal) ───┘          (a seal only tells where to read: plan again)
//! ```
//!
//! A cursor remembers the segment and the place in it, so reading on needs no index. A position that no segment holds, or
//! whose record is damaged, is lost: it is counted and acknowledged, so that it holds nobody up.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Log;
use super::rescue::entry_at;
use super::segment::Segment;
use crate::error::ReadError;
use crate::file_system::{File, FileSystem};
use crate::format::{Entry, Found, Scanner, Seal, Seed, Stream, decode_record, kind};
use crate::lane::LaneId;
use crate::record::{Record, Start, Visibility};

/// A buffer larger than this is given back after use; it grew for one large record.
const KEPT_WINDOW_BYTES: usize = 128 << 10;

/// Where a reader stands in a lane.
#[derive(Debug, Clone)]
pub struct Cursor {
    lane: LaneId,
    /// The next position to read.
    position: u64,
    place: Option<Place>,
    /// Records enqueued before this are passed over until one is not.
    since: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    stream: Stream,
    number: u64,
    at: u64,
}

impl Cursor {
    /// The next position to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// What to do to get the next records.
#[derive(Debug)]
pub enum ReadPlan {
    /// Nothing is visible at the cursor.
    Nothing,
    /// Bytes to be fetched.
    Ready(Fetch),
}

/// Bytes to be fetched.
#[derive(Debug)]
pub struct Fetch {
    lane: LaneId,
    from: u64,
    since: Option<u64>,
    /// One beyond the last position to be found here.
    until: u64,
    place: Place,
    /// How long the segment was: reading up to here without finding a position means that it is gone.
    segment_end: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
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
    records: Vec<Record>,
    lost: Vec<Range<u64>>,
    position: u64,
    since: Option<u64>,
    place: Option<Place>,
    /// The file that was to be read is gone.
    missing: Option<(Stream, u64)>,
}

/// A reader's open file and buffer, kept from one read to the next.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    file: Option<(String, Arc<dyn File>)>,
    window: Vec<u8>,
}

/// What passed by a reader without being handed out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Positions whose time-to-live had ended.
    pub expired: u64,
    /// Positions whose records were damaged or missing.
    pub corrupt: u64,
}

impl Log {
    /// Makes a cursor.
    ///
    /// # Errors
    /// The lane is not defined.
    pub fn cursor(&self, lane: LaneId, start: Start, visibility: Visibility) -> Result<Cursor, ReadError> {
        let state = self.lanes.get(&lane).ok_or(ReadError::UnknownLane { lane })?;
        let end = match visibility {
            Visibility::Appended => state.next,
            Visibility::Durable => state.durable_next,
        };
        let low_water = state.progress.low_water();
        let (position, since) = match start {
            Start::LowWater => (low_water, None),
            Start::Position(position) => (position.max(low_water), None),
            Start::End => (end, None),
            Start::Time(time) => {
                let parts = self.segments_of(lane).filter_map(|segment| segment.parts.get(&lane));
                let mut parts = parts.filter(|part| part.last >= low_water && part.last_time >= time);
                (parts.next().map_or(end, |part| part.first.max(low_water)), Some(time))
            }
        };
        Ok(Cursor {
            lane,
            position,
            place: None,
            since,
        })
    }

    /// Whether something is visible at the cursor.
    ///
    /// # Errors
    /// The lane is not defined any more.
    pub fn is_readable(&self, cursor: &Cursor, visibility: Visibility) -> Result<bool, ReadError> {
        let lane = self
            .lanes
            .get(&cursor.lane)
            .ok_or(ReadError::UnknownLane { lane: cursor.lane })?;
        let end = match visibility {
            Visibility::Appended => lane.next,
            Visibility::Durable => lane.durable_next,
        };
        Ok(lane.progress.next_open(cursor.position) < end)
    }

    /// Decides what to fetch for the next records of the cursor.
    ///
    /// # Errors
    /// The lane is not defined any more.
    pub fn plan_read(&mut self, cursor: &mut Cursor, visibility: Visibility) -> Result<ReadPlan, ReadError> {
        let lane = cursor.lane;
        loop {
            let state = self.lanes.get(&lane).ok_or(ReadError::UnknownLane { lane })?;
            let visible = match visibility {
                Visibility::Appended => state.next,
                Visibility::Durable => state.durable_next,
            };
            cursor.position = state.progress.next_open(cursor.position);
            if cursor.position >= visible {
                return Ok(ReadPlan::Nothing);
            }
            let segment = self.segment_for(cursor);
            let part = segment.and_then(|segment| segment.parts.get(&lane));
            let first = part.map_or(visible, |part| part.first.min(visible));
            if first > cursor.position {
                self.lose(lane, cursor.position..first);
                continue;
            }
            let (Some(segment), Some(part)) = (segment, part) else {
                continue;
            };
            let until = part.last.saturating_add(1).min(visible);
            let (stream, number) = (segment.stream, segment.number);
            let place = cursor
                .place
                .filter(|place| (place.stream, place.number) == (stream, number));
            let place = place.filter(|place| place.at <= segment.end);
            return Ok(ReadPlan::Ready(self.fetch_plan(stream, number, cursor, until, place)));
        }
    }

    /// The segment that holds the cursor's position, or else the next one that holds anything of the lane.
    fn segment_for(&self, cursor: &Cursor) -> Option<&Segment> {
        let holds = |segment: &&Segment| {
            segment
                .parts
                .get(&cursor.lane)
                .is_some_and(|part| part.last >= cursor.position)
        };
        let at_place = cursor.place.and_then(|place| self.segment(place.stream, place.number));
        let at_place = at_place.filter(holds);
        let starts_before = |segment: &&Segment| {
            segment
                .parts
                .get(&cursor.lane)
                .is_some_and(|part| part.first <= cursor.position)
        };
        at_place
            .filter(starts_before)
            .or_else(|| self.segments_of(cursor.lane).find(holds))
    }

    fn fetch_plan(&mut self, stream: Stream, number: u64, cursor: &Cursor, until: u64, place: Option<Place>) -> Fetch {
        let is_active = stream == Stream::Journal && self.active().number == number;
        if is_active {
            self.freeze();
        }
        let segment = self.segment(stream, number).expect("the caller just found it");
        let by_index = || Segment::lookup(&segment.index, cursor.lane, cursor.position);
        let known = place
            .map(|place| place.at)
            .or_else(|| (!segment.index.is_empty()).then(by_index));
        let (files, name, seed) = (Arc::clone(&self.files), segment.name(), segment.seed);
        let at = known.unwrap_or(0);
        let source = match (known, segment.seal_at) {
            (None, Some(seal_at)) if segment.cold_end() > 0 => Source::Seal {
                files,
                name,
                seed,
                at: seal_at,
            },
            _ => match segment.chunk_at(at) {
                Some(chunk) => Source::Memory {
                    bytes: chunk.bytes.clone(),
                    at: chunk.at,
                },
                None => Source::Disk {
                    files,
                    name,
                    seed,
                    end: segment.cold_end(),
                },
            },
        };
        Fetch {
            lane: cursor.lane,
            from: cursor.position,
            since: cursor.since,
            until,
            place: Place { stream, number, at },
            segment_end: segment.seal_at.unwrap_or(segment.end),
            source,
        }
    }

    /// Takes note of what was fetched and returns the records to hand out. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// The lane is not defined any more.
    pub fn settle_read(
        &mut self,
        cursor: &mut Cursor,
        fetched: Fetched,
        now: u64,
    ) -> Result<(Vec<Record>, Passed), ReadError> {
        let lane = cursor.lane;
        let mut passed = Passed::default();
        if let Some((stream, number)) = fetched.missing
            && let Some(segment) = self.segment(stream, number)
        {
            return Err(ReadError::Io {
                name: segment.name(),
                source: io::ErrorKind::NotFound.into(),
            });
        }
        for range in fetched.lost {
            passed.corrupt += self.lose(lane, range);
        }
        let mut records = fetched.records;
        let state = self.lanes.get(&lane).ok_or(ReadError::UnknownLane { lane })?;
        records.retain(|record| !state.progress.covers(record.position..record.position + 1));
        let is_expired = |record: &Record| record.expires_at != 0 && record.expires_at <= now;
        for record in records.iter().filter(|record| is_expired(record)) {
            let new = self.settle_positions(lane, record.position..record.position + 1);
            self.stats.expired += new;
            passed.expired += new;
        }
        records.retain(|record| !is_expired(record));
        cursor.position = fetched.position;
        cursor.since = fetched.since;
        cursor.place = fetched.place;
        Ok((records, passed))
    }

    /// Counts positions as lost and acknowledges them.
    pub(super) fn lose(&mut self, lane: LaneId, positions: Range<u64>) -> u64 {
        let new = self.settle_positions(lane, positions);
        self.stats.corrupt += new;
        new
    }

    /// Reads the next records in one go, for callers that share the log with nobody.
    ///
    /// # Errors
    /// The lane is not defined, or the file system refused.
    pub fn read(
        &mut self,
        cursor: &mut Cursor,
        buffer: &mut ReadBuffer,
        limits: (usize, usize),
        visibility: Visibility,
        now: u64,
    ) -> Result<(Vec<Record>, Passed), ReadError> {
        let mut all = Vec::new();
        let mut all_passed = Passed::default();
        let mut bytes = 0;
        while all.len() < limits.0 && bytes < limits.1 {
            let ReadPlan::Ready(fetch) = self.plan_read(cursor, visibility)? else {
                break;
            };
            let fetched = fetch.run(buffer, limits.0 - all.len(), limits.1 - bytes)?;
            let (records, passed) = self.settle_read(cursor, fetched, now)?;
            bytes += records.iter().map(Record::payload_len).sum::<usize>();
            all.extend(records);
            all_passed.expired += passed.expired;
            all_passed.corrupt += passed.corrupt;
        }
        Ok((all, all_passed))
    }
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
