//! The edge's way to its hub over each protocol: what works over one works over all, and the hub may die in the middle.

use std::collections::BTreeMap;

use holm_e2e::Language::Python;
use holm_e2e::edge::{Runtime, SdkModule};
use holm_e2e::{Edge, Event, Hub, Need, Setup, Transport, patience};
use serde_json::json;

use crate::downstream::{GATEWAY, below, child, gateway_with, is_here, story};

const WATCHER: SdkModule = SdkModule {
    name: "watcher",
    language: Python,
    transport: Transport::Mqtt,
    runtime: Runtime::Process,
};
/// Messages of each device in the test in which the hub dies.
const MESSAGES: usize = 60;

fn speaking(line: &'static str) -> Setup {
    Setup {
        holm: vec![line],
        ..Setup::default()
    }
}

#[test]
fn a_module_and_a_device_below_live_their_stories_over_amqp() {
    stories(speaking("hub_protocol = \"amqp\""), "amqp");
}

#[test]
fn a_module_and_a_device_below_live_their_stories_over_amqp_in_a_websocket() {
    stories(speaking("hub_protocol = \"amqp-ws\""), "amqp-ws");
}

#[test]
fn a_module_and_a_device_below_live_their_stories_over_mqtt_in_a_websocket() {
    stories(speaking("hub_protocol = \"mqtt-ws\""), "mqtt-ws");
}

fn stories(setup: Setup, protocol: &str) {
    if !is_here(Python) {
        return;
    }
    let hub = Hub::start();
    let edge = gateway_with(&hub, &[WATCHER], setup);
    let device = child(&hub, "leaf");
    let mut leaf = below(Python, Transport::Mqtt, &hub, &edge, &device);

    story(&hub, &mut leaf);
    story_of_the_module(&hub, &edge);

    assert_eq!(edge.status()["uplinkProtocol"], protocol);
}

fn story_of_the_module(hub: &Hub, edge: &Edge) {
    let mut watcher = edge.accept();
    let mut monitor = hub.monitor();
    watcher.call("connect", json!({}));
    for what in ["methods", "desired"] {
        watcher.call("listen", json!({"what": what}));
    }

    watcher.call("send", json!({"output": "alerts", "body": "hot", "message_id": "m-1"}));
    let desired = json!({"properties": {"desired": {"rate": 7}}});
    let path = format!("/twins/{GATEWAY}/modules/watcher");
    hub.service().call("PATCH", &path, Some(&desired));
    watcher.event("desired", |event| event["patch"]["rate"] == 7);
    watcher.call("report", json!({"patch": {"rate": 7}}));
    let call = json!({"methodName": "echo", "payload": {"n": 1}, "responseTimeoutInSeconds": 20, "connectTimeoutInSeconds": 20});
    let answer = hub.service().call("POST", &format!("{path}/methods"), Some(&call));

    assert_eq!(answer["payload"]["payload"], json!({"n": 1}));
    let event = monitor.wait_for("the alert", |event| event.system["messageId"] == "m-1");
    assert_eq!(
        (event.device.as_str(), event.module.as_deref()),
        (GATEWAY, Some("watcher"))
    );
    patience::wait("the report at the hub", patience::long(), || {
        let twin = hub.service().call("GET", &path, None);
        match twin["properties"]["reported"]["rate"].as_u64() {
            Some(7) => Ok(()),
            _ => Err(twin["properties"]["reported"].to_string()),
        }
    });
}

#[test]
fn nothing_is_lost_and_all_stays_in_order_when_the_hub_dies_in_the_middle_of_amqp() {
    a_hub_that_dies(speaking("hub_protocol = \"amqp\""));
}

#[test]
fn nothing_is_lost_and_all_stays_in_order_when_the_hub_dies_in_the_middle_of_amqp_in_a_websocket() {
    a_hub_that_dies(speaking("hub_protocol = \"amqp-ws\""));
}

fn a_hub_that_dies(setup: Setup) {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let edge = gateway_with(&hub, &[], setup);
    let devices: Vec<_> = (0..8).map(|number| child(&hub, &format!("leaf-{number}"))).collect();
    let ca = edge.ca();
    let mut clients: Vec<_> = devices
        .iter()
        .map(|device| {
            patience::wait("a device let in", patience::long(), || {
                let mut client = edge.mqtt(&ca).map_err(|error| error.to_string())?;
                let mut hello = hub.connect_packet(device);
                hello.keep_alive = 0;
                client.open(&hello).map_err(|error| error.to_string())?;
                Ok(client)
            })
        })
        .collect();
    let mut monitor = hub.monitor();

    for number in 0..MESSAGES {
        for (client, device) in clients.iter_mut().zip(&devices) {
            let topic = format!("devices/{}/messages/events/%24.mid=m-{number}", device.id);
            let body = number.to_string();
            client
                .publish(&topic, 1, false, body.as_bytes())
                .expect("the edge takes it");
        }
        if number == MESSAGES / 3 {
            monitor.wait_for("a message on its way", |event| event.device == "leaf-7");
            hub.crash();
        }
        if number == 2 * MESSAGES / 3 {
            hub.restart();
        }
    }
    let mut monitor = hub.monitor();
    monitor.wait_until("all messages", |seen| {
        let by_device = first_arrivals(seen);
        by_device.len() == devices.len() && by_device.values().all(|numbers| numbers.len() == MESSAGES)
    });

    for (device, numbers) in first_arrivals(monitor.seen()) {
        assert!(numbers.iter().copied().eq(0..MESSAGES), "{device}: {numbers:?}");
    }
}

/// What each device sent, in order of first arrival: what had no outcome when the hub died comes twice.
fn first_arrivals(seen: &[Event]) -> BTreeMap<&str, Vec<usize>> {
    let mut all: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for event in seen {
        let id = event.system["messageId"].as_str().and_then(|id| id.strip_prefix("m-"));
        let number = id.and_then(|id| id.parse().ok()).expect("every message is numbered");
        let numbers = all.entry(event.device.as_str()).or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    all
}
