//! Why bytes are no value, and which field of what that was.

use thiserror::Error;

use crate::value::Kind;

/// A field that is not what AMQP 1.0 says. Its published condition is `amqp:decode-error`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the `{field}` of `{of}` {fault}")]
pub struct DecodeError {
    /// The performative, section or structure.
    pub of: &'static str,
    /// Its field, by the name in the standard.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a value. The texts go on from "the field".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A length goes beyond the frame or the compound that it stands in.
    #[error("is longer than what it stands in; make sizes and lengths agree")]
    Truncated,
    /// Bytes follow where nothing should.
    #[error("has {0} bytes after its end; make sizes and counts agree")]
    TrailingBytes(usize),
    /// A size and a count that contradict each other.
    #[error("does not end where its size says; make size and count agree")]
    SizeMismatch,
    /// A byte that is no constructor.
    #[error("begins with {0:#04x}, which is no constructor of AMQP 1.0")]
    UnknownConstructor(u8),
    /// Another type than the standard's.
    #[error("is of type {found}; send {expected}")]
    WrongType {
        /// The type or types that may stand here.
        expected: &'static str,
        /// The type that does.
        found: Kind,
    },
    /// A mandatory field that is null or left out.
    #[error("is missing; it is mandatory")]
    Missing,
    /// More fields than the standard has.
    #[error("is one of {count} fields; send at most {limit}")]
    TooManyFields {
        /// How many there are.
        count: usize,
        /// How many the standard has.
        limit: usize,
    },
    /// A string that is not UTF-8.
    #[error("is not UTF-8; send UTF-8")]
    NotUtf8,
    /// A symbol that is not ASCII.
    #[error("is not ASCII; send ASCII")]
    NotAscii,
    /// A char that is no Unicode character.
    #[error("is {0:#x}, which is no Unicode character")]
    NotAChar(u32),
    /// A boolean of one byte that is neither 0 nor 1.
    #[error("is the boolean {0:#04x}; send 0 or 1")]
    NotABoolean(u8),
    /// A map whose count is odd.
    #[error("is a map of {0} values, which makes no pairs")]
    OddMap(u32),
    /// Compounds in compounds beyond the limit.
    #[error("is nested deeper than {0} levels; send it flatter")]
    TooDeep(usize),
    /// More values than the limit in one frame or message.
    #[error("brings the values of this frame or message to more than {0}; send fewer")]
    TooManyValues(usize),
    /// A descriptor that is not known where only known ones make sense.
    #[error("has a descriptor that does not belong here")]
    UnknownDescriptor,
    /// A descriptor described by another one, in an array.
    #[error("is an array whose descriptor is described itself; send the values one by one")]
    DescribedDescriptor,
    /// A number that has no meaning.
    #[error("is {value}; send {allowed}")]
    NotAllowed {
        /// The number.
        value: u64,
        /// What would have a meaning.
        allowed: &'static str,
    },
    /// More bytes than the standard allows.
    #[error("has {bytes} bytes; send at most {limit}")]
    TooLong {
        /// How many there are.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// A section that comes twice, or two kinds of body.
    #[error("comes a second time, or beside another kind of body; send one")]
    Repeated,
    /// A body of a batch that is of another kind.
    #[error("is not of data; send a section of data for each message")]
    NotData,
    /// A structure in this field is wrong.
    #[error("is wrong: {0}")]
    Within(Box<DecodeError>),
}

impl DecodeError {
    pub(crate) const fn new(of: &'static str, field: &'static str, fault: Fault) -> Self {
        Self { of, field, fault }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Within(Box::new(error))
    }
}
