//! Tokens for the node above, signed where the modules' keys are.

use std::sync::Arc;

use holm_client::credential::{MakingToken, NoToken, TOKEN_LIFE_SECONDS};
use holm_client::{Token, TokenSource};
use holm_identity::SasToken;
use holm_identity::sas::resource_uri;
use holm_model::{Identity, ModuleId, Timestamp};

use crate::keys::ModuleKeys;

/// Why a token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("this device has no key for a module `{0}`")]
struct NoKey(ModuleId);

/// Makes the tokens of one identity with the key of a module: its own, or `$edgeHub`'s for a child.
pub(super) struct ModuleTokens {
    keys: Arc<dyn ModuleKeys>,
    module: ModuleId,
    identity: Identity,
}

impl ModuleTokens {
    pub(super) fn new(keys: Arc<dyn ModuleKeys>, module: ModuleId, identity: Identity) -> Self {
        Self { keys, module, identity }
    }

    fn sign(&self, now: Timestamp) -> Result<Token, NoToken> {
        let expires = now.unix_seconds().saturating_add(TOKEN_LIFE_SECONDS);
        let token = SasToken::unsigned(&resource_uri(self.keys.hub_host(), &self.identity), expires, None);
        let signature = self
            .keys
            .sign(&self.module, token.string_to_sign().as_bytes())
            .ok_or_else(|| NoToken(Box::new(NoKey(self.module.clone()))))?;
        Ok(Token {
            text: token.with_signature(signature).to_text(),
            expires: Timestamp::from_unix_seconds(expires),
        })
    }
}

impl TokenSource for ModuleTokens {
    fn make(&self, now: Timestamp) -> MakingToken<'_> {
        Box::pin(std::future::ready(self.sign(now)))
    }
}
