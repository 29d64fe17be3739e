//! What an edge device asks about the devices below it, as its module `$edgeHub`, and what an operator asks about children.
//!
//! ```text
//! POST /devices/{e}/modules/$edgeHub/devicesAndModulesInTargetDeviceScope   {pageSize, continuationLink, authChain}
//! POST /devices/{e}/modules/$edgeHub/getDeviceAndModuleOnBehalfOf           {targetDeviceId, targetModuleId, authChain}
//! GET  /devices/{e}/modules/$edgeHub/devicesAndModulesInDeviceScope         ?deviceCount=&continuationToken=
//!      -> {"devices": […], "modules": […], "continuationLink": null | "/devices/…?…&continuationToken=…"}
//! GET  /holm/v1/devices/{e}/children?top=&after=                            ours, for operators
//! ```
//!
//! Devices and modules stand as in the registry, with their keys and thumbprints: the edge lets them in with no hub. The list
//! begins with the edge device itself. A chain that names other edge devices asks for the scope of its first, on behalf of it.
//!
//! Source: `edge-broker.md` §7.

use holm_gateway::http::query::Query;
use holm_model::wire::percent;
use holm_model::{DeviceId, Identity, ModuleId, ServiceError};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, read};
use crate::registry::{self, Described, Entry, ScopePage};
use crate::storage::Activity;

/// The most devices of one answer to an edge: with fifty modules each it has 3 MiB.
const MAX_PAGE: u32 = 100;
/// The most children of one answer to an operator.
const MAX_LISTED: u32 = 1000;

/// What an edge may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScopeCall {
    /// `devicesAndModulesInTargetDeviceScope`
    List,
    /// `devicesAndModulesInDeviceScope`, as before edges could be below edges.
    ListOwn,
    /// `getDeviceAndModuleOnBehalfOf`
    One,
}

impl ScopeCall {
    pub(super) fn of(word: &str) -> Option<Self> {
        let all = [
            ("devicesAndModulesInTargetDeviceScope", Self::List),
            ("devicesAndModulesInDeviceScope", Self::ListOwn),
            ("getDeviceAndModuleOnBehalfOf", Self::One),
        ];
        let found = all.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, call)| call)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListBody {
    page_size: Option<u32>,
    continuation_link: Option<String>,
    auth_chain: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneBody {
    target_device_id: String,
    #[serde(default)]
    target_module_id: Option<String>,
}

impl RestApi {
    pub(super) async fn scope_call(&self, call: Call, actor: DeviceId, what: ScopeCall) -> Result<Answer, Failure> {
        let expected = match what {
            ScopeCall::ListOwn => Method::GET,
            ScopeCall::List | ScopeCall::One => Method::POST,
        };
        if call.method != expected {
            return Err(not_allowed(&call, expected.as_str()));
        }
        let page = match what {
            ScopeCall::ListOwn => {
                let most = page_size(call.query.get("deviceCount").map(str::parse).transpose().ok().flatten())?;
                let after = call.query.get("continuationToken").unwrap_or_default().to_owned();
                self.registry
                    .scope_page(actor.clone(), actor.clone(), after, most)
                    .await?
            }
            ScopeCall::List => {
                let body: ListBody = read(&call)?;
                let most = page_size(body.page_size)?;
                let after = body.continuation_link.as_deref().map(token_of).unwrap_or_default();
                let of = first_of(body.auth_chain.as_deref()).transpose()?;
                let of = of.unwrap_or_else(|| actor.clone());
                self.registry.scope_page(actor.clone(), of, after, most).await?
            }
            ScopeCall::One => {
                let body: OneBody = read(&call)?;
                let invalid = |error: holm_model::InvalidId| ServiceError::argument_invalid(error.to_string());
                let module = body.target_module_id.filter(|module| !module.is_empty());
                let target = Identity {
                    device: DeviceId::new(&body.target_device_id).map_err(invalid)?,
                    module: module
                        .map(|module| ModuleId::new(&module))
                        .transpose()
                        .map_err(invalid)?,
                };
                self.registry.in_scope(actor.clone(), target).await?
            }
        };
        Ok(shown(&actor, &page))
    }

    pub(super) async fn children(&self, call: Call, parent: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let most = super::page_size(&call, MAX_LISTED)?;
        let after = call.query.get("after").unwrap_or_default().to_owned();
        let children = self.registry.children(parent, after, most).await?;
        let all: Vec<Value> = children.iter().map(Described::to_json).collect();
        Ok(answer::json(&Value::Array(all)))
    }
}

fn page_size(wished: Option<u32>) -> Result<u32, ServiceError> {
    match wished {
        Some(0) => Err(ServiceError::argument_invalid("the page size is 0; give 1 or more")),
        Some(wished) => Ok(wished.min(MAX_PAGE)),
        None => Ok(MAX_PAGE),
    }
}

/// The first of a chain: whose scope is asked for.
fn first_of(chain: Option<&str>) -> Option<Result<DeviceId, ServiceError>> {
    let first = chain?.split(';').next().filter(|first| !first.is_empty())?;
    let device = first.split('/').next().unwrap_or(first);
    Some(DeviceId::new(device).map_err(|error| ServiceError::argument_invalid(format!("`authChain`: {error}"))))
}

/// The token in a link of an earlier answer.
fn token_of(link: &str) -> String {
    let query = link.split_once('?').map_or("", |(_, query)| query);
    Query::parse(query)
        .get("continuationToken")
        .unwrap_or_default()
        .to_owned()
}

fn shown(actor: &DeviceId, page: &ScopePage) -> Answer {
    let document = |entry: &Entry| registry::to_json(entry, &Activity::default(), 0);
    let link = page.last.as_ref().map(|last| {
        let (actor, last) = (percent::encode(actor.as_str()), percent::encode(last.as_str()));
        let count = page.devices.len();
        format!(
            "/devices/{actor}/modules/%24edgeHub/devicesAndModulesInDeviceScope\
             ?deviceCount={count}&continuationToken={last}&api-version=2018-08-30-preview"
        )
    });
    answer::json(&json!({
        "devices": page.devices.iter().map(document).collect::<Vec<_>>(),
        "modules": page.modules.iter().map(document).collect::<Vec<_>>(),
        "continuationLink": link,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_whose_scope_is_asked_for_first() {
        let first = |chain| first_of(Some(chain)).map(|first| first.unwrap().to_string());

        assert_eq!(first("e2;e1").as_deref(), Some("e2"));
        assert_eq!(first("e2/$edgeHub;e1/$edgeHub").as_deref(), Some("e2"));
        assert_eq!(first(""), None);
        assert!(first_of(Some("a b")).unwrap().is_err());
    }

    #[test]
    fn a_link_gives_back_its_token() {
        assert_eq!(token_of("/devices/e/x?deviceCount=2&continuationToken=a%23b"), "a#b");
        assert_eq!(token_of("nonsense"), "");
    }
}
