//! The calls by which an edge learns who is below it, as its module `$edgeHub` (`edge-broker.md` §7).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_identity::SasToken;
use holm_identity::sas::resource_uri;
use holm_model::wire::percent;
use holm_model::{Identity, ModuleId, Timestamp};
use holm_net::Clock;
use holm_net::http::{Client, ClientError};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::child::{Child, identity_of};
use crate::keys::ModuleKeys;

/// The version that the original speaks.
const API_VERSION: &str = "2020-06-30-preview";
/// Devices of one answer.
const PAGE: u32 = 100;
/// The largest answer: a page of devices with fifty modules each has 3 MiB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The most pages that are read: far more than any hub has children for one edge; a hub that goes on for ever is not believed.
const MAX_PAGES: usize = 1000;
/// A token for one call; long, so that a clock that is a little off does no harm.
const TOKEN_LIFE_SECONDS: i64 = 3600;

/// Why the hub did not tell. What was told before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The hub can't be reached.
    #[error("the hub did not answer when it was asked for the devices below this edge")]
    Unreachable(#[source] ClientError),
    /// The hub refused.
    #[error("the hub refused to tell of the devices below this edge (status {status}): {message}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its own words.
        message: String,
    },
    /// The hub answered something else than the published form.
    #[error("what the hub told of the devices below this edge has another form than the published one: {0}")]
    Answer(String),
    /// There is no key to sign with yet.
    #[error("this edge has no key of `$edgeHub` yet")]
    NoKey,
}

/// The identities of one answer, and where the next begins.
struct Page {
    children: HashMap<Identity, Child>,
    link: Option<String>,
}

/// Asks the hub.
pub struct ScopeApi {
    keys: Arc<dyn ModuleKeys>,
    hub: Client,
    timeout: Duration,
    clock: Clock,
}

impl std::fmt::Debug for ScopeApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScopeApi")
            .field("hub", &self.hub)
            .finish_non_exhaustive()
    }
}

impl ScopeApi {
    /// Calls to `hub`, each of at most `timeout`.
    #[must_use]
    pub fn new(keys: Arc<dyn ModuleKeys>, hub: Client, timeout: Duration, clock: Clock) -> Self {
        Self {
            keys,
            hub,
            timeout,
            clock,
        }
    }

    /// Everybody below this edge.
    pub(super) async fn all(&self) -> Result<HashMap<Identity, Child>, ScopeError> {
        let mut children = HashMap::new();
        let mut link: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let body = json!({
                "pageSize": PAGE,
                "continuationLink": link,
                "authChain": self.keys.device(),
            });
            let answer = self.call("devicesAndModulesInTargetDeviceScope", &body).await?;
            let page = self.read(&answer)?;
            children.extend(page.children);
            match page.link {
                Some(next) if link.as_ref() != Some(&next) => link = Some(next),
                Some(_) => return Err(ScopeError::Answer("its `continuationLink` leads to itself".to_owned())),
                None => return Ok(children),
            }
        }
        Err(ScopeError::Answer(format!("it has more than {MAX_PAGES} pages")))
    }

    /// One device, and its module when `identity` is one; `None` when there is no such below this edge.
    pub(super) async fn one(&self, identity: &Identity) -> Result<Option<HashMap<Identity, Child>>, ScopeError> {
        let body = json!({
            "targetDeviceId": identity.device,
            "targetModuleId": identity.module,
            "authChain": format!("{identity};{}", self.keys.device()),
        });
        match self.call("getDeviceAndModuleOnBehalfOf", &body).await {
            Ok(answer) => Ok(Some(self.read(&answer)?.children)),
            Err(ScopeError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves out this edge itself and its modules, which it keeps otherwise, and edge devices below it: those would speak for
    /// others through this one, which it does not do.
    fn read(&self, answer: &Value) -> Result<Page, ScopeError> {
        let list = |name: &str| match answer.get(name) {
            Some(Value::Array(list)) => Ok(list.as_slice()),
            None | Some(Value::Null) => Ok(&[][..]),
            Some(_) => Err(ScopeError::Answer(format!("its `{name}` is no list"))),
        };
        let is_edge = |document: &Value| document.pointer("/capabilities/iotEdge") == Some(&Value::Bool(true));
        let edges: Vec<_> = list("devices")?.iter().filter(|document| is_edge(document)).collect();
        let is_of_edge = |identity: &Identity| {
            let of = |edge: &&Value| edge.get("deviceId").and_then(Value::as_str) == Some(identity.device.as_str());
            edges.iter().any(of)
        };
        let mut children = HashMap::new();
        for document in list("devices")?.iter().chain(list("modules")?) {
            let Some(identity) = identity_of(document) else {
                return Err(ScopeError::Answer("it holds an entry without an id".to_owned()));
            };
            if identity.device == *self.keys.device() || is_of_edge(&identity) {
                continue;
            }
            match Child::read(document) {
                Some(child) => drop(children.insert(identity, child)),
                None => {
                    tracing::error!(%identity, "what the hub told of a device below this edge can't be read; it is not let in")
                }
            }
        }
        let link = answer.get("continuationLink").and_then(Value::as_str);
        Ok(Page {
            children,
            link: link.filter(|link| !link.is_empty()).map(str::to_owned),
        })
    }

    async fn call(&self, operation: &str, body: &Value) -> Result<Value, ScopeError> {
        let request = self.request(operation, body)?;
        let sent = self.hub.send(request, MAX_ANSWER, self.timeout).await;
        let (status, _, bytes) = sent.map_err(ScopeError::Unreachable)?;
        if !status.is_success() {
            let message = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            return Err(ScopeError::Refused { status, message });
        }
        serde_json::from_slice(&bytes).map_err(|error| ScopeError::Answer(error.to_string()))
    }

    fn request(&self, operation: &str, body: &Value) -> Result<Request<Full<Bytes>>, ScopeError> {
        let edge_hub = ModuleId::edge_hub();
        let identity = Identity::of_module(self.keys.device().clone(), edge_hub.clone());
        let expiry = Timestamp::from(self.clock.now()).unix_seconds() + TOKEN_LIFE_SECONDS;
        let token = SasToken::unsigned(&resource_uri(self.keys.hub_host(), &identity), expiry, None);
        let signature = self
            .keys
            .sign(&edge_hub, token.string_to_sign().as_bytes())
            .ok_or(ScopeError::NoKey)?;
        let path = format!(
            "/devices/{}/modules/{}/{operation}?api-version={API_VERSION}",
            percent::encode(self.keys.device().as_str()),
            percent::encode(edge_hub.as_str()),
        );
        Request::post(path)
            .header(AUTHORIZATION, token.with_signature(signature).to_text().expose())
            .header(CONTENT_TYPE, "application/json")
            .header("x-ms-edge-moduleId", identity.to_string())
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| ScopeError::Answer(error.to_string()))
    }
}
