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
use crate::service::{Refused, Service};

pub(crate) async fn run(options: Deploy) -> anyhow::Result<()> {
    let shown = options.manifest.display();
    let modules = modules_of(&read(&options.manifest)?, &options.manifest)?;
    let body = json!({ "modulesContent": modules });
    let service = hub_access::open(&options.hub)?;
    let device = options.device.as_str();
    let path = format!("/devices/{}/applyConfigurationContent", percent::encode(device));
    let in_force = in_force(&service, device).await?;
    service.call(Method::POST, &path, &[], Some(&body)).await?;
    if options.hub.json {
        let mut told = json!({ "deviceId": device, "applied": true });
        if let Some(id) = &in_force {
            told["putBackBy"] = json!(id);
        }
        output::json(&told);
    }
    if let Some(id) = in_force {
        output::note(&format!(
            "holm: `{shown}` does not stay: the deployment `{id}` is for `{device}`, and the hub puts back what that sets; first take the \
             device out of it (`holm deployment update {id} --target-condition …`) or delete it, or give it this file by one of a \
             higher priority (`holm deployment create`)"
        ));
    } else if !options.hub.json {
        output::note(&format!(
            "`{device}` has the deployment of `{shown}`; `holm twin show {device} --module '$edgeAgent'` says how it goes"
        ));
    }
    Ok(())
}

/// The automatic deployment that is for a device: the hub puts its modules and routes back, whoever writes others. Whoever may deploy
/// need not be allowed to know of it; what a hub does not tell keeps nobody from deploying.
async fn in_force(service: &Service, device: &str) -> anyhow::Result<Option<String>> {
    let path = format!("/holm/v1/devices/{}/configurations", percent::encode(device));
    match service.call(Method::GET, &path, &[], None).await {
        Ok(explained) => Ok(base(&explained.body).map(str::to_owned)),
        Err(error) if error.is::<Refused>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The best base deployment in an explanation; a layer without one sets nothing.
fn base(explained: &Value) -> Option<&str> {
    let mut parts = explained["parts"].as_array()?.iter();
    let deployments = parts.find(|part| part["content"] == "modulesContent")?;
    let mut configurations = deployments["configurations"].as_array()?.iter();
    configurations.find(|it| it["layer"] == false)?["id"].as_str()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_base_deployment_puts_back_what_another_one_sets() {
        let of = |content: &str, layers: &[(&str, bool)]| {
            let configurations = layers.iter().map(|(id, layer)| json!({ "id": id, "layer": layer }));
            let configurations: Vec<_> = configurations.collect();
            json!({ "parts": [{ "content": content, "configurations": configurations }] })
        };

        let all = of("modulesContent", &[("extra", true), ("best", false), ("other", false)]);

        assert_eq!(base(&all), Some("best"));
        for none in [
            of("modulesContent", &[("extra", true)]),
            of("modulesContent", &[]),
            of("deviceContent", &[("settings", false)]),
            json!({ "parts": [] }),
        ] {
            assert_eq!(base(&none), None, "{none}");
        }
    }
}
