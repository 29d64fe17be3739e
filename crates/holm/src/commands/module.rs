//! `holm module …`.

use anyhow::Context;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::hub_access;
use super::keys::{self, Who};
use crate::cli::{HubAccess, Module, OneModule, WhichKey};
use crate::output;
use crate::service::Service;

pub(crate) async fn run(command: Module) -> anyhow::Result<()> {
    match command {
        Module::Create { which, hub } => {
            let (service, who) = (hub_access::open(&hub)?, who(&which));
            let body =
                json!({ "deviceId": which.device(), "moduleId": which.module, "authentication": { "type": "sas" } });
            let (device, id) = (which.device(), &which.module);
            let way_out = format!(
                "`holm module show -d {device} {id}` shows it, `holm module delete -d {device} {id}` deletes it with its twin"
            );
            let what = format!("module `{device}/{id}`");
            let module = service.create(&who.path(), &body, &what, &way_out).await?;
            show(&service, &module, &hub)?;
        }
        Module::Show { which, hub } => {
            let service = hub_access::open(&hub)?;
            let module = service.call(Method::GET, &who(&which).path(), &[], None).await?.body;
            show(&service, &module, &hub)?;
        }
        Module::List { device, hub } => list(&device.id(), &hub).await?,
        Module::Delete { which, hub } => {
            let service = hub_access::open(&hub)?;
            let headers = [("If-Match", "*")];
            service
                .call(Method::DELETE, &who(&which).path(), &headers, None)
                .await?;
            if hub.json {
                output::json(&json!({ "deviceId": which.device(), "moduleId": which.module, "deleted": true }));
            } else {
                output::note(&format!("deleted `{}/{}`", which.device(), which.module));
            }
        }
        Module::RenewKey { which, key, hub } => {
            let service = hub_access::open(&hub)?;
            let module = keys::renew(&service, who(&which), key).await?;
            show(&service, &module, &hub)?;
        }
        Module::ConnectionString { which, key, hub } => {
            let service = hub_access::open(&hub)?;
            let module = service.call(Method::GET, &who(&which).path(), &[], None).await?.body;
            told(&keys::connection_string(&service, &module, key)?, hub.json);
        }
    }
    Ok(())
}

fn who(which: &OneModule) -> Who<'_> {
    Who {
        device: which.device(),
        module: Some(&which.module),
    }
}

/// A connection string, and nothing else.
pub(super) fn told(string: &str, as_json: bool) {
    if as_json {
        output::json(&json!({ "connectionString": string }));
    } else {
        output::line(string);
    }
}

fn show(service: &Service, module: &Value, hub: &HubAccess) -> anyhow::Result<()> {
    if hub.json {
        output::json(module);
        return Ok(());
    }
    let text = |pointer: &str| {
        module
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    output::line(&format!(
        "module             {}/{}",
        text("/deviceId"),
        text("/moduleId")
    ));
    output::line(&format!("connection         {}", text("/connectionState")));
    output::line(&format!("authentication     {}", text("/authentication/type")));
    output::line(&format!("managed by         {}", text("/managedBy")));
    let string = keys::connection_string(service, module, WhichKey::Primary)?;
    output::line(&format!("connection string  {string}"));
    Ok(())
}

async fn list(device: &str, hub: &HubAccess) -> anyhow::Result<()> {
    let service = hub_access::open(hub)?;
    let path = format!("/devices/{}/modules", percent::encode(device));
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
