//! `holm method invoke`.

use std::process::ExitCode;

use hyper::Method as Verb;
use serde_json::json;

use super::{hub_access, twin};
use crate::cli::Method;
use crate::output;

/// From this status on a method says that it failed, as in HTTP; that is how devices use it.
const FAILED_STATUS: i64 = 400;

/// Calls a method. What it answered is printed, whatever it is; the exit code is for scripts.
pub(crate) async fn run(command: Method) -> anyhow::Result<ExitCode> {
    let Method::Invoke {
        of,
        name,
        payload,
        timeouts,
        hub,
    } = command;
    let body = json!({
        "methodName": name,
        "payload": payload,
        "responseTimeoutInSeconds": timeouts.response,
        "connectTimeoutInSeconds": timeouts.connect,
    });
    let service = hub_access::open(&hub)?;
    let path = format!("{}/methods", twin::path(&of.target()));
    let answer = service.call(Verb::POST, &path, &[], Some(&body)).await?.body;
    if hub.json {
        output::json(&answer);
    } else {
        output::line(&format!("status {}", answer["status"]));
        output::json(&answer["payload"]);
    }
    let status = answer["status"].as_i64().unwrap_or_default();
    if status < FAILED_STATUS {
        return Ok(ExitCode::SUCCESS);
    }
    output::note(&format!("holm: method `{name}` answered with status {status}"));
    Ok(ExitCode::from(output::EXIT_FAILED))
}
