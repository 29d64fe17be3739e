//! Keys and connection strings of devices and modules.

use anyhow::{Context as _, bail};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use crate::cli::{RenewedKey, WhichKey};
use crate::service::{Answer, Service};

/// A device, or a module of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'w> {
    pub(super) device: &'w str,
    pub(super) module: Option<&'w str>,
}

impl Who<'_> {
    /// Its path in the registry.
    pub(super) fn path(&self) -> String {
        let device = percent::encode(self.device);
        match self.module {
            None => format!("/devices/{device}"),
            Some(module) => format!("/devices/{device}/modules/{}", percent::encode(module)),
        }
    }
}

/// Gives an identity other keys; gives its document as it is then.
pub(super) async fn renew(service: &Service, who: Who<'_>, key: RenewedKey) -> anyhow::Result<Value> {
    let policy_key = match key {
        RenewedKey::Swap => return swap(service, who).await,
        RenewedKey::Primary => "primaryKey",
        RenewedKey::Secondary => "secondaryKey",
        RenewedKey::Both => "both",
    };
    let body = json!({ "policyKey": policy_key, "devices": [{ "id": who.device, "moduleId": who.module }] });
    let path = "/devices/keys/regenerate";
    let Answer { body, .. } = service.call(Method::POST, path, &[], Some(&body)).await?;
    if let Some(error) = body.pointer("/errors/0") {
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        bail!("{} ({})", text("errorStatus"), text("errorCode"));
    }
    Ok(service.call(Method::GET, &who.path(), &[], None).await?.body)
}

/// Written only if nobody has changed the identity in between.
async fn swap(service: &Service, who: Who<'_>) -> anyhow::Result<Value> {
    let mut document = service.call(Method::GET, &who.path(), &[], None).await?.body;
    let keys = &mut document["authentication"]["symmetricKey"];
    let (primary, secondary) = (keys["primaryKey"].take(), keys["secondaryKey"].take());
    if primary.is_null() {
        bail!("`{}` has no keys", who.module.unwrap_or(who.device));
    }
    *keys = json!({ "primaryKey": secondary, "secondaryKey": primary });
    let etag = format!("\"{}\"", document["etag"].as_str().unwrap_or("*"));
    let headers = [("If-Match", etag.as_str())];
    Ok(service
        .call(Method::PUT, &who.path(), &headers, Some(&document))
        .await?
        .body)
}

/// The string by which an identity connects.
pub(super) fn connection_string(service: &Service, document: &Value, key: WhichKey) -> anyhow::Result<String> {
    let device = document["deviceId"]
        .as_str()
        .context("the hub's answer has no `deviceId`")?;
    let module = document["moduleId"]
        .as_str()
        .map(|module| format!(";ModuleId={module}"));
    let module = module.unwrap_or_default();
    let keys = &document["authentication"]["symmetricKey"];
    let credential = match keys[key.member()].as_str() {
        Some(key) => format!("SharedAccessKey={key}"),
        None => "x509=true".to_owned(),
    };
    Ok(format!(
        "HostName={};DeviceId={device}{module};{credential}",
        service.host()
    ))
}
