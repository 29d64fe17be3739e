//! What a peer may do wrong, one variant a rule. Every violation ends the connection: MQTT 3.1.1 has no error packet, so
//! the text is for the log of the side that noticed it.

use thiserror::Error;

use crate::packet::{PacketId, PacketKind};

/// A breach of MQTT 3.1.1, or of a limit of this side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Types 0 and 15. 2.2.1.
    #[error("packet type {0} is reserved; send one of the 14 types of MQTT 3.1.1")]
    ReservedType(u8),
    /// MQTT-2.2.2-2.
    #[error(
        "{packet} has the flags {flags:#06b} in its first byte, which are reserved; send those of MQTT 3.1.1, 2.2.2"
    )]
    ReservedFlags {
        /// The packet.
        packet: PacketKind,
        /// The low four bits of its first byte.
        flags: u8,
    },
    /// 2.2.3.
    #[error("the remaining length of {0} runs over four bytes; send at most 268435455 as four groups of seven bits")]
    RemainingLength(PacketKind),
    /// Said by the fixed header, before the rest is read.
    #[error("{packet} has {bytes} bytes with its header; at most {limit} are accepted: send less at a time")]
    PacketTooLarge {
        /// The packet.
        packet: PacketKind,
        /// Its size with the fixed header.
        bytes: usize,
        /// The size accepted.
        limit: usize,
    },
    /// The packet ends within a field.
    #[error("{packet} ends before the end of its {field}; make its lengths agree")]
    Truncated {
        /// The packet.
        packet: PacketKind,
        /// The field.
        field: &'static str,
    },
    /// The packet goes on after its last field.
    #[error("{packet} has {bytes} bytes after its last field; make its lengths agree")]
    TrailingBytes {
        /// The packet.
        packet: PacketKind,
        /// How many.
        bytes: usize,
    },
    /// MQTT-1.5.3-1.
    #[error("the {field} of {packet} is not UTF-8; send UTF-8")]
    NotUtf8 {
        /// The packet.
        packet: PacketKind,
        /// The field.
        field: &'static str,
    },
    /// MQTT-1.5.3-2.
    #[error("the {field} of {packet} holds the character U+0000; leave it out")]
    NullCharacter {
        /// The packet.
        packet: PacketKind,
        /// The field.
        field: &'static str,
    },
    /// MQTT-4.7.3-1.
    #[error("the {field} of {packet} is empty; give at least one character")]
    EmptyField {
        /// The packet.
        packet: PacketKind,
        /// The field.
        field: &'static str,
    },
    /// MQTT-2.3.1-1.
    #[error("{0} has the packet id 0; send 1 to 65535")]
    PacketIdZero(PacketKind),
    /// MQTT-3.3.1-4, MQTT-3.1.2-14, MQTT-3.8.3-4.
    #[error("{packet} asks for a quality of service {value}; send 0, 1 or 2")]
    InvalidQos {
        /// The packet.
        packet: PacketKind,
        /// The byte or bits that should say it.
        value: u8,
    },
    /// MQTT-3.3.1-2.
    #[error("PUBLISH has DUP set at QoS 0; set it only on a message that is sent again")]
    DupAtMostOnce,
    /// Neither `MQTT` nor its predecessor `MQIsdp`. 3.1.2.1.
    #[error("CONNECT names another protocol than `MQTT`; is this an MQTT client?")]
    ProtocolName,
    /// Answered with CONNACK 1. MQTT-3.1.2-2.
    #[error(
        "CONNECT asks for protocol level {0}; only 4, MQTT 3.1.1, is spoken here: choose that version in the client"
    )]
    ProtocolLevel(u8),
    /// MQTT-3.1.2-3, -11, -13, -15, -22.
    #[error("CONNECT has the flags {flags:#010b}: {rule}")]
    ConnectFlags {
        /// The byte.
        flags: u8,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// 3.2.2.
    #[error(
        "CONNACK has flags {flags:#04x} and return code {code}; expected flags 0 or 1 and code 0 to 5, 0 for both after a refusal"
    )]
    ConnackCode {
        /// The first byte.
        flags: u8,
        /// The second.
        code: u8,
    },
    /// MQTT-3.9.3-2.
    #[error("SUBACK has the code {0:#04x}; send 0, 1, 2 or 0x80")]
    SubackCode(u8),
    /// MQTT-3.8.3-3, MQTT-3.10.3-2.
    #[error("{0} has no filter; give at least one")]
    NoFilters(PacketKind),
    /// A limit of ours.
    #[error("{packet} has more than {limit} filters; send several packets")]
    TooManyFilters {
        /// The packet.
        packet: PacketKind,
        /// The most accepted.
        limit: usize,
    },

    /// MQTT-3.1.0-1.
    #[error("the first packet is {0}; a client begins with CONNECT")]
    NotConnect(PacketKind),
    /// MQTT-3.1.0-2.
    #[error("a second CONNECT came on one connection; open another connection for another session")]
    SecondConnect,
    /// MQTT-3.1.3-8. Answered with CONNACK 2.
    #[error("CONNECT has an empty client id and keeps its session; give a client id")]
    EmptyClientId,
    /// A packet that the peer's role never sends, or not now.
    #[error("{0} came from a peer that may not send it now")]
    Unexpected(PacketKind),
    /// QoS 2 is not offered. `hub-device-protocols.md` §2.1.
    #[error("a message was published at QoS 2, which is not supported; use QoS 1 or 0")]
    ExactlyOnce,
    /// MQTT-2.3.1-2.
    #[error("packet id {0} was used again before its acknowledgement, without DUP; use ids that are free")]
    PacketIdInUse(PacketId),
    /// MQTT-3.9.3-1.
    #[error("SUBACK or UNSUBACK for packet id {0} answers nothing that was asked, or with another number of codes")]
    UnaskedAnswer(PacketId),
    /// The driver goes on reading although [`wants_input`](crate::Session::wants_input) says no.
    #[error(
        "{bytes} bytes wait to be handled, more than the {limit} allowed; stop reading while the session wants no input"
    )]
    InputOverflow {
        /// How many wait.
        bytes: usize,
        /// How many may.
        limit: usize,
    },
}
