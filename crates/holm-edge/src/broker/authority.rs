//! Who may connect to the broker: the modules of this device, each with a token signed by its own key, and the devices below it
//! with their modules, as the hub told (`crate::children`).
//!
//! | refused | as |
//! | --- | --- |
//! | identities were never loaded | not available: it is not known yet who exists |
//! | a module with a certificate | not authorised: modules prove themselves with tokens (`edge-broker.md` §1.3) |
//! | the runtime's own modules | not authorised: they are built in |
//! | a token of somebody else, wrong or expired | not authorised |
//! | a device that is not known, or whose proof does not fit, and the hub does not say more | not available: it may be ours |
//! | an edge that speaks for others (`auth-chain`) | not authorised: edges below this edge are not served yet |

use holm_gateway::{Admission, Attempt, AuthKind, Authority, Credential, Principal, Refusal};
use holm_identity::SasToken;
use holm_model::{Identity, ModuleId, Timestamp};

use super::Broker;
use crate::children::is_audience;

impl Authority for Broker {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        let identity = attempt.identity.clone();
        let admitted = self.admit(attempt).await;
        if let Err(Refusal::NotAuthorized(_)) = &admitted {
            let name = self.claimed_name(&identity);
            self.figures.not_connected.of(&[&name, "not_authenticated"]).increment();
        }
        admitted
    }
}

impl Broker {
    async fn admit(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        if attempt.announced.auth_chain.is_some() {
            return Err(refused("edges below this edge are not served yet"));
        }
        if attempt.identity.device == *self.keys.device() {
            self.judge(attempt, self.now())
        } else {
            self.judge_child(attempt).await
        }
    }
}

fn refused(reason: impl Into<String>) -> Refusal {
    Refusal::NotAuthorized(reason.into())
}

impl Broker {
    fn judge(&self, attempt: Attempt, now: Timestamp) -> Result<Admission, Refusal> {
        if *self.keys.changes().borrow() == 0 {
            return Err(Refusal::Unavailable(
                "the identities of this device's modules are not loaded yet".to_owned(),
            ));
        }
        let module = self.own_module(&attempt.identity)?;
        let generation_id = self
            .keys
            .generation(module)
            .ok_or_else(|| refused(format!("this device has no module `{module}`")))?;
        let text = match &attempt.credential {
            Credential::Token(text) => text,
            Credential::Certificate(_) => {
                return Err(refused("modules prove themselves with tokens, not certificates"));
            }
            Credential::None => return Err(refused("the client showed no token")),
        };
        let token = SasToken::parse(text).map_err(|error| refused(error.to_string()))?;
        self.check(&token, &attempt.identity, module, now)?;
        Ok(Admission {
            principal: Principal::Identity(attempt.identity.clone()),
            identity: attempt.identity,
            auth: AuthKind::Sas,
            thumbprint: None,
            generation_id,
            expires: Some(Timestamp::from_unix_seconds(token.expiry_seconds())),
            announced: attempt.announced,
        })
    }

    fn own_module<'i>(&self, identity: &'i Identity) -> Result<&'i ModuleId, Refusal> {
        match &identity.module {
            Some(module) if module.is_system() => Err(refused(format!("`{module}` is built into the edge"))),
            Some(module) if identity.device == *self.keys.device() => Ok(module),
            _ => Err(refused(format!(
                "`{identity}` is this edge itself; its modules connect to it"
            ))),
        }
    }

    fn check(&self, token: &SasToken, identity: &Identity, module: &ModuleId, now: Timestamp) -> Result<(), Refusal> {
        if token.policy().is_some() {
            return Err(refused("a token of a shared access policy opens nothing on an edge"));
        }
        if !is_audience(token, &self.hosts, identity) {
            return Err(refused(format!("the token is for `{}`", token.raw_resource())));
        }
        if token.is_expired(now) {
            return Err(refused("the token has expired; check the clock of whoever made it"));
        }
        if !self
            .keys
            .verify(module, token.string_to_sign().as_bytes(), token.signature())
        {
            return Err(refused("the token was signed with another key"));
        }
        Ok(())
    }

    /// Lets a child in by what is known; where that does not do, the hub is asked before anybody is sent away.
    async fn judge_child(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        let judge = || {
            self.children
                .judge(&attempt.identity, &attempt.credential, &self.hosts, self.now())
        };
        let mut outcome = judge();
        if let Err(denied) = &outcome
            && denied.may_be_stale
        {
            if !self.children.ask(&attempt.identity).await {
                let text = format!("{denied}, and the hub did not tell more");
                return Err(Refusal::Unavailable(text));
            }
            outcome = judge();
        }
        let proved = outcome.map_err(|denied| refused(denied.to_string()))?;
        Ok(Admission {
            principal: Principal::Identity(attempt.identity.clone()),
            identity: attempt.identity,
            auth: proved.auth,
            thumbprint: None,
            generation_id: proved.grant,
            expires: proved.expires,
            announced: attempt.announced,
        })
    }

    /// Under what a session of this identity is open now; `None` when it may not have one.
    pub(super) fn grant(&self, identity: &Identity) -> Option<String> {
        match &identity.module {
            Some(module) if identity.device == *self.keys.device() => self.keys.generation(module),
            _ => self.children.grant(identity),
        }
    }

    /// What a message of this sender is stamped with.
    pub(super) fn origin(&self, sender: &Identity) -> &'static str {
        if self.links.is_child(sender) {
            "downstream"
        } else {
            "internal"
        }
    }

    /// Whether it is certain that the hub has no such identity, or has it elsewhere.
    pub(super) fn is_gone(&self, identity: &Identity) -> bool {
        let is_known = if identity.device == *self.keys.device() {
            *self.keys.changes().borrow() > 0
        } else {
            self.children.is_loaded()
        };
        is_known && !self.links.is_ours(identity)
    }
}
