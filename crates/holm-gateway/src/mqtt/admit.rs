//! From CONNECT to an admission, or to the return code that refuses it.
//!
//! | code | when |
//! | --- | --- |
//! | 3 | the node can't tell now, or lets in no more for now; SDKs come again |
//! | 4 | the user name has not the published form |
//! | 5 | everything about authorisation: SDKs stop, or ask their owner |
//!
//! 5 is never given for a temporary condition: the Python SDK would give up until its program restarts
//! (`hub-device-protocols.md` §2.1).

use std::sync::Arc;

use holm_model::wire::UserName;
use holm_model::{Identity, Timestamp};
use holm_mqtt::{Connect, Refusal as Code};
use holm_net::Peer;

use crate::backend::{Admission, Announced, Attempt, Backend, Credential, Principal, Refusal};
use crate::gateway::Gateway;
use crate::metrics::ConnectRefusal;

/// A client that may come in.
pub(super) struct Admitted {
    pub(super) admission: Admission,
    pub(super) clean: bool,
    /// Its token, where that is a policy's.
    pub(super) policy_token: Option<String>,
}

/// Why one may not.
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) counted: ConnectRefusal,
    pub(super) reason: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::NotAuthorized(_) => Code::NotAuthorized,
            Refusal::Unavailable(_) | Refusal::Throttled(_) => Code::ServerUnavailable,
        };
        Self {
            code,
            counted: ConnectRefusal::from(&refusal),
            reason: refusal.to_string(),
        }
    }
}

pub(super) async fn admit<B: Backend>(
    gateway: &Gateway<B>,
    connect: &Connect,
    peer: &Peer,
) -> Result<Admitted, Refused> {
    let attempt = read(gateway, connect, peer)?;
    gateway.await_turn().await?;
    let admission = gateway.backend.authenticate(attempt).await?;
    let is_by_policy = matches!(admission.principal, Principal::Policy(_));
    Ok(Admitted {
        policy_token: is_by_policy.then(|| token(connect)).flatten(),
        admission,
        clean: connect.clean_session,
    })
}

fn token(connect: &Connect) -> Option<String> {
    let password = connect.credentials.as_ref()?.password.as_deref()?;
    std::str::from_utf8(password).ok().map(str::to_owned)
}

fn read<B>(gateway: &Gateway<B>, connect: &Connect, peer: &Peer) -> Result<Attempt, Refused> {
    let not_authorized = |reason: String| Refused {
        code: Code::NotAuthorized,
        counted: ConnectRefusal::NotAuthorized,
        reason,
    };
    let malformed = |reason: String| Refused {
        code: Code::BadUserNameOrPassword,
        counted: ConnectRefusal::Malformed,
        reason,
    };

    let credentials = connect
        .credentials
        .as_ref()
        .ok_or_else(|| malformed("CONNECT has no user name".into()))?;
    let user_name = UserName::parse(credentials.user_name.as_str()).map_err(|error| malformed(error.to_string()))?;
    if user_name.identity.to_string() != connect.client_id.as_str() {
        return Err(not_authorized(format!(
            "the client id `{}` is not the identity `{}` of the user name",
            connect.client_id, user_name.identity
        )));
    }
    if gateway.profile.requires_api_version && user_name.api_version.is_none() {
        return Err(malformed("the user name has no `api-version`".into()));
    }
    if let Some(will) = &connect.will {
        check_will(will.topic.as_str(), &user_name.identity).map_err(not_authorized)?;
    }
    let credential = credential(credentials.password.as_deref(), peer).map_err(malformed)?;
    let announced = Announced {
        api_version: user_name.api_version,
        client_type: user_name.client_type,
        model_id: user_name.model_id,
        auth_chain: user_name.auth_chain,
    };
    Ok(Attempt {
        identity: user_name.identity,
        credential,
        announced,
    })
}

/// A password is a token; without one, the certificate of the TLS handshake speaks.
pub(super) fn credential(password: Option<&[u8]>, peer: &Peer) -> Result<Credential, String> {
    match password {
        Some(password) if !password.is_empty() => match std::str::from_utf8(password) {
            Ok(token) => Ok(Credential::Token(token.to_owned())),
            Err(_) => Err("the password is not text".into()),
        },
        _ if peer.certificates.is_empty() => Ok(Credential::None),
        _ => Ok(Credential::Certificate(Arc::clone(&peer.certificates))),
    }
}

fn check_will(topic: &str, own: &Identity) -> Result<(), String> {
    use holm_model::wire::ClientTopic;
    match ClientTopic::parse(topic, own) {
        Ok(ClientTopic::Telemetry { .. }) => Ok(()),
        Ok(_) => Err(format!(
            "the will's topic `{topic}` is not the client's telemetry topic"
        )),
        Err(error) => Err(format!("the will's topic is refused: {error}")),
    }
}

/// When a session under this admission must end: 5 minutes after its token, for clocks that differ.
pub(super) fn ends(admission: &Admission) -> Option<Timestamp> {
    let skew = i64::try_from(crate::profile::CLOCK_SKEW.as_millis()).unwrap_or(i64::MAX);
    admission.expires.map(|expires| expires.plus_millis(skew))
}
