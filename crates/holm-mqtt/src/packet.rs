//! The fourteen packets of MQTT 3.1.1 as values. A value that the standard forbids can mostly not be written down: a
//! packet identifier is never zero, a message of QoS 0 has none, a password needs a user name.
//!
//! ```text
//!   byte 1          byte 2…5            then
//!   type | flags    remaining length    variable header, payload        2.2
//!   7..4   3..0     1–4 × 7 bits
//! ```
//!
//! Topics and payloads are slices of the input buffer: nothing is copied. Topics and filters are *not* checked for
//! wildcards: ids of devices may hold `+` and `#` (`hub-device-protocols.md` §2.2), what a topic means is the
//! application's business.

use std::fmt;
use std::num::NonZeroU16;

use bytes::Bytes;

use crate::text::Text;

mod connect;

pub use connect::{Connack, Connect, Credentials, Refusal, Version, Will};

/// Any packet. Source: 2.2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `| 0x10 | len | … |` client to server, the first packet. 3.1.
    Connect(Box<Connect>),
    /// `| 0x20 | 2 | session present | code |` server to client, the first packet. 3.2.
    Connack(Connack),
    /// `| 0x3_ | len | topic | id (QoS > 0) | payload |` both ways. 3.3.
    Publish(Publish),
    /// `| 0x40 | 2 | id |` answer to a publish of QoS 1. 3.4.
    Puback(PacketId),
    /// `| 0x50 | 2 | id |` QoS 2, first answer. 3.5.
    Pubrec(PacketId),
    /// `| 0x62 | 2 | id |` QoS 2, release. 3.6.
    Pubrel(PacketId),
    /// `| 0x70 | 2 | id |` QoS 2, end. 3.7.
    Pubcomp(PacketId),
    /// `| 0x82 | len | id | (filter | qos)+ |` client to server. 3.8.
    Subscribe(Subscribe),
    /// `| 0x90 | len | id | code+ |` server to client. 3.9.
    Suback(Suback),
    /// `| 0xA2 | len | id | filter+ |` client to server. 3.10.
    Unsubscribe(Unsubscribe),
    /// `| 0xB0 | 2 | id |` server to client. 3.11.
    Unsuback(PacketId),
    /// `| 0xC0 | 0 |` client to server. 3.12.
    Pingreq,
    /// `| 0xD0 | 0 |` server to client. 3.13.
    Pingresp,
    /// `| 0xE0 | 0 |` client to server, the last packet: the will is dropped. 3.14.
    Disconnect,
}

impl Packet {
    /// The type of the packet.
    #[must_use]
    pub fn kind(&self) -> PacketKind {
        match self {
            Self::Connect(_) => PacketKind::Connect,
            Self::Connack(_) => PacketKind::Connack,
            Self::Publish(_) => PacketKind::Publish,
            Self::Puback(_) => PacketKind::Puback,
            Self::Pubrec(_) => PacketKind::Pubrec,
            Self::Pubrel(_) => PacketKind::Pubrel,
            Self::Pubcomp(_) => PacketKind::Pubcomp,
            Self::Subscribe(_) => PacketKind::Subscribe,
            Self::Suback(_) => PacketKind::Suback,
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
            Self::Unsuback(_) => PacketKind::Unsuback,
            Self::Pingreq => PacketKind::Pingreq,
            Self::Pingresp => PacketKind::Pingresp,
            Self::Disconnect => PacketKind::Disconnect,
        }
    }
}

/// The type of a packet, without what it holds; prints as in the standard, `PUBLISH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are those of `Packet`")]
pub enum PacketKind {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
}

impl PacketKind {
    /// The type for the high four bits of a packet's first byte; none for the reserved 0 and 15.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            _ => return None,
        })
    }

    /// The only flags that a packet of this type may have, none for PUBLISH, whose flags say something. 2.2.2.
    pub(crate) fn fixed_flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    /// The name as the standard writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connack => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Puback => "PUBACK",
            Self::Pubrec => "PUBREC",
            Self::Pubrel => "PUBREL",
            Self::Pubcomp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::Suback => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Unsuback => "UNSUBACK",
            Self::Pingreq => "PINGREQ",
            Self::Pingresp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
        }
    }
}

impl fmt::Display for PacketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Quality of service: how often a message may arrive. 4.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// 0: at most once, without acknowledgement.
    #[default]
    AtMostOnce = 0,
    /// 1: at least once, acknowledged by PUBACK.
    AtLeastOnce = 1,
    /// 2: exactly once. The codec knows it, sessions refuse it.
    ExactlyOnce = 2,
}

impl Qos {
    /// The quality of service for its number on the wire, 0 to 2.
    pub(crate) fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// The identifier of a packet that wants an answer: 1 to 65,535, unique among those of one sender that wait. 2.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(pub NonZeroU16);

impl PacketId {
    /// The identifier of that number, none for 0.
    #[must_use]
    pub fn new(number: u16) -> Option<Self> {
        NonZeroU16::new(number).map(Self)
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// PUBLISH: a message. 3.3.
///
/// ```text
///   | 0 0 1 1 | dup | qos qos | retain |   remaining length
///   | topic: length 2, UTF-8 |   | packet id 2, only QoS 1 and 2 |   | payload, the rest |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where the message goes; never empty on the wire.
    pub topic: Text,
    /// What it says; any bytes, may be empty.
    pub payload: Bytes,
    /// The retain flag.
    pub retain: bool,
    /// The quality of service with what it needs.
    pub delivery: Delivery,
}

/// The quality of service of a PUBLISH, with the identifier and the DUP flag that only QoS 1 and 2 have. 3.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// The identifier that the PUBACK names.
        id: PacketId,
        /// Whether it may have been sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// The identifier that the PUBREC names.
        id: PacketId,
        /// Whether it may have been sent before.
        dup: bool,
    },
}

/// SUBSCRIBE: filters of topics that the client wants. 3.8.
///
/// ```text
///   | 1 0 0 0 | 0 0 1 0 |  remaining length   | packet id 2 |   then 1 or more:  | filter: length 2, UTF-8 | 0…0 qos qos |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The identifier that the SUBACK names.
    pub id: PacketId,
    /// One to [`MAX_FILTERS`](crate::codec::MAX_FILTERS) filters, in the order given.
    pub filters: Vec<Subscription>,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter of topics; never empty on the wire.
    pub filter: Text,
    /// The highest quality of service at which the client wants messages.
    pub qos: Qos,
}

/// SUBACK: what became of the filters of a SUBSCRIBE. 3.9.
///
/// ```text
///   | 1 0 0 1 | 0 0 0 0 |  remaining length   | packet id 2 |   | one code a filter, in their order |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback {
    /// The identifier of the SUBSCRIBE.
    pub id: PacketId,
    /// One code for each filter, in the order of the SUBSCRIBE.
    pub granted: Vec<Granted>,
}

/// What became of one filter. 3.9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// Codes 0 to 2: messages come with at most this quality of service.
    Qos(Qos),
    /// Code 0x80: refused.
    Failure,
}

/// UNSUBSCRIBE: filters that the client no longer wants. 3.10.
///
/// ```text
///   | 1 0 1 0 | 0 0 1 0 |  remaining length   | packet id 2 |   then 1 or more:  | filter: length 2, UTF-8 |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The identifier that the UNSUBACK names.
    pub id: PacketId,
    /// One to [`MAX_FILTERS`](crate::codec::MAX_FILTERS) filters.
    pub filters: Vec<Text>,
}
