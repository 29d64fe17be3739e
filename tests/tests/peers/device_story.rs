//! What a device does with the original SDK: the same story in each language and over each transport.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, AmqpWs, Mqtt, MqttWs};
use holm_e2e::{Certificate, Device, Hub, Language, Need, Sdk, Transport};
use serde_json::{Value, json};

#[test]
fn python_device_lives_its_story_over_mqtt() {
    device_story(Python, Mqtt);
}

#[test]
fn python_device_lives_its_story_over_websocket() {
    device_story(Python, MqttWs);
}

#[test]
fn node_device_lives_its_story_over_mqtt() {
    device_story(Node, Mqtt);
}

#[test]
fn node_device_lives_its_story_over_websocket() {
    device_story(Node, MqttWs);
}

#[test]
fn node_device_lives_its_story_over_amqp() {
    device_story(Node, Amqp);
}

#[test]
fn node_device_lives_its_story_over_amqp_in_websocket() {
    device_story(Node, AmqpWs);
}

#[test]
fn node_device_with_a_certificate_lives_its_story_over_amqp() {
    certificate_story(Node, Amqp, Certificate::self_signed);
}

#[test]
fn node_device_with_a_certificate_lives_its_story_over_amqp_in_websocket() {
    certificate_story(Node, AmqpWs, Certificate::self_signed);
}

#[test]
fn node_module_lives_its_story_over_amqp() {
    module_story(Node, Amqp);
}

#[test]
fn python_device_with_a_certificate_lives_its_story() {
    certificate_story(Python, Mqtt, Certificate::self_signed);
}

#[test]
fn python_device_with_a_certificate_lives_its_story_over_websocket() {
    certificate_story(Python, MqttWs, Certificate::self_signed);
}

#[test]
fn python_device_with_a_version_1_certificate_lives_its_story() {
    certificate_story(Python, Mqtt, Certificate::self_signed_version_1);
}

#[test]
fn node_device_with_a_certificate_lives_its_story() {
    certificate_story(Node, Mqtt, Certificate::self_signed);
}

#[test]
fn node_device_with_a_certificate_lives_its_story_over_websocket() {
    certificate_story(Node, MqttWs, Certificate::self_signed);
}

#[test]
fn python_module_lives_its_story() {
    module_story(Python, Mqtt);
}

#[test]
fn node_module_lives_its_story() {
    module_story(Node, Mqtt);
}

fn needs(language: Language) -> bool {
    let peer = match language {
        Python => Need::Python,
        Node => Need::Node,
    };
    Need::all(&[peer, Need::Openssl, Need::LowPorts])
}

fn device_story(language: Language, transport: Transport) {
    if !needs(language) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("pump-7");

    let sdk = Sdk::device(language, transport, &hub, &device);

    tell(&hub, &device, sdk);
    receives_a_message_from_the_cloud(language, transport, &hub);
}

fn certificate_story(language: Language, transport: Transport, make: fn(&std::path::Path, &str) -> Certificate) {
    if !needs(language) {
        return;
    }
    let hub = Hub::start();
    let certificate = make(hub.scratch(), "pump-7");
    let device = hub.create_x509_device("pump-7", &certificate.sha256, &certificate.sha1);

    let sdk = Sdk::device(language, transport, &hub, &device).with_certificate(&certificate);

    tell(&hub, &device, sdk);
}

fn module_story(language: Language, transport: Transport) {
    if !needs(language) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("pump-7");
    let module = hub.create_module("pump-7", "sensor");

    let sdk = Sdk::device(language, transport, &hub, &module);

    tell(&hub, &module, sdk);
}

/// Telemetry, twin and method of a device or module.
fn tell(hub: &Hub, device: &Device, sdk: Sdk) {
    let mut sdk = sdk.start();
    sdk.call("connect", json!({}));

    sends_telemetry(hub, device, &mut sdk);
    shares_its_twin(hub, device, &mut sdk);
    answers_methods(hub, device, &mut sdk);
}

fn sends_telemetry(hub: &Hub, device: &Device, sdk: &mut holm_e2e::Control) {
    let mut monitor = hub.monitor();

    let message = json!({
        "body": "{\"flow\": 12.5}",
        "message_id": "reading/1",
        "correlation_id": "c+1",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "properties": {"unit": "m³/h", "a key": "v+1&=/", "plain": "1"},
    });
    sdk.call("send", message);

    let event = monitor.wait_for("the reading", |event| event.system["messageId"] == "reading/1");
    assert_eq!(event.body, json!({"flow": 12.5}));
    assert_eq!(
        event.properties,
        json!({"unit": "m³/h", "a key": "v+1&=/", "plain": "1"})
    );
    assert_eq!(
        (event.device.as_str(), event.module.as_deref()),
        (device.id.as_str(), device.module.as_deref())
    );
    assert_eq!(
        (&event.system["contentType"], &event.system["cid"]),
        (&json!("application/json"), &json!("c+1"))
    );
}

fn shares_its_twin(hub: &Hub, device: &Device, sdk: &mut holm_e2e::Control) {
    let path = twin_path(device);
    hub.service().call(
        "PATCH",
        &path,
        Some(&json!({"properties": {"desired": {"limit": 3, "deep": {"a": 1}}}})),
    );

    let twin = sdk.call("twin", json!({}));
    assert_eq!(
        (&twin["desired"]["limit"], &twin["desired"]["deep"]["a"]),
        (&json!(3), &json!(1))
    );

    sdk.call("report", json!({"patch": {"firmware": "1.4", "old": true}}));
    sdk.call("report", json!({"patch": {"firmware": "1.5", "old": null}}));
    let reported = hub.service().call("GET", &path, None)["properties"]["reported"].clone();
    assert_eq!((&reported["firmware"], &reported["old"]), (&json!("1.5"), &Value::Null));
    assert_eq!(reported["$version"], 3);

    sdk.call("listen", json!({"what": "desired"}));
    hub.service().call(
        "PATCH",
        &path,
        Some(&json!({"properties": {"desired": {"limit": 4, "deep": {"a": null}}}})),
    );
    let event = sdk.event("desired", |event| event["patch"]["limit"] == 4);
    assert!(event["patch"]["$version"].is_number(), "{event}");
}

fn answers_methods(hub: &Hub, device: &Device, sdk: &mut holm_e2e::Control) {
    let path = format!("{}/methods", twin_path(device));
    let invoke = |name: &str, payload: Value| {
        let body = json!({"methodName": name, "payload": payload, "responseTimeoutInSeconds": 20});
        hub.service().call("POST", &path, Some(&body))
    };
    sdk.call("listen", json!({"what": "methods"}));
    sdk.call(
        "answer",
        json!({"method": "fail", "status": 503, "payload": {"why": "busy"}}),
    );

    assert_eq!(
        invoke("echo", json!({"delay": 5})),
        json!({"status": 200, "payload": {"method": "echo", "payload": {"delay": 5}}})
    );
    assert_eq!(
        invoke("fail", Value::Null),
        json!({"status": 503, "payload": {"why": "busy"}})
    );

    let called = sdk.event("method", |event| event["name"] == "echo");
    assert_eq!(called["payload"], json!({"delay": 5}));
}

fn receives_a_message_from_the_cloud(language: Language, transport: Transport, hub: &Hub) {
    let device = hub.create_device("valve-1");
    let mut sdk = Sdk::device(language, transport, hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("listen", json!({"what": "messages"}));

    let headers = [
        ("iothub-messageid", "order-1"),
        ("iothub-correlationid", "c-9"),
        ("iothub-app-speed", "slow"),
    ];
    let answer = hub.service().try_call(
        "POST",
        "/devices/valve-1/messages/deviceBound",
        &headers,
        Some(&json!("close")),
    );
    let answer = answer.expect("the hub answers");
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));

    let message = sdk.event("message", |_| true);
    assert_eq!(message["body"], "\"close\"");
    assert_eq!(
        (&message["message_id"], &message["correlation_id"]),
        (&json!("order-1"), &json!("c-9"))
    );
    assert_eq!(message["properties"]["speed"], "slow");
}

fn twin_path(device: &Device) -> String {
    device.module.as_ref().map_or_else(
        || format!("/twins/{}", device.id),
        |module| format!("/twins/{}/modules/{module}", device.id),
    )
}
