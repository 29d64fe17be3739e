//! The nine performatives of AMQP 1.0, part 2, 2.7, and the five frames of SASL.
//!
//! ```text
//!   connection  open 0x10 (10 fields) ................................................ close 0x18 (1)
//!   session                  begin 0x11 (8) .......................... end 0x17 (1)
//!   link                              attach 0x12 (14) ... detach 0x16 (3)
//!   deliveries                          flow 0x13 (11), transfer 0x14 (11), disposition 0x15 (6)
//! ```
//!
//! A field here is named as in the standard. Optional fields whose default is a number have that number: it is written, never
//! left out, since clients read by position and count on a number (`libraries.md`, AMQP facts 1 and 2).

mod connection;
mod delivery;
mod link;
mod sasl;
mod state;
mod terminus;

use bytes::{Bytes, BytesMut};

pub use connection::{Begin, Close, End, Open};
pub use delivery::{DeliveryTag, Disposition, Flow, MAX_DELIVERY_TAG, Transfer};
pub use link::{Attach, Detach, ReceiverSettleMode, Role, SenderSettleMode, UnsettledMap};
pub use sasl::{SaslChallenge, SaslCode, SaslFrame, SaslInit, SaslMechanisms, SaslOutcome, SaslResponse, Secret};
pub use state::{DeliveryState, Modified, Outcome, Received};
pub use terminus::{Durability, ExpiryPolicy, Source, Target};

use crate::codec::fields::{Composite, read_body, read_descriptor, write_composite};
use crate::codec::read::{Reader, wrong};
use crate::codec::{DecodeError, Fault, Limits, code};

/// What a frame asks for or says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the types")]
pub enum Performative {
    Open(Box<Open>),
    Begin(Box<Begin>),
    Attach(Box<Attach>),
    Flow(Box<Flow>),
    Transfer(Transfer),
    Disposition(Disposition),
    Detach(Detach),
    End(End),
    Close(Close),
}

impl Performative {
    /// Its name in the standard.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open(_) => Open::NAME,
            Self::Begin(_) => Begin::NAME,
            Self::Attach(_) => Attach::NAME,
            Self::Flow(_) => Flow::NAME,
            Self::Transfer(_) => Transfer::NAME,
            Self::Disposition(_) => Disposition::NAME,
            Self::Detach(_) => Detach::NAME,
            Self::End(_) => End::NAME,
            Self::Close(_) => Close::NAME,
        }
    }

    /// Reads the body of a frame: a performative, and what follows it, which only a transfer has.
    ///
    /// # Errors
    /// A [`DecodeError`].
    pub fn decode(body: &Bytes, limits: Limits) -> Result<(Self, Bytes), DecodeError> {
        let mut reader = Reader::new(body, limits);
        let performative = match frame_descriptor(&mut reader)? {
            Open::DESCRIPTOR => Self::Open(Box::new(read_body(&mut reader)?)),
            Begin::DESCRIPTOR => Self::Begin(Box::new(read_body(&mut reader)?)),
            Attach::DESCRIPTOR => Self::Attach(Box::new(read_body(&mut reader)?)),
            Flow::DESCRIPTOR => Self::Flow(Box::new(read_body(&mut reader)?)),
            Transfer::DESCRIPTOR => {
                let transfer = read_body(&mut reader)?;
                return Ok((Self::Transfer(transfer), reader.rest()));
            }
            Disposition::DESCRIPTOR => Self::Disposition(read_body(&mut reader)?),
            Detach::DESCRIPTOR => Self::Detach(read_body(&mut reader)?),
            End::DESCRIPTOR => Self::End(read_body(&mut reader)?),
            Close::DESCRIPTOR => Self::Close(read_body(&mut reader)?),
            _ => return Err(unknown_frame()),
        };
        end_of_frame(&reader, performative.name())?;
        Ok((performative, Bytes::new()))
    }

    /// Appends the performative with all its fields.
    ///
    /// # Panics
    /// When a part of it has 4 GiB.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Open(open) => write_composite(&**open, out),
            Self::Begin(begin) => write_composite(&**begin, out),
            Self::Attach(attach) => write_composite(&**attach, out),
            Self::Flow(flow) => write_composite(&**flow, out),
            Self::Transfer(transfer) => write_composite(transfer, out),
            Self::Disposition(disposition) => write_composite(disposition, out),
            Self::Detach(detach) => write_composite(detach, out),
            Self::End(end) => write_composite(end, out),
            Self::Close(close) => write_composite(close, out),
        }
    }
}

/// The descriptor at the front of the body of a frame.
fn frame_descriptor(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let error = |fault| DecodeError::new("frame", "performative", fault);
    match reader.byte().map_err(error)? {
        code::DESCRIBED => read_descriptor(reader).map_err(error),
        other => Err(error(wrong("a described list", other))),
    }
}

fn end_of_frame(reader: &Reader<'_>, of: &'static str) -> Result<(), DecodeError> {
    match reader.left() {
        0 => Ok(()),
        left => Err(DecodeError::new(of, "list of fields", Fault::TrailingBytes(left))),
    }
}

const fn unknown_frame() -> DecodeError {
    DecodeError::new("frame", "performative", Fault::UnknownDescriptor)
}
