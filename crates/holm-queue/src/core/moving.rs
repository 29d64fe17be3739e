//! Moving what slow lanes still need out of old segments, so that a segment kept by little is given back.
//!
//! ```text
//!  journal/7.seg   ■■□□□□□□□□■□□□      ■ still needed by lane 3, □ dead
//!        │ step, step, …  (a bounded number of bytes each)
//!        v
//!  lane-00000003/0000000000000007.seg   … MovedFrom(7) ■■■     synced, then journal/7.seg is removed with the next commit
//! ```
//!
//! Invariants: a lane's records are moved in order, for a segment is moved only if none before it holds live records of the
//! same lanes; the source is removed only after the copy is synced; the next move begins only after that removal is synced.
//! So at opening only the records at the end of a lane's newest segment can be in the journal as well, as what a crash left
//! of a copy; they are cut off, and copied again some other time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::segment::Segment;
use super::{Health, Log, report};
use crate::file_system::{File, FileSystem};
use crate::format::{
    End, Entry, Found, IndexEntry, Part, Scanner, Seal, Seed, SegmentStart, Stream, decode_record, encode_entry, kind,
};
use crate::lane::LaneId;
use crate::ranges::Progress;

/// One segment's move. Made by [`Log::begin_move`]; one at a time; run [`Self::step`] until it says that it is done, then
/// hand it to [`Log::finish_move`], also after an error.
#[derive(Debug)]
pub struct Mover {
    files: Arc<dyn FileSystem>,
    source: u64,
    seed: Seed,
    at: u64,
    end: u64,
    salt: u64,
    epoch: u32,
    now: u64,
    step_bytes: u64,
    segment_bytes: u64,
    lanes: BTreeMap<LaneId, MovingLane>,
    records: u64,
    done: bool,
}

#[derive(Debug)]
struct MovingLane {
    part: Part,
    progress: Progress,
    output: Output,
}

/// The segment of a lane that moved records are appended to.
#[derive(Debug)]
struct Output {
    number: u64,
    seed: Seed,
    file: Option<Arc<dyn File>>,
    is_new: bool,
    /// How long it was before.
    start: u64,
    end: u64,
    buffer: Vec<u8>,
    part: Option<Part>,
    index: Vec<IndexEntry>,
    before: Option<Part>,
    seal_at: Option<u64>,
}

impl Log {
    /// Chooses the oldest segment that is worth moving; `None` if there is none, or none may be moved now.
    pub fn begin_move(&mut self, now: u64) -> Option<Mover> {
        let busy = self.moving || self.removal_unsynced || self.journal.iter().any(|segment| segment.moved);
        if busy || self.health != Health::Good || self.options.move_below_percent == 0 {
            return None;
        }
        let (source, lanes) = self.choose()?;
        let lanes = lanes.into_iter().filter_map(|(id, part)| {
            let progress = self.lanes.get(&id)?.progress.clone();
            Some((
                id,
                MovingLane {
                    part,
                    progress,
                    output: self.output(id, source),
                },
            ))
        });
        let lanes = lanes.collect();
        let segment = self.segment(Stream::Journal, source)?;
        let (seed, end) = (segment.seed, segment.durable);
        self.moving = true;
        Some(Mover {
            files: Arc::clone(&self.files),
            source,
            seed,
            at: SegmentStart::BYTES,
            end,
            salt: self.salt,
            epoch: self.epoch,
            now,
            step_bytes: self.options.move_step_bytes,
            segment_bytes: self.options.segment_bytes,
            lanes,
            records: 0,
            done: false,
        })
    }

    fn choose(&self) -> Option<(u64, Vec<(LaneId, Part)>)> {
        let mut blocked = BTreeSet::new();
        let count = self.journal.len().saturating_sub(1);
        for segment in self.journal.iter().take(count).filter(|segment| segment.sealed) {
            let needed: Vec<_> = segment
                .needed(|id| self.lanes.get(&id).map(|lane| &lane.progress))
                .collect();
            let bytes = needed
                .iter()
                .fold(0u64, |sum, (_, _, bytes)| sum.saturating_add(*bytes));
            let percent = u64::from(self.options.move_below_percent);
            let is_free = !needed.iter().any(|(id, _, _)| blocked.contains(id));
            let is_durable = segment.durable == segment.end;
            if !needed.is_empty() && is_free && is_durable && bytes.saturating_mul(100) <= percent * segment.end {
                return Some((
                    segment.number,
                    needed.into_iter().map(|(id, part, _)| (id, *part)).collect(),
                ));
            }
            blocked.extend(needed.into_iter().map(|(id, _, _)| id));
        }
        None
    }

    fn output(&self, lane: LaneId, source: u64) -> Output {
        let last = self.moved.get(&lane).and_then(|segments| segments.back());
        match last.filter(|segment| !segment.sealed) {
            Some(open) => Output {
                number: open.number,
                seed: open.seed,
                file: None,
                is_new: false,
                start: open.durable,
                end: open.durable,
                buffer: Vec::new(),
                part: None,
                index: open.index.clone(),
                before: open.parts.get(&lane).copied(),
                seal_at: None,
            },
            None => Output {
                number: source,
                seed: Seed::new(self.salt, Stream::Lane(lane), source),
                file: None,
                is_new: true,
                start: 0,
                end: 0,
                buffer: Vec::new(),
                part: None,
                index: Vec::new(),
                before: None,
                seal_at: None,
            },
        }
    }

    /// Takes note of a move. `result` is that of the last step; after an error the move begins anew some other time.
    pub fn finish_move(&mut self, mover: Mover, result: io::Result<bool>) -> io::Result<()> {
        self.moving = false;
        let source = self
            .journal
            .binary_search_by_key(&mover.source, |segment| segment.number);
        if let Err(error) = result {
            for (id, lane) in mover.lanes {
                lane.output.undo(mover.files.as_ref(), id);
            }
            return Err(error);
        }
        let (true, Ok(source)) = (mover.done, source) else {
            return Ok(());
        };
        self.stats.moved += mover.records;
        for (id, lane) in mover.lanes {
            self.adopt(id, lane.output, mover.epoch);
        }
        if let Some(segment) = self.journal.get_mut(source) {
            segment.moved = true;
            self.look_for_dead = true;
        }
        Ok(())
    }

    fn adopt(&mut self, id: LaneId, output: Output, epoch: u32) {
        let Some(part) = output.part else { return };
        self.disk_bytes += output.end - output.start;
        self.stats.bytes_written += output.end - output.start;
        let (device_bytes, syncs) = output.cost();
        self.stats.device_bytes += device_bytes;
        self.stats.syncs += syncs;
        let segments = self.moved.entry(id).or_default();
        if output.is_new {
            segments.push_back(Segment::new(Stream::Lane(id), output.number, epoch, self.salt));
        }
        if let Some(segment) = segments.back_mut() {
            (segment.durable, segment.end) = (output.end, output.end);
            segment
                .parts
                .entry(id)
                .and_modify(|known| known.add(&part))
                .or_insert(part);
            segment.seal_at = output.seal_at;
            segment.sealed = output.seal_at.is_some();
            segment.index = if segment.sealed { Vec::new() } else { output.index };
        }
        if !self.lanes.contains_key(&id) {
            self.look_for_dead = true;
        }
    }
}

impl Mover {
    /// Copies some more; `true` when everything is copied and synced. Needs nothing of the log.
    ///
    /// # Errors
    /// What the file system answered. Nothing of the source is lost.
    pub fn step(&mut self) -> io::Result<bool> {
        let file = self.files.open(&Stream::Journal.segment_name(self.source))?;
        let stop = self.at + self.step_bytes;
        let mut scanner = Scanner::new(file.as_ref(), self.seed, self.at, self.end);
        while scanner.at() < stop {
            match scanner.next()? {
                // A damaged record stays behind; whoever reads the lane finds the gap.
                Some(Found::Entry(entry)) if entry.kind == kind::RECORD => {
                    self.records += copy(&mut self.lanes, self.now, &entry, (self.epoch, self.salt))
                }
                Some(_) => {}
                None => break,
            }
        }
        self.at = scanner.at();
        let is_last = self.at >= self.end;
        for (&id, lane) in &mut self.lanes {
            if is_last {
                lane.output.seal_if_full(id, self.segment_bytes);
            }
            lane.output.write(self.files.as_ref(), id)?;
        }
        if is_last {
            for (&id, lane) in &self.lanes {
                lane.output.sync(self.files.as_ref(), id)?;
            }
            self.done = true;
        }
        Ok(self.done)
    }
}

/// Copies an entry to each lane that still needs its record; returns how many do.
fn copy(lanes: &mut BTreeMap<LaneId, MovingLane>, now: u64, entry: &Entry<'_>, of: (u32, u64)) -> u64 {
    let Some(record) = decode_record(entry.body) else {
        return 0;
    };
    let mut copies = 0;
    for (id, position, expires_at) in record.lanes() {
        let Some(lane) = lanes.get_mut(&id) else { continue };
        let is_mine = (lane.part.first..=lane.part.last).contains(&position);
        if is_mine && !lane.progress.covers(position..position + 1) {
            let part = Part::new(position, record.enqueued_at, expires_at, entry.size);
            lane.output.push(id, now, entry.body, part, of);
            copies += 1;
        }
    }
    copies
}

impl Output {
    fn push(&mut self, lane: LaneId, now: u64, body: &[u8], part: Part, (epoch, salt): (u32, u64)) {
        if self.part.is_none() && self.is_new {
            SegmentStart::new(Stream::Lane(lane), self.number, epoch, salt, now).encode(&mut self.buffer);
        }
        let at = self.end + self.buffer.len() as u64;
        if self.part.is_none_or(|known| at >= known.indexed_at + (64 << 10)) {
            self.index.push(IndexEntry {
                lane,
                position: part.first,
                at,
            });
        }
        encode_entry(&mut self.buffer, kind::RECORD, self.seed, self.end, |buffer| {
            buffer.extend_from_slice(body)
        });
        let indexed_at = self.index.last().map_or(0, |entry| entry.at);
        let mut sum = self.part.unwrap_or(part);
        if self.part.is_some() {
            sum.add(&part);
        }
        self.part = Some(Part { indexed_at, ..sum });
    }

    fn seal_if_full(&mut self, lane: LaneId, segment_bytes: u64) {
        let seal_at = self.end + self.buffer.len() as u64;
        let Some(part) = self.part.filter(|_| seal_at >= segment_bytes) else {
            return;
        };
        let mut whole = self.before.unwrap_or(part);
        if self.before.is_some() {
            whole.add(&part);
        }
        let parts = BTreeMap::from([(lane, whole)]);
        Seal::encode(&mut self.buffer, self.seed, self.end, &parts, &self.index);
        End {
            seal_at,
            number: self.number,
        }
        .encode(&mut self.buffer, self.seed, self.end);
        self.seal_at = Some(seal_at);
    }

    fn write(&mut self, files: &dyn FileSystem, lane: LaneId) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let stream = Stream::Lane(lane);
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None if self.is_new => {
                files.create_dir(&stream.directory())?;
                files.create(&stream.segment_name(self.number))?
            }
            None => files.open_write(&stream.segment_name(self.number))?,
        };
        file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        self.buffer.clear();
        self.file = Some(file);
        Ok(())
    }

    fn sync(&self, files: &dyn FileSystem, lane: LaneId) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync()?;
        if self.is_new {
            files.sync_dir(&Stream::Lane(lane).directory())?;
            files.sync_dir("")?;
        }
        Ok(())
    }

    /// Bytes that the device wrote for it, and syncs.
    fn cost(&self) -> (u64, u64) {
        let directories = if self.is_new { 2 } else { 0 };
        let bytes = report::device_bytes(self.start..self.end);
        (bytes + directories * report::BLOCK_BYTES, 1 + directories)
    }

    /// Takes back what was written, as far as possible. What stays is cut off at the next opening, for its source is there.
    fn undo(&self, files: &dyn FileSystem, lane: LaneId) {
        if let Some(file) = &self.file {
            drop(file.set_len(self.start));
            if self.is_new {
                drop(files.remove(&Stream::Lane(lane).segment_name(self.number)));
            }
        }
    }
}
