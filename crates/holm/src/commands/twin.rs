//! `holm twin …`.

use holm_model::wire::percent;
use hyper::Method;
use serde_json::json;

use super::hub_access;
use crate::cli::{Target, Twin};
use crate::output;

pub(crate) async fn run(command: Twin) -> anyhow::Result<()> {
    match command {
        Twin::Show { of, hub } => {
            let service = hub_access::open(&hub)?;
            let twin = service.call(Method::GET, &path(&of), &[], None).await?.body;
            if hub.json {
                output::json(&twin);
            } else {
                output::indented(&twin);
            }
        }
        Twin::Update {
            of,
            desired,
            tags,
            etag,
            hub,
        } => {
            let mut patch = json!({});
            if let Some(desired) = desired {
                patch["properties"] = json!({ "desired": desired });
            }
            if let Some(tags) = tags {
                patch["tags"] = tags;
            }
            let service = hub_access::open(&hub)?;
            let quoted = format!("\"{}\"", etag.as_deref().unwrap_or("*"));
            let headers = [("If-Match", quoted.as_str())];
            let twin = service
                .call(Method::PATCH, &path(&of), &headers, Some(&patch))
                .await?
                .body;
            if hub.json {
                output::json(&twin);
            } else {
                output::line(&format!(
                    "desired properties at version {}",
                    twin["properties"]["desired"]["$version"]
                ));
            }
        }
    }
    Ok(())
}

/// The path of a twin.
pub(super) fn path(of: &Target) -> String {
    let device = percent::encode(&of.device);
    match &of.module {
        None => format!("/twins/{device}"),
        Some(module) => format!("/twins/{device}/modules/{}", percent::encode(module)),
    }
}
