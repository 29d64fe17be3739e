//! Keys of NATS: an Ed25519 key in base32, with what it is for and a checksum.
//!
//! ```text
//! seed        base32( 10010 | kind, 5 bits | 0 … | 32 bytes | CRC-16, little endian )      S, then U for a user
//! public key  base32( kind << 3 | 32 bytes | CRC-16 )                                      U…
//! ```
//!
//! Base32 is that of RFC 4648 without padding, the CRC that of XMODEM. Source: the format of `nkeys`.

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// The kind of a seed, in the upper five bits.
const SEED: u8 = 18 << 3;
/// The kind of a user, as that of a public key.
const USER: u8 = 20 << 3;

/// A user's key. It does not print.
pub(super) struct UserKey(Ed25519KeyPair);

impl UserKey {
    /// Reads a seed.
    ///
    /// # Errors
    /// What is wrong with it; the seed is not part of that.
    pub(super) fn from_seed(text: &str) -> Result<Self, &'static str> {
        let raw = Zeroizing::new(decode(text.trim()).ok_or("is no seed of an nkey: it is not base32")?);
        let Some((body, sum)) = raw.split_last_chunk::<2>() else {
            return Err("is no seed of an nkey: it is too short");
        };
        if crc16(body).to_le_bytes() != *sum {
            return Err("is no seed of an nkey: its checksum is wrong; copy it whole");
        }
        let ([first, second], key) = body
            .split_first_chunk::<2>()
            .ok_or("is no seed of an nkey: it is too short")?;
        if first & 0b1111_1000 != SEED {
            return Err("is a public nkey; give the seed, which begins with `SU`");
        }
        if (first & 0b111) << 5 | (second & 0b1111_1000) >> 3 != USER {
            return Err("is the seed of another kind of nkey; give that of a user, which begins with `SU`");
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(key);
        pair.map(Self).map_err(|_| "is no seed of an nkey: its length is wrong")
    }

    /// What servers know the user by.
    pub(super) fn public(&self) -> String {
        let mut raw = vec![USER];
        raw.extend_from_slice(self.0.public_key().as_ref());
        raw.extend(crc16(&raw).to_le_bytes());
        encode(&raw)
    }

    /// Signs what a server asks for.
    pub(super) fn sign(&self, nonce: &str) -> Vec<u8> {
        self.0.sign(nonce.as_bytes()).as_ref().to_vec()
    }
}

impl std::fmt::Debug for UserKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserKey(..)")
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

fn encode(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

fn digit(value: u32) -> char {
    char::from(ALPHABET.get(value as usize & 31).copied().unwrap_or_default())
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::with_capacity(text.len()), 0_u32, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        held = held << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair that `nk -gen user -pubout` could have made: the key is the one of RFC 8032, 7.1, test 1.
    fn seed() -> String {
        let key = [
            0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
            0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
        ];
        let mut raw = vec![SEED | USER >> 5, (USER & 0b1_1111) << 3];
        raw.extend(key);
        raw.extend(crc16(&raw).to_le_bytes());
        encode(&raw)
    }

    #[test]
    fn a_seed_gives_the_public_key_of_the_published_vector() {
        let key = UserKey::from_seed(&seed()).unwrap();

        let public = decode(&key.public()).unwrap();

        assert!(seed().starts_with("SU") && key.public().starts_with('U'));
        assert_eq!(public[1..5], [0xd7, 0x5a, 0x98, 0x01]);
        assert_eq!(public.len(), 35);
        assert_eq!(key.sign("nonce").len(), 64);
    }

    #[test]
    fn the_checksum_is_that_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn what_is_no_seed_of_a_user_is_refused_without_showing_it() {
        let good = seed();
        let key = UserKey::from_seed(&good).unwrap();
        let mut account = decode(&good).unwrap();
        account.truncate(34);
        // The kind of an account is 0.
        account[0] = SEED;
        account.extend(crc16(&account).to_le_bytes());

        for (text, said) in [
            (key.public(), "public"),
            (encode(&account), "another kind"),
            (good.replace('U', "V"), "checksum"),
            ("not base32!".to_owned(), "base32"),
            (String::new(), "too short"),
        ] {
            let refused = UserKey::from_seed(&text).unwrap_err();

            assert!(refused.contains(said), "{refused}");
            assert!(text.is_empty() || !refused.contains(&text));
        }
    }
}
