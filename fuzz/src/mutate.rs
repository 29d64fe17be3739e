//! Inputs from examples: number *n* of a seed is a pure function of both.

/// A small generator (SplitMix64): enough to choose with, the same everywhere, no dependency.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The generator of an input.
    #[must_use]
    pub const fn new(seed: u64, number: u64) -> Self {
        Self(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

/// The longest input: longer ones find little and take long.
const MAX_INPUT: usize = 64 * 1024;

/// Bytes at which parsers change their mind.
const TURNING: &[u8] = &[
    0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'/', b'{', b'}', b'[', b']', b'%', b'&', b'=', b'$', b'\n', b' ',
];

/// Pieces that parsers of ours know; whole ones find more than single bytes.
const WORDS: &[&[u8]] = &[
    b"%24.",
    b"%2F",
    b"%",
    b"&",
    b"=",
    b"?",
    b"$rid=",
    b"$version",
    b"devices/",
    b"/modules/",
    b"/messages/events/",
    b"$iothub/twin/",
    b"\xff\xff\xff\x7f",
    b"\x00\x04MQTT\x04",
    b"{}",
    b"[]",
    b"null",
    b"1e999",
    b"-0",
    b"\\u0000",
    b"\xc3\xa9",
    b"FROM ",
    b" WHERE ",
    b" INTO ",
    b"$upstream",
    b"AND",
    b"NOT ",
    b"((((",
    b"BrokeredEndpoint(\"",
    b"$body.",
    b"'",
    b"SharedAccessSignature ",
    b"sr=",
    b"&sig=",
    b"&se=",
    b"HostName=",
    b";",
    b"\"properties.desired\"",
    b"createOptions",
    b"AMQP\x00\x01\x00\x00",
    b"AMQP\x03\x01\x00\x00",
    b"\x00\x53\x12",
    b"\x00\x53\x13",
    b"\x00\x53\x14",
    b"\x00\x53\x15",
    b"\x00\x53\x16",
    b"\x00\x53\x17",
    b"\x00\x53\x75\xa0",
    b"\x00\x53\x77",
    b"\x00\x80\x00\x00\x46\x8c\x00\x00\x00\x04",
    b"\xd0\x00\x00\x00\x04\xff\xff\xff\xff",
    b"\xf0\x00\x00\x00\x05\x00\x00\xff\xff\x40",
    b"\xc1\x03\x02\x43\x43",
];

/// Makes input `number` of `seed` from the examples.
#[must_use]
pub fn input(seed: u64, number: u64, examples: &[Vec<u8>]) -> Vec<u8> {
    let mut chance = Chance::new(seed, number);
    let mut input = examples.get(chance.below(examples.len())).cloned().unwrap_or_default();
    for _ in 0..=chance.below(6) {
        change(&mut input, &mut chance, examples);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(input: &mut Vec<u8>, chance: &mut Chance, examples: &[Vec<u8>]) {
    let at = chance.below(input.len() + 1);
    let end = (at + chance.below(32)).min(input.len());
    match chance.below(9) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => set(input, at, |byte, chance| byte ^ (1 << chance.below(8)), chance),
        3 => set(input, at, |_, chance| chance.byte(), chance),
        4 => set(
            input,
            at,
            |_, chance| TURNING.get(chance.below(TURNING.len())).copied().unwrap_or(0),
            chance,
        ),
        5 => {
            let word = WORDS.get(chance.below(WORDS.len())).copied().unwrap_or_default();
            input.splice(at..at, word.iter().copied());
        }
        6 => {
            let piece: Vec<u8> = input.get(at..end).unwrap_or_default().to_vec();
            for _ in 0..=chance.below(40) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        7 => {
            let other = examples
                .get(chance.below(examples.len()))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let from = chance.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        _ => {
            let byte = chance.byte();
            let count = chance.below(4096);
            input.splice(at..at, std::iter::repeat_n(byte, count));
        }
    }
}

fn set(input: &mut [u8], at: usize, new: impl Fn(u8, &mut Chance) -> u8, chance: &mut Chance) {
    if let Some(byte) = input.get_mut(at) {
        *byte = new(*byte, chance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_made_again_from_its_two_numbers() {
        let examples = [b"one example".to_vec(), b"another".to_vec()];

        let inputs: Vec<Vec<u8>> = (0..200).map(|number| input(7, number, &examples)).collect();

        assert_eq!(inputs[42], input(7, 42, &examples));
        assert_ne!(inputs[42], input(8, 42, &examples));
        let distinct: std::collections::BTreeSet<_> = inputs.iter().collect();
        assert!(distinct.len() > 150, "{}", distinct.len());
    }
}
