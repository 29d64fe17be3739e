//! `holm module …`.

use anyhow::Context;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::Value;

use super::hub_access;
use crate::cli::Module;
use crate::output;

pub(crate) async fn run(command: Module) -> anyhow::Result<()> {
    let Module::List { device, hub } = command;
    let service = hub_access::open(&hub)?;
    let path = format!("/devices/{}/modules", percent::encode(&device));
    let modules = service.call(Method::GET, &path, &[], None).await?.body;
    if hub.json {
        output::json(&modules);
        return Ok(());
    }
    let text = |module: &Value, name: &str| module.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let rows: Vec<_> = modules
        .as_array()
        .context("the hub's answer is not a list")?
        .iter()
        .map(|module| {
            vec![
                text(module, "moduleId"),
                text(module, "connectionState"),
                text(module, "managedBy"),
            ]
        })
        .collect();
    output::table(&["MODULE", "CONNECTION", "MANAGED BY"], &rows);
    Ok(())
}
