//! A hub, an edge, and the ready-made sensor whose every reading goes to the hub.

use std::time::Duration;

use serde_json::{Value, json};

use super::tally::Tally;
use crate::edge::{self, Edge};
use crate::hub::{Device, Hub};
use crate::link::Link;
use crate::monitor::Monitor;
use crate::patience;

pub(super) struct Story {
    pub(super) edge: Edge,
    pub(super) hub: Hub,
    pub(super) link: Link,
    device: Device,
}

impl Story {
    /// Starts everything; the sensor sends every `interval_ms` milliseconds.
    pub(super) fn start(interval_ms: u64) -> Self {
        let (hub, link) = Hub::start_behind_link();
        let device = hub.create_edge_device("pump-7");
        let edge = Edge::start(&hub, &device);
        let sensor = json!({
            "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
            "settings": {"image": "holm/sensor", "createOptions": "{}"},
            "env": {"INTERVAL_MS": {"value": interval_ms.to_string()}},
        });
        let routes = json!({"up": "FROM /messages/modules/sensor/outputs/* INTO $upstream"});
        edge::deploy(&hub, &device, &edge::manifest(&json!({"sensor": sensor}), &routes));
        let story = Self {
            edge,
            hub,
            link,
            device,
        };
        story.sent();
        story
    }

    /// How many readings the sensor has sent, as it says itself. Waits until it can be asked.
    pub(super) fn sent(&self) -> u64 {
        let path = format!("/twins/{}/modules/sensor/methods", self.device.id);
        let body = json!({"methodName": "status", "payload": null, "responseTimeoutInSeconds": 20});
        patience::wait("the sensor's answer", patience::long(), || {
            let answer = self.hub.service().try_call("POST", &path, &[], Some(&body));
            let answer: Value = answer.map_err(|error| format!("{error:#}"))?.json();
            answer["payload"]["readings"].as_u64().ok_or_else(|| answer.to_string())
        })
    }

    /// Lets the sensor rest, and returns how many readings it has sent in all.
    pub(super) fn rest(&self) -> u64 {
        let path = format!("/twins/{}/modules/sensor", self.device.id);
        let slow = json!({"properties": {"desired": {"intervalMs": 86_400_000_u64}}});
        self.hub.service().call("PATCH", &path, Some(&slow));
        patience::wait("a sensor that rests", patience::long(), || {
            let before = self.sent();
            std::thread::sleep(Duration::from_millis(300));
            let after = self.sent();
            if before == after {
                Ok(after)
            } else {
                Err(format!("{before} became {after}"))
            }
        })
    }

    /// Reads the hub's log until it holds so many readings of each run of the sensor; there must be one run.
    pub(super) fn read_all(&self, sent: u64) -> Tally {
        let mut monitor: Monitor = self.hub.monitor();
        let mut tally = Tally::default();
        let arrived = |tally: &Tally| tally.senders().iter().map(|run| tally.of(run).next).sum::<u64>();
        while arrived(&tally) < sent {
            let Some(event) = monitor.take(patience::long()) else {
                panic!("the sensor sent {sent}; of these the log holds {tally:?}");
            };
            assert_eq!(event.module.as_deref(), Some("sensor"), "{}", event.line);
            let id = event.system["messageId"].as_str().unwrap_or_default();
            let (run, number) = id
                .rsplit_once('-')
                .unwrap_or_else(|| panic!("not ours: {}", event.line));
            tally.add(
                run,
                number.parse().unwrap_or_else(|_| panic!("not ours: {}", event.line)),
            );
        }
        assert_eq!(tally.senders().len(), 1, "a healthy module was restarted: {tally:?}");
        tally.assert_in_order();
        tally
    }
}
