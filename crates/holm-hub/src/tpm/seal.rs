//! A shared key for one TPM: it comes out there as an HMAC key below the storage root key, and nowhere else.
//!
//! ```text
//! wrapping key (16 random bytes) --credential for the EK, bound to the SRK's name--> TPM2_ActivateCredential
//! sensitive area of the key --inner wrapper: AES-CFB by the wrapping key--outer wrapper: by a seed for the SRK--> TPM2_Import
//! ```
//!
//! So it takes the private halves of both keys, in one TPM.
//!
//! Sources: TPM 2.0 Library, part 1, 23.3 (inner and outer wrapper), 24 (credential protection); part 2, 12.3.

use holm_identity::SymmetricKey;
use ring::rand::SecureRandom;
use thiserror::Error;

use super::crypto::{Hash, cfb_encrypt, share_secret, sized};
use super::public_area::PublicArea;

const KEYED_HASH: u16 = 0x0008;
const HMAC: u16 = 0x0005;
/// `userWithAuth`, `noDA`, `sign`.
const ATTRIBUTES: u32 = 1 << 6 | 1 << 10 | 1 << 18;
/// The hash by which the key signs, and is named: that of SAS tokens.
const HASH: Hash = Hash::Sha256;

/// Why a key was not sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SealError {
    /// No random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// A point is not on its curve.
    #[error("the point of the key is not on its curve; send the public area that the TPM gives")]
    Point,
    /// A key has a size for which there is no form.
    #[error("the key has a size that can't be used here")]
    Key,
}

/// Seals a key for the TPM that holds both of these.
///
/// # Errors
/// [`SealError`].
pub(crate) fn seal(
    key: &SymmetricKey,
    endorsement: &PublicArea,
    storage_root: &PublicArea,
    random: &dyn SecureRandom,
) -> Result<Vec<u8>, SealError> {
    let mut wrapping = [0; 16];
    random.fill(&mut wrapping).map_err(|_| SealError::Random)?;
    let (credential, secret) = make_credential(&wrapping, endorsement, &storage_root.name(), random)?;
    let Duplicate { private, seed, public } = duplicate(key, &wrapping, storage_root, random)?;
    Ok([
        sized(&credential)?,
        sized(&secret)?,
        sized(&private)?,
        sized(&seed)?,
        sized(&public)?,
        vec![0, 0],
    ]
    .concat())
}

/// As `TPM2_MakeCredential`: a `TPMS_ID_OBJECT`, and the secret that opens it.
fn make_credential(
    credential: &[u8],
    endorsement: &PublicArea,
    name: &[u8],
    random: &dyn SecureRandom,
) -> Result<(Vec<u8>, Vec<u8>), SealError> {
    let (seed, secret) = share_secret(endorsement, "IDENTITY", random)?;
    let protected = protect(endorsement, &seed, name, &sized(credential)?)?;
    Ok((protected, secret))
}

/// A new key on its way below another one.
struct Duplicate {
    private: Vec<u8>,
    /// Opens the outer wrapper.
    seed: Vec<u8>,
    public: Vec<u8>,
}

/// As `TPM2_Duplicate` of a new HMAC key.
fn duplicate(
    key: &SymmetricKey,
    wrapping: &[u8],
    parent: &PublicArea,
    random: &dyn SecureRandom,
) -> Result<Duplicate, SealError> {
    let mut salt = vec![0; HASH.bytes()];
    random.fill(&mut salt).map_err(|_| SealError::Random)?;
    let public = public_area(&HASH.digest(&[&salt, key.expose_bytes()]))?;
    let name = HASH.name_of(&public);
    let sensitive = [
        KEYED_HASH.to_be_bytes().to_vec(),
        sized(&[])?,
        sized(&salt)?,
        sized(key.expose_bytes())?,
    ]
    .concat();
    let sensitive = sized(&sensitive)?;
    let integrity = HASH.digest(&[&sensitive, &name]);
    let inner = cfb_encrypt(wrapping, &[sized(&integrity)?, sensitive].concat())?;
    let (secret, seed) = share_secret(parent, "DUPLICATE", random)?;
    let private = protect(parent, &secret, &name, &inner)?;
    Ok(Duplicate { private, seed, public })
}

/// Encrypts and authenticates what is of an object, by a seed that the holder of a key shares: the HMAC, then the bytes.
fn protect(holder: &PublicArea, seed: &[u8], name: &[u8], data: &[u8]) -> Result<Vec<u8>, SealError> {
    let hash = holder.name_hash;
    let key = hash.kdfa(seed, "STORAGE", name, holder.symmetric_bits.into());
    let encrypted = cfb_encrypt(&key, data)?;
    let integrity = hash.hmac(&hash.integrity_key(seed), &[&encrypted, name]);
    Ok([sized(&integrity)?, encrypted].concat())
}

/// The public area of an HMAC key. The scheme stands in it: the Node SDK reads the hash there.
fn public_area(unique: &[u8]) -> Result<Vec<u8>, SealError> {
    let scheme = [HMAC.to_be_bytes(), HASH.algorithm().to_be_bytes()].concat();
    Ok([
        KEYED_HASH.to_be_bytes().to_vec(),
        HASH.algorithm().to_be_bytes().to_vec(),
        ATTRIBUTES.to_be_bytes().to_vec(),
        sized(&[])?,
        scheme,
        sized(unique)?,
    ]
    .concat())
}
