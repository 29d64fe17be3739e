//! A linked hub, spoken to as any back end speaks to a hub: the published interface over HTTPS, a token of its policy.
//!
//! A connection carries one request: devices come to a hub and leave it seldom.
//!
//! Source: `hub-service-api.md` §1, §2.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_identity::connection_string::Credential;
use holm_identity::tls::client_config;
use holm_identity::{Roots, SasToken, ServiceConnectionString, SymmetricKey};
use holm_model::ProvisioningError;
use holm_net::http::Client;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::Value;

use crate::storage::LinkedHub;
use crate::{Clock, random};

/// The version of the published interface that is spoken.
const API_VERSION: &str = "2021-04-12";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest answer: the modules of a device, or a twin with its metadata.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// How long a token is good, in seconds.
const TOKEN_SECONDS: i64 = 600;

/// Why a hub did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In words for the device's owner.
    pub(super) text: String,
    /// Whether it helps nothing to ask again.
    pub(super) is_final: bool,
}

impl Trouble {
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_final: false,
        }
    }
}

/// A linked hub.
#[derive(Debug)]
pub(super) struct LinkedService {
    client: Client,
    policy: String,
    key: SymmetricKey,
    clock: Clock,
}

impl LinkedService {
    /// Makes no connection yet.
    ///
    /// # Errors
    /// `ArgumentInvalid` where the connection string or the authority can't be used.
    pub(super) fn new(hub: &LinkedHub, clock: Clock) -> Result<Self, ProvisioningError> {
        let invalid = |text: String| ProvisioningError::argument_invalid(text);
        let text = hub.connection_string.as_ref().map(|text| text.expose());
        let string = text.map(ServiceConnectionString::parse);
        let Some(Ok(string)) = string else {
            return Err(invalid(format!("the hub `{}` has no connection string", hub.host)));
        };
        let Credential::Key {
            key,
            policy: Some(policy),
        } = string.credential
        else {
            return Err(invalid(format!("the connection string of `{}` has no key", hub.host)));
        };
        let tls = roots(hub.authority.as_deref()).map_err(invalid)?;
        let tls = client_config(tls, None).map_err(|error| invalid(holm_net::error_chain(&error)))?;
        let (host, port) = split_port(&string.host_name);
        Ok(Self {
            client: Client::new(Arc::new(tls), host, port),
            policy,
            key,
            clock,
        })
    }

    /// Whether the hub answers, and its policy may do what will be asked.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn try_out(&self) -> Result<(), Trouble> {
        let digits: [u8; 8] = random::bytes().map_err(|error| Trouble::passing(error.message))?;
        let nobody = format!("holm-nobody-{:016x}", u64::from_be_bytes(digits));
        let reads = self.call(Method::GET, "/statistics/devices", None, None).await?;
        if reads.is_none_or(|counts| counts.get("totalDeviceCount").is_none()) {
            return Err(Trouble::passing("it does not answer as a hub does"));
        }
        self.call(Method::GET, &format!("/twins/{nobody}"), None, None).await?;
        self.call(Method::DELETE, &format!("/devices/{nobody}"), Some("*"), None)
            .await?;
        Ok(())
    }

    /// Sends a request; gives what came with success, `None` for what is not there.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        if_match: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Option<Value>, Trouble> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version={API_VERSION}"))
            .header("Authorization", self.token())
            .header("Content-Type", "application/json; charset=utf-8")
            .header("User-Agent", concat!("holm/", env!("CARGO_PKG_VERSION")));
        if let Some(etag) = if_match {
            request = request.header("If-Match", format!("\"{etag}\""));
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body));
        let request = request.map_err(|error| Trouble {
            text: format!("its path has no form in HTTP: {error}"),
            is_final: true,
        })?;
        let answered = self.client.send(request, MAX_ANSWER, PATIENCE).await;
        let (status, _, bytes) = answered.map_err(|error| Trouble::passing(holm_net::error_chain(&error)))?;
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(refused(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Some(Value::Null));
        }
        let body = serde_json::from_slice(&bytes);
        body.map(Some).map_err(|_| Trouble::passing("its answer is not JSON"))
    }

    fn token(&self) -> String {
        let expiry = self.clock.now().unix_seconds() + TOKEN_SECONDS;
        let token = SasToken::sign(self.client.host(), expiry, Some(&self.policy), &self.key);
        token.to_text().expose().to_owned()
    }
}

fn roots(authority: Option<&str>) -> Result<Roots, String> {
    let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = Roots::none().with_system(system.as_deref());
    match authority {
        // A machine without authorities of its own trusts the one that is given.
        Some(pem) => known
            .unwrap_or_else(|_| Roots::none())
            .with_pem(pem.as_bytes())
            .map_err(|error| {
                format!(
                    "`certificateAuthority` can't be used: {}",
                    holm_net::error_chain(&error)
                )
            }),
        None => known.map_err(|error| holm_net::error_chain(&error)),
    }
}

/// What can't be otherwise the next time: a rule that is broken, a limit that is reached.
fn refused(status: StatusCode, body: &[u8]) -> Trouble {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = parsed.get("Message").or_else(|| parsed.get("message"));
    let said = said.and_then(Value::as_str).unwrap_or("no reason is given");
    let said: String = said.chars().take(300).collect();
    let is_final = matches!(status.as_u16(), 400 | 403 | 405 | 413 | 501);
    Trouble {
        text: format!("{said} (HTTP {})", status.as_u16()),
        is_final,
    }
}

/// A host name may carry a port, where the published 443 is taken.
pub(super) fn split_port(host: &str) -> (String, u16) {
    match host.rsplit_once(':').map(|(name, port)| (name, port.parse())) {
        Some((name, Ok(port))) if !name.contains(':') => (name.to_owned(), port),
        _ => (host.to_owned(), 443),
    }
}
