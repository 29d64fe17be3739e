//! AES-256-GCM with an initialisation vector that the caller chose.
//!
//! ```text
//! 0x02 | ciphertext | tag (16)     IV of 12 bytes: it is the nonce. What the original key service writes.
//! 0x03 | ciphertext | tag (16)     any other IV: the nonce is the first 12 bytes of HMAC-SHA256(key, "holm iv" | IV).
//! ```
//!
//! GCM proper turns a longer IV into a counter block by another way (NIST SP 800-38D §7.1), which our library does not offer.
//! Only the store reads its ciphertexts, so it need not be that way; the format byte keeps the two apart.
//! Source: `edge-agent.md` §3.2, §6.2.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::AeadContext;
use crate::symmetric_key::SymmetricKey;

const DIRECT_IV: u8 = 2;
const HASHED_IV: u8 = 3;

/// The most data of one call, so that a request costs bounded memory.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Why data was not encrypted or decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AeadError {
    /// The key has another length than AES-256 needs.
    #[error("the key has {0} bytes and AES-256 needs 32; use a key that the store made")]
    KeyLength(usize),
    /// No initialisation vector.
    #[error("the initialisation vector is empty; give 12 bytes")]
    NoIv,
    /// More data than one call takes.
    #[error("the data has {0} bytes; at most {MAX_BYTES} are taken at once")]
    TooLarge(usize),
    /// The ciphertext is not one of ours.
    #[error("the ciphertext is too short or of an unknown format; send it as it was received")]
    Format,
    /// The ciphertext was made with another key, vector or caller, or was changed.
    #[error("the ciphertext does not belong to this key, initialisation vector and module")]
    NotAuthentic,
}

pub(super) fn encrypt(key: &SymmetricKey, context: AeadContext<'_>, plaintext: &[u8]) -> Result<Vec<u8>, AeadError> {
    if plaintext.len() > MAX_BYTES {
        return Err(AeadError::TooLarge(plaintext.len()));
    }
    let (format, nonce) = nonce(key, context.iv)?;
    let mut sealed = Zeroizing::new(Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len()));
    sealed.extend_from_slice(plaintext);
    cipher(key)?
        .seal_in_place_append_tag(nonce, Aad::from(context.associated_data), &mut *sealed)
        .map_err(|_| AeadError::TooLarge(plaintext.len()))?;
    let mut ciphertext = vec![format];
    ciphertext.extend_from_slice(&sealed);
    Ok(ciphertext)
}

pub(super) fn decrypt(
    key: &SymmetricKey,
    context: AeadContext<'_>,
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, AeadError> {
    let (found, sealed) = ciphertext.split_first().ok_or(AeadError::Format)?;
    if ![DIRECT_IV, HASHED_IV].contains(found) || sealed.len() < AES_256_GCM.tag_len() {
        return Err(AeadError::Format);
    }
    if sealed.len() > MAX_BYTES + AES_256_GCM.tag_len() {
        return Err(AeadError::TooLarge(sealed.len()));
    }
    let (format, nonce) = nonce(key, context.iv)?;
    if format != *found {
        return Err(AeadError::NotAuthentic);
    }
    let mut data = Zeroizing::new(sealed.to_vec());
    let length = cipher(key)?
        .open_in_place(nonce, Aad::from(context.associated_data), &mut data)
        .map_err(|_| AeadError::NotAuthentic)?
        .len();
    data.truncate(length);
    Ok(data)
}

fn cipher(key: &SymmetricKey) -> Result<LessSafeKey, AeadError> {
    let bytes = key.expose_bytes();
    let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| AeadError::KeyLength(bytes.len()))?;
    Ok(LessSafeKey::new(key))
}

fn nonce(key: &SymmetricKey, iv: &[u8]) -> Result<(u8, Nonce), AeadError> {
    if iv.is_empty() {
        return Err(AeadError::NoIv);
    }
    if let Ok(nonce) = Nonce::try_assume_unique_for_key(iv) {
        return Ok((DIRECT_IV, nonce));
    }
    let hash = key.hmac_sha256(&[b"holm iv", iv].concat());
    let mut nonce = [0; 12];
    nonce.copy_from_slice(hash.split_at(12).0);
    Ok((HASHED_IV, Nonce::assume_unique_for_key(nonce)))
}
