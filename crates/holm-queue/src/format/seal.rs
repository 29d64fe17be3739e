//! What stands at the two ends of a segment: which one it is, and, once it is complete, what is in it.
//!
//! ```text
//!  SegmentStart · Checkpoint · … · Seal · End      the End is the file's last 32 bytes and says where the Seal is
//! ```

use std::collections::BTreeMap;

use super::fields::{Fields, put_number};
use super::{Buffer, FORMAT_VERSION, HEADER_BYTES, Header, Seed, Stream, encode_entry, kind};
use crate::lane::LaneId;

/// First entry of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentStart {
    pub(crate) version: u32,
    pub(crate) epoch: u32,
    pub(crate) stream: u64,
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) created_at: u64,
}

impl SegmentStart {
    pub(crate) const BYTES: u64 = 64;
    const MAGIC: [u8; 8] = *b"holmqueu";

    pub(crate) fn new(stream: Stream, number: u64, epoch: u32, salt: u64, created_at: u64) -> Self {
        Self {
            version: FORMAT_VERSION,
            epoch,
            stream: stream.number(),
            number,
            salt,
            created_at,
        }
    }

    pub(crate) fn is_for(&self, stream: Stream, number: u64) -> bool {
        self.stream == stream.number() && self.number == number
    }

    pub(crate) fn encode<B: Buffer>(&self, buffer: &mut B) {
        encode_entry(buffer, kind::SEGMENT_START, Seed::START, 0, |buffer| {
            buffer.put_slice(&Self::MAGIC);
            buffer.put_u32_le(self.version);
            buffer.put_u32_le(self.epoch);
            buffer.put_u64_le(self.stream);
            buffer.put_u64_le(self.number);
            buffer.put_u64_le(self.salt);
            buffer.put_u64_le(self.created_at);
        });
    }

    /// Reads the first bytes of a segment; `None` if they are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = Header::decode(bytes, Seed::START, 0)?;
        let body = bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(usize::try_from(header.length).ok()?)?)?;
        if header.kind != kind::SEGMENT_START || !header.matches(body) {
            return None;
        }
        let mut fields = Fields::new(body);
        if fields.fixed()? != Self::MAGIC {
            return None;
        }
        Some(Self {
            version: fields.fixed_u32()?,
            epoch: fields.fixed_u32()?,
            stream: fields.fixed_u64()?,
            number: fields.fixed_u64()?,
            salt: fields.fixed_u64()?,
            created_at: fields.fixed_u64()?,
        })
    }
}

/// What one lane has in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) first: u64,
    /// Inclusive.
    pub(crate) last: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) first_time: u64,
    pub(crate) last_time: u64,
    /// When the last of the records expires; 0 if one never does.
    pub(crate) last_expiry: u64,
    /// Place in the file of the lane's newest index entry. Not on disk.
    pub(crate) indexed_at: u64,
}

impl Part {
    pub(crate) fn new(position: u64, time: u64, expires_at: u64, bytes: u64) -> Self {
        let (first_time, last_time) = (time, time);
        let (first, last, records, last_expiry) = (position, position, 1, expires_at);
        Self {
            first,
            last,
            records,
            bytes,
            first_time,
            last_time,
            last_expiry,
            indexed_at: 0,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.records += other.records;
        self.bytes += other.bytes;
        self.first_time = self.first_time.min(other.first_time);
        self.last_time = self.last_time.max(other.last_time);
        let both_expire = self.last_expiry != 0 && other.last_expiry != 0;
        self.last_expiry = if both_expire {
            self.last_expiry.max(other.last_expiry)
        } else {
            0
        };
    }
}

/// The first record of a lane in a stretch of 64 KiB of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) lane: LaneId,
    pub(crate) position: u64,
    /// Place in the file.
    pub(crate) at: u64,
}

/// What is in a complete segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) parts: BTreeMap<LaneId, Part>,
    /// In the order of the file.
    pub(crate) index: Vec<IndexEntry>,
}

impl Seal {
    pub(crate) fn encode<B: Buffer>(
        buffer: &mut B,
        seed: Seed,
        base: u64,
        parts: &BTreeMap<LaneId, Part>,
        index: &[IndexEntry],
    ) {
        encode_entry(buffer, kind::SEAL, seed, base, |buffer| {
            put_number(buffer, parts.len() as u64);
            for (lane, part) in parts {
                let length = part.last - part.first;
                let sizes = [part.first, length, part.records, part.bytes];
                let times = [part.first_time, part.last_time - part.first_time, part.last_expiry];
                put_number(buffer, lane.0.into());
                for number in sizes.into_iter().chain(times) {
                    put_number(buffer, number);
                }
            }
            put_number(buffer, index.len() as u64);
            let mut at = 0;
            for entry in index {
                put_number(buffer, entry.lane.0.into());
                put_number(buffer, entry.position);
                put_number(buffer, entry.at - at);
                at = entry.at;
            }
        });
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        let mut seal = Self::default();
        for _ in 0..fields.number()? {
            let lane = fields.lane()?;
            let first = fields.position()?;
            let last = first + fields.position()?;
            let (records, bytes) = (fields.position()?, fields.position()?);
            let first_time = fields.number()?;
            let last_time = first_time.checked_add(fields.number()?)?;
            let last_expiry = fields.number()?;
            let part = Part {
                first,
                last,
                records,
                bytes,
                first_time,
                last_time,
                last_expiry,
                indexed_at: 0,
            };
            seal.parts.insert(lane, part);
        }
        let mut at = 0u64;
        for _ in 0..fields.number()? {
            let (lane, position) = (fields.lane()?, fields.position()?);
            at = at.checked_add(fields.position()?)?;
            seal.index.push(IndexEntry { lane, position, at });
        }
        Some(seal)
    }
}

/// Last entry of a complete segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) seal_at: u64,
    pub(crate) number: u64,
}

impl End {
    pub(crate) const BYTES: u64 = 32;

    pub(crate) fn encode<B: Buffer>(&self, buffer: &mut B, seed: Seed, base: u64) {
        encode_entry(buffer, kind::END, seed, base, |buffer| {
            buffer.put_u64_le(self.seal_at);
            buffer.put_u64_le(self.number);
        });
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(body);
        Some(Self {
            seal_at: fields.fixed_u64()?,
            number: fields.fixed_u64()?,
        })
    }
}
