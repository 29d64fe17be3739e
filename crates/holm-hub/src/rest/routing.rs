//! Message routing: an interface of our own. The original has it in its resource manager.
//!
//! ```text
//! GET    /holm/v1/routing                      {"routes": […], "endpoints": […], "enrichments": […], "fallback": {…}}
//! GET    /holm/v1/routing/routes               […]; and so `endpoints` (with their health), `enrichments`
//! GET    /holm/v1/routing/routes/{name}        {…, "etag"}
//! PUT    /holm/v1/routing/routes/{name}        makes it; with If-Match it changes
//! DELETE /holm/v1/routing/routes/{name}        204; of an endpoint only when nothing leads to it
//! GET, PUT /holm/v1/routing/fallback           {"enabled": bool}
//! POST   /holm/v1/routing/test                 a message against the routes, or against one that is not there yet
//! ```
//!
//! What is answered is in force. Secrets are never answered. Who writes decides where messages go, and what the hub connects to: that
//! needs both rights, to change the registry and to read messages.

use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::routing::{FALLBACK, RoutingError, Trial};
use crate::storage::RoutingKind;

/// What is asked of routing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RoutingCall {
    /// All of it.
    All,
    /// All documents of a kind.
    List(RoutingKind),
    /// A document.
    One(RoutingKind, String),
    /// Try a message.
    Test,
}

impl RoutingCall {
    /// The call of a path behind `/holm/v1/routing`.
    pub(super) fn of(rest: &[&str]) -> Option<Self> {
        let kind = |word: &str| match word {
            "routes" => Some(RoutingKind::Route),
            "endpoints" => Some(RoutingKind::Endpoint),
            "enrichments" => Some(RoutingKind::Enrichment),
            _ => None,
        };
        match rest {
            [] => Some(Self::All),
            ["test"] => Some(Self::Test),
            ["fallback"] => Some(Self::One(RoutingKind::Fallback, FALLBACK.to_owned())),
            [word] => kind(word).map(Self::List),
            [word, name] => kind(word).map(|kind| Self::One(kind, (*name).to_owned())),
            _ => None,
        }
    }

    /// Whether it only looks.
    pub(super) fn is_read(&self, method: &Method) -> bool {
        *self == Self::Test || *method == Method::GET
    }
}

impl From<RoutingError> for Failure {
    fn from(error: RoutingError) -> Self {
        let text = error.to_string();
        match error {
            RoutingError::NotFound { .. } => Self::with_status(StatusCode::NOT_FOUND, text),
            RoutingError::Exists { .. } | RoutingError::InUse { .. } => Self::with_status(StatusCode::CONFLICT, text),
            RoutingError::Refused(error) => error.into(),
        }
    }
}

impl RestApi {
    pub(super) async fn routing(&self, call: Call, what: RoutingCall) -> Result<Answer, Failure> {
        let routing = &self.backend.routing;
        match what {
            RoutingCall::All | RoutingCall::List(_) if call.method != Method::GET => Err(not_allowed(&call, "GET")),
            RoutingCall::All => {
                let list = |kind| Value::from_iter(routing.list(kind));
                Ok(answer::json(&json!({
                    "routes": list(RoutingKind::Route),
                    "endpoints": list(RoutingKind::Endpoint),
                    "enrichments": list(RoutingKind::Enrichment),
                    "fallback": routing.get(RoutingKind::Fallback, FALLBACK)?,
                })))
            }
            RoutingCall::List(kind) => Ok(answer::json(&Value::from_iter(routing.list(kind)))),
            RoutingCall::One(kind, name) => self.routing_document(&call, kind, &name).await,
            RoutingCall::Test if call.method != Method::POST => Err(not_allowed(&call, "POST")),
            RoutingCall::Test => {
                let trial: Trial = read(&call)?;
                Ok(answer::json(&routing.test(trial).await?))
            }
        }
    }

    async fn routing_document(&self, call: &Call, kind: RoutingKind, name: &str) -> Result<Answer, Failure> {
        let routing = &self.backend.routing;
        match call.method {
            Method::GET => Ok(shown(routing.get(kind, name)?)),
            Method::PUT => {
                let document: Map<String, Value> = read(call)?;
                let put = routing.put(kind, name, document, call.if_match());
                Ok(shown(put.await?))
            }
            Method::DELETE if kind != RoutingKind::Fallback => {
                routing.remove(kind, name, call.if_match()).await?;
                Ok(answer::no_content())
            }
            _ if kind == RoutingKind::Fallback => Err(not_allowed(call, "GET or PUT")),
            _ => Err(not_allowed(call, "GET, PUT or DELETE")),
        }
    }
}

fn shown(document: Map<String, Value>) -> Answer {
    answer::json_with_etag(&Value::Object(document))
}
