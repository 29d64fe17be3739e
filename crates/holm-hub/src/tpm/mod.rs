//! What the provisioning service knows of TPM 2.0: the public areas of two keys of a device's TPM, and how a key is sealed so that
//! this TPM alone can use it.
//!
//! ```text
//! endorsement key (EK)     proves which TPM it is; was enrolled            credential: a wrapping key, for this EK and SRK only
//! storage root key (SRK)   below which keys are kept                       duplicate:  the key, wrapped by that, and for the SRK
//!
//! sealed = TPM2B_ID_OBJECT | TPM2B_ENCRYPTED_SECRET   TPM2_ActivateCredential: gives the wrapping key
//!        | TPM2B_PRIVATE | TPM2B_ENCRYPTED_SECRET | TPM2B_PUBLIC   TPM2_Import: gives an HMAC key below the SRK
//!        | UINT16 0                                   data encrypted by the key, of which the clients want only the length
//! ```
//!
//! - No secret of a device comes in here; what goes out is of use to its TPM alone.
//! - What a device sends is read with a bound for each length, and a key that can't be one of the two is refused by the field.
//! - This is arithmetic on bytes: no socket, no clock; randomness comes in as an argument.
//!
//! Sources: TPM 2.0 Library, part 1, 23 (duplication) and 24 (credentials), Annexes B.4 and C.6; part 2, 12. The order of the
//! parts is that in which the published clients read them (`azure-iot-sdk-c`, `azure-iot-sdk-node`).

mod crypto;
mod public_area;
mod seal;

#[cfg(test)]
pub(crate) mod tests;

pub use public_area::{InvalidPublicArea, PublicArea};
pub(crate) use seal::{SealError, seal};
