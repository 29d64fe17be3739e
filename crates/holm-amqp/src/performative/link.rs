//! Attach and detach.

use bytes::{BufMut, BytesMut};

use super::{Source, Target};
use crate::codec::fields::{Field, composite};
use crate::codec::read::Reader;
use crate::codec::{Fault, code, write};
use crate::condition::AmqpError;
use crate::map::{Fields, Map};
use crate::text::{Symbol, Text};
use crate::value::Value;

composite! {
    /// Opens one direction of a link. AMQP 1.0, part 2, 2.7.3.
    pub Attach = 0x12, "attach" {
        /// What both ends call the link.
        name: Text = "name",
        /// What the sender's frames call it.
        handle: u32 = "handle",
        /// Whether the one who attaches sends or receives.
        role: Role = "role",
        /// How the link's sender settles.
        snd_settle_mode: SenderSettleMode = "snd-settle-mode" or SenderSettleMode::Mixed,
        /// How the link's receiver settles.
        rcv_settle_mode: ReceiverSettleMode = "rcv-settle-mode" or ReceiverSettleMode::First,
        /// Where messages come from.
        source: Option<Box<Source>> = "source",
        /// Where messages go to.
        target: Option<Box<Target>> = "target",
        /// Deliveries that were not settled when the link was lost. Links are not resumed here: it is read over.
        unsettled: Option<UnsettledMap> = "unsettled",
        /// Whether `unsettled` is cut short.
        incomplete_unsettled: bool = "incomplete-unsettled" or false,
        /// The sender's count of deliveries; mandatory from a sender, without a meaning from a receiver.
        initial_delivery_count: Option<u32> = "initial-delivery-count",
        /// The largest message that the one who attaches takes, in bytes; none or 0 for any.
        max_message_size: Option<u64> = "max-message-size",
        /// Extensions that the sender of the frame has.
        offered_capabilities: Vec<Symbol> = "offered-capabilities",
        /// Extensions that the sender of the frame would use.
        desired_capabilities: Vec<Symbol> = "desired-capabilities",
        /// More about the link.
        properties: Fields = "properties",
    }
}

composite! {
    /// Closes one direction of a link. AMQP 1.0, part 2, 2.7.7.
    pub Detach = 0x16, "detach" {
        /// What the sender's frames called it.
        handle: u32 = "handle",
        /// Whether the link ends, rather than may be resumed.
        closed: bool = "closed" or false,
        /// Why, if not in order.
        error: Option<Box<AmqpError>> = "error",
    }
}

/// Deliveries by their tag, with their state or null; nothing here wants to know more of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnsettledMap(Vec<(Value, Value)>);

impl Field for UnsettledMap {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        reader.pairs(code, Reader::value).map(Self)
    }

    fn write(&self, out: &mut BytesMut) {
        write::value(&Value::Map(self.0.clone()), out);
    }
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The end that sends messages.
    Sender,
    /// The end that receives messages.
    Receiver,
}

impl Role {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }
}

impl Field for Role {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        Ok(if reader.boolean(code)? {
            Self::Receiver
        } else {
            Self::Sender
        })
    }

    fn write(&self, out: &mut BytesMut) {
        write::boolean(*self == Self::Receiver, out);
    }
}

/// How the sender of a link settles. AMQP 1.0, part 2, 2.8.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SenderSettleMode {
    /// Every delivery waits for the receiver's outcome.
    Unsettled,
    /// No delivery does.
    Settled,
    /// Each as the sender likes.
    #[default]
    Mixed,
}

/// How the receiver of a link settles. AMQP 1.0, part 2, 2.8.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReceiverSettleMode {
    /// With its outcome.
    #[default]
    First,
    /// After the sender has settled.
    Second,
}

/// A field that is a number with names: the names in the order of the numbers.
macro_rules! named_ubyte {
    ($type:ty, $allowed:literal, [$($variant:path),*]) => {
        impl Field for $type {
            fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
                let number = reader.ubyte(code)?;
                let all = [$($variant),*];
                all.get(usize::from(number)).copied().ok_or(Fault::NotAllowed {
                    value: u64::from(number),
                    allowed: $allowed,
                })
            }

            fn write(&self, out: &mut BytesMut) {
                out.put_slice(&[code::UBYTE, *self as u8]);
            }
        }
    };
}

named_ubyte!(
    SenderSettleMode,
    "0 for unsettled, 1 for settled or 2 for mixed",
    [
        SenderSettleMode::Unsettled,
        SenderSettleMode::Settled,
        SenderSettleMode::Mixed
    ]
);
named_ubyte!(
    ReceiverSettleMode,
    "0 for first or 1 for second",
    [ReceiverSettleMode::First, ReceiverSettleMode::Second]
);

impl Attach {
    /// An attach with neither source nor target, without properties.
    #[must_use]
    pub const fn new(name: Text, handle: u32, role: Role) -> Self {
        Self {
            name,
            handle,
            role,
            snd_settle_mode: SenderSettleMode::Mixed,
            rcv_settle_mode: ReceiverSettleMode::First,
            source: None,
            target: None,
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: match role {
                Role::Sender => Some(0),
                Role::Receiver => None,
            },
            max_message_size: None,
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties: Map::new(),
        }
    }
}
