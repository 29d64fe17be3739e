//! What a message of a run says of itself, at the head of its payload; the rest is filling.
//!
//! ```text
//!   | "HOLMLOAD" 8 | run 4 | publisher 4 | sequence 8 | due, ns of the monotonic clock 8 | filling … |     little endian
//! ```
//!
//! The *due* time is when the schedule wanted the message sent, not when it was: a broker that holds up the sender is charged
//! for the wait. The run tells messages of this run from what an earlier one left in a broker.

use bytes::{BufMut, Bytes, BytesMut};

/// The first bytes of every payload of the generator.
const MAGIC: &[u8; 8] = b"HOLMLOAD";

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run.
    pub run: u32,
    /// The publisher, from 0.
    pub publisher: u32,
    /// The number of the message among those of its publisher, from 0.
    pub sequence: u64,
    /// When it was due, as [`now_ns`](crate::clock::now_ns) tells time.
    pub due_ns: u64,
}

impl Stamp {
    /// The length of the head, and of the shortest payload.
    pub const BYTES: usize = 32;

    /// A payload of `bytes` with this head, of at least [`Stamp::BYTES`].
    #[must_use]
    pub fn payload(&self, bytes: usize) -> Bytes {
        let mut payload = BytesMut::with_capacity(bytes.max(Self::BYTES));
        payload.put_slice(MAGIC);
        payload.put_u32_le(self.run);
        payload.put_u32_le(self.publisher);
        payload.put_u64_le(self.sequence);
        payload.put_u64_le(self.due_ns);
        payload.resize(bytes.max(Self::BYTES), b'.');
        payload.freeze()
    }

    /// Reads the head of a payload; none when it is not of this generator.
    #[must_use]
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<8>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (publisher, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (due_ns, _) = rest.split_first_chunk::<8>()?;
        (magic == MAGIC).then(|| Self {
            run: u32::from_le_bytes(*run),
            publisher: u32::from_le_bytes(*publisher),
            sequence: u64::from_le_bytes(*sequence),
            due_ns: u64::from_le_bytes(*due_ns),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_from_a_payload_of_the_length_asked_for() {
        let stamp = Stamp {
            run: 7,
            publisher: 3,
            sequence: u64::MAX,
            due_ns: 12,
        };

        let payload = stamp.payload(256);

        assert_eq!(payload.len(), 256);
        assert_eq!(Stamp::read(&payload), Some(stamp));
    }

    #[test]
    fn what_others_published_has_no_stamp() {
        let payload = Stamp {
            run: 7,
            publisher: 3,
            sequence: 1,
            due_ns: 12,
        }
        .payload(0);

        assert_eq!(Stamp::read(b"{\"temperature\": 21}"), None);
        assert_eq!(Stamp::read(&payload[..31]), None);
        assert_eq!(Stamp::read(&[0; 64]), None);
    }
}
