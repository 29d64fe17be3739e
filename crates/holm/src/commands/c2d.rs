//! `holm c2d send`.

use std::io::Read;

use anyhow::Context;
use bytes::Bytes;
use holm_model::wire::percent;
use serde_json::json;

use super::hub_access;
use crate::cli::C2d;
use crate::output;

pub(crate) async fn run(command: C2d) -> anyhow::Result<()> {
    let C2d::Send {
        device,
        text,
        properties,
        message_id,
        hub,
    } = command;
    let body = if text == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .context("standard input can't be read")?;
        Bytes::from(bytes)
    } else {
        Bytes::from(text)
    };
    let mut headers = Vec::new();
    if let Some(id) = &message_id {
        headers.push(("iothub-messageid".to_owned(), id.clone()));
    }
    for property in &properties {
        headers.push((format!("iothub-app-{}", property.name), property.value.clone()));
    }
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let path = format!("/devices/{}/messages/deviceBound", percent::encode(&device));
    hub_access::open(&hub)?.post_bytes(&path, &headers, body).await?;
    if hub.json {
        output::json(&json!({ "deviceId": device, "messageId": message_id, "queued": true }));
    } else {
        output::note(&format!("queued for `{device}`"));
    }
    Ok(())
}
