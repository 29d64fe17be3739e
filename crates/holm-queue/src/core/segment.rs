//! A segment file as memory knows it: what each lane has in it, how much of it is on disk, and its newest bytes.
//!
//! ```text
//!  0 ─────────── chunks.front().at ──────────── durable ─────────────── end
//!      on disk only            on disk and hot          in memory only
//! ```
//!
//! Invariants: chunks are adjacent and end at `end` (the log's open buffer counts as the last chunk); an entry never spans
//! two chunks; a chunk goes only when it is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::file_system::File;
use crate::format::{IndexEntry, Part, Seed, Stream};
use crate::lane::LaneId;
use crate::ranges::Progress;

/// How far apart a lane's index entries are, at least.
const INDEX_BYTES: u64 = 64 << 10;

/// Some of a segment's bytes, whole entries.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) at: u64,
    pub(super) bytes: Bytes,
}

impl Chunk {
    pub(super) fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) stream: Stream,
    pub(super) number: u64,
    pub(super) epoch: u32,
    pub(super) seed: Seed,
    pub(super) parts: BTreeMap<LaneId, Part>,
    /// Kept until the seal that holds it is on disk.
    pub(super) index: Vec<IndexEntry>,
    pub(super) durable: u64,
    pub(super) end: u64,
    pub(super) seal_at: Option<u64>,
    /// Takes no more entries.
    pub(super) sealed: bool,
    /// What lanes still needed of it stands in their own segments.
    pub(super) moved: bool,
    pub(super) chunks: VecDeque<Chunk>,
    pub(super) file: Option<Arc<dyn File>>,
}

impl Segment {
    pub(super) fn new(stream: Stream, number: u64, epoch: u32, salt: u64) -> Self {
        Self {
            stream,
            number,
            epoch,
            seed: Seed::new(salt, stream, number),
            parts: BTreeMap::new(),
            index: Vec::new(),
            durable: 0,
            end: 0,
            seal_at: None,
            sealed: false,
            moved: false,
            chunks: VecDeque::new(),
            file: None,
        }
    }

    pub(super) fn name(&self) -> String {
        self.stream.segment_name(self.number)
    }

    /// Notes that a record of `lane` stands at `at`.
    pub(super) fn note(&mut self, lane: LaneId, at: u64, record: &Part) {
        let part = self.parts.entry(lane).and_modify(|part| part.add(record));
        let is_new = matches!(part, std::collections::btree_map::Entry::Vacant(_));
        let part = part.or_insert(*record);
        if is_new || at >= part.indexed_at + INDEX_BYTES {
            part.indexed_at = at;
            self.index.push(IndexEntry {
                lane,
                position: record.first,
                at,
            });
        }
    }

    /// Limits what `lane` has here to positions below `end`.
    pub(super) fn clip(&mut self, lane: LaneId, end: u64) {
        if let Some(part) = self.parts.get_mut(&lane)
            && part.last >= end
        {
            match end.checked_sub(1).filter(|&last| last >= part.first) {
                Some(last) => {
                    part.last = last;
                    part.records = part.records.min(last - part.first + 1);
                }
                None => {
                    self.parts.remove(&lane);
                }
            }
        }
    }

    /// Where to start reading for `position`, by the index in memory.
    pub(super) fn lookup(index: &[IndexEntry], lane: LaneId, position: u64) -> u64 {
        let entry = index
            .iter()
            .rev()
            .find(|entry| entry.lane == lane && entry.position <= position);
        entry.map_or(0, |entry| entry.at)
    }

    /// The lanes that still need records of this segment, with the bytes that those take, estimated.
    pub(super) fn needed<'s>(
        &'s self,
        progress: impl Fn(LaneId) -> Option<&'s Progress> + 's,
    ) -> impl Iterator<Item = (LaneId, &'s Part, u64)> + 's {
        self.parts.iter().filter_map(move |(&lane, part)| {
            let open = progress(lane)?
                .open_count(part.first..part.last.saturating_add(1))
                .min(part.records);
            (open > 0).then(|| (lane, part, (part.bytes / part.records.max(1)).saturating_mul(open)))
        })
    }

    /// The chunk that holds the byte at `at`.
    pub(super) fn chunk_at(&self, at: u64) -> Option<&Chunk> {
        let index = self.chunks.partition_point(|chunk| chunk.end() <= at);
        self.chunks.get(index).filter(|chunk| chunk.at <= at)
    }

    /// How far the file must be read before memory takes over.
    pub(super) fn cold_end(&self) -> u64 {
        self.chunks.front().map_or(self.durable, |chunk| chunk.at)
    }
}
