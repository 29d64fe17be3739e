//! Batches: several messages in one delivery, at a message format of its own (`libraries.md`, AMQP fact 9).
//!
//! ```text
//!   annotations and properties of the whole | data 0x75: message | data 0x75: message | …       each message with its sections
//! ```

use bytes::{Bytes, BytesMut};

use super::{Body, Message, write_data};
use crate::codec::{DecodeError, Fault, Limits};

/// The message format of a batch, beside 0 for a message.
pub const BATCH_FORMAT: u32 = 0x8001_3700;

/// Reads the messages of a batch one by one: `batch` is what [`Message::decode`] made of the delivery. Each has the limits
/// for itself, so take what one gives before the next.
///
/// # Errors
/// A [`DecodeError`] when the body is not of data; then for each message, when it is none.
pub fn messages_of_batch(
    batch: &Message,
    limits: Limits,
) -> Result<impl ExactSizeIterator<Item = Result<Message, DecodeError>>, DecodeError> {
    let sections: &[Bytes] = match &batch.body {
        Body::Data(sections) => sections,
        Body::Empty => &[],
        Body::Sequence(_) | Body::Value(_) => {
            return Err(DecodeError::new("batch", "body", Fault::NotData));
        }
    };
    Ok(sections.iter().map(move |section| Message::decode(section, limits)))
}

/// Writes a batch of limited size.
#[derive(Debug)]
pub struct Batch {
    out: BytesMut,
    message: BytesMut,
    limit: usize,
    count: usize,
}

impl Batch {
    /// A batch of at most `limit` bytes, with the annotations and properties of `whole`, whose body is not read.
    #[must_use]
    pub fn new(whole: &Message, limit: usize) -> Self {
        let mut out = BytesMut::new();
        Message {
            body: Body::Empty,
            ..whole.clone()
        }
        .encode(&mut out);
        Self {
            out,
            message: BytesMut::new(),
            limit,
            count: 0,
        }
    }

    /// Adds a message; false, without effect, when it would make the batch too large.
    pub fn try_push(&mut self, message: &Message) -> bool {
        self.message.clear();
        message.encode(&mut self.message);
        // The descriptor and the longest length before it.
        if self.out.len() + self.message.len() + 8 > self.limit {
            return false;
        }
        write_data(&self.message, &mut self.out);
        self.count += 1;
        true
    }

    /// How many messages it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes to send at [`BATCH_FORMAT`].
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.out.freeze()
    }
}
