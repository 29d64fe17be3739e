//! Encoding: the length first, then the bytes, so that nothing is written of a packet that cannot be.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use super::{MAX_FILTERS, MAX_REMAINING_LENGTH};
use crate::packet::{
    Connack, Connect, Delivery, Granted, Packet, PacketId, PacketKind, Publish, Qos, Suback, Subscribe, Unsubscribe,
};
use crate::text::Text;

/// Why a packet has no form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// More than [`MAX_REMAINING_LENGTH`] after the fixed header.
    #[error("{packet} has {bytes} bytes; MQTT carries at most 268435455: send less at a time")]
    PacketTooLarge {
        /// The packet.
        packet: PacketKind,
        /// Its bytes after the fixed header.
        bytes: usize,
    },
    /// Password or will payload over 65,535 bytes.
    #[error("the {field} has {bytes} bytes; CONNECT carries at most 65535")]
    FieldTooLong {
        /// The field.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// An empty topic or filter.
    #[error("the {field} of {packet} is empty; give at least one character")]
    EmptyField {
        /// The packet.
        packet: PacketKind,
        /// The field.
        field: &'static str,
    },
    /// A list of filters or codes that is empty or over [`MAX_FILTERS`].
    #[error("{packet} has {count} filters; give 1 to 256")]
    FilterCount {
        /// The packet.
        packet: PacketKind,
        /// How many there are.
        count: usize,
    },
}

/// Appends a packet to `out`. Several packets may share one buffer and one write.
///
/// # Errors
/// An [`EncodeError`] when the packet has no form on the wire; `out` is then as it was.
pub fn encode(packet: &Packet, out: &mut BytesMut) -> Result<(), EncodeError> {
    match packet {
        Packet::Publish(publish) => return encode_publish_packet(publish, out),
        Packet::Connect(connect) => return encode_connect(connect, out),
        Packet::Connack(connack) => encode_connack(*connack, out),
        Packet::Puback(id) => encode_answer(PacketKind::Puback, *id, out),
        Packet::Pubrec(id) => encode_answer(PacketKind::Pubrec, *id, out),
        Packet::Pubrel(id) => encode_answer(PacketKind::Pubrel, *id, out),
        Packet::Pubcomp(id) => encode_answer(PacketKind::Pubcomp, *id, out),
        Packet::Unsuback(id) => encode_answer(PacketKind::Unsuback, *id, out),
        Packet::Subscribe(subscribe) => return encode_subscribe(subscribe, out),
        Packet::Suback(suback) => return encode_suback(suback, out),
        Packet::Unsubscribe(unsubscribe) => return encode_unsubscribe(unsubscribe, out),
        Packet::Pingreq | Packet::Pingresp | Packet::Disconnect => {
            out.put_slice(&[first_byte(packet.kind()), 0]);
        }
    }
    Ok(())
}

fn encode_publish_packet(publish: &Publish, out: &mut BytesMut) -> Result<(), EncodeError> {
    let (qos, id) = match publish.delivery {
        Delivery::AtMostOnce => (Qos::AtMostOnce, None),
        Delivery::AtLeastOnce { id, dup } => (Qos::AtLeastOnce, Some((id, dup))),
        Delivery::ExactlyOnce { id, dup } => (Qos::ExactlyOnce, Some((id, dup))),
    };
    encode_publish(&publish.topic, &publish.payload, publish.retain, qos, id, out)
}

/// Appends a PUBLISH from its parts, so that a session need not build a [`Publish`]. `id` comes with the DUP flag and is
/// there when `qos` is not 0.
pub(crate) fn encode_publish(
    topic: &Text,
    payload: &[u8],
    retain: bool,
    qos: Qos,
    id: Option<(PacketId, bool)>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    check_filled(PacketKind::Publish, "topic", topic)?;
    let id_bytes = if id.is_some() { 2 } else { 0 };
    let remaining = [2, topic.len(), id_bytes, payload.len()]
        .into_iter()
        .fold(0, usize::saturating_add);
    let dup = id.is_some_and(|(_, dup)| dup);
    let flags = u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain);
    put_header(PacketKind::Publish, flags, remaining, out)?;
    put_text(topic, out);
    if let Some((id, _)) = id {
        out.put_u16(id.get());
    }
    out.put_slice(payload);
    Ok(())
}

fn encode_connect(connect: &Connect, out: &mut BytesMut) -> Result<(), EncodeError> {
    let (name, level) = connect.version.to_wire();
    let mut flags = u8::from(connect.clean_session) << 1;
    let mut remaining = 2 + name.len() + 4 + 2 + connect.client_id.len();
    if let Some(will) = &connect.will {
        check_filled(PacketKind::Connect, "will topic", &will.topic)?;
        check_length("will payload", &will.payload)?;
        flags |= 0b100 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        remaining += 2 + will.topic.len() + 2 + will.payload.len();
    }
    if let Some(credentials) = &connect.credentials {
        flags |= 0b1000_0000;
        remaining += 2 + credentials.user_name.len();
        if let Some(password) = &credentials.password {
            check_length("password", password)?;
            flags |= 0b0100_0000;
            remaining += 2 + password.len();
        }
    }

    put_header(PacketKind::Connect, 0, remaining, out)?;
    put_bytes(name, out);
    out.put_slice(&[level, flags]);
    out.put_u16(connect.keep_alive_seconds);
    put_text(&connect.client_id, out);
    if let Some(will) = &connect.will {
        put_text(&will.topic, out);
        put_bytes(&will.payload, out);
    }
    if let Some(credentials) = &connect.credentials {
        put_text(&credentials.user_name, out);
        if let Some(password) = &credentials.password {
            put_bytes(password, out);
        }
    }
    Ok(())
}

fn encode_connack(connack: Connack, out: &mut BytesMut) {
    let (flags, code) = match connack {
        Connack::Accepted { session_present } => (u8::from(session_present), 0),
        Connack::Refused(refusal) => (0, refusal as u8),
    };
    out.put_slice(&[first_byte(PacketKind::Connack), 2, flags, code]);
}

/// A packet that holds a packet identifier and nothing else.
fn encode_answer(kind: PacketKind, id: PacketId, out: &mut BytesMut) {
    let [high, low] = id.get().to_be_bytes();
    out.put_slice(&[first_byte(kind), 2, high, low]);
}

fn encode_subscribe(subscribe: &Subscribe, out: &mut BytesMut) -> Result<(), EncodeError> {
    check_count(PacketKind::Subscribe, subscribe.filters.len())?;
    let mut remaining = 2;
    for subscription in &subscribe.filters {
        check_filled(PacketKind::Subscribe, "filter", &subscription.filter)?;
        remaining += 2 + subscription.filter.len() + 1;
    }
    put_header(PacketKind::Subscribe, 0b0010, remaining, out)?;
    out.put_u16(subscribe.id.get());
    for subscription in &subscribe.filters {
        put_text(&subscription.filter, out);
        out.put_u8(subscription.qos as u8);
    }
    Ok(())
}

fn encode_suback(suback: &Suback, out: &mut BytesMut) -> Result<(), EncodeError> {
    check_count(PacketKind::Suback, suback.granted.len())?;
    put_header(PacketKind::Suback, 0, 2 + suback.granted.len(), out)?;
    out.put_u16(suback.id.get());
    for granted in &suback.granted {
        out.put_u8(match granted {
            Granted::Qos(qos) => *qos as u8,
            Granted::Failure => 0x80,
        });
    }
    Ok(())
}

fn encode_unsubscribe(unsubscribe: &Unsubscribe, out: &mut BytesMut) -> Result<(), EncodeError> {
    check_count(PacketKind::Unsubscribe, unsubscribe.filters.len())?;
    let mut remaining = 2;
    for filter in &unsubscribe.filters {
        check_filled(PacketKind::Unsubscribe, "filter", filter)?;
        remaining += 2 + filter.len();
    }
    put_header(PacketKind::Unsubscribe, 0b0010, remaining, out)?;
    out.put_u16(unsubscribe.id.get());
    for filter in &unsubscribe.filters {
        put_text(filter, out);
    }
    Ok(())
}

fn check_filled(packet: PacketKind, field: &'static str, text: &Text) -> Result<(), EncodeError> {
    if text.is_empty() {
        return Err(EncodeError::EmptyField { packet, field });
    }
    Ok(())
}

fn check_length(field: &'static str, bytes: &[u8]) -> Result<(), EncodeError> {
    if bytes.len() > Text::MAX_BYTES {
        return Err(EncodeError::FieldTooLong {
            field,
            bytes: bytes.len(),
        });
    }
    Ok(())
}

fn check_count(packet: PacketKind, count: usize) -> Result<(), EncodeError> {
    if count == 0 || count > MAX_FILTERS {
        return Err(EncodeError::FilterCount { packet, count });
    }
    Ok(())
}

/// The first byte of a packet other than PUBLISH.
fn first_byte(kind: PacketKind) -> u8 {
    (kind as u8) << 4 | kind.fixed_flags().unwrap_or_default()
}

/// Checks the length, makes room for the packet, and writes its fixed header.
fn put_header(kind: PacketKind, flags: u8, remaining: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    if remaining > MAX_REMAINING_LENGTH {
        return Err(EncodeError::PacketTooLarge {
            packet: kind,
            bytes: remaining,
        });
    }
    out.reserve(5 + remaining);
    let mut header = [(kind as u8) << 4 | flags, 0, 0, 0, 0];
    let mut used = 1;
    let mut rest = remaining;
    for byte in &mut header[1..] {
        let group = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        used += 1;
        *byte = if rest > 0 { group | 0x80 } else { group };
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&header[..used]);
    Ok(())
}

fn put_text(text: &Text, out: &mut BytesMut) {
    put_bytes(text.as_bytes(), out);
}

/// A length of two bytes and the bytes; they were checked to be at most 65,535.
fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_u16(u16::try_from(bytes.len()).expect("the length of a field was checked"));
    out.put_slice(bytes);
}
