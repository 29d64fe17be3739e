//! `holm twin …`.

use anyhow::Context as _;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{HubAccess, Properties, Target, Twin, TwinChange};
use crate::output;
use crate::service::Service;

pub(crate) async fn run(command: Twin) -> anyhow::Result<()> {
    match command {
        Twin::Show { of, at, hub } => {
            let of = of.target();
            let path = match &at {
                None => path(&of),
                Some(point) => format!("{}/at?point={}", history_path(&of), percent::encode(point)),
            };
            show(
                &hub_access::open(&hub)?.call(Method::GET, &path, &[], None).await?.body,
                &hub,
            );
        }
        Twin::Update(change) => write(Method::PATCH, change).await?,
        Twin::Replace(change) => write(Method::PUT, change).await?,
        Twin::History { of, max, hub } => history(&of.target(), max, &hub).await?,
        Twin::Diff { of, from, to, hub } => {
            let (from, to) = (
                percent::encode(&from),
                percent::encode(to.as_deref().unwrap_or_default()),
            );
            let path = format!("{}/diff?from={from}&to={to}", history_path(&of));
            show(
                &hub_access::open(&hub)?.call(Method::GET, &path, &[], None).await?.body,
                &hub,
            );
        }
        Twin::Restore { of, point, etag, hub } => {
            let path = format!("{}/restore", history_path(&of.target()));
            change(Method::POST, &path, &json!({ "point": point }), etag.as_deref(), &hub).await?;
        }
    }
    Ok(())
}

/// Tags and desired properties as members of a twin.
pub(super) fn document(properties: Properties) -> Value {
    let mut document = json!({});
    if let Some(desired) = properties.desired {
        document["properties"] = json!({ "desired": desired });
    }
    if let Some(tags) = properties.tags {
        document["tags"] = tags;
    }
    document
}

async fn write(method: Method, wanted: TwinChange) -> anyhow::Result<()> {
    let (path, body) = (path(&wanted.of.target()), document(wanted.properties));
    change(method, &path, &body, wanted.etag.as_deref(), &wanted.hub).await
}

async fn change(method: Method, path: &str, body: &Value, etag: Option<&str>, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let quoted = format!("\"{}\"", etag.unwrap_or("*"));
    let headers = [("If-Match", quoted.as_str())];
    let twin = service.call(method, path, &headers, Some(body)).await?.body;
    if hub.json {
        output::json(&twin);
    } else {
        output::line(&format!(
            "the twin is at version {}, its desired properties at {}",
            twin["version"], twin["properties"]["desired"]["$version"]
        ));
    }
    Ok(())
}

async fn history(of: &Target, max: u32, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let steps = read_history(&service, of, max).await?;
    if hub.json {
        output::json(&Value::Array(steps));
        return Ok(());
    }
    let text = |step: &Value, name: &str| step[name].as_str().unwrap_or("-").to_owned();
    let rows: Vec<_> = steps
        .iter()
        .map(|step| {
            vec![
                step["version"].to_string(),
                text(step, "time"),
                text(step, "actor"),
                text(step, "operation"),
                step["changed"].to_string(),
            ]
        })
        .collect();
    output::table(&["VERSION", "TIME", "WHO", "WHAT", "CHANGED"], &rows);
    Ok(())
}

/// Page by page: a page may be shorter than was asked for, and none is left where one is empty.
async fn read_history(service: &Service, of: &Target, max: u32) -> anyhow::Result<Vec<Value>> {
    let mut steps: Vec<Value> = Vec::new();
    loop {
        let left = usize::try_from(max)?.saturating_sub(steps.len());
        let before = steps.last().and_then(|step| step["change"].as_u64());
        if left == 0 || before == Some(0) {
            return Ok(steps);
        }
        let last = before.map_or_else(String::new, |before| format!("&last={}", before - 1));
        let path = format!("{}?top={left}{last}", history_path(of));
        let page = service.call(Method::GET, &path, &[], None).await?.body;
        let page = page.as_array().context("the hub's answer is not a list")?;
        if page.is_empty() {
            return Ok(steps);
        }
        steps.extend(page.iter().cloned());
    }
}

fn show(document: &Value, hub: &HubAccess) {
    if hub.json {
        output::json(document);
    } else {
        output::indented(document);
    }
}

/// The path of a twin.
pub(super) fn path(of: &Target) -> String {
    let device = percent::encode(&of.device);
    match &of.module {
        None => format!("/twins/{device}"),
        Some(module) => format!("/twins/{device}/modules/{}", percent::encode(module)),
    }
}

fn history_path(of: &Target) -> String {
    format!("/holm/v1{}/history", path(of))
}
