//! A device that asks the provisioning service where it belongs.
//!
//! ```text
//!   PUT  /{scope}/registrations/{id}/register          202, an operation
//!   GET  /{scope}/registrations/{id}/operations/{op}   202 assigning: again after `Retry-After`   200: assigned, or why not
//! ```
//!
//! Over HTTPS: a registration is rare, and leaves nothing open behind it. The proof is a token of a shared key, made anew for each
//! request, or the certificate of the TLS configuration.
//!
//! Source: `hub-device-protocols.md` §5.3, `edge-agent.md` §6.5.

use std::time::Duration;

use bytes::Bytes;
use holm_identity::{SasToken, SymmetricKey};
use holm_model::wire::percent;
use holm_model::wire::provisioning::Registrant;
use holm_model::{DeviceId, Timestamp};
use holm_net::Clock;
use holm_net::http::{Client, ClientError};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};

/// The interface that is spoken.
const API_VERSION: &str = "2021-06-01";
/// The largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a registration may go on: a webhook that decides takes seconds.
const WHOLE: Duration = Duration::from_secs(120);
/// How long a token lives, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// When to ask again, if the service does not say; and the bounds of what it says.
const ASK_AGAIN: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Where a device belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// The hub's host name.
    pub hub: String,
    /// The device that it is there.
    pub device: DeviceId,
    /// What the service's webhook has to say to it.
    pub payload: Option<Value>,
}

/// Why a device was not told where it belongs.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Nobody answered.
    #[error("the provisioning service `{host}` can't be reached")]
    Unreached {
        /// The service.
        host: String,
        /// The cause.
        #[source]
        source: ClientError,
    },
    /// The service refused.
    #[error("the provisioning service refuses: {message} ({code})")]
    Refused {
        /// The published number, else the HTTP status.
        code: u64,
        /// Its text.
        message: String,
    },
    /// It answered something that is no answer.
    #[error("the provisioning service's answer can't be used: {0}")]
    Unusable(&'static str),
    /// It went on for too long.
    #[error("the provisioning service has not decided within {} s", WHOLE.as_secs())]
    TimedOut,
}

/// Asks for a device.
#[derive(Clone, Debug)]
pub struct Registrar {
    client: Client,
    registrant: Registrant,
    key: Option<SymmetricKey>,
    clock: Clock,
}

impl Registrar {
    /// Asks by `client`. `key` is the device's own, derived from its group's if it is of one; without one, the client's
    /// certificate is the proof.
    #[must_use]
    pub const fn new(client: Client, registrant: Registrant, key: Option<SymmetricKey>, clock: Clock) -> Self {
        Self {
            client,
            registrant,
            key,
            clock,
        }
    }

    /// Registers the device, and waits for what comes of it.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, payload: Option<&Value>) -> Result<Assignment, RegisterError> {
        let whole = self.ask_until_decided(payload);
        tokio::time::timeout(WHOLE, whole)
            .await
            .unwrap_or(Err(RegisterError::TimedOut))
    }

    async fn ask_until_decided(&self, payload: Option<&Value>) -> Result<Assignment, RegisterError> {
        let mut body = json!({ "registrationId": self.registrant.registration_id });
        if let Some(payload) = payload {
            body["payload"] = payload.clone();
        }
        let (answer, mut wait) = self.ask(Method::PUT, "register", body.to_string()).await?;
        let operation = answer["operationId"].as_str();
        let operation = operation.ok_or(RegisterError::Unusable("it names no operation"))?;
        let path = format!("operations/{}", percent::encode(operation));
        loop {
            tokio::time::sleep(wait).await;
            let (answer, next) = self.ask(Method::GET, &path, String::new()).await?;
            if let Some(decided) = read(&answer) {
                return decided;
            }
            wait = next;
        }
    }

    /// An answer, and when to ask again.
    async fn ask(&self, method: Method, what: &str, body: String) -> Result<(Value, Duration), RegisterError> {
        let Registrant {
            id_scope,
            registration_id,
        } = &self.registrant;
        let (scope, id) = (percent::encode(id_scope), percent::encode(registration_id));
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/{scope}/registrations/{id}/{what}?api-version={API_VERSION}"))
            .header("Content-Type", "application/json; charset=utf-8")
            .header("User-Agent", concat!("holm/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            request = request.header("Authorization", self.token(key));
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| RegisterError::Unusable("its name has no form in HTTP"))?;
        let answered = self.client.send(request, MAX_ANSWER, ANSWER).await;
        let (status, headers, bytes) = answered.map_err(|source| RegisterError::Unreached {
            host: self.client.host().to_owned(),
            source,
        })?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if !status.is_success() {
            return Err(refused(status, &answer));
        }
        let wait = headers.get("retry-after").and_then(|value| value.to_str().ok());
        let wait = wait
            .and_then(|text| text.parse().ok())
            .map_or(ASK_AGAIN, Duration::from_secs);
        Ok((answer, wait.clamp(Duration::from_secs(1), LONGEST_WAIT)))
    }

    fn token(&self, key: &SymmetricKey) -> String {
        let expiry = Timestamp::from(self.clock.now()).unix_seconds() + TOKEN_SECONDS;
        let token = SasToken::sign(&self.registrant.resource(), expiry, Some("registration"), key);
        token.to_text().expose().to_owned()
    }
}

fn refused(status: StatusCode, answer: &Value) -> RegisterError {
    let code = answer["errorCode"].as_u64().unwrap_or_else(|| status.as_u16().into());
    let message = answer["message"].as_str().unwrap_or("no reason is given");
    RegisterError::Refused {
        code,
        message: message.to_owned(),
    }
}

/// What a state says; `None` while nothing is decided.
fn read(answer: &Value) -> Option<Result<Assignment, RegisterError>> {
    let state = &answer["registrationState"];
    let text = |name: &str| state[name].as_str().filter(|text| !text.is_empty());
    match answer["status"].as_str().unwrap_or_default() {
        "assigning" | "unassigned" => None,
        "assigned" => Some(match (text("assignedHub"), text("deviceId").map(DeviceId::new)) {
            (Some(hub), Some(Ok(device))) => Ok(Assignment {
                hub: hub.to_owned(),
                device,
                payload: state.get("payload").filter(|payload| !payload.is_null()).cloned(),
            }),
            _ => Err(RegisterError::Unusable("it names no hub or no device")),
        }),
        "" => Some(Err(RegisterError::Unusable("it has no status"))),
        status => Some(Err(RegisterError::Refused {
            code: state["errorCode"].as_u64().unwrap_or_default(),
            message: text("errorMessage").unwrap_or(status).to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_to_its_end_and_no_further() {
        let assigned = json!({ "status": "assigned", "registrationState": {
            "assignedHub": "hub.test", "deviceId": "d1", "payload": { "k": 1 } } });
        let disabled = json!({ "status": "disabled", "registrationState": {
            "errorCode": 401_002, "errorMessage": "the enrollment is disabled" } });

        assert!(read(&json!({ "status": "assigning" })).is_none());
        let found = read(&assigned).unwrap().unwrap();
        assert_eq!((found.hub.as_str(), found.device.as_str()), ("hub.test", "d1"));
        assert_eq!(found.payload, Some(json!({ "k": 1 })));
        let refused = read(&disabled).unwrap().unwrap_err().to_string();
        assert!(refused.contains("the enrollment is disabled (401002)"), "{refused}");
        for unusable in [json!({}), json!({ "status": "assigned" }), json!([])] {
            assert!(
                matches!(read(&unusable), Some(Err(RegisterError::Unusable(_)))),
                "{unusable}"
            );
        }
    }
}
