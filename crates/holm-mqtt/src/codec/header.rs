//! The fixed header: type, flags and remaining length. 2.2.

use crate::packet::PacketKind;
use crate::violation::Violation;

/// A fixed header that was read and found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FixedHeader {
    /// The type.
    pub(crate) kind: PacketKind,
    /// The low four bits of the first byte; meaningful for PUBLISH only.
    pub(crate) flags: u8,
    /// The bytes of the fixed header itself, 2 to 5.
    pub(crate) header_bytes: usize,
    /// The bytes of the whole packet.
    pub(crate) packet_bytes: usize,
}

/// Reads the fixed header at the front of `input`; `None` when it has not arrived whole. Takes nothing.
#[inline]
pub(crate) fn read_header(input: &[u8], max_packet: usize) -> Result<Option<FixedHeader>, Violation> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let (bits, flags) = (first >> 4, first & 0x0f);
    let kind = PacketKind::from_bits(bits).ok_or(Violation::ReservedType(bits))?;
    if kind.fixed_flags().is_some_and(|fixed| fixed != flags) {
        return Err(Violation::ReservedFlags { packet: kind, flags });
    }
    let Some((remaining, length_bytes)) = read_remaining_length(rest, kind)? else {
        return Ok(None);
    };
    let header_bytes = 1 + length_bytes;
    let packet_bytes = header_bytes + remaining;
    if packet_bytes > max_packet {
        return Err(Violation::PacketTooLarge {
            packet: kind,
            bytes: packet_bytes,
            limit: max_packet,
        });
    }
    Ok(Some(FixedHeader {
        kind,
        flags,
        header_bytes,
        packet_bytes,
    }))
}

/// The remaining length and how many bytes said it: groups of seven bits, lowest first, the high bit for "more".
fn read_remaining_length(input: &[u8], kind: PacketKind) -> Result<Option<(usize, usize)>, Violation> {
    let mut length = 0;
    let mut shift = 0;
    for (index, byte) in input.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
        shift += 7;
    }
    if input.len() >= 4 {
        return Err(Violation::RemainingLength(kind));
    }
    Ok(None)
}
