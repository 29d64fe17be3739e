//! `holm deploy`.

use anyhow::{Context, bail};
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::Deploy;
use crate::output;

pub(crate) async fn run(options: Deploy) -> anyhow::Result<()> {
    let shown = options.manifest.display();
    let text = std::fs::read_to_string(&options.manifest).with_context(|| format!("`{shown}` can't be read"))?;
    let manifest: Value = serde_json::from_str(&text).with_context(|| format!("`{shown}` is not JSON"))?;
    // Tools wrap the same content differently.
    let content = manifest.get("content").unwrap_or(&manifest);
    let Some(modules) = content.get("modulesContent").or_else(|| content.get("moduleContent")) else {
        bail!("`{shown}` has no `modulesContent`; it is no deployment manifest");
    };
    let body = json!({ "modulesContent": modules });
    let service = hub_access::open(&options.hub)?;
    let path = format!(
        "/devices/{}/applyConfigurationContent",
        percent::encode(&options.device)
    );
    service.call(Method::POST, &path, &[], Some(&body)).await?;
    if options.hub.json {
        output::json(&json!({ "deviceId": options.device, "applied": true }));
    } else {
        output::note(&format!(
            "`{}` has the deployment of `{shown}`; `holm twin show --device {} --module '$edgeAgent'` says how it goes",
            options.device, options.device
        ));
    }
    Ok(())
}
