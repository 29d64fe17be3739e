//! What goes into the log: records, acknowledgements, lanes, and the start of a segment.

use std::ops::Range;

use bytes::BytesMut;

use super::Log;
use super::segment::{Chunk, Segment};
use crate::error::{AcknowledgeError, AppendError, LaneError};
use crate::format::{
    Acknowledged, Definition, End, Part, RecordFields, Seal, SegmentStart, Snapshot, Stream, encode_entry,
    encode_record, kind, put_number, record_bound,
};
use crate::lane::{Lane, LaneId, LaneKind};
use crate::record::{Appended, NewRecord, Offset, Positions};

/// How much memory the open buffer takes at a time. Small enough that a chunk kept alive costs little, large enough that
/// allocating does not show.
const BUFFER_BYTES: usize = 64 << 10;

const MAX_SENDER_BYTES: usize = 65_535;
const MAX_NAME_BYTES: usize = 1024;

impl Log {
    /// Appends a record to each of its lanes. It is readable with [`crate::Visibility::Appended`] at once, and durable after
    /// the next commit that succeeds.
    ///
    /// # Errors
    /// Nothing is appended at a full or failing disk, a full queue, or a record that breaks a limit or names no known lane.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<Appended, AppendError> {
        self.append_within(record, self.options.max_bytes)
    }

    /// [`Self::append`] that the queue's size does not refuse: for a record that takes the place of one that is there.
    ///
    /// # Errors
    /// As [`Self::append`], `QueueFull` aside.
    pub fn append_in_place(&mut self, record: &NewRecord<'_>) -> Result<Appended, AppendError> {
        self.append_within(record, None)
    }

    fn append_within(&mut self, record: &NewRecord<'_>, max_bytes: Option<u64>) -> Result<Appended, AppendError> {
        self.check_ready()?;
        let checked = self.check_record(record, max_bytes);
        self.is_short = matches!(checked, Err(AppendError::QueueFull { .. }));
        checked?;
        self.make_segment_ready(record.enqueued_at)?;
        let mut positions = Positions::new();
        for &(lane, _) in record.lanes {
            if positions.as_slice().iter().any(|&(other, _)| other == lane) {
                return Err(AppendError::RepeatedLane { lane });
            }
            let state = self.lanes.get(&lane).ok_or(AppendError::UnknownLane { lane })?;
            positions.push(lane, state.next);
        }
        let sequence = u32::try_from(self.sequence).expect("a used-up epoch was followed by a new one");
        let offset = Offset::new(self.epoch, sequence);
        self.sequence += 1;
        self.encode_record(&RecordFields {
            offset,
            enqueued_at: record.enqueued_at,
            positions: positions.as_slice(),
            expiries: record.lanes,
            sender: record.sender,
            payload: &record.payload,
        });
        self.stats.appended += 1;
        self.stats.payload_bytes += record.payload.len() as u64;
        Ok(Appended { offset, positions })
    }

    fn check_ready(&self) -> Result<(), AppendError> {
        self.health.check()?;
        let max_bytes = self.options.max_uncommitted_bytes;
        if self.uncommitted >= max_bytes {
            return Err(AppendError::Busy {
                bytes: self.uncommitted,
                max_bytes,
            });
        }
        Ok(())
    }

    fn check_record(&self, record: &NewRecord<'_>, max_bytes: Option<u64>) -> Result<(), AppendError> {
        if record.lanes.is_empty() {
            return Err(AppendError::NoLane);
        }
        if record.sender.len() > MAX_SENDER_BYTES {
            return Err(AppendError::SenderTooLong {
                bytes: record.sender.len(),
            });
        }
        let bytes = (record.sender.len() + record.payload.len()) as u64;
        if bytes > self.options.max_record_bytes {
            return Err(AppendError::TooLarge {
                bytes,
                max_bytes: self.options.max_record_bytes,
            });
        }
        let held = self.disk_bytes + self.uncommitted + bytes;
        match max_bytes {
            Some(max_bytes) if held > max_bytes => Err(AppendError::QueueFull {
                bytes: self.disk_bytes + self.uncommitted,
                max_bytes,
            }),
            _ => Ok(()),
        }
    }

    /// Starts a segment if the newest is full, and an epoch if this one is used up.
    fn make_segment_ready(&mut self, now: u64) -> Result<(), AppendError> {
        if self.sequence > u64::from(u32::MAX) {
            // An epoch may be used only once its segment is on disk, else a crash could give it out again.
            let active = self.active();
            let (number, is_durable) = (active.number, active.durable > 0);
            match u32::try_from(number) {
                Ok(epoch) if epoch > self.epoch && is_durable => (self.epoch, self.sequence) = (epoch, 0),
                Ok(epoch) if epoch > self.epoch => {
                    let max_bytes = self.options.max_uncommitted_bytes;
                    return Err(AppendError::Busy {
                        bytes: self.uncommitted,
                        max_bytes,
                    });
                }
                _ => {
                    self.roll(now);
                    return self.make_segment_ready(now);
                }
            }
        }
        if self.active().end >= self.options.segment_bytes {
            self.roll(now);
        }
        Ok(())
    }

    pub(super) fn encode_record(&mut self, fields: &RecordFields<'_>) {
        self.reserve_buffer(record_bound(
            fields.positions.len(),
            fields.sender.len(),
            fields.payload.len(),
        ));
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        let at = active.end;
        let length = self.buffer.len() as u64;
        encode_record(&mut self.buffer, active.seed, at - length, fields);
        let size = self.buffer.len() as u64 - length;
        active.end += size;
        self.uncommitted += size;
        self.hot += size;
        for (&(lane, position), &(_, expires_at)) in fields.positions.iter().zip(fields.expiries) {
            active.note(lane, at, &Part::new(position, fields.enqueued_at, expires_at, size));
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.next = state.next.max(position + 1);
                state.last_enqueued = Some(fields.enqueued_at);
            }
        }
    }

    /// Acknowledges positions of a lane; the next commit makes it durable, and [`Self::is_pressing`] says whether one is due for
    /// that alone. Positions acknowledged already count for nothing.
    ///
    /// # Errors
    /// The lane is unknown or retained, a position was never given out, or the lane's acknowledgements are too scattered.
    pub fn acknowledge(&mut self, lane: LaneId, positions: Range<u64>) -> Result<(), AcknowledgeError> {
        let max_ranges = self.options.max_ranges;
        let state = self
            .lanes
            .get_mut(&lane)
            .ok_or(AcknowledgeError::UnknownLane { lane })?;
        if matches!(state.kind, LaneKind::Retained { .. }) {
            return Err(AcknowledgeError::Retained { lane });
        }
        if positions.end > state.next {
            return Err(AcknowledgeError::BeyondEnd {
                lane,
                position: positions.end - 1,
                next: state.next,
            });
        }
        if !state.progress.has_room_for(&positions, max_ranges) {
            let low_water = state.progress.low_water();
            return Err(AcknowledgeError::TooScattered {
                lane,
                low_water,
                max_ranges,
            });
        }
        self.settle_positions(lane, positions);
        Ok(())
    }

    /// Acknowledges without asking; returns how many positions are new.
    pub(super) fn settle_positions(&mut self, lane: LaneId, positions: Range<u64>) -> u64 {
        let new = self.lanes.get_mut(&lane).map_or(0, |lane| lane.acknowledge(positions));
        if new > 0 {
            self.unlogged += new;
            self.progress_version += 1;
            self.stats.acknowledged += new;
        }
        new
    }

    /// Finds the lane of this name, or defines it; a different kind replaces the one it had.
    ///
    /// # Errors
    /// The name breaks a limit, there are too many lanes, or the definition can't be appended now.
    pub fn lane(&mut self, name: &str, kind: LaneKind) -> Result<LaneId, LaneError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(LaneError::Name { bytes: name.len() });
        }
        let found = self
            .lanes
            .iter()
            .find(|(_, lane)| lane.name == name)
            .map(|(&id, lane)| (id, lane.kind));
        if let Some((id, found)) = found
            && found == kind
        {
            return Ok(id);
        }
        self.check_ready().map_err(LaneError::Append)?;
        let id = match found {
            Some((id, _)) => id,
            None if self.lanes.len() >= self.options.max_lanes => {
                return Err(LaneError::TooMany {
                    max_lanes: self.options.max_lanes,
                });
            }
            None => {
                let id = LaneId(self.next_lane);
                let too_many = LaneError::TooMany {
                    max_lanes: self.options.max_lanes,
                };
                self.next_lane = self.next_lane.checked_add(1).ok_or(too_many)?;
                id
            }
        };
        self.lanes
            .entry(id)
            .or_insert_with(|| Lane::new(name.to_owned(), kind))
            .kind = kind;
        self.encode(kind::LANE_DEFINED, 64 + name.len(), |buffer| {
            Definition::encode(buffer, id, name, kind)
        });
        Ok(id)
    }

    /// Removes a lane; what it holds is dropped.
    ///
    /// # Errors
    /// The lane is unknown, or the removal can't be appended now.
    pub fn remove_lane(&mut self, lane: LaneId) -> Result<(), LaneError> {
        if !self.lanes.contains_key(&lane) {
            return Err(LaneError::Unknown { lane });
        }
        self.check_ready().map_err(LaneError::Append)?;
        self.lanes.remove(&lane);
        self.progress_version += 1;
        self.look_for_dead = true;
        self.encode(kind::LANE_REMOVED, 64, |buffer| put_number(buffer, lane.0.into()));
        Ok(())
    }

    /// Encodes what was acknowledged since the last time.
    pub(super) fn encode_acknowledgements(&mut self) {
        if std::mem::take(&mut self.unlogged) == 0 {
            return;
        }
        let dirty = self.lanes.iter().filter(|(_, lane)| !lane.unlogged.is_empty());
        let ranges: usize = dirty.clone().map(|(_, lane)| 2 + lane.unlogged.len()).sum();
        if ranges == 0 {
            return;
        }
        self.reserve_buffer(64 + ranges * 20);
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        let length = self.buffer.len() as u64;
        let dirty = self.lanes.iter().filter(|(_, lane)| !lane.unlogged.is_empty());
        let dirty = dirty.map(|(&id, lane)| (id, &lane.unlogged));
        Acknowledged::encode(&mut self.buffer, active.seed, active.end - length, dirty);
        let size = self.buffer.len() as u64 - length;
        active.end += size;
        self.uncommitted += size;
        self.hot += size;
        self.lanes.values_mut().for_each(|lane| lane.unlogged.clear());
    }

    /// Encodes an entry at the end of the newest segment. `bound` is the most bytes that it can take.
    pub(super) fn encode(&mut self, kind: u8, bound: usize, body: impl FnOnce(&mut BytesMut)) {
        self.reserve_buffer(bound);
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        let length = self.buffer.len() as u64;
        encode_entry(&mut self.buffer, kind, active.seed, active.end - length, body);
        let size = self.buffer.len() as u64 - length;
        active.end += size;
        self.uncommitted += size;
        self.hot += size;
    }

    /// Seals the newest segment and starts the next.
    pub(super) fn roll(&mut self, now: u64) {
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        let (parts, index) = (std::mem::take(&mut active.parts), std::mem::take(&mut active.index));
        let (seed, number, seal_at) = (active.seed, active.number, active.end);
        active.sealed = true;
        active.seal_at = Some(seal_at);
        let bound = 64 + parts.len() * 80 + index.len() * 25;
        self.reserve_buffer(bound + 64);
        let length = self.buffer.len() as u64;
        Seal::encode(&mut self.buffer, seed, seal_at - length, &parts, &index);
        End { seal_at, number }.encode(&mut self.buffer, seed, seal_at - length);
        let size = self.buffer.len() as u64 - length;
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        (active.parts, active.index) = (parts, index);
        active.end += size;
        self.uncommitted += size;
        self.hot += size;
        self.start_segment(now, |lane| lane.next);
        self.lanes.values_mut().for_each(|lane| lane.unlogged.clear());
        self.unlogged = 0;
    }

    /// Starts a segment with the state of all lanes up to the position that `end` gives for each.
    pub(super) fn start_segment(&mut self, now: u64, end: impl Fn(&Lane) -> u64) {
        self.freeze();
        let number = self.next_number;
        self.next_number += 1;
        let mut segment = Segment::new(Stream::Journal, number, self.epoch, self.salt);
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
        SegmentStart::new(Stream::Journal, number, self.epoch, self.salt, now).encode(&mut buffer);
        let lanes = self.lanes.iter().map(|(&id, lane)| (id, lane));
        encode_entry(&mut buffer, kind::CHECKPOINT, segment.seed, 0, |buffer| {
            Snapshot::encode(buffer, self.next_lane, lanes, end, usize::MAX);
        });
        segment.end = buffer.len() as u64;
        self.uncommitted += segment.end;
        self.hot += segment.end;
        self.buffer = buffer;
        self.journal.push_back(segment);
    }

    pub(super) fn active(&self) -> &Segment {
        self.journal
            .back()
            .expect("a segment takes the appends from opening on")
    }

    /// Makes the open buffer a chunk, so that it can be read and written without the log.
    pub(super) fn freeze(&mut self) {
        if let Some(active) = self.journal.back_mut()
            && !self.buffer.is_empty()
        {
            let bytes = self.buffer.split().freeze();
            active.chunks.push_back(Chunk {
                at: active.end - bytes.len() as u64,
                bytes,
            });
        }
    }

    /// Makes sure that the buffer takes `bytes` more without moving those it has.
    fn reserve_buffer(&mut self, bytes: usize) {
        if self.buffer.capacity() - self.buffer.len() < bytes {
            self.freeze();
            self.buffer = BytesMut::with_capacity(bytes.max(BUFFER_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::options::Options;
    use crate::testing::MemoryFiles;

    #[test]
    fn used_up_epoch_is_followed_by_one_that_is_on_disk_first() {
        let (mut log, _) = Log::open(Arc::new(MemoryFiles::new()), Options::default(), 0).unwrap();
        let lane = log.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let lanes = [(lane, 0)];
        let record = NewRecord {
            sender: "test",
            lanes: &lanes,
            enqueued_at: 0,
            payload: "x".into(),
        };
        log.sequence = u64::from(u32::MAX);
        let last = log.append(&record).unwrap().offset;

        assert!(matches!(log.append(&record), Err(AppendError::Busy { .. })));
        log.commit(0).unwrap();
        let next = log.append(&record).unwrap().offset;

        assert!(next > last && next.epoch() > last.epoch());
        assert_eq!(next.sequence(), 0);
    }
}
