//! `holm device …`.

mod children;

use anyhow::{Context, anyhow};
use holm_identity::Thumbprint;
use holm_model::wire::percent;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::hub_access;
use crate::cli::{Auth, Device};
use crate::output;
use crate::service::{Refused, Service};

/// How many devices `list` shows at most: what the published call gives.
const LIST_LIMIT: usize = 1000;

pub(crate) async fn run(command: Device) -> anyhow::Result<()> {
    match command {
        Device::Create {
            id,
            edge,
            auth,
            thumbprint,
            hub,
        } => {
            let service = hub_access::open(&hub)?;
            let body = json!({
                "deviceId": id,
                "capabilities": { "iotEdge": edge },
                "authentication": authentication(auth, thumbprint.as_ref().map(Thumbprint::as_str)),
            });
            let created = service.call(Method::PUT, &path(&id), &[], Some(&body)).await;
            let device = created.map_err(|error| told_for_people(error, &id))?.body;
            show(&service, &device, hub.json);
        }
        Device::Show { id, hub } => {
            let service = hub_access::open(&hub)?;
            let device = service.call(Method::GET, &path(&id), &[], None).await?.body;
            show(&service, &device, hub.json);
        }
        Device::List { hub } => {
            let service = hub_access::open(&hub)?;
            let path = format!("/devices?top={LIST_LIMIT}");
            let devices = service.call(Method::GET, &path, &[], None).await?.body;
            list(&devices, hub.json, true)?;
        }
        Device::Delete { id, hub } => {
            let service = hub_access::open(&hub)?;
            service
                .call(Method::DELETE, &path(&id), &[("If-Match", "*")], None)
                .await?;
            output::note(&format!("deleted `{id}`"));
        }
        Device::Children(command) => children::run(command).await?,
    }
    Ok(())
}

/// What the API answers to a device that is there already is for programs: "send `If-Match`".
fn told_for_people(error: anyhow::Error, id: &str) -> anyhow::Error {
    let refused = error.downcast_ref::<Refused>();
    if refused.is_some_and(|refused| refused.status == StatusCode::CONFLICT) {
        return anyhow!(
            "device `{id}` is registered already; `holm device show {id}` shows it, `holm device delete {id}` deletes it with its \
             modules, twin and waiting messages"
        );
    }
    error
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

fn list(devices: &Value, as_json: bool, is_limited: bool) -> anyhow::Result<()> {
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
    if is_limited && devices.len() >= LIST_LIMIT {
        output::note(&format!("only the first {LIST_LIMIT} are shown"));
    }
    Ok(())
}
