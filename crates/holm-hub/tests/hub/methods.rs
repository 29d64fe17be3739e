//! Rows 42 to 46.

use holm_gateway::Subscriptions;
use holm_gateway::session::Command;
use holm_model::MethodResponse;
use serde_json::{Value, json};

use crate::support::{Reply, TestHub};

/// Answers one call with a status and payload; gives what the device saw.
async fn call_answered(hub: &TestHub, request: Value, answer: (i32, Value)) -> (Reply, Value) {
    let mut client = hub.connect("d1", Subscriptions::METHODS).await;
    let answering = async {
        let Command::Invoke(call, reply) = client.inbox.next().await else {
            panic!("no call");
        };
        let (status, payload) = answer;
        reply.send(Ok(MethodResponse { status, payload })).unwrap();
        serde_json::from_slice(&call.payload_bytes()).unwrap()
    };
    let result = tokio::join!(hub.post("/twins/d1/methods", request), answering);
    client.disconnect().await;
    result
}

#[tokio::test]
async fn the_devices_own_status_is_no_error_of_the_hub() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let (reply, _) = call_answered(&hub, json!({"methodName": "m", "payload": 1}), (404, json!({"e": 1}))).await;

    assert_eq!(reply.ok(), json!({"status": 404, "payload": {"e": 1}}));
}

#[tokio::test]
async fn every_kind_of_payload_reaches_the_device() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    for (request, seen) in [
        (json!({"methodName": "m"}), json!(null)),
        (json!({"methodName": "m", "payload": null}), json!(null)),
        (json!({"methodName": "m", "payload": ""}), json!("")),
        (json!({"methodName": "m", "payload": [1]}), json!([1])),
    ] {
        let (reply, payload) = call_answered(&hub, request, (200, Value::Null)).await;
        assert_eq!((reply.status, payload), (200, seen));
    }
}

#[tokio::test]
async fn an_absent_device_is_told_in_the_nested_form() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let unknown = hub.post("/twins/no/methods", json!({"methodName": "m"})).await;
    let offline = hub.post("/twins/d1/methods", json!({"methodName": "m"})).await;

    unknown.assert_error(404, "DeviceNotFound");
    offline.assert_error(404, "DeviceNotOnline");
    let inner: Value = serde_json::from_str(offline.json()["Message"].as_str().unwrap()).unwrap();
    assert_eq!(inner["errorCode"], 404_103);
}

#[tokio::test]
async fn a_silent_device_is_waited_for_as_long_as_asked() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let _client = hub.connect("d1", Subscriptions::METHODS).await;

    let started = std::time::Instant::now();
    let reply = hub
        .post(
            "/twins/d1/methods",
            json!({"methodName": "m", "responseTimeoutInSeconds": 5}),
        )
        .await;

    reply.assert_error(504, "GatewayTimeout");
    assert!((5..8).contains(&started.elapsed().as_secs()));
    let inner: Value = serde_json::from_str(reply.json()["Message"].as_str().unwrap()).unwrap();
    assert_eq!(inner["errorCode"], 504_101);
}

#[tokio::test]
async fn timeouts_outside_their_range_are_refused() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    for timeout in [4, 301] {
        let body = json!({"methodName": "m", "responseTimeoutInSeconds": timeout});
        hub.post("/twins/d1/methods", body)
            .await
            .assert_error(400, "ArgumentInvalid");
    }
}
