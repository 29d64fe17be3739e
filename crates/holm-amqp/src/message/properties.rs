//! Header and properties of a message, and its ids. AMQP 1.0, part 3, 3.2.1 and 3.2.4.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::codec::fields::{Field, composite};
use crate::codec::read::{Reader, wrong};
use crate::codec::{Fault, code, write};
use crate::text::{Symbol, Text};
use crate::value::{Kind, Timestamp, Value};

composite! {
    /// How a message shall be carried. AMQP 1.0, part 3, 3.2.1.
    pub Header = 0x70, "header" {
        /// Whether it may not be lost.
        durable: bool = "durable" or false,
        /// Its importance; 4 is usual.
        priority: u8 = "priority" or 4,
        /// How many milliseconds it is of use; none for ever.
        ttl: Option<u32> = "ttl",
        /// Whether nobody can have got it before.
        first_acquirer: bool = "first-acquirer" or false,
        /// How often it was delivered in vain.
        delivery_count: u32 = "delivery-count" or 0,
    }
}

composite! {
    /// The standard's properties of a message. AMQP 1.0, part 3, 3.2.4.
    #[derive(Default)]
    pub Properties = 0x73, "properties" {
        /// What its sender calls it.
        message_id: Option<MessageId> = "message-id",
        /// Who is responsible for it.
        user_id: Option<Bytes> = "user-id",
        /// The node that it is for.
        to: Option<Text> = "to",
        /// What it is about.
        subject: Option<Text> = "subject",
        /// The node that an answer goes to.
        reply_to: Option<Text> = "reply-to",
        /// The message that it belongs to.
        correlation_id: Option<MessageId> = "correlation-id",
        /// The media type of its body.
        content_type: Option<Symbol> = "content-type",
        /// The encoding of its body.
        content_encoding: Option<Symbol> = "content-encoding",
        /// When it is of no more use.
        absolute_expiry_time: Option<Timestamp> = "absolute-expiry-time",
        /// When it was made.
        creation_time: Option<Timestamp> = "creation-time",
        /// The group that it belongs to.
        group_id: Option<Text> = "group-id",
        /// Its place in the group.
        group_sequence: Option<u32> = "group-sequence",
        /// The group of an answer.
        reply_to_group_id: Option<Text> = "reply-to-group-id",
    }
}

impl Default for Header {
    fn default() -> Self {
        Self {
            durable: false,
            priority: 4,
            ttl: None,
            first_acquirer: false,
            delivery_count: 0,
        }
    }
}

/// An id of a message, of one of four types. It is kept as it came: clients look for their own type and value in the answer
/// (`libraries.md`, AMQP fact 5). AMQP 1.0, part 3, 3.2.11 to 3.2.14.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessageId {
    /// A number.
    Ulong(u64),
    /// A UUID, in network order.
    Uuid([u8; 16]),
    /// Any bytes.
    Binary(Bytes),
    /// A string.
    String(Text),
}

/// The text form of an id, by which those of different types are compared: a UUID as RFC 4122 writes it, in lower case,
/// bytes in hexadecimal.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ulong(number) => write!(f, "{number}"),
            Self::Uuid(uuid) => {
                for (index, byte) in uuid.iter().enumerate() {
                    let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
            Self::Binary(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::String(text) => f.write_str(text.as_str()),
        }
    }
}

impl From<&str> for MessageId {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<MessageId> for Value {
    fn from(id: MessageId) -> Self {
        match id {
            MessageId::Ulong(number) => Self::Ulong(number),
            MessageId::Uuid(uuid) => Self::Uuid(uuid),
            MessageId::Binary(bytes) => Self::Binary(bytes),
            MessageId::String(text) => Self::String(text),
        }
    }
}

impl Field for MessageId {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        match code::kind(code) {
            Some(Kind::Ulong) => reader.ulong(code).map(Self::Ulong),
            Some(Kind::Uuid) => reader.uuid(code).map(Self::Uuid),
            Some(Kind::Binary) => reader.binary(code).map(Self::Binary),
            Some(Kind::String) => reader.text(code).map(Self::String),
            _ => Err(wrong("ulong, uuid, binary or string", code)),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Ulong(number) => write::ulong(*number, out),
            Self::Uuid(uuid) => write::value(&Value::Uuid(*uuid), out),
            Self::Binary(bytes) => write::binary(bytes, out),
            Self::String(text) => write::string(text.as_bytes(), out),
        }
    }
}
