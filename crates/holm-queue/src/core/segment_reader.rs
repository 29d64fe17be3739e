//! Reading a segment at opening: whole by its seal, or entry by entry.

use std::io;
use std::sync::Arc;

use super::Log;
use super::report::OpenReport;
use super::segment::Segment;
use crate::error::OpenError;
use crate::file_system::File;
use crate::format::{
    End, Entry, Envelope, FORMAT_VERSION, Found, Part, Scanner, Seal, Stream, decode_record, kind, read_start,
};
use crate::lane::LaneId;

/// Reads a segment entry by entry and counts what is damaged.
pub(super) struct SegmentReader<'f> {
    name: String,
    length: u64,
    scanner: Scanner<'f>,
}

impl<'f> SegmentReader<'f> {
    pub(super) fn new(segment: &Segment, file: &'f dyn File, length: u64) -> Self {
        Self {
            name: segment.name(),
            length,
            scanner: Scanner::new(file, segment.seed, 0, length),
        }
    }

    /// Calls `on_entry` for each valid entry and returns where the last one ends. Damage behind it is torn in the newest
    /// segment, for a crash leaves it so, and damage elsewhere.
    pub(super) fn run(
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

/// Reads the seal of a complete segment; `false` if there is none that can be read.
pub(super) fn load_seal(segment: &mut Segment, file: &dyn File, length: u64) -> io::Result<bool> {
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

pub(super) fn record_of<'b>(entry: &Entry<'b>) -> Option<Envelope<'b>> {
    if entry.kind == kind::RECORD {
        decode_record(entry.body)
    } else {
        None
    }
}

/// Notes a record in its lanes, or in one of them only.
pub(super) fn note(segment: &mut Segment, only: Option<LaneId>, entry: &Entry<'_>, record: &Envelope<'_>) {
    for (id, position, expires_at) in record.lanes() {
        if only.is_none_or(|only| only == id) {
            segment.note(
                id,
                entry.at,
                &Part::new(position, record.enqueued_at, expires_at, entry.size),
            );
        }
    }
}

impl Log {
    pub(super) fn open_segment(&self, stream: Stream, number: u64) -> Result<(Arc<dyn File>, u64), OpenError> {
        let name = stream.segment_name(number);
        let file = self.files.open(&name).map_err(OpenError::io("open", name.clone()))?;
        let length = file.len().map_err(OpenError::io("measure", name))?;
        Ok((file, length))
    }

    pub(super) fn file_len(&self, stream: Stream, number: u64) -> Result<u64, OpenError> {
        Ok(self.open_segment(stream, number)?.1)
    }

    /// The epoch in a segment's first entry, if that can be read and belongs there.
    pub(super) fn start_of(&self, file: &dyn File, stream: Stream, number: u64) -> Result<Option<u32>, OpenError> {
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
}
