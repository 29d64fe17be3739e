//! A module finds its edge by what its environment says, and proves itself through the workload API: the edge signs, the
//! key never leaves it.
//!
//! ```text
//!   IOTEDGE_* --> EdgeEnvironment --trust-bundle--> whom to trust
//!                                 --sign----------> a token, again before it ends
//! ```
//!
//! Source: `hub-device-protocols.md` §6.2, `edge-agent.md` §3.2 and §4.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use holm_identity::SasToken;
use holm_identity::sas::resource_uri;
use holm_identity::tls::{Roots, TlsError, client_config};
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, InvalidId, ModuleId, Timestamp};
use holm_net::http::{BodyError, ClientError, body, client};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};

use crate::credential::{Credential, MakingToken, NoToken, TOKEN_LIFE_SECONDS, Token, TokenSource};
use crate::options::{Endpoint, Options, Transport};

/// The largest answer of the workload API that is read: a trust bundle of many certificates.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why the environment does not describe a module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvironment {
    /// A variable is missing.
    #[error("the variable `{0}` is not set; start the program as a module of an edge, which sets it")]
    Missing(&'static str),
    /// An id breaks the published rules.
    #[error("the variable `{name}` holds no valid id")]
    Id {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        #[source]
        source: InvalidId,
    },
    /// The workload API is at an address of an unknown kind.
    #[error("`{0}` in `IOTEDGE_WORKLOADURI` is neither `unix://…` nor `http://host:port`")]
    WorkloadUri(String),
}

/// Why the workload API did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Nobody listens at its address.
    #[error("the workload API does not answer at `{address}`")]
    Unreachable {
        /// Where.
        address: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the workload API broke off")]
    Broken(#[source] ClientError),
    /// Its answer could not be read.
    #[error("the workload API's answer could not be read")]
    Body(#[source] BodyError),
    /// It refused.
    #[error("the workload API refused with status {status}: {reason}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// The text of the answer.
        reason: String,
    },
    /// Its answer has not the published form.
    #[error("the workload API's answer has no `{0}`")]
    Malformed(&'static str),
    /// The request has no form in HTTP.
    #[error("the request has no form in HTTP")]
    Request(#[source] hyper::http::Error),
    /// The trust bundle is unusable.
    #[error("the trust bundle is unusable")]
    TrustBundle(#[source] TlsError),
}

/// Where the workload API is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Workload {
    Unix(PathBuf),
    Tcp(String),
}

/// What the environment of a module says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeEnvironment {
    identity: Identity,
    module: ModuleId,
    generation_id: String,
    hub_host: String,
    gateway_host: Option<String>,
    api_version: String,
    workload: Workload,
}

impl EdgeEnvironment {
    /// Reads the `IOTEDGE_*` variables of this process.
    ///
    /// # Errors
    /// [`InvalidEnvironment`].
    pub fn from_process() -> Result<Self, InvalidEnvironment> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the `IOTEDGE_*` variables from a look-up.
    ///
    /// # Errors
    /// [`InvalidEnvironment`].
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidEnvironment> {
        let required = |name| {
            variable(name)
                .filter(|value| !value.is_empty())
                .ok_or(InvalidEnvironment::Missing(name))
        };
        let invalid = |name| move |source| InvalidEnvironment::Id { name, source };
        let device = DeviceId::new(&required("IOTEDGE_DEVICEID")?).map_err(invalid("IOTEDGE_DEVICEID"))?;
        let module = ModuleId::new(&required("IOTEDGE_MODULEID")?).map_err(invalid("IOTEDGE_MODULEID"))?;
        Ok(Self {
            identity: Identity::of_module(device, module.clone()),
            module,
            generation_id: required("IOTEDGE_MODULEGENERATIONID")?,
            hub_host: required("IOTEDGE_IOTHUBHOSTNAME")?,
            gateway_host: variable("IOTEDGE_GATEWAYHOSTNAME").filter(|host| !host.is_empty()),
            api_version: variable("IOTEDGE_APIVERSION").unwrap_or_else(|| "2018-06-28".to_owned()),
            workload: workload(&required("IOTEDGE_WORKLOADURI")?)?,
        })
    }

    /// Which module this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Options for a client of this module: it connects to its edge, trusts what the edge says is to be trusted, and lets
    /// the edge sign its tokens. `port` is the edge's, where it is not the published one.
    ///
    /// # Errors
    /// [`WorkloadError`] when the trust bundle can't be had.
    pub async fn options(&self, transport: Transport, port: Option<u16>) -> Result<Options, WorkloadError> {
        let roots = Roots::none()
            .with_pem(self.trust_bundle().await?.as_bytes())
            .map_err(WorkloadError::TrustBundle)?;
        let tls = client_config(roots, None).map_err(WorkloadError::TrustBundle)?;
        let credential = Credential::Tokens(Arc::new(self.clone()));
        let mut options = Options::new(self.identity.clone(), &self.hub_host, credential, Arc::new(tls));
        options.transport = transport;
        options.endpoint = Endpoint {
            host: self.gateway_host.clone().unwrap_or_else(|| self.hub_host.clone()),
            port: port.unwrap_or_else(|| transport.default_port()),
        };
        Ok(options)
    }

    /// The certificates that this module is to trust, as PEM.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn trust_bundle(&self) -> Result<String, WorkloadError> {
        let path = format!("/trust-bundle?api-version={}", self.api_version);
        text_member(&self.ask(Method::GET, &path, None).await?, "certificate")
    }

    /// HMAC-SHA256 of `data` with this module's key, as base64.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn sign(&self, data: &[u8]) -> Result<String, WorkloadError> {
        let (module, generation) = (
            percent::encode(self.module.as_str()),
            percent::encode(&self.generation_id),
        );
        let path = format!(
            "/modules/{module}/genid/{generation}/sign?api-version={}",
            self.api_version
        );
        let body = json!({ "keyId": "primary", "algo": "HMACSHA256", "data": STANDARD.encode(data) });
        text_member(&self.ask(Method::POST, &path, Some(body)).await?, "digest")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, WorkloadError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Host", "workload")
            .header("Connection", "close")
            .header("Content-Type", "application/json")
            .body(Full::new(
                body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())),
            ))
            .map_err(WorkloadError::Request)?;
        let unreachable = |address: String| move |source| WorkloadError::Unreachable { address, source };
        let response = match &self.workload {
            Workload::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(unreachable(path.display().to_string()))?;
                client::send_over(stream, request).await
            }
            Workload::Tcp(address) => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(unreachable(address.clone()))?;
                client::send_over(stream, request).await
            }
        };
        let (head, incoming) = response.map_err(WorkloadError::Broken)?.into_parts();
        let bytes = body::read(incoming, MAX_ANSWER).await.map_err(WorkloadError::Body)?;
        if !head.status.is_success() {
            let reason = String::from_utf8_lossy(&bytes).into_owned();
            return Err(WorkloadError::Refused {
                status: head.status,
                reason,
            });
        }
        serde_json::from_slice(&bytes).map_err(|_| WorkloadError::Malformed("JSON"))
    }

    async fn token(&self, now: Timestamp) -> Result<Token, WorkloadError> {
        let resource = resource_uri(&self.hub_host, &self.identity);
        let expiry = now.unix_seconds().saturating_add(TOKEN_LIFE_SECONDS);
        let token = SasToken::unsigned(&resource, expiry, None);
        let digest = self.sign(token.string_to_sign().as_bytes()).await?;
        let signature = STANDARD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or(WorkloadError::Malformed("digest"))?;
        let text = token.with_signature(signature).to_text();
        Ok(Token {
            text,
            expires: Timestamp::from_unix_seconds(expiry),
        })
    }
}

impl TokenSource for EdgeEnvironment {
    fn make(&self, now: Timestamp) -> MakingToken<'_> {
        Box::pin(async move { self.token(now).await.map_err(|error| NoToken(Box::new(error))) })
    }
}

fn workload(uri: &str) -> Result<Workload, InvalidEnvironment> {
    if let Some(path) = uri.strip_prefix("unix://") {
        return Ok(Workload::Unix(path.into()));
    }
    match uri.strip_prefix("http://") {
        Some(address) => Ok(Workload::Tcp(address.trim_end_matches('/').to_owned())),
        None => Err(InvalidEnvironment::WorkloadUri(uri.to_owned())),
    }
}

fn text_member(answer: &Value, name: &'static str) -> Result<String, WorkloadError> {
    answer
        .get(name)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or(WorkloadError::Malformed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<String> {
        let value = match name {
            "IOTEDGE_DEVICEID" => "edge1",
            "IOTEDGE_MODULEID" => "sensor",
            "IOTEDGE_MODULEGENERATIONID" => "g1",
            "IOTEDGE_IOTHUBHOSTNAME" => "hub.test",
            "IOTEDGE_WORKLOADURI" => "unix:///var/run/iotedge/workload.sock",
            _ => return None,
        };
        Some(value.to_owned())
    }

    #[test]
    fn the_published_variables_describe_a_module() {
        let environment = EdgeEnvironment::from_variables(variable).unwrap();

        assert_eq!(environment.identity().to_string(), "edge1/sensor");
        assert_eq!(
            environment.workload,
            Workload::Unix("/var/run/iotedge/workload.sock".into())
        );
        assert_eq!(environment.gateway_host, None);
    }

    #[test]
    fn a_missing_variable_is_named() {
        let missing = EdgeEnvironment::from_variables(|name| variable(name).filter(|_| name != "IOTEDGE_WORKLOADURI"));

        assert_eq!(missing, Err(InvalidEnvironment::Missing("IOTEDGE_WORKLOADURI")));
    }
}
