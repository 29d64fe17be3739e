//! The configuration of the broker: from the hub, from what was last in force, and what is reported of it.

use std::sync::Arc;

use serde_json::json;

use super::edge::{Edge, bodies};
use super::hub::Hub;
use super::keys::Keys;
use super::until;

const TO_WATCHER: &str = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&["sensor", "watcher"]))
}

async fn status(hub: &Hub, code: u64) -> serde_json::Map<String, serde_json::Value> {
    until("the report says what became of it", || {
        hub.reported("$edgeHub")
            .get("lastDesiredStatus")
            .is_some_and(|status| status["code"] == code)
    })
    .await;
    hub.reported("$edgeHub")
}

#[tokio::test]
async fn a_deployment_comes_in_force_and_is_reported_with_its_version() {
    let hub = Hub::start().await;
    let edge = Edge::start(&hub, &keys()).await;

    hub.deploy(json!({"r": TO_WATCHER}));
    let reported = status(&hub, 200).await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "1").await;

    assert_eq!(bodies(&watcher.receive(16).await), ["1"]);
    assert_eq!(reported["lastDesiredVersion"], 2);
    assert_eq!(reported["schemaVersion"], "1.0");
    until("the client is reported", || {
        hub.reported("$edgeHub")["clients"]["box/watcher"]["status"] == "Connected"
    })
    .await;
    watcher.leave().await;
    until("its going is reported", || {
        hub.reported("$edgeHub")["clients"]["box/watcher"]["status"] == "Disconnected"
    })
    .await;
}

#[tokio::test]
async fn a_set_with_bad_routes_leaves_the_old_in_force_and_names_every_bad_one() {
    let hub = Hub::start().await;
    let edge = Edge::start(&hub, &keys()).await;
    hub.deploy(json!({"r": TO_WATCHER}));
    status(&hub, 200).await;

    hub.deploy(json!({"r": null, "bad": "FORM x", "worse": "FROM /* WHERE t > 1 INTO $upstream", "good": "FROM /* INTO $upstream"}));
    let reported = status(&hub, 400).await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "1").await;

    let description = reported["lastDesiredStatus"]["description"].as_str().unwrap();
    assert!(
        description.contains("`bad`") && description.contains("`worse`"),
        "{description}"
    );
    assert!(!description.contains("`good`"), "{description}");
    assert_eq!(reported["lastDesiredVersion"], 3);
    assert_eq!(bodies(&watcher.receive(16).await), ["1"]);
}

#[tokio::test]
async fn an_offline_start_has_the_routes_that_were_in_force_and_not_the_bad_ones_that_came_after() {
    let hub = Hub::start().await;
    let keys = keys();
    let edge = Edge::start(&hub, &keys).await;
    hub.deploy(json!({"r": TO_WATCHER}));
    status(&hub, 200).await;
    hub.deploy(json!({"bad": "FORM x"}));
    status(&hub, 400).await;

    hub.cut().await;
    let edge = edge.crash(&hub, &keys).await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "offline").await;

    assert_eq!(bodies(&watcher.receive(16).await), ["offline"]);
    let configuration = edge.broker.status().configuration.unwrap();
    assert_eq!((configuration.version, configuration.code), (3, 400));
    assert!(!edge.broker.status().link.connected);
}

#[tokio::test]
async fn messages_that_wait_for_an_endpoint_stay_when_its_route_goes() {
    let hub = Hub::start().await;
    let edge = Edge::start(&hub, &keys()).await;
    hub.deploy(json!({"r": TO_WATCHER}));
    status(&hub, 200).await;
    edge.send("sensor", "raw", "kept").await;

    hub.deploy(json!({"r": "FROM /messages/* INTO $upstream"}));
    edge_has(&edge, 3).await;
    edge.send("sensor", "raw", "upstream").await;
    let watcher = edge.module("watcher").await;

    assert_eq!(bodies(&watcher.receive(16).await), ["kept"]);
    assert_eq!(hub.received("sensor", 1).await, ["upstream"]);
}

async fn edge_has(edge: &Edge, version: u64) {
    until("the configuration is in force", || {
        edge.broker
            .status()
            .configuration
            .is_some_and(|known| known.version == version && known.code == 200)
    })
    .await;
}
