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

use super::Log;
use super::fetch::{Fetch, Fetched, Place, ReadBuffer, Source};
use super::segment::Segment;
use crate::error::ReadError;
use crate::format::Stream;
use crate::lane::LaneId;
use crate::record::{Record, Start, Visibility};

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
