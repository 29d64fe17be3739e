//! Who may connect to the broker: for now the modules of this device, each with a token signed by its own key.
//!
//! | refused | as |
//! | --- | --- |
//! | identities were never loaded | not available: it is not known yet who exists |
//! | a device, or a module of another device | not authorised: devices behind the edge are not supported yet |
//! | a certificate | not authorised: modules prove themselves with tokens (`edge-broker.md` §1.3) |
//! | the runtime's own modules | not authorised: they are built in |
//! | a token of somebody else, wrong or expired | not authorised |

use holm_gateway::{Admission, Attempt, AuthKind, Authority, Credential, Principal, Refusal};
use holm_identity::SasToken;
use holm_identity::sas::Scope;
use holm_model::{Identity, ModuleId, Timestamp};

use super::Broker;

impl Authority for Broker {
    async fn authenticate(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        self.judge(attempt, super::now())
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
                "`{identity}` is not a module of `{}`; devices behind the edge are not supported yet",
                self.keys.device()
            ))),
        }
    }

    fn check(&self, token: &SasToken, identity: &Identity, module: &ModuleId, now: Timestamp) -> Result<(), Refusal> {
        if token.policy().is_some() {
            return Err(refused("a token of a shared access policy opens nothing on an edge"));
        }
        if !self.is_audience(token, identity) {
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

    /// Whether a token names the identity. Case counts neither in host names nor in ids (`edge-broker.md` §1.3). A scope
    /// that is wider than the identity is refused: only a policy could sign for it.
    fn is_audience(&self, token: &SasToken, identity: &Identity) -> bool {
        let resource = token.resource();
        match &resource.scope {
            Scope::Module(device, module) => {
                let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
                let is_here = self.hosts.iter().any(|host| same(host, &resource.host));
                let is_module = identity
                    .module
                    .as_ref()
                    .is_some_and(|own| same(own.as_str(), module.as_str()));
                (is_here && is_module && same(identity.device.as_str(), device.as_str()))
                    || token.covers(&self.hosts, identity)
            }
            _ => false,
        }
    }
}
