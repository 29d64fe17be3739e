//! Fields within a body: numbers of variable length (LEB128, seven bits a byte, lowest first) and text.

use std::ops::Range;

use bytes::BufMut;

use crate::lane::LaneId;
use crate::ranges::Ranges;

/// Beyond any position that is ever given out: a million a second take 142 years to get there.
pub(crate) const MAX_POSITION: u64 = 1 << 52;

/// Writes a number in as few bytes as it needs, at most ten.
pub(crate) fn put_number(buffer: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        buffer.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    buffer.put_u8((number & 0x7f) as u8);
}

/// Writes a text with its length before it.
pub(crate) fn put_text(buffer: &mut impl BufMut, text: &str) {
    put_number(buffer, text.len() as u64);
    buffer.put_slice(text.as_bytes());
}

/// Writes ranges as count, then for each its distance from the end of the one before, and its length.
pub(crate) fn put_ranges(buffer: &mut impl BufMut, from: u64, ranges: impl Iterator<Item = Range<u64>> + Clone) {
    put_number(buffer, ranges.clone().count() as u64);
    let mut at = from;
    for range in ranges {
        put_number(buffer, range.start - at);
        put_number(buffer, range.end - range.start);
        at = range.end;
    }
}

/// Reads fields one behind the other. Each answer is `None` when the bytes do not hold such a field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// A position, or a count of positions or bytes; `None` at [`MAX_POSITION`] or above, so that sums need no care.
    pub(crate) fn position(&mut self) -> Option<u64> {
        self.number().filter(|&number| number < MAX_POSITION)
    }

    pub(crate) fn number_u32(&mut self) -> Option<u32> {
        self.number().and_then(|number| u32::try_from(number).ok())
    }

    pub(crate) fn lane(&mut self) -> Option<LaneId> {
        self.number_u32().map(LaneId)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (fixed, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*fixed)
    }

    pub(crate) fn fixed_u32(&mut self) -> Option<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(crate) fn fixed_u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let count = self.number()?;
        std::str::from_utf8(self.bytes(count)?).ok()
    }

    /// Reads what [`put_ranges`] wrote; memory grows with the bytes read, not with the count claimed.
    pub(crate) fn ranges(&mut self, from: u64) -> Option<Ranges> {
        let mut ranges = Ranges::default();
        let mut at = from;
        for _ in 0..self.number()? {
            let start = at + self.position()?;
            let end = start + self.position()?;
            if end >= MAX_POSITION {
                return None;
            }
            ranges.insert(start..end);
            at = end;
        }
        Some(ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn number_reads_back_as_written(number: u64, shift in 0u32..64) {
            let number = number >> shift;
            let mut bytes = Vec::new();

            put_number(&mut bytes, number);

            let mut fields = Fields::new(&bytes);
            prop_assert_eq!(fields.number(), Some(number));
            prop_assert!(fields.rest().is_empty());
        }

        #[test]
        fn any_bytes_are_a_number_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut fields = Fields::new(&bytes);

            let number = fields.number();

            prop_assert!(number.is_some() || bytes.len() < 10 || bytes.iter().take(9).all(|byte| byte & 0x80 != 0));
        }
    }
}
