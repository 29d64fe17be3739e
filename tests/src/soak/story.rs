//! A hub, an edge and ready-made modules: the pump with its sensor, watcher and summary, or a flood of readings.
//!
//! ```text
//! pump    sensor ──► watcher ──► alerts ──────► hub        flood    sensor1 ──► readings ──► hub
//!           └──────► summary ──► summaries ───► hub                 sensor2 ──► …
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::edge::{self, Edge};
use crate::hub::{Device, Hub};
use crate::link::Link;
use crate::patience;
use crate::processes::{self, Process};

/// Longer than any run: a sensor with this pause rests.
const REST_MS: u64 = 86_400_000;
/// Longer than any pause of a sensor that works.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

pub(super) struct Story {
    pub(super) edge: Edge,
    pub(super) hub: Hub,
    pub(super) link: Link,
    device: Device,
    sensors: Vec<String>,
}

impl Story {
    /// The story of the pump; a reading every `interval_ms` milliseconds.
    pub(super) fn pump(interval_ms: u64) -> Self {
        let modules = json!({
            "sensor": module("sensor", json!({"INTERVAL_MS": {"value": interval_ms.to_string()}})),
            "watcher": module("watcher", json!({})),
            "summary": module("summary", json!({})),
        });
        let into = |module: &str| {
            format!(
                "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint(\"/modules/{module}/inputs/readings\")"
            )
        };
        let routes = json!({
            "toWatcher": into("watcher"),
            "toSummary": into("summary"),
            "alerts": "FROM /messages/modules/watcher/outputs/alerts INTO $upstream",
            "summaries": "FROM /messages/modules/summary/outputs/summaries INTO $upstream",
        });
        Self::start(&modules, &routes, vec!["sensor".to_owned()])
    }

    /// Sensors whose every reading goes to the hub, one every `interval_ms` milliseconds each.
    pub(super) fn flood(sensors: usize, interval_ms: u64) -> Self {
        let names: Vec<String> = (1..=sensors).map(|number| format!("sensor{number}")).collect();
        let env = json!({"INTERVAL_MS": {"value": interval_ms.to_string()}});
        let modules: Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), module("sensor", env.clone())))
            .collect();
        let routes = json!({"up": "FROM /messages/modules/* INTO $upstream"});
        Self::start(&Value::Object(modules), &routes, names)
    }

    fn start(modules: &Value, routes: &Value, sensors: Vec<String>) -> Self {
        let (hub, link) = Hub::start_behind_link();
        let device = hub.create_edge_device("pump-7");
        let edge = Edge::start(&hub, &device);
        edge::deploy(&hub, &device, &edge::manifest(modules, routes));
        let story = Self {
            edge,
            hub,
            link,
            device,
            sensors,
        };
        for name in modules.as_object().into_iter().flat_map(Map::keys) {
            story.ask(name);
        }
        story
    }

    /// The modules' processes.
    pub(super) fn processes(&self) -> BTreeMap<String, Process> {
        processes::modules(&self.edge.data())
    }

    /// What a module says of itself. Waits until it can be asked.
    #[track_caller]
    pub(super) fn ask(&self, module: &str) -> Value {
        let path = format!("/twins/{}/modules/{module}/methods", self.device.id);
        let body = json!({"methodName": "status", "payload": null, "responseTimeoutInSeconds": 20});
        patience::wait(&format!("the answer of `{module}`"), patience::long(), || {
            let answer = self.hub.service().try_call("POST", &path, &[], Some(&body));
            let answer: Value = answer.map_err(|error| format!("{error:#}"))?.json();
            let told = answer["payload"].is_object().then(|| answer["payload"].clone());
            told.ok_or_else(|| answer.to_string())
        })
    }

    /// How many readings a module has sent or taken.
    #[track_caller]
    pub(super) fn readings(&self, module: &str) -> u64 {
        let told = self.ask(module);
        told["readings"]
            .as_u64()
            .unwrap_or_else(|| panic!("`{module}` answered {told}"))
    }

    /// Lets the sensors rest, and returns how many readings they have sent in all.
    #[track_caller]
    pub(super) fn rest(&self) -> u64 {
        let slow = json!({"properties": {"desired": {"intervalMs": REST_MS}}});
        for sensor in &self.sensors {
            let path = format!("/twins/{}/modules/{sensor}", self.device.id);
            self.hub.service().call("PATCH", &path, Some(&slow));
        }
        let mut sent = 0;
        for sensor in &self.sensors {
            sent += patience::wait("a sensor that rests", patience::long(), || {
                let told = self.ask(sensor);
                // A reading that was due when the wish came is still made.
                std::thread::sleep(LONGEST_PAUSE);
                let again = self.ask(sensor);
                match told["readings"].as_u64() {
                    Some(readings) if told["intervalMs"] == REST_MS && told == again => Ok(readings),
                    _ => Err(format!("{told}, then {again}")),
                }
            });
        }
        sent
    }

    /// How many messages wait at the edge for the hub.
    #[track_caller]
    pub(super) fn waiting(&self) -> u64 {
        let status = self.edge.status();
        let depth = status["upstream"]["depth"].as_u64();
        depth.unwrap_or_else(|| panic!("the edge does not say how much waits: {status}"))
    }

    /// Waits until the hub has acknowledged everything that the edge took in.
    ///
    /// # Panics
    /// When what waits does not become less.
    #[track_caller]
    pub(super) fn deliver(&self) {
        let mut least = u64::MAX;
        while least > 0 {
            least = patience::wait("messages that leave for the hub", patience::long(), || {
                let waiting = self.waiting();
                let less = waiting < least;
                less.then_some(waiting).ok_or_else(|| format!("{waiting} wait"))
            });
        }
    }

    /// Takes the modules away by a deployment without them, and ends edge and hub in good order.
    ///
    /// # Panics
    /// When a module is left, or one of the two fails.
    #[track_caller]
    pub(super) fn end(mut self) {
        edge::deploy(&self.hub, &self.device, &edge::manifest(&json!({}), &json!({})));
        patience::wait("an edge without modules", patience::long(), || {
            let left = self.processes();
            left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
        });
        let status = self.edge.stop();
        assert!(status.success(), "the edge ended with {status} after SIGTERM");
        self.hub.stop();
    }
}

fn module(name: &str, env: Value) -> Value {
    json!({
        "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": format!("holm/{name}"), "createOptions": "{}"},
        "env": env,
    })
}
