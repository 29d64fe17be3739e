//! What the operator deploys: four modules, and a route for each output.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{BRIEF, DEVICE, Story};
use crate::hub;

impl Story {
    pub(super) async fn deploy(&self, version: u32) {
        let modules: Map<String, Value> = [
            ("sensor-a", "sensor"),
            ("sensor-b", "sensor"),
            ("watcher", "watcher"),
            ("caller", "caller"),
        ]
        .into_iter()
        .map(|(name, program)| (name.to_owned(), module(&format!("sim/{program}:{version}"))))
        .collect();
        let route = |to: &str, into: &str, priority: u8, life: u64| {
            json!({"route": format!("FROM /messages/* WHERE to = '{to}' INTO {into}"), "priority": priority,
                "timeToLiveSecs": life})
        };
        let content = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired": {
                "schemaVersion": "1.1",
                "runtime": {"type": "docker", "settings": {}},
                "systemModules": {"edgeAgent": system("holm/edge-agent"), "edgeHub": system("holm/edge-hub")},
                "modules": modules,
            }},
            "$edgeHub": {"properties.desired": {
                "schemaVersion": "1.1",
                "routes": {
                    "urgent": route("urgent", "$upstream", 0, 0),
                    "normal": route("normal", "$upstream", 5, 0),
                    "brief": route("brief", "$upstream", 6, BRIEF.as_secs()),
                    "bulk": route("bulk", "$upstream", 9, 0),
                    "local": route("local", "BrokeredEndpoint(\"/modules/watcher/inputs/in\")", 1, 0),
                },
                "storeAndForwardConfiguration": {
                    "timeToLiveSecs": -1,
                    "storeLimits": {"maxSizeBytes": self.limit(), "whenFull": "dropOldest"},
                },
            }},
        }});
        let path = format!("/devices/{DEVICE}/applyConfigurationContent");
        self.hub.call(Method::POST, &path, &content).await;
        self.journal
            .note(format_args!("deployment {version} for {}", hub::HOST));
    }
}

fn module(image: &str) -> Value {
    json!({
        "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": image, "createOptions": "{}"},
    })
}

fn system(image: &str) -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": image, "createOptions": "{}"}})
}
