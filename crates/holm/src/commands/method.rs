//! `holm method invoke`.

use hyper::Method as Verb;
use serde_json::json;

use super::{hub_access, twin};
use crate::cli::Method;
use crate::output;

pub(crate) async fn run(command: Method) -> anyhow::Result<()> {
    let Method::Invoke {
        of,
        name,
        payload,
        timeout,
        hub,
    } = command;
    let body = json!({
        "methodName": name,
        "payload": twin::parse("--payload", &payload)?,
        "responseTimeoutInSeconds": timeout,
        "connectTimeoutInSeconds": 0,
    });
    let service = hub_access::open(&hub)?;
    let path = format!("{}/methods", twin::path(&of));
    let answer = service.call(Verb::POST, &path, &[], Some(&body)).await?.body;
    if hub.json {
        output::json(&answer);
    } else {
        output::line(&format!("status {}", answer["status"]));
        output::json(&answer["payload"]);
    }
    Ok(())
}
