//! The bytes on disk: entries, and what each kind holds. `docs/formats/queue.md` describes them byte by byte.
//!
//! ```text
//!  entry   0      2       3    4       8           12           16
//!          magic  version kind length  body crc32c header crc32c body … zeros to the next multiple of 8
//! ```
//!
//! Invariants: an entry starts at a multiple of 8; its header checks itself, so a broken body costs that entry and no more;
//! a header's checksum is seeded with the directory's salt, the segment and the entry's place in it, so bytes of a payload
//! or of another file never pass for a header.

mod entry;
mod fields;
mod scan;
mod seal;
mod state;

pub(crate) use entry::{Envelope, RecordFields, decode_record, encode_record, record_bound};
pub(crate) use fields::Fields;
pub(crate) use fields::put_number;
pub(crate) use scan::{Entry, Found, Scanner, read_start};
pub(crate) use seal::{End, IndexEntry, Part, Seal, SegmentStart};
pub(crate) use state::{Acknowledged, Definition, Snapshot};

use bytes::BufMut;

use crate::lane::LaneId;

/// The version of the format that this release reads and writes.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const ENTRY_VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 16;
/// `HQ`, little-endian.
const MAGIC: u16 = 0x5148;

/// What an entry is.
pub(crate) mod kind {
    /// First in each segment: which segment this is.
    pub(crate) const SEGMENT_START: u8 = 1;
    /// Second in each journal segment: the state of all lanes.
    pub(crate) const CHECKPOINT: u8 = 2;
    /// A record.
    pub(crate) const RECORD: u8 = 3;
    /// Positions acknowledged, in any number of lanes.
    pub(crate) const ACKNOWLEDGE: u8 = 4;
    /// A lane is defined, or its kind changed.
    pub(crate) const LANE_DEFINED: u8 = 5;
    /// A lane is removed.
    pub(crate) const LANE_REMOVED: u8 = 6;
    /// Last but one in a complete segment: what is in it.
    pub(crate) const SEAL: u8 = 7;
    /// Last in a complete segment: where its seal is.
    pub(crate) const END: u8 = 8;
    /// In the reserve: the state of all lanes while the journal can't take it.
    pub(crate) const RESERVE: u8 = 9;
}

/// Which file of the queue an entry stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    Journal,
    Lane(LaneId),
    Reserve,
}

impl Stream {
    fn number(self) -> u64 {
        match self {
            Self::Journal => 0,
            Self::Lane(lane) => 1 + u64::from(lane.0),
            Self::Reserve => u64::MAX,
        }
    }

    pub(crate) fn directory(self) -> String {
        match self {
            Self::Journal => "journal".to_owned(),
            Self::Lane(lane) => format!("lane-{:08}", lane.0),
            Self::Reserve => String::new(),
        }
    }

    pub(crate) fn segment_name(self, number: u64) -> String {
        format!("{}/{number:016}.seg", self.directory())
    }
}

/// Where the checksums of a segment's headers start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// For the first entry of a segment, which says where it is and so can't need to know.
    pub(crate) const START: Self = Self(0);

    pub(crate) fn new(salt: u64, stream: Stream, number: u64) -> Self {
        let mut bytes = [0; 24];
        let fields = [salt, stream.number(), number];
        for (place, field) in bytes.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        Self(crc32c::crc32c(&bytes))
    }

    fn checksum(self, position: u64, header: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &position.to_le_bytes()), header)
    }
}

/// An entry's header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) length: u32,
    body_checksum: u32,
}

impl Header {
    /// Reads the header that stands at `position`; `None` if there is none.
    pub(crate) fn decode(bytes: &[u8], seed: Seed, position: u64) -> Option<Self> {
        let (checked, checksum) = bytes.first_chunk::<HEADER_BYTES>()?.split_last_chunk()?;
        let header = Self::of_own(bytes)?;
        (seed.checksum(position, checked) == u32::from_le_bytes(*checksum)).then_some(header)
    }

    /// Reads a header of bytes that this process encoded and that never left memory.
    pub(crate) fn of_own(bytes: &[u8]) -> Option<Self> {
        let [m0, m1, version, kind, l0, l1, l2, l3, b0, b1, b2, b3] = *bytes.first_chunk()?;
        (u16::from_le_bytes([m0, m1]) == MAGIC).then_some(Self {
            version,
            kind,
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            body_checksum: u32::from_le_bytes([b0, b1, b2, b3]),
        })
    }

    /// Whether `body` is what was written.
    pub(crate) fn matches(&self, body: &[u8]) -> bool {
        crc32c::crc32c(body) == self.body_checksum
    }

    /// Bytes of the whole entry, with header and padding.
    pub(crate) fn entry_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.length)).next_multiple_of(8)
    }
}

/// A buffer that entries are encoded into.
pub(crate) trait Buffer: BufMut + AsMut<[u8]> + AsRef<[u8]> {}
impl<B: BufMut + AsMut<[u8]> + AsRef<[u8]>> Buffer for B {}

/// Encodes one entry at the end of `buffer`. `base` is the place in the file of the buffer's first byte.
pub(crate) fn encode_entry<B: Buffer>(buffer: &mut B, kind: u8, seed: Seed, base: u64, body: impl FnOnce(&mut B)) {
    let start = buffer.as_ref().len();
    buffer.put_bytes(0, HEADER_BYTES);
    body(buffer);
    let end = buffer.as_ref().len();
    buffer.put_bytes(0, end.next_multiple_of(8) - end);
    let entry = buffer
        .as_mut()
        .get_mut(start..end)
        .expect("these bytes were just written");
    let position = base + start as u64;
    write_header(entry, kind, seed, position);
}

fn write_header(entry: &mut [u8], kind: u8, seed: Seed, position: u64) {
    let (header, body) = entry.split_at_mut(HEADER_BYTES);
    // Limits on records and lanes keep every body far below 4 GiB.
    let length = u32::try_from(body.len()).expect("a body is shorter than 4 GiB");
    let mut fields = [0; HEADER_BYTES];
    let (checked, checksum) = fields.split_at_mut(12);
    checked[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    checked[2] = ENTRY_VERSION;
    checked[3] = kind;
    checked[4..8].copy_from_slice(&length.to_le_bytes());
    checked[8..12].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    checksum.copy_from_slice(&seed.checksum(position, checked).to_le_bytes());
    header.copy_from_slice(&fields);
}
