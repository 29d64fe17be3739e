//! `holm monitor`: the messages at the hub, as JSON lines or for people.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use holm_model::wire::percent;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use super::hub_access;
use crate::cli::{Monitor, Shown};
use crate::output;
use crate::service::{Refused, Service};

/// The longest line: a message of 256 KiB as base64, and its properties.
const MAX_LINE: usize = 1024 * 1024;

pub(crate) async fn run(options: Monitor) -> anyhow::Result<()> {
    let mut path = format!("/holm/v1/events?{}", options.from.0);
    path.push_str(&format!("&follow={}", options.follow));
    if options.source != "all" {
        path.push_str(&format!("&source={}", percent::encode(&options.source)));
    }
    if let Some(device) = options.device.id() {
        path.push_str(&format!("&device={}", percent::encode(device)));
    }
    if let Some(module) = &options.module {
        path.push_str(&format!("&module={}", percent::encode(module)));
    }
    if let Some(partition) = options.partition {
        path.push_str(&format!("&partition={partition}"));
    }
    if let Some(max) = options.max {
        path.push_str(&format!("&max={max}"));
    }
    let service = hub_access::open(&options.hub)?;
    let missing = missing(&service, options.device.id()).await?;
    if let Some(missing) = missing.as_ref().filter(|_| options.follow) {
        output::note(&format!(
            "holm: {missing}; waiting for messages of one that will be made"
        ));
    }
    let mut body = service.open(&path).await?.into_body();
    let mut shown: u64 = 0;

    let mut pending = Vec::new();
    let patience = options.timeout.map_or(Duration::MAX, Duration::from_secs);
    while let Some(frame) = within(patience, body.frame()).await {
        let frame = frame.context("the hub broke off")?;
        let Some(bytes) = frame.data_ref() else { continue };
        pending.extend_from_slice(bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            show(line.trim_ascii(), &options)?;
            shown += 1;
        }
        if pending.len() > MAX_LINE {
            bail!("the hub sent a line of more than {MAX_LINE} bytes");
        }
    }
    match missing.filter(|_| !options.follow) {
        // Of a device that was deleted there may be messages still.
        Some(missing) if shown > 0 => output::note(&format!("holm: {missing} any more")),
        Some(missing) => bail!(missing),
        None => {}
    }
    Ok(())
}

/// What comes in time; nothing else is waited for.
async fn within<T>(patience: Duration, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(patience, next).await.ok().flatten()
}

/// Says it if there is no such device. The twin is asked for, since whoever may read messages may read twins.
async fn missing(service: &Service, device: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(device) = device else { return Ok(None) };
    let path = format!("/twins/{}", percent::encode(device));
    match service.call(Method::GET, &path, &[], None).await {
        Err(error) if is_not_found(&error) => Ok(Some(format!("device `{device}` is not registered"))),
        Err(error) => Err(error),
        Ok(_) => Ok(None),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status == StatusCode::NOT_FOUND)
}

fn show(line: &[u8], options: &Monitor) -> anyhow::Result<()> {
    let text = std::str::from_utf8(line).context("the hub's answer is not text")?;
    if text.is_empty() {
        return Ok(());
    }
    if options.hub.json {
        output::line(text);
        return Ok(());
    }
    let event: Value = serde_json::from_str(text).context("the hub's answer is not JSON")?;
    let of = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("-");
    let sender = match event.get("connectionModuleId").and_then(Value::as_str) {
        Some(module) => format!("{}/{module}", of("connectionDeviceId")),
        None => of("connectionDeviceId").to_owned(),
    };
    // As it was sent; what is in a `Value` is rounded.
    let raw: BTreeMap<&str, &RawValue> = serde_json::from_str(text).context("the hub's answer is not JSON")?;
    let body = raw.get("body").map_or("-", |body| body.get());
    output::line(&format!("{}  {sender}  {body}", of("enqueuedTime")));
    for (kind, name, member) in [
        (Shown::App, "app", "properties"),
        (Shown::Sys, "sys", "systemProperties"),
    ] {
        if options.shows(kind) {
            for (key, value) in event.get(member).and_then(Value::as_object).into_iter().flatten() {
                output::line(&format!("    {name}  {key}: {}", plain(value)));
            }
        }
    }
    if options.shows(Shown::Anno) {
        for key in ["partition", "sequenceNumber", "messageSource"] {
            let value = event.get(key).unwrap_or(&Value::Null);
            output::line(&format!("    anno  {key}: {}", plain(value)));
        }
    }
    Ok(())
}

impl Monitor {
    fn shows(&self, kind: Shown) -> bool {
        self.properties.iter().any(|shown| [kind, Shown::All].contains(shown))
    }
}

/// A text without quotes; what a property without a value has is nothing.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
