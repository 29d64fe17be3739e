//! `holm monitor`: the messages at the hub, as JSON lines or for people.

use anyhow::{Context, bail};
use holm_model::Timestamp;
use holm_model::wire::percent;
use http_body_util::BodyExt;
use serde_json::Value;

use super::hub_access;
use crate::cli::Monitor;
use crate::output;

/// The longest line: a message of 256 KiB as base64, and its properties.
const MAX_LINE: usize = 1024 * 1024;

pub(crate) async fn run(options: Monitor) -> anyhow::Result<()> {
    let mut path = format!("/holm/v1/events?{}", from(&options.from)?);
    path.push_str(&format!("&follow={}", options.follow));
    if options.source != "all" {
        path.push_str(&format!("&source={}", percent::encode(&options.source)));
    }
    if let Some(device) = &options.device {
        path.push_str(&format!("&device={}", percent::encode(device)));
    }
    if let Some(max) = options.max {
        path.push_str(&format!("&max={max}"));
    }
    let mut body = hub_access::open(&options.hub)?.open(&path).await?.into_body();

    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the hub broke off")?;
        let Some(bytes) = frame.data_ref() else { continue };
        pending.extend_from_slice(bytes);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            show(line.trim_ascii(), options.hub.json)?;
        }
        if pending.len() > MAX_LINE {
            bail!("the hub sent a line of more than {MAX_LINE} bytes");
        }
    }
    Ok(())
}

/// The place to begin, as the API names it.
fn from(text: &str) -> anyhow::Result<String> {
    Ok(match text {
        "start" => "from=earliest".to_owned(),
        "latest" => "from=latest".to_owned(),
        number if number.parse::<u64>().is_ok() => format!("from={number}"),
        time => {
            let moment = Timestamp::parse(time).with_context(|| {
                format!("`{time}` is no place to begin; give `start`, `latest`, a sequence number, or a time")
            })?;
            format!("time={}", percent::encode(&moment.to_string()))
        }
    })
}

fn show(line: &[u8], as_json: bool) -> anyhow::Result<()> {
    let text = std::str::from_utf8(line).context("the hub's answer is not text")?;
    if text.is_empty() {
        return Ok(());
    }
    if as_json {
        output::line(text);
        return Ok(());
    }
    let event: Value = serde_json::from_str(text).context("the hub's answer is not JSON")?;
    let of = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or("-");
    let sender = match event.get("connectionModuleId").and_then(Value::as_str) {
        Some(module) => format!("{}/{module}", of("connectionDeviceId")),
        None => of("connectionDeviceId").to_owned(),
    };
    output::line(&format!("{}  {sender}  {}", of("enqueuedTime"), event["body"]));
    Ok(())
}
