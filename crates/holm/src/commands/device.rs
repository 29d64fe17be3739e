//! `holm device …`.

mod children;
#[cfg(feature = "hub")]
mod transfer;

use std::process::ExitCode;

use anyhow::{Context, bail};
use holm_identity::Thumbprint;
use holm_model::wire::percent;
use hyper::Method;
use serde_json::{Value, json};

use super::keys::{self, Who};
use super::{hub_access, module};
use crate::cli::{Auth, Device, DeviceStatus};
use crate::output::{self, WrongUse};
use crate::service::Service;

/// Devices of one page.
const PAGE: u64 = 1000;

pub(crate) async fn run(command: Device) -> anyhow::Result<ExitCode> {
    match command {
        Device::Create {
            device,
            edge,
            auth,
            thumbprint,
            hub,
        } => {
            let auth = match (auth, &thumbprint) {
                (Some(Auth::Sas), Some(_)) => {
                    let told = "`--auth sas` goes with no `--thumbprint`: leave one of them out";
                    bail!(WrongUse(told.to_owned()));
                }
                (Some(auth), _) => auth,
                (None, Some(_)) => Auth::X509Thumbprint,
                (None, None) => Auth::Sas,
            };
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            let body = json!({
                "deviceId": id,
                "capabilities": { "iotEdge": edge },
                "authentication": authentication(auth, thumbprint.as_ref().map(Thumbprint::as_str)),
            });
            let way_out = format!(
                "`holm device show {id}` shows it, `holm device update {id}` changes it, `holm device delete {id}` deletes it with its \
                 modules, twin and waiting messages"
            );
            let device = service
                .create(&path(&id), &body, &format!("device `{id}`"), &way_out)
                .await?;
            show(&service, &device, hub.json);
        }
        Device::Show { device, hub } => {
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            let device = service.call(Method::GET, &path(&id), &[], None).await?.body;
            show(&service, &device, hub.json);
        }
        Device::List { max, hub } => {
            let devices = all(&hub_access::open(&hub)?, max.unwrap_or(u64::MAX)).await?;
            list(&Value::Array(devices), hub.json)?;
        }
        Device::Update {
            device,
            status,
            reason,
            edge,
            thumbprint,
            secondary_thumbprint,
            etag,
            hub,
        } => {
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            let mut body = json!({ "deviceId": id });
            if let Some(status) = status {
                body["status"] = json!(word(status));
            }
            if let Some(reason) = reason {
                body["statusReason"] = json!(Some(reason).filter(|reason| !reason.is_empty()));
            }
            if let Some(edge) = edge {
                body["capabilities"] = json!({ "iotEdge": edge });
            }
            if let Some(thumbprint) = thumbprint {
                let secondary = secondary_thumbprint.as_ref().map(Thumbprint::as_str);
                body["authentication"] = authentication(Auth::X509Thumbprint, Some(thumbprint.as_str()));
                body["authentication"]["x509Thumbprint"]["secondaryThumbprint"] = json!(secondary);
            }
            let etag = format!("\"{}\"", etag.as_deref().unwrap_or("*"));
            let headers = [("If-Match", etag.as_str())];
            let device = service.call(Method::PUT, &path(&id), &headers, Some(&body)).await?.body;
            show(&service, &device, hub.json);
        }
        Device::RenewKey { device, key, hub } => {
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            let device = keys::renew(&service, who(&id), key).await?;
            show(&service, &device, hub.json);
        }
        Device::ConnectionString { device, key, hub } => {
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            let device = service.call(Method::GET, &path(&id), &[], None).await?.body;
            module::told(&keys::connection_string(&service, &device, key)?, hub.json);
        }
        #[cfg(feature = "hub")]
        Device::Export {
            output,
            exclude_keys,
            hub,
        } => transfer::export(&output, exclude_keys, &hub).await?,
        #[cfg(feature = "hub")]
        Device::Import { file, hub } => {
            if !transfer::import(&file, &hub).await? {
                return Ok(ExitCode::from(output::EXIT_FAILED));
            }
        }
        Device::Delete { device, hub } => {
            let (id, service) = (device.id(), hub_access::open(&hub)?);
            service
                .call(Method::DELETE, &path(&id), &[("If-Match", "*")], None)
                .await?;
            if hub.json {
                output::json(&json!({ "deviceId": id, "deleted": true }));
            } else {
                output::note(&format!("deleted `{id}`"));
            }
        }
        Device::Children(command) => children::run(command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The first devices, page by page.
async fn all(service: &Service, most: u64) -> anyhow::Result<Vec<Value>> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let top = most.saturating_sub(all.len() as u64).min(PAGE);
        let last = all
            .last()
            .and_then(|last| last["deviceId"].as_str())
            .unwrap_or_default();
        let path = format!("/holm/v1/devices?top={top}&after={}", percent::encode(last));
        if top == 0 {
            return Ok(all);
        }
        let Value::Array(page) = service.call(Method::GET, &path, &[], None).await?.body else {
            bail!("the hub's answer is not a list")
        };
        let is_last = (page.len() as u64) < top;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

const fn word(status: DeviceStatus) -> &'static str {
    match status {
        DeviceStatus::Enabled => "enabled",
        DeviceStatus::Disabled => "disabled",
    }
}

const fn who(id: &str) -> Who<'_> {
    Who {
        device: id,
        module: None,
    }
}

fn path(id: &str) -> String {
    format!("/devices/{}", percent::encode(id))
}

fn authentication(auth: Auth, thumbprint: Option<&str>) -> Value {
    match auth {
        Auth::Sas => json!({ "type": "sas" }),
        Auth::X509Thumbprint => {
            json!({ "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": thumbprint } })
        }
    }
}

/// The published JSON, or what a person needs: what it is, and the string to give to the device.
fn show(service: &Service, device: &Value, as_json: bool) {
    if as_json {
        return output::json(device);
    }
    let text = |pointer: &str| {
        device
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("-")
            .to_owned()
    };
    let edge = device
        .pointer("/capabilities/iotEdge")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    output::line(&format!("device             {}", text("/deviceId")));
    output::line(&format!("status             {}", text("/status")));
    for (name, value) in [
        ("reason", device["statusReason"].as_str()),
        ("parent", children::parent(device)),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            output::line(&format!("{name:<19}{value}"));
        }
    }
    output::line(&format!("connection         {}", text("/connectionState")));
    output::line(&format!("authentication     {}", text("/authentication/type")));
    output::line(&format!("edge               {}", if edge { "yes" } else { "no" }));
    let id = text("/deviceId");
    if id.contains(';') {
        output::note(&format!(
            "holm: SDKs can't read the connection string of `{id}`, since they split it at `;`; take an id without, or give host \
             name, id and key to the program one by one"
        ));
    }
    let credential = match device
        .pointer("/authentication/symmetricKey/primaryKey")
        .and_then(Value::as_str)
    {
        Some(key) => format!("SharedAccessKey={key}"),
        None => "x509=true".to_owned(),
    };
    output::line(&format!(
        "connection string  HostName={};DeviceId={id};{credential}",
        service.host()
    ));
}

fn list(devices: &Value, as_json: bool) -> anyhow::Result<()> {
    let devices = devices.as_array().context("the hub's answer is not a list")?;
    if as_json {
        output::json(&json!(devices));
        return Ok(());
    }
    let text = |device: &Value, name: &str| device.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            let edge = device
                .pointer("/capabilities/iotEdge")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            vec![
                text(device, "deviceId"),
                text(device, "status"),
                text(device, "connectionState"),
                (if edge { "edge" } else { "device" }).to_owned(),
            ]
        })
        .collect();
    output::table(&["DEVICE", "STATUS", "CONNECTION", "KIND"], &rows);
    Ok(())
}
