//! `holm deploy`.

mod file;
mod options;
mod template;

use std::path::Path;

use anyhow::{Context, bail};
use holm_model::manifest::EdgeHubDesired;
use holm_model::wire::percent;
use holm_query::{RouteSet, RouteSpec};
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::Deploy;
use crate::output;

pub(crate) async fn run(options: Deploy) -> anyhow::Result<()> {
    let shown = options.manifest.display();
    let modules = modules_of(&read(&options.manifest)?, &options.manifest)?;
    let body = json!({ "modulesContent": modules });
    let service = hub_access::open(&options.hub)?;
    let device = options.device.as_str();
    let path = format!("/devices/{}/applyConfigurationContent", percent::encode(device));
    service.call(Method::POST, &path, &[], Some(&body)).await?;
    if options.hub.json {
        output::json(&json!({ "deviceId": device, "applied": true }));
    } else {
        output::note(&format!(
            "`{device}` has the deployment of `{shown}`; `holm twin show {device} --module '$edgeAgent'` says how it goes"
        ));
    }
    Ok(())
}

/// Reads a file of JSON.
pub(super) fn read(path: &Path) -> anyhow::Result<Value> {
    file::read(path)
}

/// What a manifest says of modules, checked as far as an edge would refuse it, in the form that twins can hold. `file` is where it
/// came from.
pub(super) fn modules_of(manifest: &Value, file: &Path) -> anyhow::Result<Value> {
    let shown = file.display();
    // Tools wrap the same content differently.
    let content = manifest.get("content").unwrap_or(manifest);
    let Some(modules) = content.get("modulesContent").or_else(|| content.get("moduleContent")) else {
        bail!("`{shown}` has no `modulesContent`; it is no deployment manifest");
    };
    template::refuse(manifest).with_context(|| format!("`{shown}` can't be deployed"))?;
    check_routes(modules)
        .with_context(|| format!("`{shown}` is wrong in what it says of `$edgeHub`; nothing was deployed"))?;
    let mut modules = modules.clone();
    options::fit(&mut modules);
    Ok(modules)
}

/// Compiles the routes of a manifest as its edge will: better told here than on the device.
fn check_routes(modules: &Value) -> anyhow::Result<()> {
    let Some(Value::Object(desired)) = modules.pointer("/$edgeHub/properties.desired") else {
        return Ok(());
    };
    let desired = EdgeHubDesired::parse(desired)?;
    let routes = desired.routes.iter().map(|(name, spec)| {
        let seconds = spec
            .time_to_live
            .map(|life| u32::try_from(life.as_secs()).unwrap_or(u32::MAX));
        let route = RouteSpec {
            route: spec.route.clone(),
            priority: spec.priority,
            time_to_live_seconds: seconds,
        };
        (name.as_str(), route)
    });
    RouteSet::compile(routes)?;
    Ok(())
}
