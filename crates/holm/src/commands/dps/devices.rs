//! The devices that have registered by an enrollment, enabled and disabled at their hub together with it.

use std::collections::BTreeSet;

use anyhow::bail;
use holm_model::wire::percent;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Kind, pages, text};
use crate::service::{Refused, Service};

/// Why such a device is disabled, as its hub shows it.
const REASON: &str = "its enrollment is disabled";

/// Sets the status of the devices of these registrations, each once; those that have it now are added to `changed`.
pub(super) async fn set_status(
    service: &Service,
    registrations: &[Value],
    status: &str,
    changed: &mut Vec<String>,
) -> anyhow::Result<()> {
    let device = |state: &Value| {
        Some((
            state["assignedHub"].as_str()?.to_owned(),
            state["deviceId"].as_str()?.to_owned(),
        ))
    };
    let devices: BTreeSet<(String, String)> = registrations.iter().filter_map(device).collect();
    let mut elsewhere = Vec::new();
    for (at, device) in devices {
        if !at.eq_ignore_ascii_case(service.host()) {
            elsewhere.push(format!("`{device}` at `{at}`"));
        } else if set_device(service, &device, status).await? {
            changed.push(device);
        }
    }
    if !elsewhere.is_empty() {
        let devices = elsewhere.join(", ");
        bail!(
            "devices of other hubs are not {status}: {devices}; use `holm device update` with the connection string of theirs"
        );
    }
    Ok(())
}

/// What became of the devices of an enrollment.
pub(super) async fn registrations(service: &Service, kind: Kind, id: &str) -> anyhow::Result<Vec<Value>> {
    match kind {
        Kind::Group => pages(service, &format!("/registrations/{}/query", percent::encode(id))).await,
        Kind::Individual => {
            let path = format!("/registrations/{}", percent::encode(id));
            let found = unless_missing(service.call(Method::GET, &path, &[], None).await)?;
            Ok(found.into_iter().collect())
        }
    }
}

/// Whether there is such a device.
async fn set_device(service: &Service, device: &str, status: &str) -> anyhow::Result<bool> {
    let path = format!("/devices/{}", percent::encode(device));
    let Some(mut document) = unless_missing(service.call(Method::GET, &path, &[], None).await)? else {
        return Ok(false);
    };
    let etag = format!("\"{}\"", text(&document, "etag"));
    document["status"] = json!(status);
    document["statusReason"] = if status == "disabled" {
        json!(REASON)
    } else {
        Value::Null
    };
    let headers = [("If-Match", etag.as_str())];
    service.call(Method::PUT, &path, &headers, Some(&document)).await?;
    Ok(true)
}

fn unless_missing(answer: anyhow::Result<crate::service::Answer>) -> anyhow::Result<Option<Value>> {
    match answer {
        Ok(answer) => Ok(Some(answer.body)),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.status == StatusCode::NOT_FOUND => Ok(None),
            _ => Err(error),
        },
    }
}
