//! The published forms of a twin. A device sees properties and versions; a service sees everything, with the identity's own
//! fields around it. No published field is ever null where a client expects a value: C# has no room for it.

use serde_json::{Map, Value, json};

use super::{Section, Twin};
use crate::Timestamp;

/// What the registry knows about an identity and a service reads in its twin.
#[derive(Clone, Debug, PartialEq)]
pub struct TwinFacts {
    /// The identity's own etag, unquoted.
    pub device_etag: String,
    /// Whether the identity may connect.
    pub enabled: bool,
    /// Why it is as it is.
    pub status_reason: Option<String>,
    /// When `enabled` last changed.
    pub status_update_time: Timestamp,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was last heard of.
    pub last_activity_time: Timestamp,
    /// How many cloud-to-device messages wait.
    pub cloud_to_device_message_count: u32,
    /// `sas`, `selfSigned`, `certificateAuthority` or `none`.
    pub authentication_type: String,
    /// Primary and secondary certificate thumbprint.
    pub x509_thumbprints: (Option<String>, Option<String>),
    /// The digital-twin model that it announced.
    pub model_id: String,
    /// Whether it is an edge device.
    pub iot_edge: bool,
    /// The scope that it is in, or its own if it is an edge device.
    pub device_scope: Option<String>,
    /// The scopes of its parents.
    pub parent_scopes: Vec<String>,
    /// State of each configuration that targets it, by id: `Targeted` or `Applied`.
    pub configurations: Vec<(String, String)>,
}

impl Default for TwinFacts {
    fn default() -> Self {
        Self {
            device_etag: String::new(),
            enabled: true,
            status_reason: None,
            status_update_time: Timestamp::NEVER,
            connected: false,
            last_activity_time: Timestamp::NEVER,
            cloud_to_device_message_count: 0,
            authentication_type: "sas".to_owned(),
            x509_thumbprints: (None, None),
            model_id: String::new(),
            iot_edge: false,
            device_scope: None,
            parent_scopes: Vec::new(),
            configurations: Vec::new(),
        }
    }
}

impl Twin {
    /// What a device reads: `{"desired":{…,"$version":n},"reported":{…,"$version":n}}`.
    #[must_use]
    pub fn device_view(&self) -> Value {
        json!({
            "desired": self.desired.with_version(self.desired.properties()),
            "reported": self.reported.with_version(self.reported.properties()),
        })
    }

    /// What those who follow twins read where all of it is told: the twin alone, with its metadata.
    #[must_use]
    pub fn whole_view(&self) -> Value {
        let mut view = json!({
            "deviceId": self.identity.device,
            "etag": self.etag(),
            "version": self.version,
            "properties": { "desired": full(&self.desired), "reported": full(&self.reported) },
        });
        if let Some(view) = view.as_object_mut() {
            if let Some(module) = &self.identity.module {
                view.insert("moduleId".to_owned(), json!(module));
            }
            if !self.tags.is_empty() {
                view.insert("tags".to_owned(), json!(self.tags));
            }
        }
        view
    }

    /// What a service reads.
    #[must_use]
    pub fn service_view(&self, facts: &TwinFacts) -> Value {
        let (primary, secondary) = &facts.x509_thumbprints;
        let configurations: Map<String, Value> = facts
            .configurations
            .iter()
            .map(|(id, status)| (id.clone(), json!({ "status": status })))
            .collect();
        let mut view = json!({
            "deviceId": self.identity.device,
            "etag": self.etag(),
            "deviceEtag": facts.device_etag,
            "status": if facts.enabled { "enabled" } else { "disabled" },
            "statusReason": facts.status_reason,
            "statusUpdateTime": facts.status_update_time,
            "connectionState": if facts.connected { "Connected" } else { "Disconnected" },
            "lastActivityTime": facts.last_activity_time,
            "cloudToDeviceMessageCount": facts.cloud_to_device_message_count,
            "authenticationType": facts.authentication_type,
            "x509Thumbprint": { "primaryThumbprint": primary, "secondaryThumbprint": secondary },
            "modelId": facts.model_id,
            "version": self.version,
            "tags": self.tags,
            "properties": { "desired": full(&self.desired), "reported": full(&self.reported) },
            "capabilities": { "iotEdge": facts.iot_edge },
            "deviceScope": facts.device_scope,
            "parentScopes": facts.parent_scopes,
            "configurations": configurations,
            "attributes": {},
        });
        if let (Some(module), Some(view)) = (&self.identity.module, view.as_object_mut()) {
            view.insert("moduleId".to_owned(), json!(module));
        }
        view
    }
}

fn full(section: &Section) -> Map<String, Value> {
    let mut full = section.with_version(section.properties());
    full.insert("$metadata".to_owned(), Value::Object(section.metadata().clone()));
    full
}
