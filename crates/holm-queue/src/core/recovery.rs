//! Opening: from the bytes on disk back to a log.
//!
//! ```text
//!  format file, lock ─> newest checkpoint that can be read ─> replay from there on ─> reserve ─> cursors within bounds
//!                       older segments: their seals only                                   │
//!                                          new segment, new epoch, synced <────────────────┘  before anything is given out
//! ```
//!
//! Nothing is written before everything is read, so a refused directory is untouched. A broken body costs its record; a
//! broken header costs what lies before the next valid one; a tail without a valid entry is torn and cut off.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use super::report::{Lost, OpenReport, PulledBack, Stats};
use super::reserve::Reserve;
use super::segment::Segment;
use super::{Health, Log};
use crate::error::OpenError;
use crate::file_system::{File, FileSystem};
use crate::format::{
    Acknowledged, Definition, End, Entry, Envelope, FORMAT_VERSION, Fields, Found, Part, Scanner, Seal, Seed,
    SegmentStart, Snapshot, Stream, decode_record, kind, read_start,
};
use crate::lane::{Lane, LaneId, LaneKind};
use crate::options::Options;

const FORMAT_NAME: &str = "format";
const LOCK_NAME: &str = "lock";

/// How much of a segment is copied at a time.
const COPY_BYTES: usize = 1 << 20;

impl Log {
    /// Opens the queue on a file system, or makes one. `now` is in milliseconds since 1970.
    ///
    /// A full disk is no error: appends are refused until there is space.
    ///
    /// # Errors
    /// The directory is in use, of another version, or not a queue; an option is out of range; the file system refused.
    pub fn open(files: Arc<dyn FileSystem>, options: Options, now: u64) -> Result<(Self, OpenReport), OpenError> {
        options.check()?;
        let found = read_format(files.as_ref())?;
        let lock = files.lock(LOCK_NAME).map_err(OpenError::io("lock", LOCK_NAME))?;
        let lock = lock.ok_or_else(|| OpenError::Locked { path: files.path() })?;
        let mut report = OpenReport {
            created: found == Content::Nothing,
            ..OpenReport::default()
        };
        let salt = match found {
            Content::Format(salt) => salt,
            Content::Nothing => options.new_salt(),
            Content::Segments(salt) => salt,
        };
        let mut log = Self {
            options,
            files,
            salt,
            health: Health::Good,
            epoch: 0,
            sequence: 0,
            next_number: 1,
            lanes: BTreeMap::new(),
            next_lane: 0,
            journal: VecDeque::new(),
            moved: BTreeMap::new(),
            buffer: BytesMut::new(),
            uncommitted: 0,
            hot: 0,
            disk_bytes: 0,
            progress_version: 1,
            unlogged: false,
            look_for_dead: true,
            garbage: Vec::new(),
            removal_unsynced: true,
            moving: false,
            reserve: Reserve::default(),
            stats: Stats::default(),
            _lock: lock,
        };
        log.load(&mut report)?;
        if !matches!(found, Content::Format(_)) {
            log.write_format()?;
        }
        log.begin_epoch(now, &mut report)?;
        Ok((log, report))
    }

    fn load(&mut self, report: &mut OpenReport) -> Result<(), OpenError> {
        let numbers = segment_numbers(self.files.as_ref(), Stream::Journal)?;
        report.segments = numbers.len() as u64;
        let newest = self.load_journal(&numbers, report)?;
        let lane_files = self.load_moved(report)?;
        let slot = self
            .read_reserve()
            .map_err(OpenError::io("read", super::reserve::RESERVE_NAME))?;
        if let Some(slot) = slot {
            self.reserve.sequence = slot.sequence;
            if newest == Some(slot.epoch) {
                self.merge_reserve(&slot.snapshot, report);
            }
        }
        self.bound_cursors(report);
        self.find_missing(report);
        self.stats.corrupt = report
            .lost
            .iter()
            .map(|lost| lost.positions.end - lost.positions.start)
            .sum();
        let last = numbers.last().copied().unwrap_or(0).max(lane_files);
        self.next_number = last + 1;
        self.epoch = u32::try_from(self.next_number).map_err(|_| OpenError::Exhausted { number: last })?;
        report.epoch = self.epoch;
        for lane in self.lanes.values_mut() {
            lane.durable_next = lane.next;
            lane.unlogged.clear();
        }
        let all = self.journal.iter().chain(self.moved.values().flatten());
        self.disk_bytes = all.map(|segment| segment.durable).sum();
        Ok(())
    }

    /// Loads the journal and the state of the lanes; returns the newest segment's epoch if it can be read.
    fn load_journal(&mut self, numbers: &[u64], report: &mut OpenReport) -> Result<Option<u32>, OpenError> {
        let mut base = None;
        for (index, &number) in numbers.iter().enumerate().rev() {
            if let Some(snapshot) = self.read_checkpoint(number)? {
                base = Some((index, snapshot));
                break;
            }
        }
        let has_base = base.is_some();
        let replay_from = base.as_ref().map_or(0, |(index, _)| *index);
        match base {
            Some((_, snapshot)) => self.adopt_snapshot(snapshot),
            None if !numbers.is_empty() => {
                // Without any checkpoint the reserve's copy of the last opening is the best that there is.
                let slot = self
                    .read_reserve()
                    .map_err(OpenError::io("read", super::reserve::RESERVE_NAME))?;
                if let Some(slot) = slot {
                    self.adopt_snapshot(slot.snapshot);
                }
            }
            None => {}
        }
        let mut newest = None;
        for (index, &number) in numbers.iter().enumerate() {
            let is_last = index + 1 == numbers.len();
            let (segment, epoch) = if index < replay_from {
                self.load_older(number, numbers.get(index + 1).copied(), report)?
            } else {
                self.replay(number, is_last, report)?
            };
            // A start without a checkpoint behind it is what a crash leaves; entries behind none are damage.
            let has_checkpoint = has_base && index <= replay_from;
            report.damaged_segments += u64::from(!has_checkpoint && segment.end > SegmentStart::BYTES);
            // One without any valid entry was never on disk, so it says nothing about the run before it.
            if segment.end > 0 {
                newest = epoch;
            }
            self.journal.push_back(segment);
        }
        Ok(newest)
    }

    fn adopt_snapshot(&mut self, snapshot: Snapshot) {
        self.next_lane = snapshot.next_lane;
        for found in snapshot.lanes {
            let id = found.definition.id;
            let mut lane = Lane::new(found.definition.name, found.definition.kind);
            (lane.next, lane.last_enqueued, lane.progress) = (found.next, found.last_enqueued, found.progress);
            self.next_lane = self.next_lane.max(id.0.saturating_add(1));
            self.lanes.insert(id, lane);
        }
    }

    /// A segment before the newest checkpoint: only what is in it matters.
    fn load_older(
        &self,
        number: u64,
        next: Option<u64>,
        report: &mut OpenReport,
    ) -> Result<(Segment, Option<u32>), OpenError> {
        let stream = Stream::Journal;
        let (file, length) = self.open_segment(stream, number)?;
        let epoch = self.start_of(file.as_ref(), stream, number)?;
        let mut segment = Segment::new(stream, number, epoch.unwrap_or(0), self.salt);
        if !load_seal(&mut segment, file.as_ref(), length).map_err(OpenError::io("read", segment.name()))? {
            let mut reader = SegmentReader::new(&segment, file.as_ref(), length);
            let end = reader.run(false, report, |entry, report| {
                if let Some(record) = record_of(entry) {
                    report.records_scanned += 1;
                    note(&mut segment, None, entry, &record);
                }
            })?;
            (segment.durable, segment.end) = (end, end);
            if let Some(snapshot) = next.map(|next| self.read_checkpoint(next)).transpose()?.flatten() {
                let ends: BTreeMap<_, _> = snapshot
                    .lanes
                    .iter()
                    .map(|lane| (lane.definition.id, lane.next))
                    .collect();
                ends.iter().for_each(|(&id, &end)| segment.clip(id, end));
            }
        }
        segment.sealed = true;
        Ok((segment, epoch))
    }

    /// A segment from the newest checkpoint on: everything in it is done again.
    fn replay(
        &mut self,
        number: u64,
        is_last: bool,
        report: &mut OpenReport,
    ) -> Result<(Segment, Option<u32>), OpenError> {
        let stream = Stream::Journal;
        let (file, length) = self.open_segment(stream, number)?;
        let epoch = self.start_of(file.as_ref(), stream, number)?;
        let mut segment = Segment::new(stream, number, epoch.unwrap_or(0), self.salt);
        let mut reader = SegmentReader::new(&segment, file.as_ref(), length);
        let mut seal_at = None;
        let end = reader.run(is_last, report, |entry, report| match entry.kind {
            kind::SEAL => seal_at = Some(entry.at),
            kind::END => segment.seal_at = seal_at,
            _ => self.replay_entry(&mut segment, entry, report),
        })?;
        segment.sealed = true;
        (segment.durable, segment.end) = (end, end);
        if segment.seal_at.is_some() {
            segment.index = Vec::new();
        }
        Ok((segment, epoch))
    }

    fn replay_entry(&mut self, segment: &mut Segment, entry: &Entry<'_>, report: &mut OpenReport) {
        match entry.kind {
            kind::RECORD => {
                let Some(record) = record_of(entry) else {
                    report.damaged_entries += 1;
                    return;
                };
                report.records_scanned += 1;
                for (id, position, expires_at) in record.lanes() {
                    if self.replay_position(id, position, &record, report) {
                        segment.note(
                            id,
                            entry.at,
                            &Part::new(position, record.enqueued_at, expires_at, entry.size),
                        );
                    }
                }
            }
            kind::ACKNOWLEDGE => {
                for (id, ranges) in Acknowledged::decode(entry.body)
                    .map(|found| found.lanes)
                    .unwrap_or_default()
                {
                    if let Some(lane) = self.lanes.get_mut(&id) {
                        for range in ranges.iter() {
                            lane.progress.acknowledge(range);
                        }
                    }
                }
            }
            kind::LANE_DEFINED => {
                if let Some(found) = Definition::decode(&mut Fields::new(entry.body)) {
                    self.next_lane = self.next_lane.max(found.id.0.saturating_add(1));
                    let lane = self
                        .lanes
                        .entry(found.id)
                        .or_insert_with(|| Lane::new(String::new(), found.kind));
                    (lane.name, lane.kind) = (found.name, found.kind);
                }
            }
            kind::LANE_REMOVED => {
                if let Some(id) = Fields::new(entry.body).lane() {
                    self.lanes.remove(&id);
                }
            }
            _ => {}
        }
    }

    /// Gives a replayed record its position; `false` if a newer segment has it.
    fn replay_position(&mut self, id: LaneId, position: u64, record: &Envelope<'_>, report: &mut OpenReport) -> bool {
        let Some(end) = position.checked_add(1) else {
            return false;
        };
        if !self.lanes.contains_key(&id) && id.0 < self.next_lane {
            // Removed: ids below the next one were given out before.
            if !report.nameless_lanes.contains(&id) && report.damaged_entries + report.damaged_stretches == 0 {
                return false;
            }
        }
        let lane = self.lanes.entry(id).or_insert_with(|| {
            report.nameless_lanes.push(id);
            let mut lane = Lane::new(format!("lost lane {id}"), LaneKind::UntilAcknowledged);
            lane.next = position;
            lane.progress.acknowledge(0..position);
            lane
        });
        self.next_lane = self.next_lane.max(id.0.saturating_add(1));
        if position < lane.next {
            return false;
        }
        lose(&mut lane.progress, id, lane.next..position, report);
        lane.next = end;
        lane.last_enqueued = Some(record.enqueued_at);
        true
    }

    fn merge_reserve(&mut self, snapshot: &Snapshot, report: &mut OpenReport) {
        for found in &snapshot.lanes {
            if let Some(lane) = self.lanes.get_mut(&found.definition.id)
                && lane.name == found.definition.name
            {
                let before = lane.progress.clone();
                lane.progress.merge(&found.progress);
                report.reserve_used |= lane.progress != before;
            }
        }
    }

    fn bound_cursors(&mut self, report: &mut OpenReport) {
        for (&id, lane) in &mut self.lanes {
            if lane.progress.pull_back(lane.next) {
                report.pulled_back.push(PulledBack {
                    lane: id,
                    to: lane.next,
                });
            }
        }
    }

    /// Finds positions that no segment holds.
    fn find_missing(&mut self, report: &mut OpenReport) {
        for (&id, lane) in &mut self.lanes {
            let own = self.moved.get(&id).into_iter().flatten();
            let mut parts: Vec<&Part> = own
                .chain(&self.journal)
                .filter_map(|segment| segment.parts.get(&id))
                .collect();
            parts.sort_by_key(|part| part.first);
            let mut at = lane.progress.low_water();
            for part in parts {
                lose(&mut lane.progress, id, at..part.first.min(lane.next), report);
                at = at.max(part.last.saturating_add(1));
            }
            lose(&mut lane.progress, id, at..lane.next, report);
        }
    }

    /// Loads the lanes' own segments; returns the highest number among them.
    fn load_moved(&mut self, report: &mut OpenReport) -> Result<u64, OpenError> {
        let names = self.files.list("").map_err(OpenError::io("list", "."))?;
        let ids = names
            .iter()
            .filter_map(|name| name.strip_prefix("lane-")?.parse().ok().map(LaneId));
        let mut highest = 0;
        for id in ids {
            let stream = Stream::Lane(id);
            let numbers = segment_numbers(self.files.as_ref(), stream)?;
            highest = numbers.last().copied().unwrap_or(0).max(highest);
            report.segments += numbers.len() as u64;
            let mut segments = VecDeque::new();
            for (index, &number) in numbers.iter().enumerate() {
                if !self.lanes.contains_key(&id) {
                    self.garbage.push(stream.segment_name(number));
                    continue;
                }
                let is_last = index + 1 == numbers.len();
                match self.load_own(id, number, is_last, report)? {
                    Some(segment) => segments.push_back(segment),
                    None => self.garbage.push(stream.segment_name(number)),
                }
            }
            if !segments.is_empty() {
                self.moved.insert(id, segments);
            }
        }
        Ok(highest)
    }

    /// Loads one of a lane's own segments; `None` if nothing of it counts.
    fn load_own(
        &self,
        id: LaneId,
        number: u64,
        is_last: bool,
        report: &mut OpenReport,
    ) -> Result<Option<Segment>, OpenError> {
        let stream = Stream::Lane(id);
        let (file, length) = self.open_segment(stream, number)?;
        let epoch = self.start_of(file.as_ref(), stream, number)?;
        let mut segment = Segment::new(stream, number, epoch.unwrap_or(0), self.salt);
        if !is_last && load_seal(&mut segment, file.as_ref(), length).map_err(OpenError::io("read", segment.name()))? {
            segment.sealed = true;
            return Ok(Some(segment));
        }
        let in_journal = |position: u64| {
            let mut parts = self.journal.iter().filter_map(|segment| segment.parts.get(&id));
            parts.any(|part| (part.first..=part.last).contains(&position))
        };
        // What was known before the records at the end that the journal still has.
        let mut copy: Option<(u64, Option<Part>)> = None;
        let (mut seal_at, mut known) = (None, 0);
        let mut reader = SegmentReader::new(&segment, file.as_ref(), length);
        // A half-written copy is no news: its source is still there.
        let end = reader.run(true, &mut OpenReport::default(), |entry, _| {
            if let Some(record) = record_of(entry) {
                report.records_scanned += 1;
                let position = record
                    .lanes()
                    .find(|(lane, _, _)| *lane == id)
                    .map(|(_, position, _)| position);
                match position.filter(|&position| in_journal(position)) {
                    Some(_) => _ = copy.get_or_insert_with(|| (known, segment.parts.get(&id).copied())),
                    None => copy = None,
                }
                note(&mut segment, Some(id), entry, &record);
            }
            match entry.kind {
                kind::SEAL => seal_at = Some(entry.at),
                kind::END => segment.seal_at = seal_at,
                _ => {}
            }
            known = entry.at + entry.size;
        })?;
        (segment.durable, segment.end) = (end, end);
        segment.sealed = segment.seal_at.is_some() || !is_last;
        if let Some((at, before)) = copy {
            (segment.durable, segment.end) = (at, at);
            (segment.sealed, segment.seal_at) = (false, None);
            segment.index.retain(|entry| entry.at < at);
            segment.parts = before.map(|part| (id, part)).into_iter().collect();
        }
        Ok(Some(segment).filter(|segment| !segment.parts.is_empty()))
    }

    /// Starts the segment of this opening and makes it durable, then mends what was found.
    fn begin_epoch(&mut self, now: u64, report: &mut OpenReport) -> Result<(), OpenError> {
        let journal = Stream::Journal.directory();
        self.files
            .create_dir(&journal)
            .map_err(OpenError::io("create", journal.clone()))?;
        self.files.sync_dir("").map_err(OpenError::io("sync", "."))?;
        let mut torn = Vec::new();
        for segment in self.journal.iter().chain(self.moved.values().flatten()) {
            if self.file_len(segment.stream, segment.number)? > segment.end {
                torn.push((segment.name(), segment.end));
            }
        }
        for (name, end) in torn {
            let file = self
                .files
                .open_write(&name)
                .map_err(OpenError::io("open", name.clone()))?;
            file.set_len(end).map_err(OpenError::io("cut", name))?;
        }
        self.rewrite_newest()?;
        self.seal_recovered();
        self.start_segment(now, |lane| lane.next);
        // Taking the reserve is worth less than the first segment, so it comes second; both can wait for space.
        if let Some(batch) = self.begin_commit(now) {
            let written = batch.write();
            match written {
                Err(error) if !error.full => {
                    let name = self.active().name();
                    return Err(OpenError::Io {
                        operation: "write",
                        name,
                        source: error.source,
                    });
                }
                result => report.disk_full = self.finish_commit(batch, result).is_err(),
            }
        }
        self.remove_garbage();
        if self.open_reserve().is_ok()
            && let Some(write) = self.reserve_write()
        {
            let result = write.write();
            // Without it, progress made on a full disk is not kept over a crash; nothing is lost by that.
            drop(self.finish_reserve(write, result));
        }
        Ok(())
    }

    /// Writes the newest segment's bytes again and syncs them. What was read may have come from memory: written and never
    /// synced by a process that died, or given up by the kernel after a sync that failed, which no later sync would mend.
    fn rewrite_newest(&self) -> Result<(), OpenError> {
        let Some(segment) = self.journal.back().filter(|segment| !segment.parts.is_empty()) else {
            return Ok(());
        };
        let name = segment.name();
        let file = self
            .files
            .open_write(&name)
            .map_err(OpenError::io("open", name.clone()))?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        while at < segment.end {
            let wanted = usize::try_from(segment.end - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
            let place = buffer.get_mut(..wanted).unwrap_or_default();
            let count = file.read_at(place, at).map_err(OpenError::io("read", name.clone()))?;
            if count == 0 {
                break;
            }
            let bytes = buffer.get(..count).unwrap_or_default();
            file.write_all_at(bytes, at)
                .map_err(OpenError::io("write", name.clone()))?;
            at += count as u64;
        }
        file.sync().map_err(OpenError::io("sync", name))
    }

    /// Completes segments that a crash left open, so that the next opening need not read them. Best effort.
    fn seal_recovered(&mut self) {
        for segment in self
            .journal
            .iter_mut()
            .filter(|segment| segment.seal_at.is_none() && !segment.parts.is_empty())
        {
            let at = segment.end.next_multiple_of(8);
            let mut bytes = Vec::new();
            Seal::encode(&mut bytes, segment.seed, at, &segment.parts, &segment.index);
            End {
                seal_at: at,
                number: segment.number,
            }
            .encode(&mut bytes, segment.seed, at);
            let Ok(file) = self.files.open_write(&segment.name()) else {
                continue;
            };
            if file.write_all_at(&bytes, at).and_then(|()| file.sync()).is_ok() {
                segment.seal_at = Some(at);
                segment.end = at + bytes.len() as u64;
                self.disk_bytes += segment.end - segment.durable;
                segment.durable = segment.end;
                segment.index = Vec::new();
            } else {
                drop(file.set_len(segment.end));
            }
        }
    }

    fn write_format(&self) -> Result<(), OpenError> {
        let text = format!("holm-queue format {FORMAT_VERSION}\nsalt {:016x}\n", self.salt);
        let new = "format.new";
        let file = self.files.create(new).map_err(OpenError::io("create", new))?;
        file.write_all_at(text.as_bytes(), 0)
            .map_err(OpenError::io("write", new))?;
        file.sync().map_err(OpenError::io("sync", new))?;
        self.files
            .rename(new, FORMAT_NAME)
            .map_err(OpenError::io("rename", new))?;
        self.files.sync_dir("").map_err(OpenError::io("sync", "."))
    }

    fn open_segment(&self, stream: Stream, number: u64) -> Result<(Arc<dyn File>, u64), OpenError> {
        let name = stream.segment_name(number);
        let file = self.files.open(&name).map_err(OpenError::io("open", name.clone()))?;
        let length = file.len().map_err(OpenError::io("measure", name))?;
        Ok((file, length))
    }

    fn file_len(&self, stream: Stream, number: u64) -> Result<u64, OpenError> {
        Ok(self.open_segment(stream, number)?.1)
    }

    /// The epoch in a segment's first entry, if that can be read and belongs there.
    fn start_of(&self, file: &dyn File, stream: Stream, number: u64) -> Result<Option<u32>, OpenError> {
        let start = read_start(file).map_err(OpenError::io("read", stream.segment_name(number)))?;
        match start {
            Some(start) if start.version != FORMAT_VERSION => Err(OpenError::Version {
                found: start.version,
                supported: FORMAT_VERSION,
            }),
            start => Ok(start
                .filter(|start| start.is_for(stream, number))
                .map(|start| start.epoch)),
        }
    }

    /// The state of the lanes at the start of a journal segment, if it can be read.
    fn read_checkpoint(&self, number: u64) -> Result<Option<Snapshot>, OpenError> {
        let (file, length) = self.open_segment(Stream::Journal, number)?;
        let seed = Seed::new(self.salt, Stream::Journal, number);
        let mut scanner = Scanner::new(file.as_ref(), seed, 0, length);
        let mut next = || {
            let found = scanner
                .next()
                .map_err(OpenError::io("read", Stream::Journal.segment_name(number)))?;
            Ok::<_, OpenError>(match found {
                Some(Found::Entry(entry)) if entry.kind == kind::CHECKPOINT => {
                    Some(Snapshot::decode(&mut Fields::new(entry.body)))
                }
                Some(Found::Version(found)) => {
                    return Err(OpenError::Version {
                        found: found.into(),
                        supported: FORMAT_VERSION,
                    });
                }
                _ => None,
            })
        };
        // It is the second entry; a damaged first one stands before it as a gap or as damaged.
        Ok(match next()? {
            Some(snapshot) => snapshot,
            None => next()?.flatten(),
        })
    }
}

/// What there is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Nothing,
    /// A format file, with the salt that it gives.
    Format(u64),
    /// No readable format file, but a segment that gives the salt.
    Segments(u64),
}

fn read_format(files: &dyn FileSystem) -> Result<Content, OpenError> {
    let text = match files.open(FORMAT_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        result => {
            let file = result.map_err(OpenError::io("open", FORMAT_NAME))?;
            let mut bytes = [0; 256];
            let count = file
                .read_at(&mut bytes, 0)
                .map_err(OpenError::io("read", FORMAT_NAME))?;
            Some(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned())
        }
    };
    let mut lines = text.as_deref().unwrap_or_default().lines();
    if let Some(found) = lines
        .next()
        .and_then(|line| line.strip_prefix("holm-queue format ")?.parse().ok())
        && found != FORMAT_VERSION
    {
        return Err(OpenError::Version {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let salt = lines
        .next()
        .and_then(|line| u64::from_str_radix(line.strip_prefix("salt ")?, 16).ok());
    if let Some(salt) = salt {
        return Ok(Content::Format(salt));
    }
    let numbers = segment_numbers(files, Stream::Journal)?;
    for &number in numbers.iter().rev() {
        let name = Stream::Journal.segment_name(number);
        let file = files.open(&name).map_err(OpenError::io("open", name.clone()))?;
        match read_start(file.as_ref()).map_err(OpenError::io("read", name))? {
            Some(start) if start.version != FORMAT_VERSION => {
                return Err(OpenError::Version {
                    found: start.version,
                    supported: FORMAT_VERSION,
                });
            }
            Some(start) => return Ok(Content::Segments(start.salt)),
            None => {}
        }
    }
    match text {
        None if numbers.is_empty() => Ok(Content::Nothing),
        _ => {
            let reason = if text.is_some() {
                "its text is not known"
            } else {
                "it is missing beside segments"
            };
            Err(OpenError::NotAQueue {
                name: FORMAT_NAME.to_owned(),
                reason: reason.to_owned(),
            })
        }
    }
}

fn segment_numbers(files: &dyn FileSystem, stream: Stream) -> Result<Vec<u64>, OpenError> {
    let directory = stream.directory();
    let names = files.list(&directory).map_err(OpenError::io("list", directory))?;
    let number = |name: &String| {
        let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
        digits.parse().ok()
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn record_of<'b>(entry: &Entry<'b>) -> Option<Envelope<'b>> {
    if entry.kind == kind::RECORD {
        decode_record(entry.body)
    } else {
        None
    }
}

/// Notes a record in its lanes, or in one of them only.
fn note(segment: &mut Segment, only: Option<LaneId>, entry: &Entry<'_>, record: &Envelope<'_>) {
    for (id, position, expires_at) in record.lanes() {
        if position < u64::MAX && only.is_none_or(|only| only == id) {
            segment.note(
                id,
                entry.at,
                &Part::new(position, record.enqueued_at, expires_at, entry.size),
            );
        }
    }
}

fn lose(progress: &mut crate::ranges::Progress, lane: LaneId, positions: Range<u64>, report: &mut OpenReport) {
    if positions.is_empty() {
        return;
    }
    for positions in progress.open_in(positions) {
        progress.acknowledge(positions.clone());
        report.lost.push(Lost { lane, positions });
    }
}

/// Reads the seal of a complete segment; `false` if there is none that can be read.
fn load_seal(segment: &mut Segment, file: &dyn File, length: u64) -> io::Result<bool> {
    let Some(at) = length.checked_sub(End::BYTES).filter(|at| at.is_multiple_of(8)) else {
        return Ok(false);
    };
    let mut scanner = Scanner::new(file, segment.seed, at, length);
    let end = match scanner.next()? {
        Some(Found::Entry(entry)) if entry.kind == kind::END => End::decode(entry.body),
        _ => None,
    };
    let Some(end) = end.filter(|end| end.number == segment.number && end.seal_at < at) else {
        return Ok(false);
    };
    let mut scanner = Scanner::new(file, segment.seed, end.seal_at, at);
    let seal = match scanner.next()? {
        Some(Found::Entry(entry)) if entry.kind == kind::SEAL && entry.at == end.seal_at => Seal::decode(entry.body),
        _ => None,
    };
    let Some(seal) = seal else { return Ok(false) };
    segment.parts = seal.parts;
    segment.seal_at = Some(end.seal_at);
    (segment.durable, segment.end) = (length, length);
    Ok(true)
}

/// Reads a segment entry by entry and counts what is damaged.
struct SegmentReader<'f> {
    name: String,
    length: u64,
    scanner: Scanner<'f>,
}

impl<'f> SegmentReader<'f> {
    fn new(segment: &Segment, file: &'f dyn File, length: u64) -> Self {
        Self {
            name: segment.name(),
            length,
            scanner: Scanner::new(file, segment.seed, 0, length),
        }
    }

    /// Calls `on_entry` for each valid entry and returns where the last one ends. Damage behind it is torn in the newest
    /// segment, for a crash leaves it so, and damage elsewhere.
    fn run(
        &mut self,
        is_last: bool,
        report: &mut OpenReport,
        mut on_entry: impl FnMut(&Entry<'_>, &mut OpenReport),
    ) -> Result<u64, OpenError> {
        let (mut end, mut entries, mut stretches) = (0, 0, 0);
        while let Some(found) = self.scanner.next().map_err(OpenError::io("read", self.name.clone()))? {
            match found {
                Found::Entry(entry) => {
                    report.damaged_entries += std::mem::take(&mut entries);
                    report.damaged_stretches += std::mem::take(&mut stretches);
                    end = entry.at + entry.size;
                    on_entry(&entry, report);
                }
                Found::Damaged => entries += 1,
                Found::Gap => stretches += 1,
                Found::Version(found) => {
                    return Err(OpenError::Version {
                        found: found.into(),
                        supported: FORMAT_VERSION,
                    });
                }
            }
        }
        if is_last {
            report.torn_bytes += self.length.saturating_sub(end);
        } else {
            report.damaged_entries += entries;
            report.damaged_stretches += stretches;
        }
        Ok(end.min(self.length.next_multiple_of(8)))
    }
}
