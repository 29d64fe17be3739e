//! The journal at opening: state from the newest checkpoint that can be read, everything since done again.
//!
//! Segments before that checkpoint only matter for what is in them, which their seals say; one without a seal is read.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Log;
use super::report::{Lost, OpenReport};
use super::segment::Segment;
use super::segment_reader::{SegmentReader, load_seal, note, record_of};
use crate::error::OpenError;
use crate::format::{
    Acknowledged, Definition, Entry, Envelope, FORMAT_VERSION, Fields, Found, Part, Scanner, Seed, SegmentStart,
    Snapshot, Stream, kind,
};
use crate::lane::{Lane, LaneId, LaneKind};
use crate::ranges::Progress;

impl Log {
    /// Loads the journal and the state of the lanes; returns the newest segment's epoch if it can be read.
    pub(super) fn load_journal(&mut self, numbers: &[u64], report: &mut OpenReport) -> Result<Option<u32>, OpenError> {
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
        let end = position + 1;
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

/// Acknowledges what is gone of `positions`, and reports it.
pub(super) fn lose(progress: &mut Progress, lane: LaneId, positions: Range<u64>, report: &mut OpenReport) {
    if positions.is_empty() {
        return;
    }
    for positions in progress.open_in(positions) {
        progress.acknowledge(positions.clone());
        report.lost.push(Lost { lane, positions });
    }
}
