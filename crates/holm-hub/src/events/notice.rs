//! Events that the hub itself makes: an identity came or went, a twin changed, somebody connected or disconnected.
//!
//! Source: `hub-service-api.md` §4.2, last paragraph.

use holm_model::{Identity, Message, SystemProperty, Timestamp, Twin};
use serde_json::{Map, Value, json};

use super::connection_state::Change;
use crate::registry::Entry;
use crate::storage::Event;

/// What happened to an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It was made.
    Created,
    /// It was removed.
    Deleted,
}

/// How a twin was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// By a merge patch.
    Update,
    /// As a whole.
    Replace,
}

/// An identity came or went; the body is its twin.
#[must_use]
pub fn lifecycle(hub_name: &str, entry: &Entry, twin: &Twin, what: Lifecycle, now: Timestamp) -> Event {
    let (verb, key) = match what {
        Lifecycle::Created => ("create", "created"),
        Lifecycle::Deleted => ("delete", "deleted"),
    };
    let kind = if entry.identity.is_module() { "Module" } else { "Device" };
    let mut body = json!({
        "deviceId": entry.identity.device,
        "etag": twin.etag(),
        "version": twin.version(),
        "tags": twin.tags(),
        "properties": twin.device_view(),
    });
    if let (Some(module), Some(body)) = (&entry.identity.module, body.as_object_mut()) {
        body.insert("moduleId".to_owned(), json!(module));
    }
    let about = About {
        source: super::LIFECYCLE,
        schema: "deviceLifecycleNotification",
        operation: format!("{verb}{kind}Identity"),
    };
    event(hub_name, &entry.identity, &entry.generation, key, &about, &body, now)
}

/// A device or module connected or disconnected; the body holds a number in hexadecimal that is larger in later events.
#[must_use]
pub fn connection_state(hub_name: &str, change: &Change) -> Event {
    let identity = &change.identity;
    let kind = if identity.is_module() { "module" } else { "device" };
    let operation = if change.connected { "Connected" } else { "Disconnected" };
    let sequence = format!("{:032X}", change.since.unix_millis().max(0));
    let key = format!("{operation}/{sequence}");
    let about = About {
        source: super::CONNECTION_STATES,
        schema: if identity.is_module() {
            "moduleConnectionStateNotification"
        } else {
            "deviceConnectionStateNotification"
        },
        operation: format!("{kind}{operation}"),
    };
    let body = json!({ "sequenceNumber": sequence });
    event(
        hub_name,
        identity,
        &change.generation,
        &key,
        &about,
        &body,
        change.since,
    )
}

/// Tags or desired properties changed; the body holds the changed parts, `desired` with its `$version`.
#[must_use]
pub fn twin_changed(
    hub_name: &str,
    generation: &str,
    twin: &Twin,
    operation: Operation,
    tags: Option<&Map<String, Value>>,
    desired: Option<&Map<String, Value>>,
    now: Timestamp,
) -> Event {
    let mut body = Map::from_iter([("version".to_owned(), json!(twin.version()))]);
    if let Some(tags) = tags {
        body.insert("tags".to_owned(), json!(tags));
    }
    if let Some(desired) = desired {
        body.insert("properties".to_owned(), json!({ "desired": desired }));
    }
    let key = format!("v{}", twin.version());
    twin_event(hub_name, generation, twin, operation, &key, &Value::Object(body), now)
}

/// Reported properties changed; the body holds the patch with its `$version`.
#[must_use]
pub fn reported_changed(
    hub_name: &str,
    generation: &str,
    twin: &Twin,
    reported: &Map<String, Value>,
    now: Timestamp,
) -> Event {
    let body = json!({ "version": twin.version(), "properties": { "reported": reported } });
    let key = format!("r{}", twin.reported().version());
    twin_event(hub_name, generation, twin, Operation::Update, &key, &body, now)
}

fn twin_event(
    hub_name: &str,
    generation: &str,
    twin: &Twin,
    operation: Operation,
    key: &str,
    body: &Value,
    now: Timestamp,
) -> Event {
    let about = About {
        source: super::TWIN_CHANGES,
        schema: "twinChangeNotification",
        operation: match operation {
            Operation::Update => "updateTwin".to_owned(),
            Operation::Replace => "replaceTwin".to_owned(),
        },
    };
    event(hub_name, twin.identity(), generation, key, &about, body, now)
}

struct About {
    source: &'static str,
    schema: &'static str,
    operation: String,
}

fn event(
    hub_name: &str,
    identity: &Identity,
    generation: &str,
    key: &str,
    about: &About,
    body: &Value,
    now: Timestamp,
) -> Event {
    let key = format!("{}/{identity}/{generation}/{key}", about.source);
    let mut message = Message::new(body.to_string());
    let system = [
        (SystemProperty::MessageId, key.clone()),
        (SystemProperty::ContentType, "application/json".to_owned()),
        (SystemProperty::ContentEncoding, "utf-8".to_owned()),
        (SystemProperty::ConnectionDeviceId, identity.device.to_string()),
        (SystemProperty::EnqueuedTime, now.to_string()),
        (SystemProperty::MessageSource, about.source.to_owned()),
    ];
    for (name, value) in system {
        message.system.set(name, value);
    }
    let mut properties = vec![
        ("hubName", hub_name.to_owned()),
        ("deviceId", identity.device.to_string()),
    ];
    if let Some(module) = &identity.module {
        message.system.set(SystemProperty::ConnectionModuleId, module.as_str());
        properties.push(("moduleId", module.to_string()));
    }
    properties.push(("opType", about.operation.clone()));
    properties.push(("operationTimestamp", now.to_string()));
    properties.push(("iothub-message-schema", about.schema.to_owned()));
    message.properties = properties.into_iter().collect();
    Event {
        key,
        device: identity.device.clone(),
        at: now,
        message: message.encode().into(),
    }
}
