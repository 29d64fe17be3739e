//! Random numbers from the operating system.

use holm_model::ServiceError;
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
