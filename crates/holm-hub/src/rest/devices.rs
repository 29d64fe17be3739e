//! Devices and modules, statistics, and deployments to one device.

use holm_model::manifest::DeploymentContent;
use holm_model::{DeviceId, Identity, ServiceError};
use hyper::Method;
use serde_json::{Value, json};

use super::answer::{self, Answer, Failure};
use super::{Call, RestApi, not_allowed, page_size};
use crate::registry::{Described, Wish};

/// The most devices of one answer. Source: `hub-service-api.md` §2.2.
const MAX_LISTED: u32 = 1000;

impl RestApi {
    pub(super) async fn devices(&self, call: Call) -> Result<Answer, Failure> {
        match call.method {
            Method::GET => {}
            Method::POST => return self.bulk(call).await,
            _ => return Err(not_allowed(&call, "GET or POST")),
        }
        let top = match call.query.get("top").or_else(|| call.query.get("maxCount")) {
            None | Some("") => MAX_LISTED,
            Some(text) => text
                .parse()
                .ok()
                .filter(|top| (1..=MAX_LISTED).contains(top))
                .ok_or_else(|| ServiceError::argument_invalid(format!("`top` is `{text}`; give 1 to {MAX_LISTED}")))?,
        };
        Ok(listed(&self.registry.devices(String::new(), top).await?))
    }

    /// Devices page by page: the next one begins `after` the last id of this one. Ours: at the original one asks by a query.
    pub(super) async fn device_pages(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let after = call.query.get("after").unwrap_or_default().to_owned();
        let top = page_size(&call, MAX_LISTED)?;
        Ok(listed(&self.registry.devices(after, top).await?))
    }

    pub(super) async fn modules(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        Ok(listed(&self.registry.modules(device).await?))
    }

    pub(super) async fn identity(&self, call: Call, identity: Identity) -> Result<Answer, Failure> {
        match call.method {
            Method::GET => Ok(shown(&self.registry.get(identity).await?)),
            Method::PUT => {
                let wish = Wish::from_json(&call.body)?;
                let if_match = call.if_match();
                Ok(shown(&self.registry.put(identity, wish, if_match, call.caller).await?))
            }
            Method::DELETE => {
                self.registry.remove(identity, call.if_match(), call.caller).await?;
                Ok(answer::no_content())
            }
            _ => Err(not_allowed(&call, "GET, PUT or DELETE")),
        }
    }

    pub(super) async fn apply_content(&self, call: Call, device: DeviceId) -> Result<Answer, Failure> {
        if call.method != Method::POST {
            return Err(not_allowed(&call, "POST"));
        }
        let content = DeploymentContent::from_json(&call.body)?;
        self.deployments.apply(device, content).await?;
        Ok(answer::no_content())
    }

    pub(super) async fn device_statistics(&self, call: Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(&call, "GET"));
        }
        let (total, enabled) = self.registry.device_counts().await?;
        Ok(answer::json(&json!({
            "totalDeviceCount": total,
            "enabledDeviceCount": enabled,
            "disabledDeviceCount": total.saturating_sub(enabled),
        })))
    }

    pub(super) fn service_statistics(&self, call: &Call) -> Result<Answer, Failure> {
        if call.method != Method::GET {
            return Err(not_allowed(call, "GET"));
        }
        let sessions = self.backend.signals.directory().all();
        let devices = sessions
            .iter()
            .filter(|session| !session.identity().is_module())
            .count();
        Ok(answer::json(&json!({ "connectedDeviceCount": devices })))
    }
}

fn shown(described: &Described) -> Answer {
    answer::json_with_etag(&described.to_json())
}

fn listed(all: &[Described]) -> Answer {
    let all: Vec<Value> = all.iter().map(Described::to_json).collect();
    answer::json(&Value::Array(all))
}
