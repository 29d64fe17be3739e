//! The body of a record entry.
//!
//! ```text
//!  epoch · sequence · enqueued (ms) · lanes · (lane · position · expiry)… · sender length · sender · payload
//! ```
//! Numbers are of variable length. An expiry is 0 for never, else one more than the milliseconds from enqueueing to it.

use bytes::Bytes;

use super::fields::{Fields, put_number, put_text};
use super::{Buffer, HEADER_BYTES, Seed, encode_entry, kind};
use crate::lane::LaneId;
use crate::record::{Offset, Record};

/// What a record entry is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordFields<'a> {
    pub(crate) offset: Offset,
    pub(crate) enqueued_at: u64,
    /// Lane and position.
    pub(crate) positions: &'a [(LaneId, u64)],
    /// Lane and expiry, in the same order.
    pub(crate) expiries: &'a [(LaneId, u64)],
    pub(crate) sender: &'a str,
    pub(crate) payload: &'a [u8],
}

/// The most bytes that the entry of a record can take.
pub(crate) fn record_bound(lanes: usize, sender: usize, payload: usize) -> usize {
    // Two numbers of 5 bytes, three of 10, 25 a lane, and the padding.
    HEADER_BYTES + 2 * 5 + 3 * 10 + lanes * 25 + sender + payload + 8
}

/// Encodes a record entry at the end of `buffer`, whose first byte stands at `base` in the file.
pub(crate) fn encode_record<B: Buffer>(buffer: &mut B, seed: Seed, base: u64, record: &RecordFields<'_>) {
    encode_entry(buffer, kind::RECORD, seed, base, |buffer| {
        put_number(buffer, record.offset.epoch().into());
        put_number(buffer, record.offset.sequence().into());
        put_number(buffer, record.enqueued_at);
        put_number(buffer, record.positions.len() as u64);
        for (&(lane, position), &(_, expires_at)) in record.positions.iter().zip(record.expiries) {
            let expiry = if expires_at == 0 {
                0
            } else {
                expires_at.saturating_sub(record.enqueued_at).saturating_add(1)
            };
            put_number(buffer, lane.0.into());
            put_number(buffer, position);
            put_number(buffer, expiry);
        }
        put_text(buffer, record.sender);
        buffer.put_slice(record.payload);
    });
}

/// A record entry without its content: what recovery and moving need.
#[derive(Debug, Clone)]
pub(crate) struct Envelope<'a> {
    pub(crate) offset: Offset,
    pub(crate) enqueued_at: u64,
    lanes: Fields<'a>,
    lane_count: u64,
    sender: &'a str,
    content: &'a [u8],
}

impl Envelope<'_> {
    /// Lane, position and expiry (ms since 1970, 0: never) of each lane.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (LaneId, u64, u64)> + '_ {
        let mut fields = self.lanes;
        (0..self.lane_count).map_while(move |_| {
            let (lane, position, expiry) = (fields.lane()?, fields.number()?, fields.number()?);
            let expires_at = if expiry == 0 {
                0
            } else {
                self.enqueued_at.saturating_add(expiry - 1)
            };
            Some((lane, position, expires_at))
        })
    }

    /// The record as a reader of `lane` gets it, with a copy of its content.
    pub(crate) fn to_record(&self, position: u64, expires_at: u64) -> Record {
        let content = Bytes::copy_from_slice(self.content);
        Record::new(
            self.offset,
            position,
            (self.enqueued_at, expires_at),
            content,
            self.sender.len(),
        )
    }
}

/// Reads a record entry's body.
pub(crate) fn decode_record(body: &[u8]) -> Option<Envelope<'_>> {
    let mut fields = Fields::new(body);
    let offset = Offset::new(fields.number_u32()?, fields.number_u32()?);
    let enqueued_at = fields.number()?;
    let lane_count = fields.number()?;
    let lanes = fields;
    for _ in 0..lane_count {
        fields.lane()?;
        fields.position()?;
        fields.number()?;
    }
    let mut after_length = fields;
    after_length.number()?;
    let content = after_length.rest();
    let sender = fields.text()?;
    Some(Envelope {
        offset,
        enqueued_at,
        lanes,
        lane_count,
        sender,
        content,
    })
}
