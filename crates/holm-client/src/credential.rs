//! How a client proves who it is: a token that is made anew before it ends, or a certificate that is part of its TLS
//! configuration.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use holm_identity::sas::resource_uri;
use holm_identity::{SasToken, Secret, SymmetricKey};
use holm_model::{Identity, Timestamp};

/// A token and when it ends.
#[derive(Clone, Debug)]
pub struct Token {
    /// `SharedAccessSignature sr=…`.
    pub text: Secret,
    /// When it stops being valid.
    pub expires: Timestamp,
}

/// Why there is no token now; the client tries again.
#[derive(Debug, thiserror::Error)]
#[error("no token could be made")]
pub struct NoToken(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A token that is being made.
pub type MakingToken<'a> = Pin<Box<dyn Future<Output = Result<Token, NoToken>> + Send + 'a>>;

/// Makes tokens: with a key in hand, or by asking who holds it (the workload API, a key store).
pub trait TokenSource: Send + Sync + 'static {
    /// Makes a token that is valid from `now` on.
    fn make(&self, now: Timestamp) -> MakingToken<'_>;
}

/// What a client proves itself with.
#[derive(Clone)]
pub enum Credential {
    /// Tokens.
    Tokens(Arc<dyn TokenSource>),
    /// The client certificate in [`crate::Options::tls`].
    Certificate,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokens(_) => "Tokens(…)",
            Self::Certificate => "Certificate",
        })
    }
}

/// Makes tokens with a key in hand.
#[derive(Debug)]
pub struct KeyTokens {
    key: SymmetricKey,
    resource: String,
    policy: Option<String>,
    life_seconds: i64,
}

/// How long a token made here is valid, in seconds: what the published SDKs use.
pub const TOKEN_LIFE_SECONDS: i64 = 3600;

impl KeyTokens {
    /// Tokens for an identity at a hub, signed with its key.
    #[must_use]
    pub fn new(key: SymmetricKey, hub_host: &str, identity: &Identity) -> Self {
        Self {
            key,
            resource: resource_uri(hub_host, identity),
            policy: None,
            life_seconds: TOKEN_LIFE_SECONDS,
        }
    }

    /// Tokens signed with the key of a policy of the hub instead of the identity's own.
    #[must_use]
    pub fn of_policy(mut self, policy: Option<String>) -> Self {
        self.policy = policy;
        self
    }

    /// Tokens of another life, in seconds.
    #[must_use]
    pub const fn with_life_seconds(mut self, life_seconds: i64) -> Self {
        self.life_seconds = life_seconds;
        self
    }
}

impl TokenSource for KeyTokens {
    fn make(&self, now: Timestamp) -> MakingToken<'_> {
        let expires = now.unix_seconds().saturating_add(self.life_seconds);
        let text = SasToken::sign(&self.resource, expires, self.policy.as_deref(), &self.key).to_text();
        Box::pin(async move {
            Ok(Token {
                text,
                expires: Timestamp::from_unix_seconds(expires),
            })
        })
    }
}
