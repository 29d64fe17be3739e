//! Names of leases that a client may hold without a connection.
//!
//! ```text
//! 1f-9c0d…            lease 0x1f, and a tag over it and the identity, made with a key of this process
//! ```
//!
//! Nobody guesses one, and one of another identity means nothing. Nothing is kept for it: the mailbox knows which leases live,
//! and a node that starts anew has other keys and no leases.

use holm_identity::SymmetricKey;
use holm_model::{Identity, hex};

/// Bytes of the tag: nobody can try as many as half of 2^128.
const TAG: usize = 16;

/// Makes lock tokens and reads them back.
#[derive(Debug)]
pub(crate) struct LockTokens(Option<SymmetricKey>);

impl LockTokens {
    /// With a fresh key. Where the system gives no random numbers there are no lock tokens.
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 32];
        let key = getrandom::fill(&mut bytes).ok();
        Self(key.and_then(|()| SymmetricKey::from_bytes(bytes).ok()))
    }

    /// The token of a lease of this identity; `None` where none can be made.
    pub(crate) fn token(&self, of: &Identity, lease: u64) -> Option<String> {
        let tag = self.tag(of, lease)?;
        let tag = hex::encode(tag.get(..TAG).unwrap_or_default());
        Some(format!("{lease:x}-{tag}"))
    }

    /// The lease that a token of this identity names.
    pub(crate) fn lease(&self, of: &Identity, token: &str) -> Option<u64> {
        let (lease, hex) = token.split_once('-')?;
        let lease = u64::from_str_radix(lease, 16).ok()?;
        let right = self.token(of, lease)?;
        let right = right.split_once('-')?.1;
        // As long for every wrong one: a difference is looked for in all of it.
        let differs =
            right.len() != hex.len() || right.bytes().zip(hex.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) != 0;
        (!differs).then_some(lease)
    }

    fn tag(&self, of: &Identity, lease: u64) -> Option<[u8; 32]> {
        let key = self.0.as_ref()?;
        Some(key.hmac_sha256(format!("{lease:x}\n{of}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_identity_and_its_process_alone() {
        let (tokens, later) = (LockTokens::new(), LockTokens::new());
        let (device, other) = ("d1".parse().unwrap(), "d2".parse().unwrap());

        let token = tokens.token(&device, 31).unwrap();

        assert_eq!(tokens.lease(&device, &token), Some(31));
        assert_eq!(tokens.lease(&other, &token), None);
        assert_eq!(later.lease(&device, &token), None);
        for wrong in [
            "",
            "-",
            "1f",
            "1f-",
            "20",
            "zz-00",
            &token.replacen("1f", "20", 1),
            &format!("{token}0"),
        ] {
            assert_eq!(tokens.lease(&device, wrong), None, "{wrong}");
        }
    }
}
