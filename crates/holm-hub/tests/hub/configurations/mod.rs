//! Configurations and automatic deployments: rows 52 to 67, and what a fleet has.

mod deployments;
mod fan_out;
mod figures;
mod plan;
mod resource;
mod settings;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::support::TestHub;

/// A module as a manifest describes it.
pub(crate) fn module(image: &str) -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}})
}

pub(crate) fn base(modules: &[(&str, &str)]) -> Value {
    let specs: Map<String, Value> = modules
        .iter()
        .map(|(name, image)| ((*name).to_owned(), module(image)))
        .collect();
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": specs,
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    }})
}

pub(crate) fn layer(name: &str, image: &str) -> Value {
    json!({"modulesContent": {"$edgeAgent": {format!("properties.desired.modules.{name}"): module(image)}}})
}

/// A configuration in the form in which the command-line tool sends it.
fn body(id: &str, priority: u32, condition: &str, content: &Value) -> Value {
    json!({
        "id": id, "schemaVersion": "2.0", "labels": {}, "content": content, "targetCondition": condition,
        "priority": priority, "etag": "*", "metrics": {"queries": {}, "results": {}},
    })
}

impl TestHub {
    pub(crate) async fn configure(&self, id: &str, priority: u32, condition: &str, content: &Value) -> Value {
        let path = format!("/configurations/{id}");
        self.put(&path, body(id, priority, condition, content)).await.ok()
    }

    /// Waits until every twin has what configurations want.
    pub(crate) async fn settle(&self) {
        let settled = async {
            while !self.hub.configurations().is_settled().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), settled).await.unwrap();
    }

    pub(crate) async fn agent(&self, device: &str) -> Value {
        self.settle().await;
        self.get(&format!("/twins/{device}/modules/$edgeAgent")).await.ok()
    }

    /// The modules that an edge is to run, and what its configurations are.
    async fn has(&self, device: &str) -> (Vec<String>, Value) {
        let twin = self.agent(device).await;
        let modules = twin["properties"]["desired"]["modules"].as_object();
        let modules = modules.into_iter().flatten().map(|(name, _)| name.clone());
        (modules.collect(), statuses(&twin))
    }

    pub(crate) async fn results(&self, id: &str) -> Value {
        self.settle().await;
        self.get(&format!("/configurations/{id}")).await.ok()["systemMetrics"]["results"].clone()
    }
}

pub(crate) fn statuses(twin: &Value) -> Value {
    let all = twin["configurations"].as_object().unwrap();
    all.iter()
        .map(|(id, it)| (id.clone(), it["status"].clone()))
        .collect::<Map<_, _>>()
        .into()
}
