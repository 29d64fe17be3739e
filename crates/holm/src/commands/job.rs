//! `holm job …`.

use anyhow::bail;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::{hub_access, query, twin};
use crate::cli::{HubAccess, Job, JobStatus, Schedule, values};
use crate::output;

pub(crate) async fn run(command: Job) -> anyhow::Result<()> {
    match command {
        Job::UpdateTwins {
            schedule,
            properties,
            hub,
        } => {
            let mut twin = twin::document(properties);
            twin["etag"] = json!("*");
            let order = json!({ "type": "scheduleUpdateTwin", "updateTwin": twin });
            create(order, schedule, &hub).await
        }
        Job::Call {
            schedule,
            name,
            payload,
            timeouts,
            hub,
        } => {
            let method = json!({
                "methodName": name,
                "payload": payload,
                "responseTimeoutInSeconds": timeouts.response,
                "connectTimeoutInSeconds": timeouts.connect,
            });
            let order = json!({ "type": "scheduleDeviceMethod", "cloudToDeviceMethod": method });
            create(order, schedule, &hub).await
        }
        Job::Show { id, hub } => one(Method::GET, &path(&id), None, &hub).await,
        Job::Cancel { id, hub } => cancel(&id, &hub).await,
        Job::List { status, hub } => list(status, &hub).await,
        Job::Devices { id, status, hub } => {
            // A query knows rows, not jobs: of one that is not there it finds none.
            hub_access::open(&hub)?.call(Method::GET, &path(&id), &[], None).await?;
            let mut text = format!("SELECT * FROM devices.jobs WHERE jobId = {}", quoted(&id));
            if let Some(status) = status {
                text.push_str(&format!(" AND status = {}", quoted(&values::word(&status))));
            }
            query::ask(&text, None, &hub).await
        }
    }
}

async fn create(mut order: Value, schedule: Schedule, hub: &HubAccess) -> anyhow::Result<()> {
    order["jobId"] = json!(schedule.id);
    order["queryCondition"] = json!(schedule.condition);
    order["startTime"] = json!(schedule.start);
    order["maxExecutionTimeInSeconds"] = json!(schedule.max_seconds);
    one(Method::PUT, &path(&schedule.id), Some(&order), hub).await
}

async fn one(method: Method, path: &str, body: Option<&Value>, hub: &HubAccess) -> anyhow::Result<()> {
    let job = hub_access::open(hub)?.call(method, path, &[], body).await?.body;
    show(&job, hub);
    Ok(())
}

fn show(job: &Value, hub: &HubAccess) {
    if hub.json {
        output::json(job);
    } else {
        output::table(HEADINGS, &[row(job)]);
        if let Some(why) = job["failureReason"].as_str() {
            output::note(why);
        }
    }
}

/// Cancels a job. The hub leaves one that has ended as it is, and says how it is.
async fn cancel(id: &str, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let before = service.call(Method::GET, &path(id), &[], None).await?.body;
    let cancel = format!("{}/cancel", path(id));
    let job = service.call(Method::POST, &cancel, &[], None).await?.body;
    show(&job, hub);
    match job["status"].as_str() {
        Some("cancelled") if before["status"] == "cancelled" => {
            output::note(&format!("holm: the job `{id}` was cancelled already"));
            Ok(())
        }
        Some(ended @ ("completed" | "failed")) => {
            bail!("the job `{id}` has {ended} already; nothing of it was cancelled")
        }
        _ => Ok(()),
    }
}

async fn list(status: Option<JobStatus>, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let path = match status {
        None => "/jobs/v2/query".to_owned(),
        Some(status) => format!("/jobs/v2/query?jobStatus={}", percent::encode(&values::word(&status))),
    };
    let jobs = query::pages(&service, Method::GET, &path, None, usize::MAX).await?.rows;
    if hub.json {
        output::json(&Value::Array(jobs));
    } else {
        let rows: Vec<_> = jobs.iter().map(row).collect();
        output::table(HEADINGS, &rows);
    }
    Ok(())
}

const HEADINGS: &[&str] = &["JOB", "KIND", "STATUS", "START", "DEVICES", "DONE", "FAILED", "LEFT"];

fn row(job: &Value) -> Vec<String> {
    let text = |name: &str| job[name].as_str().unwrap_or("-").to_owned();
    let count = |name: &str| job["deviceJobStatistics"][name].as_u64().unwrap_or_default();
    let kind = match job["type"].as_str() {
        Some("scheduleUpdateTwin") => "twins",
        Some("scheduleDeviceMethod") => "method",
        _ => "-",
    };
    vec![
        text("jobId"),
        kind.to_owned(),
        text("status"),
        text("startTime"),
        count("deviceCount").to_string(),
        count("succeededCount").to_string(),
        count("failedCount").to_string(),
        (count("pendingCount") + count("runningCount")).to_string(),
    ]
}

fn path(id: &str) -> String {
    format!("/jobs/v2/{}", percent::encode(id))
}

/// A text as it stands in a query.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
