//! Twins and methods: both sides converge, and an absent hub is no obstacle.

use std::sync::Arc;

use holm_client::Interests;
use holm_gateway::{Command, InvokeError, Subscriptions, Twins};
use holm_model::error::ErrorCode;
use holm_model::method::MethodResponse;
use serde_json::{Value, json};

use super::edge::{Edge, admission, bodies};
use super::hub::Hub;
use super::keys::Keys;
use super::{identity, module, soon, until};

const NOTHING: &str = "FROM /nothing INTO $upstream";

async fn edge(hub: &Hub) -> Edge {
    Edge::with_routes(hub, &Arc::new(Keys::of(&["sensor", "watcher"])), json!({"r": NOTHING})).await
}

async fn twin(edge: &Edge, name: &str) -> Value {
    soon(edge.broker.twin(&admission(name))).await.unwrap()
}

async fn report(edge: &Edge, name: &str, patch: Value) {
    let version = edge.broker.patch_reported(&admission(name), patch, None).await.unwrap();
    assert_eq!(version, None, "the edge tells no version");
}

#[tokio::test]
async fn a_module_that_just_started_reads_its_twin_from_the_hub() {
    let hub = Hub::start().await;
    hub.desire("sensor", json!({"rate": 5}));
    let edge = edge(&hub).await;
    edge.linked().await;

    let sensor = edge.module("sensor").await;
    let twin = twin(&edge, "sensor").await;

    assert_eq!(twin["desired"], json!({"rate": 5, "$version": 2}));
    sensor.leave().await;
}

#[tokio::test]
async fn without_a_hub_a_twin_is_what_was_last_known_with_what_was_reported_since() {
    let hub = Hub::start().await;
    let keys = Arc::new(Keys::of(&["sensor"]));
    hub.desire("sensor", json!({"rate": 5}));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": NOTHING})).await;
    edge.linked().await;
    let sensor = edge.module("sensor").await;
    twin(&edge, "sensor").await;
    sensor.leave().await;

    hub.cut().await;
    let edge = edge.crash(&hub, &keys).await;
    report(&edge, "sensor", json!({"state": {"ok": true, "old": 1}})).await;
    report(&edge, "sensor", json!({"state": {"old": null}})).await;
    let offline = twin(&edge, "sensor").await;

    assert_eq!(offline["desired"], json!({"rate": 5, "$version": 2}));
    assert_eq!(offline["reported"]["state"], json!({"ok": true}));
    hub.restore().await;
    until("the hub has it", || {
        hub.reported("sensor").get("state") == Some(&json!({"ok": true}))
    })
    .await;
}

#[tokio::test]
async fn a_reported_patch_survives_a_crash_and_reaches_the_hub_without_its_module() {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor"]));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": NOTHING})).await;
    report(&edge, "sensor", json!({"a": 1, "b": {"c": 2}})).await;

    let edge = edge.crash(&hub, &keys).await;
    hub.restore().await;

    until("the hub has it", || {
        Value::Object(hub.reported("sensor")) == json!({"a": 1, "b": {"c": 2}})
    })
    .await;
    while !edge.state.pending_twins().await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_deletion_that_is_followed_by_an_object_of_that_name_is_not_lost() {
    let hub = Hub::start().await;
    let edge = edge(&hub).await;
    edge.linked().await;
    let sensor = edge.module("sensor").await;
    report(&edge, "sensor", json!({"net": {"ip": "a", "mask": "b"}})).await;
    until("the hub has it", || hub.reported("sensor").contains_key("net")).await;

    hub.cut().await;
    edge.unlinked().await;
    report(&edge, "sensor", json!({"net": null})).await;
    report(&edge, "sensor", json!({"net": {"ip": "c"}})).await;
    hub.restore().await;

    until("the hub has it", || {
        Value::Object(hub.reported("sensor")) == json!({"net": {"ip": "c"}})
    })
    .await;
    sensor.leave().await;
}

#[tokio::test]
async fn a_patch_that_breaks_a_rule_is_refused_by_path_and_changes_nothing() {
    let hub = Hub::unreachable().await;
    let edge = edge(&hub).await;
    let sensor = admission("sensor");

    let bad = edge
        .broker
        .patch_reported(&sensor, json!({"ok": 1, "a.b": 2}), None)
        .await
        .unwrap_err();
    let no_object = edge.broker.patch_reported(&sensor, json!([1]), None).await.unwrap_err();
    let old = edge
        .broker
        .patch_reported(&sensor, json!({"ok": 1}), Some(9))
        .await
        .unwrap_err();

    assert_eq!(bad.code, ErrorCode::ArgumentInvalid);
    assert!(bad.message.contains("a.b"), "{bad}");
    assert_eq!(no_object.code, ErrorCode::ArgumentInvalid);
    assert_eq!(old.code, ErrorCode::PreconditionFailed);
    assert_eq!(twin(&edge, "sensor").await["reported"], json!({"$version": 0}));
}

#[tokio::test]
async fn desired_changes_reach_a_listening_module_and_one_that_was_missed_comes_as_a_difference() {
    let hub = Hub::start().await;
    let edge = edge(&hub).await;
    edge.linked().await;
    let mut sensor = edge.module("sensor").await;
    sensor.subscribe(Subscriptions::DESIRED_PROPERTIES).await;
    until("its uplink is up", || hub.is_connected("sensor")).await;
    hub.desire("sensor", json!({"rate": 1, "unit": "C"}));
    let first = sensor.desired().await;

    hub.cut().await;
    edge.unlinked().await;
    hub.desire("sensor", json!({"rate": 2}));
    hub.desire("sensor", json!({"unit": null, "rate": 3}));
    hub.restore().await;
    let difference = sensor.desired().await;

    assert_eq!(first, json!({"rate": 1, "unit": "C", "$version": 2}));
    assert_eq!(difference, json!({"rate": 3, "unit": null, "$version": 4}));
}

#[tokio::test]
async fn a_reported_change_is_routed_as_a_message_of_the_edge() {
    let hub = Hub::unreachable().await;
    let route = r#"FROM /twinChangeNotifications/* INTO BrokeredEndpoint("/modules/watcher/inputs/twins")"#;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": route})).await;
    let watcher = edge.module("watcher").await;

    report(&edge, "sensor", json!({"a": 1})).await;
    let got = watcher.receive(16).await;

    assert_eq!(bodies(&got), [r#"{"a":1}"#]);
    let system = &got[0].message.system;
    assert_eq!(
        system.get(holm_model::SystemProperty::ConnectionModuleId),
        Some("sensor")
    );
    assert_eq!(
        system.get(holm_model::SystemProperty::MessageType),
        Some("twinChangeNotification")
    );
}

#[tokio::test]
async fn the_cloud_calls_a_method_of_a_module_while_the_module_listens() {
    let hub = Hub::start().await;
    let edge = edge(&hub).await;
    edge.linked().await;
    let mut sensor = edge.module("sensor").await;
    until("its uplink is up", || hub.is_connected("sensor")).await;
    let before = hub.call("sensor", "reset", json!(1)).await;
    sensor.subscribe(Subscriptions::METHODS).await;
    until("the edge listens for it", || hub.listens_to_methods("sensor")).await;

    let answer = async {
        let Command::Invoke(request, caller) = sensor.command().await else {
            panic!("no call")
        };
        assert_eq!(
            (request.name.as_str(), &request.payload),
            ("reset", &json!({"hard": true}))
        );
        let response = MethodResponse {
            status: 207,
            payload: json!("done"),
        };
        caller.send(Ok(response)).unwrap();
    };
    let (called, ()) = tokio::join!(hub.call("sensor", "reset", json!({"hard": true})), answer);
    sensor.leave().await;

    assert_eq!(before, Err(InvokeError::NotOnline));
    assert_eq!(
        called,
        Ok(MethodResponse {
            status: 207,
            payload: json!("done")
        })
    );
    until("the edge listens no more", || !hub.listens_to_methods("sensor")).await;
}

#[tokio::test]
async fn another_part_of_the_edge_speaks_as_an_identity_of_its_own() {
    let hub = Hub::start().await;
    let keys: Arc<dyn crate::keys::ModuleKeys> = Arc::new(Keys::of(&["$edgeAgent"]));
    let mut settings = crate::uplink::UplinkSettings::new(hub.endpoint(), hub.tls());
    settings.transport = hub.transport();
    let scope = holm_net::Scope::new();
    let uplink = crate::uplink::Uplink::new(settings, keys, scope);

    let (client, _events) = uplink.open(&module("$edgeAgent"), Interests::default());
    let mut state = client.state();
    soon(state.wait_for(|state| *state == holm_client::client::State::Connected))
        .await
        .unwrap();
    client.patch_reported(json!({"a": 1})).await.unwrap();

    assert_eq!(client.identity(), &identity("$edgeAgent"));
    assert_eq!(Value::Object(hub.reported("$edgeAgent")), json!({"a": 1}));
}
