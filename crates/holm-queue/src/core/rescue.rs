//! After a failed write or sync nothing that was not durable before is trusted: the pages may be gone while the kernel calls
//! them clean. Everything that was appended since goes to a fresh segment.
//!
//! The fresh segment's checkpoint says where each lane ended on disk, so what the failed segment may hold beyond that does not
//! count, whether it reached the disk or not.

use super::Log;
use super::segment::Segment;
use crate::format::{HEADER_BYTES, Header, Part, decode_record, kind};

impl Log {
    /// Moves everything that is not durable to a fresh segment.
    pub(super) fn rescue(&mut self, now: u64) {
        self.freeze();
        let first = self.journal.partition_point(|segment| segment.durable == segment.end);
        let mut failed: Vec<Segment> = self.journal.drain(first..).collect();
        let mut entries = Vec::new();
        for segment in &mut failed {
            self.take_unsaved(segment, &mut entries);
        }
        self.uncommitted = 0;
        for mut segment in failed {
            if segment.durable == 0 {
                self.garbage.push(segment.name());
                continue;
            }
            segment.sealed = true;
            segment.seal_at = None;
            if let Some(file) = segment.file.take() {
                // Best effort: the next segment's checkpoint says where this one ends.
                drop(file.set_len(segment.durable));
            }
            self.journal.push_back(segment);
        }
        self.start_segment(now, |lane| lane.durable_next);
        self.unlogged = 0;
        for lane in self.lanes.values_mut() {
            lane.unlogged.clear();
            let (end, next) = (lane.durable_next, lane.next);
            for range in lane
                .progress
                .beyond()
                .iter()
                .chain(std::iter::once(0..lane.progress.low_water()))
            {
                lane.unlogged.insert(range.start.max(end)..range.end.min(next).max(end));
            }
            self.unlogged += u64::from(!lane.unlogged.is_empty());
        }
        for entry in entries {
            self.append_again(&entry);
        }
    }

    /// Takes the entries that are not durable out of a failed segment, and what is known of them.
    fn take_unsaved(&mut self, segment: &mut Segment, entries: &mut Vec<bytes::Bytes>) {
        let unsaved = segment.chunks.partition_point(|chunk| chunk.at < segment.durable);
        for chunk in segment.chunks.drain(unsaved..) {
            self.hot -= chunk.bytes.len() as u64;
            entries.push(chunk.bytes);
        }
        segment.end = segment.durable;
        segment.index.retain(|entry| entry.at < segment.durable);
        for (&id, lane) in &self.lanes {
            segment.clip(id, lane.durable_next);
        }
        segment.parts.retain(|id, _| self.lanes.contains_key(id));
    }

    /// Appends the records of a chunk.
    fn append_again(&mut self, chunk: &bytes::Bytes) {
        let mut at = 0;
        while let Some((header, body)) = entry_at(chunk, at) {
            at += usize::try_from(header.entry_bytes()).unwrap_or(usize::MAX);
            // Of all else, the checkpoint and what is acknowledged beyond it say the same anew.
            if header.kind == kind::RECORD {
                self.append_record_again(body);
            }
        }
    }

    fn append_record_again(&mut self, body: &[u8]) {
        let at = self.active().end;
        self.encode(kind::RECORD, body.len() + 64, |buffer| buffer.extend_from_slice(body));
        let active = self
            .journal
            .back_mut()
            .expect("a segment takes the appends from opening on");
        let size = active.end - at;
        if let Some(record) = decode_record(body) {
            for (lane, position, expires_at) in record.lanes() {
                active.note(lane, at, &Part::new(position, record.enqueued_at, expires_at, size));
            }
        }
    }
}

/// The entry that starts at `at` of bytes that this process encoded.
pub(super) fn entry_at(bytes: &[u8], at: usize) -> Option<(Header, &[u8])> {
    let entry = bytes.get(at..)?;
    let header = Header::of_own(entry)?;
    let end = HEADER_BYTES + usize::try_from(header.length).ok()?;
    Some((header, entry.get(HEADER_BYTES..end)?))
}
