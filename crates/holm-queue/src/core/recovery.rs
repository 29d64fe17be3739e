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
use std::sync::Arc;

use bytes::BytesMut;

use super::format_file::{Content, read_format, segment_numbers};
use super::replay::lose;
use super::report::{OpenReport, PulledBack, Stats};
use super::reserve::Reserve;
use super::{Health, Log};
use crate::error::OpenError;
use crate::file_system::FileSystem;
use crate::format::{End, Part, Seal, Snapshot, Stream};
use crate::options::Options;

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
            segment_bytes: options.segment_bytes,
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
            unlogged: 0,
            is_short: false,
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
            .fold(0, u64::saturating_add);
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
}
