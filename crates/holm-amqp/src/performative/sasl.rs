//! The frames of SASL. AMQP 1.0, part 5, 5.3.3.
//!
//! ```text
//!   client                         server
//!     <----------- mechanisms 0x40 --
//!     -- init 0x41 ---------------->
//!     <------------ challenge 0x42 --   as often as the mechanism wants; those of the SDKs never do
//!     -- response 0x43 ------------>
//!     <-------------- outcome 0x44 --
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::{end_of_frame, frame_descriptor, unknown_frame};
use crate::codec::fields::{Composite, Field, composite, read_body, write_composite};
use crate::codec::read::Reader;
use crate::codec::{DecodeError, Fault, Limits, code};
use crate::text::{Symbol, Text};

/// A step of SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the types")]
pub enum SaslFrame {
    Mechanisms(SaslMechanisms),
    Init(SaslInit),
    Challenge(SaslChallenge),
    Response(SaslResponse),
    Outcome(SaslOutcome),
}

composite! {
    /// Ways to authenticate that the server offers.
    pub SaslMechanisms = 0x40, "sasl-mechanisms" {
        /// At least one.
        mechanisms: Vec<Symbol> = "sasl-server-mechanisms",
    }
}

composite! {
    /// The way that the client takes, with its first step.
    pub SaslInit = 0x41, "sasl-init" {
        /// One of the offered.
        mechanism: Symbol = "mechanism",
        /// What the mechanism wants said first.
        initial_response: Option<Secret> = "initial-response",
        /// Whom the client wants to talk to.
        hostname: Option<Text> = "hostname",
    }
}

composite! {
    /// What the server wants to know.
    pub SaslChallenge = 0x42, "sasl-challenge" {
        /// As the mechanism has it.
        challenge: Secret = "challenge",
    }
}

composite! {
    /// What the client answers.
    pub SaslResponse = 0x43, "sasl-response" {
        /// As the mechanism has it.
        response: Secret = "response",
    }
}

composite! {
    /// Whether the client is in.
    pub SaslOutcome = 0x44, "sasl-outcome" {
        /// Whether, and whether to try again.
        code: SaslCode = "code",
        /// As the mechanism has it.
        additional_data: Option<Secret> = "additional-data",
    }
}

/// Bytes that are not printed, since passwords and tokens are among them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl Field for Secret {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.binary(code).map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        Field::write(&self.0, out);
    }
}

/// How SASL ended. AMQP 1.0, part 5, 5.3.3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SaslCode {
    /// The client is in.
    Ok,
    /// Its credentials are wrong.
    Auth,
    /// The server failed.
    Sys,
    /// The server failed and will again.
    SysPerm,
    /// The server failed; try again later.
    SysTemp,
}

impl Field for SaslCode {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(match reader.ubyte(code)? {
            0 => Self::Ok,
            1 => Self::Auth,
            2 => Self::Sys,
            3 => Self::SysPerm,
            4 => Self::SysTemp,
            number => {
                return Err(Fault::NotAllowed {
                    value: u64::from(number),
                    allowed: "0 to 4",
                });
            }
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_slice(&[code::UBYTE, *self as u8]);
    }
}

impl SaslFrame {
    /// Its name in the standard.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Mechanisms(_) => SaslMechanisms::NAME,
            Self::Init(_) => SaslInit::NAME,
            Self::Challenge(_) => SaslChallenge::NAME,
            Self::Response(_) => SaslResponse::NAME,
            Self::Outcome(_) => SaslOutcome::NAME,
        }
    }

    /// Reads the body of a frame of SASL.
    ///
    /// # Errors
    /// A [`DecodeError`].
    pub fn decode(body: &Bytes, limits: Limits) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, limits);
        let frame = match frame_descriptor(&mut reader)? {
            SaslMechanisms::DESCRIPTOR => Self::Mechanisms(read_body(&mut reader)?),
            SaslInit::DESCRIPTOR => Self::Init(read_body(&mut reader)?),
            SaslChallenge::DESCRIPTOR => Self::Challenge(read_body(&mut reader)?),
            SaslResponse::DESCRIPTOR => Self::Response(read_body(&mut reader)?),
            SaslOutcome::DESCRIPTOR => Self::Outcome(read_body(&mut reader)?),
            _ => return Err(unknown_frame()),
        };
        end_of_frame(&reader, frame.name())?;
        Ok(frame)
    }

    /// Appends the frame's body.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Mechanisms(mechanisms) => write_composite(mechanisms, out),
            Self::Init(init) => write_composite(init, out),
            Self::Challenge(challenge) => write_composite(challenge, out),
            Self::Response(response) => write_composite(response, out),
            Self::Outcome(outcome) => write_composite(outcome, out),
        }
    }
}
