//! Flow, transfer and disposition.

use bytes::{Bytes, BytesMut};

use super::{DeliveryState, ReceiverSettleMode, Role};
use crate::codec::fields::{Field, composite};
use crate::codec::read::Reader;
use crate::codec::{Fault, write};
use crate::map::Fields;

/// The most bytes of a delivery tag. AMQP 1.0, part 2, 2.8.7.
pub const MAX_DELIVERY_TAG: usize = 32;

/// What the sender calls a delivery: at most [`MAX_DELIVERY_TAG`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeliveryTag(Bytes);

composite! {
    /// Says how much more may come, of a session and perhaps a link. AMQP 1.0, part 2, 2.7.4.
    pub Flow = 0x13, "flow" {
        /// The number of the transfer that the sender of the frame expects next; none before it has a begin.
        next_incoming_id: Option<u32> = "next-incoming-id",
        /// How many transfers it takes at present.
        incoming_window: u32 = "incoming-window",
        /// The number of its next transfer.
        next_outgoing_id: u32 = "next-outgoing-id",
        /// How many transfers it may send at present.
        outgoing_window: u32 = "outgoing-window",
        /// The link; none when only the session is meant.
        handle: Option<u32> = "handle",
        /// The link's count of deliveries, as far as the sender of the frame knows it.
        delivery_count: Option<u32> = "delivery-count",
        /// How many deliveries the receiver takes beyond that count.
        link_credit: Option<u32> = "link-credit",
        /// How many deliveries the sender has.
        available: Option<u32> = "available",
        /// Whether credit that is not used at once shall be given back.
        drain: bool = "drain" or false,
        /// Whether an answer is wanted.
        echo: bool = "echo" or false,
        /// More about the link.
        properties: Fields = "properties",
    }
}

composite! {
    /// A delivery or a part of it; the bytes follow. AMQP 1.0, part 2, 2.7.5.
    pub Transfer = 0x14, "transfer" {
        /// The link.
        handle: u32 = "handle",
        /// The number of the delivery in its session; on the first transfer of a delivery.
        delivery_id: Option<u32> = "delivery-id",
        /// What the sender calls it; on the first transfer of a delivery.
        delivery_tag: Option<DeliveryTag> = "delivery-tag",
        /// What the bytes are; on the first transfer of a delivery.
        message_format: Option<u32> = "message-format",
        /// Whether no outcome is wanted.
        settled: Option<bool> = "settled",
        /// Whether more transfers of this delivery follow.
        more: bool = "more" or false,
        /// How the receiver shall settle it.
        rcv_settle_mode: Option<ReceiverSettleMode> = "rcv-settle-mode",
        /// How far it is for the sender.
        state: Option<DeliveryState> = "state",
        /// Whether an earlier delivery is resumed.
        resume: bool = "resume" or false,
        /// Whether the delivery is called off.
        aborted: bool = "aborted" or false,
        /// Whether the outcome may wait for others.
        batchable: bool = "batchable" or false,
    }
}

composite! {
    /// What became of deliveries. AMQP 1.0, part 2, 2.7.6.
    pub Disposition = 0x15, "disposition" {
        /// The role of the one who says it: the receiver of what it received, the sender of what it sent.
        role: Role = "role",
        /// The first delivery.
        first: u32 = "first",
        /// The last one; none when it is the first.
        last: Option<u32> = "last",
        /// Whether whoever says it forgets them.
        settled: bool = "settled" or false,
        /// How far they are.
        state: Option<DeliveryState> = "state",
        /// Whether the answer may wait for others.
        batchable: bool = "batchable" or false,
    }
}

impl DeliveryTag {
    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for DeliveryTag {
    type Error = Fault;

    fn try_from(bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() > MAX_DELIVERY_TAG {
            return Err(Fault::TooLong {
                bytes: bytes.len(),
                limit: MAX_DELIVERY_TAG,
            });
        }
        Ok(Self(bytes))
    }
}

impl From<[u8; 16]> for DeliveryTag {
    fn from(tag: [u8; 16]) -> Self {
        Self(Bytes::copy_from_slice(&tag))
    }
}

impl From<u64> for DeliveryTag {
    fn from(number: u64) -> Self {
        Self(Bytes::copy_from_slice(&number.to_be_bytes()))
    }
}

impl Field for DeliveryTag {
    fn read(code: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        Self::try_from(reader.binary(code)?)
    }

    fn write(&self, out: &mut BytesMut) {
        write::binary(&self.0, out);
    }
}
