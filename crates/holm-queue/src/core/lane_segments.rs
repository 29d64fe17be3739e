//! The lanes' own segments at opening.
//!
//! A crash may have cut a move short: then the records at the end of a lane's newest segment are in the journal as well, and
//! the copy may lack some. It is cut off; its source is whole. No other record is in both places, because a source is removed,
//! and its removal synced, before the next move begins.

use std::collections::VecDeque;

use super::Log;
use super::format_file::segment_numbers;
use super::report::OpenReport;
use super::segment::Segment;
use super::segment_reader::{SegmentReader, load_seal, note, record_of};
use crate::error::OpenError;
use crate::format::{Part, Stream, kind};
use crate::lane::LaneId;

impl Log {
    /// Loads the lanes' own segments; returns the highest number among them.
    pub(super) fn load_moved(&mut self, report: &mut OpenReport) -> Result<u64, OpenError> {
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
}
