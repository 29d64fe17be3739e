//! Decides who may do what: devices and modules by their keys and certificates, back ends by policies.
//!
//! ```text
//! token without skn   signed by a key of the identity; its sr names that identity
//! token with skn      signed by a key of the policy;   its sr covers what is asked, the policy has the right
//! certificate         one of the identity's two thumbprints; the TLS handshake has proved the key
//! ```
//!
//! - An identity of one kind is never let in by a proof of another kind. A disabled device is not let in, nor are its
//!   modules.
//! - One indexed read a log-in; policies are in memory.
//! - What is wrong goes to the log; the client learns only that it is not authorized.
//!
//! Source: `hub-service-api.md` §1, `hub-device-protocols.md` §1.2, §1.4.

use std::sync::Arc;

use holm_gateway::{Admission, Attempt, AuthKind, Credential, Principal, Refusal};
use holm_identity::x509_auth::thumbprint_matches;
use holm_identity::{SasToken, SymmetricKey};
use holm_model::{ErrorCode, Identity, ServiceError, Timestamp};
use rustls::pki_types::CertificateDer;

use crate::registry::{Authentication, Entry};
use crate::storage::{Policy, Repository, Rights};
use crate::{Clock, Signals};

/// Checks proofs. Clones are the same.
#[derive(Clone, Debug)]
pub struct Authority {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    /// The names that the hub goes by in tokens.
    hosts: Arc<[String]>,
    policies: Arc<[Policy]>,
}

impl Authority {
    /// An authority over a repository; `policies` are those in it.
    #[must_use]
    pub fn new(
        repository: Repository,
        signals: Signals,
        clock: Clock,
        hosts: Vec<String>,
        policies: Vec<Policy>,
    ) -> Self {
        Self {
            repository,
            signals,
            clock,
            hosts: hosts.into(),
            policies: policies.into(),
        }
    }

    /// Lets a device or module in, or not. The session, if one follows, is opened soon after.
    ///
    /// # Errors
    /// [`Refusal`]; `Unavailable` when the registry can't be read.
    pub async fn admit(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        let identity = attempt.identity.clone();
        self.signals.logging_in(&identity);
        let mut ending = LogIn {
            signals: &self.signals,
            identity: &identity,
            is_followed: false,
        };
        let admitted = self.check(attempt).await;
        ending.is_followed = admitted.is_ok();
        admitted
    }

    async fn check(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        let identity = attempt.identity.clone();
        let entry = self.enabled_entry(&identity).await?;
        let now = self.clock.now();
        let (principal, auth, expires) = match &attempt.credential {
            Credential::Token(text) => {
                let token = self.token(text, now).map_err(Refusal::NotAuthorized)?;
                let principal = self.signer(&token, &entry).map_err(Refusal::NotAuthorized)?;
                let expires = Timestamp::from_unix_seconds(token.expiry_seconds());
                (principal, AuthKind::Sas, Some(expires))
            }
            Credential::Certificate(chain) => {
                check_certificate(&entry, chain, now).map_err(Refusal::NotAuthorized)?;
                (Principal::Identity(identity.clone()), AuthKind::X509, None)
            }
            Credential::None => return Err(refused(format!("`{identity}` sent neither a token nor a certificate"))),
        };
        Ok(Admission {
            principal,
            identity,
            auth,
            generation_id: entry.generation,
            expires,
            announced: attempt.announced,
        })
    }

    /// The entry of an identity that may connect.
    async fn enabled_entry(&self, identity: &Identity) -> Result<Entry, Refusal> {
        let wanted = identity.clone();
        let found = self
            .repository
            .read(move |view| {
                let device = Identity::of_device(wanted.device.clone());
                let enabled = view.entry(&device)?.is_some_and(|device| device.enabled);
                Ok((view.entry(&wanted)?, enabled))
            })
            .await
            .map_err(|error| Refusal::Unavailable(error.message))?;
        match found {
            (None, _) => Err(refused(format!("`{identity}` is not registered"))),
            (Some(_), false) => Err(refused(format!("device `{}` is disabled", identity.device))),
            (Some(entry), true) => Ok(entry),
        }
    }

    fn token(&self, text: &str, now: Timestamp) -> Result<SasToken, String> {
        let token = SasToken::parse(text).map_err(|error| error.to_string())?;
        if token.is_expired(now) {
            return Err(format!(
                "the token ended at {}; make a new one, and check the clock",
                Timestamp::from_unix_seconds(token.expiry_seconds())
            ));
        }
        Ok(token)
    }

    fn signer(&self, token: &SasToken, entry: &Entry) -> Result<Principal, String> {
        let identity = &entry.identity;
        if !token.covers(&self.hosts, identity) {
            return Err(format!(
                "the token's `sr` `{}` does not name `{identity}` at this hub",
                token.raw_resource()
            ));
        }
        let Some(name) = token.policy() else {
            return match &entry.authentication {
                Authentication::Sas(keys) if signed(token, &keys.primary, &keys.secondary) => {
                    Ok(Principal::Identity(identity.clone()))
                }
                Authentication::Sas(_) => Err(format!("the token was not signed by a key of `{identity}`")),
                other => Err(format!("`{identity}` logs in by `{}`, not by a token", other.kind())),
            };
        };
        self.policy(token, name, Rights::DEVICE_CONNECT)
            .map(|()| Principal::Policy(name.to_owned()))
    }

    fn policy(&self, token: &SasToken, name: &str, right: Rights) -> Result<(), String> {
        let policy = self.find_policy(token, name)?;
        if !policy.rights.contains(right) {
            return Err(format!(
                "policy `{name}` lacks the permission {}",
                right.names().join(" + ")
            ));
        }
        Ok(())
    }

    fn find_policy(&self, token: &SasToken, name: &str) -> Result<&Policy, String> {
        let policy = self.policies.iter().find(|policy| policy.name == name);
        let policy = policy.ok_or_else(|| format!("there is no policy `{name}`"))?;
        if !signed(token, &policy.primary, &policy.secondary) {
            return Err(format!("the token was not signed by a key of policy `{name}`"));
        }
        Ok(policy)
    }

    /// Lets a back end do something at `path` (decoded, without the first slash) for which any of `rights` is enough.
    ///
    /// # Errors
    /// `IotHubUnauthorized` when the proof is not good, `IotHubUnauthorizedAccess` when the policy lacks the right.
    pub fn permit_service(
        &self,
        authorization: Option<&str>,
        path: &str,
        rights: &[Rights],
    ) -> Result<(), ServiceError> {
        let text = authorization.ok_or_else(|| {
            ServiceError::unauthorized("the `Authorization` header is missing; send a shared access signature")
        })?;
        if text
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer "))
        {
            return Err(ServiceError::unauthorized(
                "bearer tokens are not accepted: no issuer is configured; send a shared access signature",
            ));
        }
        let token = self.token(text, self.clock.now()).map_err(ServiceError::unauthorized)?;
        let Some(name) = token.policy() else {
            return Err(ServiceError::unauthorized(
                "the token has no `skn`; send a token of a shared access policy",
            ));
        };
        let policy = self.find_policy(&token, name).map_err(ServiceError::unauthorized)?;
        if !token.resource().covers_path(&self.hosts, path) {
            return Err(ServiceError::unauthorized(format!(
                "the token's `sr` `{}` does not cover `{path}` at this hub",
                token.raw_resource()
            )));
        }
        if rights.iter().any(|right| policy.rights.contains(*right)) {
            return Ok(());
        }
        let wanted: Vec<String> = rights.iter().map(|right| right.names().join(" + ")).collect();
        Err(ServiceError::new(
            ErrorCode::IotHubUnauthorizedAccess,
            format!("policy `{name}` lacks the permission {}", wanted.join(" or ")),
        ))
    }

    /// Whether a request comes with a device's or module's own proof and not a policy's.
    #[must_use]
    pub fn is_identity_proof(authorization: Option<&str>, certificates: &[CertificateDer<'_>]) -> bool {
        match authorization {
            Some(text) => SasToken::parse(text).is_ok_and(|token| token.policy().is_none()),
            None => !certificates.is_empty(),
        }
    }

    /// Lets a device act for itself over HTTPS.
    ///
    /// # Errors
    /// `IotHubUnauthorized`; `ServiceUnavailable` when the registry can't be read.
    pub async fn permit_device(&self, identity: Identity, credential: Credential) -> Result<Admission, ServiceError> {
        let attempt = Attempt {
            identity,
            credential,
            announced: holm_gateway::Announced::default(),
        };
        self.check(attempt).await.map_err(|refusal| match refusal {
            Refusal::NotAuthorized(why) => ServiceError::unauthorized(why),
            Refusal::Unavailable(why) => ServiceError::unavailable(why),
        })
    }
}

/// Ends a log-in that no session follows, also one whose client went away in the middle.
struct LogIn<'s> {
    signals: &'s Signals,
    identity: &'s Identity,
    is_followed: bool,
}

impl Drop for LogIn<'_> {
    fn drop(&mut self) {
        if !self.is_followed {
            self.signals.not_opened(self.identity);
        }
    }
}

fn refused(why: String) -> Refusal {
    Refusal::NotAuthorized(why)
}

fn signed(token: &SasToken, primary: &SymmetricKey, secondary: &SymmetricKey) -> bool {
    token.verify(primary) || token.verify(secondary)
}

fn check_certificate(entry: &Entry, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<(), String> {
    match &entry.authentication {
        Authentication::SelfSigned((primary, secondary)) => {
            let known: Vec<_> = primary.iter().chain(secondary).cloned().collect();
            thumbprint_matches(chain, &known, now).map_err(|error| holm_net::error_chain(&error))
        }
        Authentication::CertificateAuthority => Err(format!(
            "`{}` logs in by a certificate authority, and none can be registered in this release; give it thumbprints",
            entry.identity
        )),
        other => Err(format!(
            "`{}` logs in by `{}`, not by a certificate",
            entry.identity,
            other.kind()
        )),
    }
}
