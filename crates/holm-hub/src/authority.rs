//! Decides who may do what: devices and modules by their keys and certificates, back ends by policies.
//!
//! ```text
//! token without skn   signed by a key of the identity; its sr names that identity
//! token with skn      signed by a key of the policy;   its sr covers what is asked, the policy has the right
//! certificate         one of the identity's two thumbprints; the TLS handshake has proved the key
//! auth-chain          an edge device above it speaks for the identity, see `behalf`
//! ```
//!
//! - An identity of one kind is never let in by a proof of another kind. A disabled device is not let in, nor are its
//!   modules.
//! - One indexed read a log-in; policies are in memory, as they are now.
//! - What is wrong goes to the log; the client learns only that it is not authorized.
//!
//! Source: `hub-service-api.md` §1, `hub-device-protocols.md` §1.2, §1.4.

mod behalf;

use std::sync::Arc;

use futures_util::stream::{self, Stream};
use holm_gateway::{Admission, Attempt, AuthKind, Credential, Principal, Refusal};
use holm_identity::x509_auth::thumbprint_matches;
use holm_identity::{SasToken, SymmetricKey, Thumbprint};
use holm_model::{ErrorCode, Identity, ServiceError, Timestamp};
use rustls::pki_types::CertificateDer;

use crate::metrics::{Denial, Metrics};
use crate::policies::PolicySet;
use crate::registry::{Authentication, Entry};
use crate::storage::{Policy, Repository, RightSet as _, Rights};
use crate::{Clock, Signals};

/// Checks proofs. Clones are the same.
#[derive(Clone, Debug)]
pub struct Authority {
    repository: Repository,
    signals: Signals,
    clock: Clock,
    /// The names that the hub goes by in tokens.
    hosts: Arc<[String]>,
    policies: PolicySet,
    metrics: Metrics,
}

impl Authority {
    /// An authority over a repository; `policies` follow those in it.
    #[must_use]
    pub(crate) fn new(
        repository: Repository,
        signals: Signals,
        clock: Clock,
        hosts: Vec<String>,
        policies: PolicySet,
        metrics: Metrics,
    ) -> Self {
        Self {
            repository,
            signals,
            clock,
            hosts: hosts.into(),
            policies,
            metrics,
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

    /// As [`Authority::admit`], where no session follows.
    ///
    /// # Errors
    /// As there.
    pub async fn check(&self, attempt: Attempt) -> Result<Admission, Refusal> {
        self.prove(attempt).await.map_err(|denied| {
            let unavailable = denied.reason == Denial::Unavailable;
            let text = self.counted(denied);
            if unavailable {
                Refusal::Unavailable(text)
            } else {
                Refusal::NotAuthorized(text)
            }
        })
    }

    /// Checks a token of a policy, for whatever it is to be used; gives its end.
    ///
    /// # Errors
    /// [`Refusal::NotAuthorized`].
    pub fn check_policy(&self, text: &str) -> Result<Timestamp, Refusal> {
        self.prove_policy(text)
            .map_err(|denied| Refusal::NotAuthorized(self.counted(denied)))
    }

    fn prove_policy(&self, text: &str) -> Result<Timestamp, Denied> {
        let token = self.token(text, self.clock.now())?;
        let name = token.policy().unwrap_or_default();
        self.find_policy(&token, name)?;
        let host = token.resource().host;
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(&host)) {
            let text = format!("the token's `sr` `{}` does not name this hub", token.raw_resource());
            return Err(denied(Denial::OtherResource, text));
        }
        Ok(Timestamp::from_unix_seconds(token.expiry_seconds()))
    }

    /// Counts a denial and gives its text.
    fn counted(&self, denied: Denied) -> String {
        self.metrics.denied.of(denied.reason).increment();
        denied.text
    }

    async fn prove(&self, attempt: Attempt) -> Result<Admission, Denied> {
        let identity = attempt.identity.clone();
        let entry = self.enabled_entry(&identity).await?;
        let now = self.clock.now();
        let mut thumbprint = None;
        let (principal, auth, expires) = match &attempt.credential {
            Credential::Token(text) => {
                let token = self.token(text, now)?;
                let principal = match &attempt.announced.auth_chain {
                    Some(chain) => self.actor(&token, &identity, chain).await?,
                    None => self.signer(&token, &entry)?,
                };
                let expires = Timestamp::from_unix_seconds(token.expiry_seconds());
                (principal, AuthKind::Sas, Some(expires))
            }
            Credential::Certificate(chain) => {
                thumbprint = Some(check_certificate(&entry, chain, now)?);
                (Principal::Identity(identity.clone()), AuthKind::X509, None)
            }
            Credential::None => {
                let text = format!("`{identity}` sent neither a token nor a certificate");
                return Err(denied(Denial::NoProof, text));
            }
        };
        Ok(Admission {
            principal,
            identity,
            auth,
            thumbprint,
            generation_id: entry.generation,
            expires,
            announced: attempt.announced,
        })
    }

    /// The entry of an identity that may connect.
    async fn enabled_entry(&self, identity: &Identity) -> Result<Entry, Denied> {
        let wanted = identity.clone();
        let found = self
            .repository
            .read(move |view| {
                let device = Identity::of_device(wanted.device.clone());
                let enabled = view.entry(&device)?.is_some_and(|device| device.enabled);
                Ok((view.entry(&wanted)?, enabled))
            })
            .await
            .map_err(|error| denied(Denial::Unavailable, error.message))?;
        match found {
            (None, _) => Err(denied(Denial::NotRegistered, format!("`{identity}` is not registered"))),
            (Some(_), false) => {
                let text = format!("device `{}` is disabled", identity.device);
                Err(denied(Denial::Disabled, text))
            }
            (Some(entry), true) => Ok(entry),
        }
    }

    fn token(&self, text: &str, now: Timestamp) -> Result<SasToken, Denied> {
        let token = SasToken::parse(text).map_err(|error| denied(Denial::Malformed, error.to_string()))?;
        if token.is_expired(now) {
            let end = Timestamp::from_unix_seconds(token.expiry_seconds());
            let text = format!("the token ended at {end}; make a new one, and check the clock");
            return Err(denied(Denial::Ended, text));
        }
        Ok(token)
    }

    fn signer(&self, token: &SasToken, entry: &Entry) -> Result<Principal, Denied> {
        let identity = &entry.identity;
        self.check_audience(token, identity)?;
        let Some(name) = token.policy() else {
            return match &entry.authentication {
                Authentication::Sas(keys) if signed(token, &keys.primary, &keys.secondary) => {
                    Ok(Principal::Identity(identity.clone()))
                }
                Authentication::Sas(_) => {
                    let text = format!("the token was not signed by a key of `{identity}`");
                    Err(denied(Denial::WrongKey, text))
                }
                other => {
                    let text = format!("`{identity}` logs in by `{}`, not by a token", other.kind());
                    Err(denied(Denial::OtherKind, text))
                }
            };
        };
        self.policy(token, name, Rights::DEVICE_CONNECT)
            .map(|()| Principal::Policy(name.to_owned()))
    }

    fn check_audience(&self, token: &SasToken, identity: &Identity) -> Result<(), Denied> {
        if token.covers(&self.hosts, identity) {
            return Ok(());
        }
        let resource = token.raw_resource();
        let text = format!("the token's `sr` `{resource}` does not name `{identity}` at this hub");
        Err(denied(Denial::OtherResource, text))
    }

    fn policy(&self, token: &SasToken, name: &str, right: Rights) -> Result<(), Denied> {
        let policy = self.find_policy(token, name)?;
        if !policy.rights.contains(right) {
            let text = format!("policy `{name}` lacks the permission {}", right.names().join(" + "));
            return Err(denied(Denial::NotPermitted, text));
        }
        Ok(())
    }

    fn find_policy(&self, token: &SasToken, name: &str) -> Result<Policy, Denied> {
        let policy = self.policies.find(name);
        let policy = policy.ok_or_else(|| denied(Denial::UnknownPolicy, format!("there is no policy `{name}`")))?;
        let by_text = || token.verify_of_event_hubs(&policy.primary) || token.verify_of_event_hubs(&policy.secondary);
        if !signed(token, &policy.primary, &policy.secondary) && !by_text() {
            let text = format!("the token was not signed by a key of policy `{name}`");
            return Err(denied(Denial::WrongKey, text));
        }
        Ok(policy)
    }

    /// Lets a back end do something at `path` (decoded, without the first slash) for which any of `rights` is enough; gives the name of
    /// its policy.
    ///
    /// # Errors
    /// `IotHubUnauthorized` when the proof is not good, `IotHubUnauthorizedAccess` when the policy lacks the right.
    pub fn permit_service(
        &self,
        authorization: Option<&str>,
        path: &str,
        rights: &[Rights],
    ) -> Result<String, ServiceError> {
        self.allow(authorization, path, rights).map_err(|denied| {
            let lacks_right = denied.reason == Denial::NotPermitted;
            let text = self.counted(denied);
            if lacks_right {
                ServiceError::new(ErrorCode::IotHubUnauthorizedAccess, text)
            } else {
                ServiceError::unauthorized(text)
            }
        })
    }

    /// Lets a back end have a link at `path` (decoded, without the first slash) by a token of a policy with that right; gives
    /// when it ends. A token that opens something else is no bad proof, so it is not counted as one: a connection has many.
    ///
    /// # Errors
    /// [`Refusal::NotAuthorized`].
    pub fn permit_link(&self, token: &str, path: &str, right: Rights) -> Result<Timestamp, Refusal> {
        let permitted = self.policy_token(token).and_then(|(token, policy)| {
            if !token.resource().covers_words(&self.hosts, path) {
                return Err(other_resource(&token, path));
            }
            allow_right(&policy, &[right])?;
            Ok(ends(&token))
        });
        permitted.map_err(|denied| Refusal::NotAuthorized(denied.text))
    }

    /// Whether the token of a policy that has let a device or module in would still do so.
    ///
    /// # Errors
    /// [`Refusal::NotAuthorized`].
    pub fn permit_session(&self, token: &str) -> Result<(), Refusal> {
        let permitted = self.policy_token(token);
        let permitted = permitted.and_then(|(_, policy)| allow_right(&policy, &[Rights::DEVICE_CONNECT]));
        permitted.map_err(|denied| Refusal::NotAuthorized(denied.text))
    }

    /// Each change of a policy from now on; several at once are one.
    pub fn policy_changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        stream::unfold(self.policies.follow(), |mut changes| async move {
            changes.changed().await.ok().map(|()| ((), changes))
        })
    }

    fn allow(&self, authorization: Option<&str>, path: &str, rights: &[Rights]) -> Result<String, Denied> {
        let text = authorization.ok_or_else(|| {
            let text = "the `Authorization` header is missing; send a shared access signature";
            denied(Denial::NoProof, text)
        })?;
        if text
            .get(..7)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer "))
        {
            let text = "bearer tokens are not accepted: no issuer is configured; send a shared access signature";
            return Err(denied(Denial::OtherKind, text));
        }
        let (token, policy) = self.policy_token(text)?;
        if !token.resource().covers_path(&self.hosts, path) {
            return Err(other_resource(&token, path));
        }
        allow_right(&policy, rights)?;
        Ok(policy.name)
    }

    fn policy_token(&self, text: &str) -> Result<(SasToken, Policy), Denied> {
        let token = self.token(text, self.clock.now())?;
        let Some(name) = token.policy() else {
            let text = "the token has no `skn`; send a token of a shared access policy";
            return Err(denied(Denial::OtherKind, text));
        };
        let policy = self.find_policy(&token, name)?;
        Ok((token, policy))
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
            Refusal::Throttled(why) => ServiceError::new(ErrorCode::ThrottlingException, why),
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

/// Why a proof is not good: for the figures, and in words.
struct Denied {
    reason: Denial,
    text: String,
}

fn denied(reason: Denial, text: impl Into<String>) -> Denied {
    let text = text.into();
    Denied { reason, text }
}

fn other_resource(token: &SasToken, path: &str) -> Denied {
    let resource = token.raw_resource();
    let text = format!("the token's `sr` `{resource}` does not cover `{path}` at this hub");
    denied(Denial::OtherResource, text)
}

/// Any of the rights is enough.
fn allow_right(policy: &Policy, rights: &[Rights]) -> Result<(), Denied> {
    if rights.iter().any(|right| policy.rights.contains(*right)) {
        return Ok(());
    }
    let wanted: Vec<String> = rights.iter().map(|right| right.names().join(" + ")).collect();
    let text = format!("policy `{}` lacks the permission {}", policy.name, wanted.join(" or "));
    Err(denied(Denial::NotPermitted, text))
}

fn ends(token: &SasToken) -> Timestamp {
    Timestamp::from_unix_seconds(token.expiry_seconds())
}

fn signed(token: &SasToken, primary: &SymmetricKey, secondary: &SymmetricKey) -> bool {
    token.verify(primary) || token.verify(secondary)
}

/// Gives the thumbprint by which the certificate is known.
fn check_certificate(entry: &Entry, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<Thumbprint, Denied> {
    match &entry.authentication {
        Authentication::SelfSigned((primary, secondary)) => {
            let known: Vec<_> = primary.iter().chain(secondary).cloned().collect();
            thumbprint_matches(chain, &known, now)
                .map_err(|error| denied(Denial::Certificate, holm_net::error_chain(&error)))
        }
        Authentication::CertificateAuthority => Err(denied(
            Denial::Certificate,
            format!(
                "`{}` logs in by a certificate authority, and none can be registered in this release; give it thumbprints",
                entry.identity
            ),
        )),
        other => Err(denied(
            Denial::OtherKind,
            format!(
                "`{}` logs in by `{}`, not by a certificate",
                entry.identity,
                other.kind()
            ),
        )),
    }
}
