//! Random numbers from the operating system.

use holm_model::{ServiceError, TrackingId};
use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes.
///
/// # Errors
/// `ServerError` when the operating system gives none.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], ServiceError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ServiceError::server_error("the operating system gave no random bytes"))?;
    Ok(bytes)
}

/// A tracking id for an answer. Without random bytes it is zero: an error must still be told.
pub(crate) fn tracking_id() -> TrackingId {
    TrackingId::new(u128::from_le_bytes(bytes().unwrap_or_default()))
}
