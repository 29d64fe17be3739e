//! What became of a delivery. AMQP 1.0, part 3, 3.4.

use bytes::BytesMut;

use crate::codec::fields::{Composite, Field, composite, read_body, write_composite, write_descriptor};
use crate::codec::read::{Reader, wrong};
use crate::codec::{Fault, code, write};
use crate::condition::AmqpError;
use crate::map::Fields;
use crate::value::{Described, Value};

/// What a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was taken.
    Accepted,
    /// It will not be taken, by anybody.
    Rejected(Option<Box<AmqpError>>),
    /// It was not taken, and may be by another one.
    Released,
    /// It was not taken, and shall be changed before it goes on.
    Modified(Box<Modified>),
}

/// How far a delivery is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// A part of it was received.
    Received(Received),
    /// The end.
    Outcome(Outcome),
    /// Another one, like those of transactions; nothing here depends on it.
    Other(Box<Described>),
}

composite! {
    /// How much of a delivery was received. AMQP 1.0, part 3, 3.4.1.
    #[derive(Copy)]
    pub Received = 0x23, "received" {
        /// The section.
        section_number: u32 = "section-number",
        /// The byte of it.
        section_offset: u64 = "section-offset",
    }
}

composite! {
    /// What shall be changed. AMQP 1.0, part 3, 3.4.5.
    #[derive(Default)]
    pub Modified = 0x27, "modified" {
        /// Whether the delivery count goes up.
        delivery_failed: bool = "delivery-failed" or false,
        /// Whether it shall not come here again.
        undeliverable_here: bool = "undeliverable-here" or false,
        /// Annotations to put in.
        message_annotations: Fields = "message-annotations",
    }
}

composite! {
    /// The wire form of [`Outcome::Rejected`]. AMQP 1.0, part 3, 3.4.3.
    pub(super) Rejected = 0x25, "rejected" {
        /// Why.
        error: Option<Box<AmqpError>> = "error",
    }
}

/// The wire form of outcomes that say nothing more.
struct Plain<const DESCRIPTOR: u64>;

impl<const NUMBER: u64> Composite for Plain<NUMBER> {
    const DESCRIPTOR: u64 = NUMBER;
    const NAME: &'static str = if NUMBER == ACCEPTED { "accepted" } else { "released" };
    const COUNT: usize = 0;

    fn read_fields(_: &mut crate::codec::fields::FieldReader<'_, '_>) -> Result<Self, crate::codec::DecodeError> {
        Ok(Self)
    }

    fn write_fields(&self, _: &mut BytesMut) {}
}

const ACCEPTED: u64 = 0x24;
const RELEASED: u64 = 0x26;

impl From<Outcome> for DeliveryState {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl Field for DeliveryState {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        if code != code::DESCRIBED {
            return Err(wrong("a described list", code));
        }
        let descriptor = reader.value()?;
        let number = match &descriptor {
            Value::Ulong(number) => Some(*number),
            Value::Symbol(name) => crate::codec::fields::by_name(name),
            _ => None,
        };
        Ok(match number {
            Some(Received::DESCRIPTOR) => Self::Received(read_body(reader)?),
            Some(ACCEPTED) => {
                read_body::<Plain<ACCEPTED>>(reader)?;
                Self::Outcome(Outcome::Accepted)
            }
            Some(Rejected::DESCRIPTOR) => Self::Outcome(Outcome::Rejected(read_body::<Rejected>(reader)?.error)),
            Some(RELEASED) => {
                read_body::<Plain<RELEASED>>(reader)?;
                Self::Outcome(Outcome::Released)
            }
            Some(Modified::DESCRIPTOR) => Self::Outcome(Outcome::Modified(Box::new(read_body(reader)?))),
            _ => {
                let value = reader.value()?;
                Self::Other(Box::new(Described { descriptor, value }))
            }
        })
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Received(received) => write_composite(received, out),
            Self::Outcome(outcome) => write_outcome(outcome, out),
            Self::Other(described) => write::value(&Value::Described(described.clone()), out),
        }
    }
}

fn write_outcome(outcome: &Outcome, out: &mut BytesMut) {
    match outcome {
        Outcome::Accepted => write_plain(ACCEPTED, out),
        Outcome::Released => write_plain(RELEASED, out),
        Outcome::Rejected(error) => write_composite(&Rejected { error: error.clone() }, out),
        Outcome::Modified(modified) => write_composite(&**modified, out),
    }
}

fn write_plain(descriptor: u64, out: &mut BytesMut) {
    write_descriptor(descriptor, out);
    write::empty_list(out);
}
