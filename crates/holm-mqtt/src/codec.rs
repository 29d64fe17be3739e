//! Bytes to packets and back.
//!
//! ```text
//!   BytesMut  ----- header ----> type, flags, length      refused here when over the limit, before the rest is read
//!             -- split, freeze -> Bytes of one packet
//!             ----- body ------> Packet with slices of it  (no copies; Vec only for filters, at most MAX_FILTERS)
//! ```
//!
//! Invariants: [`decode`] takes bytes from the input only when it gives a packet; it allocates nothing in proportion to
//! a length that was announced but has not arrived; whatever [`encode`] writes, [`decode`] reads back as the same value;
//! a failed [`encode`] writes nothing.

mod decode;
mod encode;
mod header;

pub use decode::decode;
pub(crate) use decode::decode_packet;
pub(crate) use encode::encode_publish;
pub use encode::{EncodeError, encode};
pub(crate) use header::{FixedHeader, read_header};

/// The most filters of one SUBSCRIBE or UNSUBSCRIBE. The hub allows five an identity (`hub-device-protocols.md` §2.4);
/// the figure bounds what a small packet can make us allocate, to about 10 KiB.
pub const MAX_FILTERS: usize = 256;

/// The most that four bytes of remaining length can say. 2.2.3.
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;
