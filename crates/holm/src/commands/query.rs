//! `holm query`: all pages of a result, as a table or as JSON.

use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{HubAccess, Query};
use crate::output;
use crate::service::Service;

/// Results of one page.
const PAGE: usize = 1000;
/// A cell of a table is not longer: whole objects may stand there.
const MAX_CELL: usize = 60;

pub(crate) async fn run(options: Query) -> anyhow::Result<()> {
    ask(&options.text, options.limit, &options.hub).await
}

/// What was found.
pub(super) struct Found {
    /// What the rows are, in the published word.
    pub(super) kind: String,
    /// The rows.
    pub(super) rows: Vec<Value>,
    /// Whether there are others.
    pub(super) more: bool,
}

/// Asks, and shows what comes.
pub(super) async fn ask(text: &str, limit: Option<u32>, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let body = json!({ "query": text });
    let found = pages(&service, Method::POST, "/devices/query", Some(&body), limit).await?;
    if hub.json {
        output::json(&Value::Array(found.rows));
        return Ok(());
    }
    show(&found.kind, &found.rows).context("the result can't be shown as a table; use `--json`")?;
    if found.more {
        output::note(&format!("only the first {limit} are shown"));
    }
    Ok(())
}

/// Reads page after page, up to a limit.
pub(super) async fn pages(
    service: &Service,
    method: Method,
    path: &str,
    body: Option<&Value>,
    limit: usize,
) -> anyhow::Result<Found> {
    let mut found = Found {
        kind: String::new(),
        rows: Vec::new(),
        more: false,
    };
    let mut next: Option<String> = None;
    while found.rows.len() < limit {
        let most = PAGE.min(limit - found.rows.len()).to_string();
        let mut headers = vec![("x-ms-max-item-count", most.as_str())];
        headers.extend(next.as_deref().map(|next| ("x-ms-continuation", next)));
        let answer = service.call(method.clone(), path, &headers, body).await?;
        let header = |name: &str| {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        found.kind = header("x-ms-item-type").unwrap_or_default();
        next = header("x-ms-continuation");
        let Value::Array(page) = answer.body else {
            anyhow::bail!("the hub's answer is not a list");
        };
        found.rows.extend(page);
        if next.is_none() {
            break;
        }
    }
    found.rows.truncate(limit);
    found.more = next.is_some();
    Ok(found)
}

/// The columns of a table: of whole twins the few that tell them apart, of anything else all.
fn show(kind: &str, rows: &[Value]) -> anyhow::Result<()> {
    let mut columns: Vec<&str> = match kind {
        "Twin" => vec!["deviceId", "moduleId", "status", "connectionState", "tags"],
        "DeviceJob" => vec!["deviceId", "jobId", "jobType", "status", "lastUpdatedDateTimeUtc"],
        _ => Vec::new(),
    };
    if columns.is_empty() {
        for row in rows {
            let row = row.as_object().context("a row is not an object")?;
            for name in row.keys() {
                if !columns.contains(&name.as_str()) {
                    columns.push(name);
                }
            }
        }
    } else {
        columns.retain(|name| *name != "moduleId" || rows.iter().any(|row| row.get(name).is_some()));
    }
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|name| cell(row.get(name))).collect())
        .collect();
    if columns.is_empty() {
        output::note("nothing was found");
        return Ok(());
    }
    output::table(&columns, &table);
    Ok(())
}

/// Texts as they are, `-` for nothing, anything else as JSON.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None => return "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if text.chars().count() <= MAX_CELL {
        return text.replace(char::is_control, " ");
    }
    let kept: String = text.chars().take(MAX_CELL - 1).collect();
    format!("{}…", kept.replace(char::is_control, " "))
}
