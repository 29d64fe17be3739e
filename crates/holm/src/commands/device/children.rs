//! `holm device children …`: which devices an edge device lets in and speaks for.
//!
//! A child is changed as any registry entry is: read, then written if nobody has changed it in between. A leaf takes its parent's
//! scope as its own, an edge device keeps its own and names the parent in `parentScopes`.

use anyhow::{Context, bail};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::super::hub_access;
use super::{list, path};
use crate::cli::Children;
use crate::output;
use crate::service::Service;

/// Children of one page.
const PAGE: usize = 1000;

pub(super) async fn run(command: Children) -> anyhow::Result<()> {
    match command {
        Children::Add {
            parent,
            children,
            force,
            hub,
        } => {
            let service = hub_access::open(&hub)?;
            let scope = scope_of(&service, &parent).await?;
            for child in &children {
                add(&service, &parent, &scope, child, force).await?;
            }
        }
        Children::Remove {
            parent,
            children,
            all,
            hub,
        } => {
            let service = hub_access::open(&hub)?;
            let scope = scope_of(&service, &parent).await?;
            let children = if all {
                ids(&all_of(&service, &parent).await?)
            } else {
                children
            };
            for child in &children {
                remove(&service, &parent, &scope, child).await?;
            }
        }
        Children::List { parent, hub } => {
            let service = hub_access::open(&hub)?;
            let children = all_of(&service, &parent).await?;
            list(&Value::Array(children), hub.json)?;
        }
    }
    Ok(())
}

async fn scope_of(service: &Service, parent: &str) -> anyhow::Result<String> {
    let parent_document = read(service, parent).await?;
    if !is_edge(&parent_document) {
        bail!("`{parent}` is no edge device; only those have children");
    }
    let scope = parent_document.get("deviceScope").and_then(Value::as_str);
    scope
        .map(str::to_owned)
        .with_context(|| format!("the hub shows no scope of `{parent}`"))
}

async fn add(service: &Service, parent: &str, scope: &str, child: &str, force: bool) -> anyhow::Result<()> {
    let document = read(service, child).await?;
    match parent_scope(&document) {
        Some(current) if current == scope => {
            output::note(&format!("`{child}` is a child of `{parent}` already"));
            return Ok(());
        }
        Some(_) if !force => bail!("`{child}` has another parent; give --force to move it"),
        _ => {}
    }
    place(service, child, document, Some(scope)).await?;
    output::note(&format!("`{child}` is a child of `{parent}`"));
    Ok(())
}

async fn remove(service: &Service, parent: &str, scope: &str, child: &str) -> anyhow::Result<()> {
    let document = read(service, child).await?;
    if parent_scope(&document) != Some(scope) {
        bail!("`{child}` is no child of `{parent}`");
    }
    place(service, child, document, None).await?;
    output::note(&format!("`{child}` is no child of `{parent}` any more"));
    Ok(())
}

/// Writes a device with another parent, if it is still as it was read.
async fn place(service: &Service, child: &str, mut document: Value, scope: Option<&str>) -> anyhow::Result<()> {
    document["parentScopes"] = json!(scope.as_slice());
    if !is_edge(&document) {
        document["deviceScope"] = json!(scope.unwrap_or_default());
    }
    let etag = document.get("etag").and_then(Value::as_str).unwrap_or("*");
    let etag = format!("\"{etag}\"");
    let headers = [("If-Match", etag.as_str())];
    service
        .call(Method::PUT, &path(child), &headers, Some(&document))
        .await?;
    Ok(())
}

async fn read(service: &Service, id: &str) -> anyhow::Result<Value> {
    Ok(service.call(Method::GET, &path(id), &[], None).await?.body)
}

/// Every child, page by page.
async fn all_of(service: &Service, parent: &str) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let last = all
            .last()
            .and_then(|last| last["deviceId"].as_str())
            .unwrap_or_default();
        let (parent, after) = (percent::encode(parent), percent::encode(last));
        let path = format!("/holm/v1/devices/{parent}/children?top={PAGE}&after={after}");
        let page = service.call(Method::GET, &path, &[], None).await?.body;
        let Value::Array(page) = page else {
            bail!("the hub's answer is not a list")
        };
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn ids(devices: &[Value]) -> Vec<String> {
    let ids = devices.iter().filter_map(|device| device["deviceId"].as_str());
    ids.map(str::to_owned).collect()
}

fn is_edge(device: &Value) -> bool {
    let edge = device.pointer("/capabilities/iotEdge").and_then(Value::as_bool);
    edge.unwrap_or(false)
}

/// The id of the device's parent: a scope is `ms-azure-iot-edge://ID-GENERATION`.
pub(super) fn parent(device: &Value) -> Option<&str> {
    let (_, named) = parent_scope(device)?.split_once("://")?;
    named.rsplit_once('-').map(|(id, _)| id)
}

fn parent_scope(device: &Value) -> Option<&str> {
    device.pointer("/parentScopes/0").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_named_by_the_scope_of_its_child() {
        let child = |scopes: Value| json!({ "parentScopes": scopes });

        let below = child(json!(["ms-azure-iot-edge://edge-1-639309496816868182"]));

        assert_eq!(parent(&below), Some("edge-1"));
        assert_eq!((parent(&child(json!([]))), parent(&child(Value::Null))), (None, None));
    }
}
