//! `holm audit`.

use anyhow::bail;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::Value;

use super::hub_access;
use crate::cli::Audit;
use crate::output;
use crate::service::Service;

/// Records of one page.
const PAGE: u64 = 1000;

/// How many of the last records are shown if nobody says.
const LAST: u64 = 50;

pub(crate) async fn run(options: Audit) -> anyhow::Result<()> {
    let service = hub_access::open(&options.hub)?;
    let target = percent::encode(options.target.id().unwrap_or_default());
    let Some(since) = &options.since else {
        let last = read_last(&service, &target, options.max.unwrap_or(LAST)).await?;
        show(&last, options.hub.json);
        return Ok(());
    };
    let path = format!("target={target}&since={}", percent::encode(since));
    let most = options.max.unwrap_or(u64::MAX);
    let (mut read, mut after, mut all) = (0, 0, Vec::new());
    loop {
        let top = most.saturating_sub(read).min(PAGE);
        let page = match top {
            0 => Vec::new(),
            _ => self::read(&service, &format!("{path}&after={after}&top={top}")).await?,
        };
        read += page.len() as u64;
        after = page.last().map_or(after, number);
        let is_last = (page.len() as u64) < PAGE;
        if options.hub.json {
            // A document is shown as a whole.
            all.extend(page);
        } else if !page.is_empty() || read == 0 {
            show(&page, false);
        }
        if is_last {
            break;
        }
    }
    if options.hub.json {
        show(&all, true);
    }
    Ok(())
}

/// The last records, oldest first.
async fn read_last(service: &Service, target: &str, most: u64) -> anyhow::Result<Vec<Value>> {
    let mut pages: Vec<Vec<Value>> = Vec::new();
    let (mut left, mut before) = (most, "end".to_owned());
    while left > 0 {
        let top = left.min(PAGE);
        let page = read(service, &format!("target={target}&before={before}&top={top}")).await?;
        let Some(first) = page.first() else { break };
        before = number(first).to_string();
        left = left.saturating_sub(page.len() as u64);
        let is_last = (page.len() as u64) < top;
        pages.push(page);
        if is_last {
            break;
        }
    }
    Ok(pages.into_iter().rev().flatten().collect())
}

async fn read(service: &Service, query: &str) -> anyhow::Result<Vec<Value>> {
    let path = format!("/holm/v1/audit?{query}");
    match service.call(Method::GET, &path, &[], None).await?.body {
        Value::Array(page) => Ok(page),
        _ => bail!("the hub's answer is not a list"),
    }
}

fn number(record: &Value) -> u64 {
    record["sequenceNumber"].as_u64().unwrap_or_default()
}

fn show(records: &[Value], as_json: bool) {
    if as_json {
        output::json(&Value::Array(records.to_vec()));
        return;
    }
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or("-").to_owned();
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            let made = record["version"].as_u64().map(|version| format!("version {version}"));
            vec![
                text(record, "time"),
                text(record, "actor"),
                text(record, "operation"),
                text(record, "target"),
                made.unwrap_or_else(|| text(record, "etag")),
            ]
        })
        .collect();
    output::table(&["TIME", "WHO", "WHAT", "TARGET", "MADE"], &rows);
}
