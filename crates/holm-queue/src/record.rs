//! Records: what goes into the log and what comes out.

use std::fmt;

use bytes::Bytes;

use crate::lane::LaneId;

/// A record's identity within its queue directory: never given out twice, growing in the order of the appends.
///
/// The high half is the epoch (one per opening), the low half counts within it, so an offset that was handed out and then
/// lost in a crash is not given to another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    pub(crate) fn new(epoch: u32, sequence: u32) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(sequence))
    }

    /// The offset as one number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// Which opening of the queue gave it out.
    #[must_use]
    pub fn epoch(self) -> u32 {
        u32::try_from(self.0 >> 32).expect("a u64 shifted right by 32 fits")
    }

    /// The count within the epoch, from 0.
    #[must_use]
    pub fn sequence(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).expect("masked to 32 bits")
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch(), self.sequence())
    }
}

/// What an append is given.
#[derive(Debug, Clone)]
pub struct NewRecord<'a> {
    /// Who sent it; order is kept per lane, whoever the sender is. At most 65,535 bytes.
    pub sender: &'a str,
    /// The lanes it goes to, each with the time when it expires there, in milliseconds since 1970; 0: never.
    pub lanes: &'a [(LaneId, u64)],
    /// When it was enqueued, in milliseconds since 1970.
    pub enqueued_at: u64,
    /// The content.
    pub payload: Bytes,
}

/// The positions that a record got, in the order of [`NewRecord::lanes`]. Up to four need no allocation.
#[derive(Clone)]
pub struct Positions {
    inline: [(LaneId, u64); 4],
    length: usize,
    spilled: Vec<(LaneId, u64)>,
}

impl Positions {
    pub(crate) fn new() -> Self {
        Self {
            inline: [(LaneId(0), 0); 4],
            length: 0,
            spilled: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, lane: LaneId, position: u64) {
        match self.inline.get_mut(self.length) {
            Some(place) if self.spilled.is_empty() => *place = (lane, position),
            _ => {
                if self.spilled.is_empty() {
                    self.spilled.extend_from_slice(&self.inline);
                }
                self.spilled.push((lane, position));
            }
        }
        self.length += 1;
    }

    /// Lane and position of each.
    #[must_use]
    pub fn as_slice(&self) -> &[(LaneId, u64)] {
        if self.spilled.is_empty() {
            self.inline.get(..self.length).unwrap_or_default()
        } else {
            &self.spilled
        }
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// What an append gives back.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The record's identity.
    pub offset: Offset,
    /// Its position in each of its lanes.
    pub positions: Positions,
}

/// A record as a reader gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// The record's identity.
    pub offset: Offset,
    /// Its position in the lane it was read from.
    pub position: u64,
    /// When it was enqueued, in milliseconds since 1970.
    pub enqueued_at: u64,
    /// When it expires in this lane, in milliseconds since 1970; 0: never. Never before `enqueued_at`.
    pub expires_at: u64,
    /// Sender and payload, one behind the other, so that a record costs one allocation.
    content: Bytes,
    sender_length: usize,
}

impl Record {
    /// `sender_length` must end on a character boundary of valid UTF-8 at the start of `content`.
    pub(crate) fn new(offset: Offset, position: u64, times: (u64, u64), content: Bytes, sender_length: usize) -> Self {
        Self {
            offset,
            position,
            enqueued_at: times.0,
            expires_at: times.1,
            content,
            sender_length,
        }
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> &str {
        let sender = self.content.get(..self.sender_length).unwrap_or_default();
        std::str::from_utf8(sender).expect("checked when the record was decoded")
    }

    /// The content.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.content.slice(self.sender_length..)
    }

    /// Bytes of the content.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.content.len() - self.sender_length
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("position", &self.position)
            .field("sender", &self.sender())
            .field("enqueued_at", &self.enqueued_at)
            .field("expires_at", &self.expires_at)
            .field("payload_len", &self.payload_len())
            .finish()
    }
}

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first position that is not acknowledged.
    LowWater,
    /// At this position; positions below the low-water mark are skipped.
    Position(u64),
    /// At the first record enqueued at this time or later, in milliseconds since 1970.
    Time(u64),
    /// Behind what is visible now: only new records.
    End,
}

/// What a reader gets to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everything appended, on disk or not: for receivers on the same node. A crash may lose what was seen.
    Appended,
    /// Only what is known to be on disk: for whatever leaves the node or is checkpointed.
    Durable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_keep_their_order_whether_inline_or_spilled() {
        for count in 0..12u32 {
            let mut positions = Positions::new();

            (0..count).for_each(|number| positions.push(LaneId(number), u64::from(number) * 10));

            let expected: Vec<_> = (0..count)
                .map(|number| (LaneId(number), u64::from(number) * 10))
                .collect();
            assert_eq!(positions.as_slice(), expected);
        }
    }
}
