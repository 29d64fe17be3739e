//! The primitives of TPM 2.0, for the side that has only public keys.
//!
//! | | TPM 2.0 Library, part 1 |
//! | --- | --- |
//! | [`Hash::kdfa`] | 11.4.10.2: SP 800-108 in counter mode, by HMAC |
//! | [`Hash::kdfe`] | 11.4.10.3: SP 800-56A, for a shared point |
//! | [`cfb_encrypt`] | 11.4: AES-CFB, from an initial vector of zeros |
//! | [`share_secret`] | B.10.4, C.6: a seed, by RSA-OAEP or one-pass ECDH |

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256};
use num_bigint::BigUint;
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SecureRandom;
use ring::{digest, hmac};

use super::public_area::{Asymmetric, Curve, PublicArea};
use super::seal::SealError;

/// A hash that names keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// By its number in TPM 2.0.
    pub(super) const fn of(algorithm: u16) -> Option<Self> {
        match algorithm {
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    pub(super) const fn algorithm(self) -> u16 {
        match self {
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    const fn parts(self) -> (&'static digest::Algorithm, hmac::Algorithm) {
        match self {
            Self::Sha256 => (&digest::SHA256, hmac::HMAC_SHA256),
            Self::Sha384 => (&digest::SHA384, hmac::HMAC_SHA384),
            Self::Sha512 => (&digest::SHA512, hmac::HMAC_SHA512),
        }
    }

    /// Bytes of a digest.
    pub(super) fn bytes(self) -> usize {
        self.parts().0.output_len()
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Sha256 => 256,
            Self::Sha384 => 384,
            Self::Sha512 => 512,
        }
    }

    pub(super) fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut context = digest::Context::new(self.parts().0);
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }

    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(self.parts().1, key));
        parts.iter().for_each(|part| context.update(part));
        context.sign().as_ref().to_vec()
    }

    /// The name of an object with this public area.
    pub(super) fn name_of(self, area: &[u8]) -> Vec<u8> {
        [&self.algorithm().to_be_bytes()[..], &self.digest(&[area])].concat()
    }

    /// A key of so many bits for a use, from a secret.
    pub(super) fn kdfa(self, key: &[u8], label: &str, context: &[u8], bits: u32) -> Vec<u8> {
        let one = |counter: u32| {
            self.hmac(
                key,
                &[
                    &counter.to_be_bytes(),
                    label.as_bytes(),
                    &[0],
                    context,
                    &bits.to_be_bytes(),
                ],
            )
        };
        gather(one, bits)
    }

    /// The same from the coordinate of a shared point, for two parties.
    pub(super) fn kdfe(self, z: &[u8], label: &str, (ours, theirs): (&[u8], &[u8])) -> Vec<u8> {
        let one = |counter: u32| self.digest(&[&counter.to_be_bytes(), z, label.as_bytes(), &[0], ours, theirs]);
        gather(one, self.bits())
    }

    /// A key for an HMAC by this hash.
    pub(super) fn integrity_key(self, seed: &[u8]) -> Vec<u8> {
        self.kdfa(seed, "INTEGRITY", &[], self.bits())
    }
}

/// The first bits of the blocks 1, 2, …
fn gather(block: impl Fn(u32) -> Vec<u8>, bits: u32) -> Vec<u8> {
    let count = usize::try_from(bits / 8).unwrap_or_default();
    let mut bytes = Vec::with_capacity(count);
    for counter in 1.. {
        if bytes.len() >= count {
            break;
        }
        bytes.extend(block(counter));
    }
    bytes.truncate(count);
    bytes
}

/// AES in CFB mode, of a key of 16 or 32 bytes, from zeros.
///
/// # Errors
/// [`SealError::Key`] for a key of another length.
pub(super) fn cfb_encrypt(key: &[u8], data: &[u8]) -> Result<Vec<u8>, SealError> {
    match key.len() {
        16 => Ok(cfb(&Aes128::new_from_slice(key).map_err(|_| SealError::Key)?, data)),
        32 => Ok(cfb(&Aes256::new_from_slice(key).map_err(|_| SealError::Key)?, data)),
        _ => Err(SealError::Key),
    }
}

fn cfb<C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>>(cipher: &C, data: &[u8]) -> Vec<u8> {
    let mut block = [0; 16];
    let mut out = Vec::with_capacity(data.len());
    for plain in data.chunks(16) {
        let mut mask = Array::from(block);
        cipher.encrypt_block(&mut mask);
        let from = out.len();
        out.extend(plain.iter().zip(mask.iter()).map(|(plain, mask)| plain ^ mask));
        if let Some(whole) = out.get(from..from + 16) {
            block.copy_from_slice(whole);
        }
    }
    out
}

/// Makes a seed that the holder of a key shares: the seed, and what that holder opens.
pub(super) fn share_secret(
    with: &PublicArea,
    label: &str,
    random: &dyn SecureRandom,
) -> Result<(Vec<u8>, Vec<u8>), SealError> {
    let hash = with.name_hash;
    match &with.key {
        Asymmetric::Rsa { modulus, exponent } => {
            let mut seed = vec![0; hash.bytes()];
            random.fill(&mut seed).map_err(|_| SealError::Random)?;
            let padded = oaep(hash, label, &seed, modulus.len(), random)?;
            let sent = BigUint::from_bytes_be(&padded)
                .modpow(&BigUint::from(*exponent), &BigUint::from_bytes_be(modulus))
                .to_bytes_be();
            let missing = modulus.len().saturating_sub(sent.len());
            Ok((seed, [&vec![0; missing][..], &sent].concat()))
        }
        Asymmetric::Ecc { curve, x, y } => {
            let algorithm = match curve {
                Curve::P256 => &agreement::ECDH_P256,
                Curve::P384 => &agreement::ECDH_P384,
            };
            let own = EphemeralPrivateKey::generate(algorithm, random).map_err(|_| SealError::Random)?;
            let public = own.compute_public_key().map_err(|_| SealError::Random)?;
            // 4, then both coordinates.
            let (own_x, own_y) = public
                .as_ref()
                .get(1..)
                .and_then(|point| point.split_at_checked(curve.bytes()))
                .ok_or(SealError::Random)?;
            let theirs = UnparsedPublicKey::new(algorithm, [&[4][..], x, y].concat());
            let seed = agreement::agree_ephemeral(own, &theirs, |z| hash.kdfe(z, label, (own_x, x)));
            let seed = seed.map_err(|_| SealError::Point)?;
            Ok((seed, [sized(own_x)?, sized(own_y)?].concat()))
        }
    }
}

/// RFC 8017, 7.1.1; the label with its zero, as part 1, B.4 has it.
fn oaep(hash: Hash, label: &str, message: &[u8], size: usize, random: &dyn SecureRandom) -> Result<Vec<u8>, SealError> {
    let length = hash.bytes();
    let zeros = size.checked_sub(2 * length + 2 + message.len()).ok_or(SealError::Key)?;
    let label = hash.digest(&[label.as_bytes(), &[0]]);
    let data = [&label[..], &vec![0; zeros], &[1], message].concat();
    let mut seed = vec![0; length];
    random.fill(&mut seed).map_err(|_| SealError::Random)?;
    let data = masked(hash, &data, &seed);
    let seed = masked(hash, &seed, &data);
    Ok([&[0][..], &seed, &data].concat())
}

/// MGF1 of `by`, over `data`.
fn masked(hash: Hash, data: &[u8], by: &[u8]) -> Vec<u8> {
    let mask = (0_u32..).flat_map(|counter| hash.digest(&[by, &counter.to_be_bytes()]));
    data.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}

/// A TPM2B: the length before the bytes.
pub(super) fn sized(bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let length = u16::try_from(bytes.len()).map_err(|_| SealError::Key)?;
    Ok([&length.to_be_bytes()[..], bytes].concat())
}
