//! `holm query`: all pages of a result, as a table or as JSON.

use std::collections::BTreeSet;

use holm_query::twin::Query;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{self, HubAccess};
use crate::output;
use crate::service::Service;

/// Results of one page.
const PAGE: usize = 1000;
/// A cell of a table is not longer: whole objects may stand there.
const MAX_CELL: usize = 60;
/// The member of a device's row in a job that says why it has failed.
const ERROR: &str = "error";

pub(crate) async fn run(options: cli::Query) -> anyhow::Result<()> {
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
    if found.rows.is_empty() {
        output::note("nothing was found");
        return Ok(());
    }
    // What this program can't read and the hub could is shown as it comes.
    let query = Query::parse(text).ok();
    let named = query.as_ref().and_then(Query::column_names);
    let columns = named.unwrap_or_else(|| columns(&found.kind, &found.rows));
    output::table(&columns, &table(&columns, &found.rows));
    if found.more {
        output::note(&match limit {
            1 => "only the first result is shown".to_owned(),
            _ => format!("only the first {limit} results are shown"),
        });
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

/// The columns where the query names none: of whole twins the few that tell them apart, of anything else all that are there.
fn columns<'r>(kind: &str, rows: &'r [Value]) -> Vec<&'r str> {
    let mut columns = match kind {
        "Twin" => vec!["deviceId", "moduleId", "status", "connectionState", "tags"],
        "DeviceJob" => vec![
            "deviceId",
            "moduleId",
            "jobId",
            "jobType",
            "status",
            "lastUpdatedDateTimeUtc",
            ERROR,
        ],
        _ => {
            let names = rows.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
            return names.map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        }
    };
    let is_there = |name: &str| rows.iter().any(|row| row.get(name).is_some());
    columns.retain(|name| !["moduleId", ERROR].contains(name) || is_there(name));
    columns
}

fn table(columns: &[&str], rows: &[Value]) -> Vec<Vec<String>> {
    let text = |name: &str, value: Option<&Value>| match value.filter(|_| name == ERROR).and_then(why) {
        Some(why) => why,
        None => cell(value),
    };
    let of_row = |row: &Value| columns.iter().map(|name| text(name, row.get(name))).collect();
    rows.iter().map(of_row).collect()
}

/// Why a device of a job has failed, whole: it stands in the last column.
fn why(error: &Value) -> Option<String> {
    let (code, text) = (error["code"].as_str()?, error["description"].as_str()?);
    Some(format!("{text} ({code})").replace(char::is_control, " "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_as_the_query_names_them_even_where_no_row_has_one() {
        let query = Query::parse("SELECT tags.site AS z, deviceId, tags.n / 0, tags.missing FROM devices").unwrap();
        let rows = [json!({"deviceId": "d", "z": "north"})];

        let named = query.column_names().unwrap();

        assert_eq!(named, ["z", "deviceId", "$3", "missing"]);
        assert_eq!(table(&named, &rows), [["north", "d", "-", "-"]]);
    }

    #[test]
    fn a_device_of_a_job_that_has_failed_is_shown_with_the_reason() {
        let done = json!({"deviceId": "a", "jobId": "j", "status": "completed"});
        let reason = "x".repeat(MAX_CELL + 1);
        let failed = json!({"deviceId": "b", "jobId": "j", "status": "failed",
            "error": {"code": "404103", "description": reason}});
        let rows = [done, failed];

        let (of_done, of_all) = (columns("DeviceJob", &rows[..1]), columns("DeviceJob", &rows));

        assert!(!of_done.contains(&ERROR) && of_all.last() == Some(&ERROR), "{of_all:?}");
        let last: Vec<_> = table(&of_all, &rows)
            .into_iter()
            .map(|mut row| row.pop().unwrap())
            .collect();
        assert_eq!(last, ["-".to_owned(), format!("{reason} (404103)")]);
    }

    #[test]
    fn whole_documents_have_the_columns_that_tell_them_apart() {
        let device = json!({"deviceId": "d", "tags": {}});
        let module = json!({"deviceId": "d", "moduleId": "m"});

        let of_devices = columns("Twin", std::slice::from_ref(&device));
        let of_modules = [device.clone(), module];

        assert_eq!(of_devices, ["deviceId", "status", "connectionState", "tags"]);
        assert_eq!(columns("Twin", &of_modules)[..2], ["deviceId", "moduleId"]);
        assert_eq!(columns("Raw", &of_modules), ["deviceId", "moduleId", "tags"]);
    }
}
