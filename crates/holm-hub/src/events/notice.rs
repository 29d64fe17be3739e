//! Events that the hub itself makes: an identity came or went, a twin changed, somebody connected or disconnected, a job did
//! something with a device.
//!
//! ```text
//! system       content-type, content-encoding, user-id (the hub), correlation-id, connection device and module id, enqueued time, source
//! application  hubName, deviceId, moduleId, opType, operationTimestamp, iothub-message-schema
//! ```
//!
//! - Those of modules have the same schema and `opType` as those of devices, and a `moduleId`.
//! - Events of one change of a twin have one correlation id. The message id is the event's key: who reads an event twice knows it by
//!   that.
//! - Of jobs the name of the source alone is published; the rest is ours, made as the others are.
//!
//! Source: the published schemas of non-telemetry events (`hub-service-api.md` §4.2).

use holm_model::{Identity, Message, SystemProperty, Timestamp, Twin};
use serde_json::{Map, Value, json};

use super::connection_state::Change;
use super::fnv_1a;
use crate::registry::Entry;
use crate::storage::{Event, JobDevice};

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

/// Who changed a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// A service, its desired properties.
    Service(Operation),
    /// The device or module itself, what it reports.
    Device,
}

/// JSON, as most bodies are.
const JSON: &str = "application/json";
/// A JSON Patch (RFC 6902).
const JSON_PATCH: &str = "application/json-patch+json";

/// An identity came or went; the body is its twin.
#[must_use]
pub fn lifecycle(hub_name: &str, entry: &Entry, twin: &Twin, what: Lifecycle, now: Timestamp) -> Event {
    let (operation, key) = match what {
        Lifecycle::Created => ("createDeviceIdentity", "created"),
        Lifecycle::Deleted => ("deleteDeviceIdentity", "deleted"),
    };
    let about = About {
        source: super::LIFECYCLE,
        schema: "deviceLifecycleNotification",
        operation,
        content_type: JSON,
    };
    let of = (&entry.identity, entry.generation.as_str());
    event(hub_name, of, key, &about, &twin.whole_view(), now)
}

/// A device or module connected or disconnected; the body holds a number of 256 bits in hexadecimal that is larger in later events,
/// also as text.
#[must_use]
pub fn connection_state(hub_name: &str, change: &Change) -> Event {
    let identity = &change.identity;
    let (operation, word) = if change.connected {
        ("deviceConnected", "Connected")
    } else {
        ("deviceDisconnected", "Disconnected")
    };
    let sequence = format!("{:032X}{:032X}", change.since.unix_millis().max(0), 0);
    let key = format!("{word}/{sequence}");
    let about = About {
        source: super::CONNECTION_STATES,
        schema: "deviceConnectionStateNotification",
        operation,
        content_type: JSON,
    };
    let body = json!({ "sequenceNumber": sequence });
    let of = (identity, change.generation.as_str());
    event(hub_name, of, &key, &about, &body, change.since)
}

/// A job did something with a device; the body is the device's row in the job.
#[must_use]
pub fn device_job(hub_name: &str, row: &JobDevice, document: &Value) -> Event {
    let operation = match row.status.as_str() {
        "pending" => "deviceJobCreated",
        "running" => "deviceJobStarted",
        "completed" => "deviceJobCompleted",
        "failed" => "deviceJobFailed",
        _ => "deviceJobCanceled",
    };
    let about = About {
        source: super::DEVICE_JOBS,
        schema: "deviceJobLifecycleNotification",
        operation,
        content_type: JSON,
    };
    // A job's id is free again after its history has ended: when it was made tells it from the next.
    let key = format!("{}/{}/{}", row.created.unix_millis(), row.status, row.attempts);
    event(hub_name, (&row.identity, &row.job), &key, &about, document, row.updated)
}

/// Tags or desired properties changed. After an update the body holds the changed parts, `desired` with its `$metadata` and
/// `$version`; after a replacement the twin.
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
        let desired = twin.desired().changed(desired);
        body.insert("properties".to_owned(), json!({ "desired": desired }));
    }
    let body = match operation {
        Operation::Update => Value::Object(body),
        Operation::Replace => twin.whole_view(),
    };
    let of = (twin.identity(), generation);
    event(hub_name, of, &by_version(twin), &TWIN.of(operation), &body, now)
}

/// Reported properties changed; the body holds the patch with its `$metadata` and `$version`.
#[must_use]
pub fn reported_changed(
    hub_name: &str,
    generation: &str,
    twin: &Twin,
    reported: &Map<String, Value>,
    now: Timestamp,
) -> Event {
    let reported = twin.reported().changed(reported);
    let body = json!({ "version": twin.version(), "properties": { "reported": reported } });
    let of = (twin.identity(), generation);
    event(
        hub_name,
        of,
        &by_reported_version(twin),
        &TWIN.of(Operation::Update),
        &body,
        now,
    )
}

/// A digital twin changed; the body is the JSON Patch that makes it what it is.
#[must_use]
pub fn digital_twin_changed(
    hub_name: &str,
    generation: &str,
    twin: &Twin,
    by: ChangedBy,
    patch: &[Value],
    now: Timestamp,
) -> Event {
    let (key, operation) = match by {
        ChangedBy::Service(operation) => (by_version(twin), operation),
        ChangedBy::Device => (by_reported_version(twin), Operation::Update),
    };
    let of = (twin.identity(), generation);
    event(hub_name, of, &key, &DIGITAL_TWIN.of(operation), &json!(patch), now)
}

fn by_version(twin: &Twin) -> String {
    format!("v{}", twin.version())
}

fn by_reported_version(twin: &Twin) -> String {
    format!("r{}", twin.reported().version())
}

struct About {
    source: &'static str,
    schema: &'static str,
    operation: &'static str,
    content_type: &'static str,
}

const TWIN: About = About {
    source: super::TWIN_CHANGES,
    schema: "twinChangeNotification",
    operation: "updateTwin",
    content_type: JSON,
};

const DIGITAL_TWIN: About = About {
    source: super::DIGITAL_TWIN_CHANGES,
    schema: "digitalTwinChangeNotification",
    operation: "updateTwin",
    content_type: JSON_PATCH,
};

impl About {
    const fn of(&self, operation: Operation) -> Self {
        let operation = match operation {
            Operation::Update => "updateTwin",
            Operation::Replace => "replaceTwin",
        };
        Self { operation, ..*self }
    }
}

/// An event about an identity of a generation (of a job: about one in that job).
fn event(
    hub_name: &str,
    (identity, generation): (&Identity, &str),
    key: &str,
    about: &About,
    body: &Value,
    now: Timestamp,
) -> Event {
    let cause = format!("{identity}/{generation}/{key}");
    let key = format!("{}/{cause}", about.source);
    let mut message = Message::new(body.to_string());
    let system = [
        (SystemProperty::MessageId, key.clone()),
        (SystemProperty::CorrelationId, format!("{:016x}", fnv_1a(&cause))),
        (SystemProperty::UserId, hub_name.to_owned()),
        (SystemProperty::ContentType, about.content_type.to_owned()),
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
    properties.push(("opType", about.operation.to_owned()));
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
