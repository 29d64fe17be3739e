//! What a device does over HTTPS: with the original SDK, and request by request (rows 13, 40 and 70 to 74 of
//! `hub-device-protocols.md` §8, by number).

use anyhow::Result;
use holm_e2e::sas::Token;
use holm_e2e::wire::http::Answer;
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Certificate, Control, Device, Hub, Language, Need, Sdk, Transport, patience};
use serde_json::{Value, json};

const NODE: &[Need] = &[Need::Node, Need::Openssl, Need::LowPorts];

fn send(hub: &Hub, id: &str, body: &str) {
    let headers = [("iothub-messageid", id), ("iothub-app-speed", "slow")];
    let path = "/devices/pump-7/messages/deviceBound";
    let answer = hub.service().try_call("POST", path, &headers, Some(&json!(body)));
    assert_eq!(answer.expect("the hub answers").status, 204);
}

fn waiting(hub: &Hub) -> Value {
    hub.service().call("GET", "/devices/pump-7", None)["cloudToDeviceMessageCount"].clone()
}

#[test]
fn node_device_lives_its_story_over_https() {
    if !Need::all(NODE) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("pump-7");
    let mut sdk = Sdk::device(Language::Node, Transport::Http, &hub, &device).start();
    sdk.call("connect", json!({}));

    sends_telemetry(&hub, &mut sdk);
    settles_messages_in_every_way(&hub, &mut sdk);
}

#[test]
fn node_device_with_a_certificate_lives_its_story_over_https() {
    if !Need::all(NODE) {
        return;
    }
    let hub = Hub::start();
    let certificate = Certificate::self_signed(hub.scratch(), "pump-7");
    let device = hub.create_x509_device("pump-7", &certificate.sha256, &certificate.sha1);
    let sdk = Sdk::device(Language::Node, Transport::Http, &hub, &device).with_certificate(&certificate);
    let mut sdk = sdk.start();
    sdk.call("connect", json!({}));

    sends_telemetry(&hub, &mut sdk);
}

fn sends_telemetry(hub: &Hub, sdk: &mut Control) {
    let mut monitor = hub.monitor();

    let message = json!({
        "body": "{\"flow\": 12.5}",
        "message_id": "reading/1",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "properties": {"unit": "l/h", "plain": "1"},
    });
    sdk.call("send", message);
    sdk.call("send_batch", json!({"bodies": ["one", "two", "three"]}));

    let event = monitor.wait_for("the reading", |event| event.system["messageId"] == "reading/1");
    assert_eq!(event.body, json!({"flow": 12.5}));
    assert_eq!(event.properties, json!({"unit": "l/h", "plain": "1"}));
    assert_eq!((event.device.as_str(), &event.module), ("pump-7", &None));
    assert_eq!(event.system["contentType"], "application/json");
    for body in ["one", "two", "three"] {
        monitor.wait_for(body, |event| event.body == body);
    }
}

fn settles_messages_in_every_way(hub: &Hub, sdk: &mut Control) {
    sdk.call("settle", json!({"how": "abandon"}));
    send(hub, "order-1", "open");
    sdk.call("listen", json!({"what": "messages"}));
    sdk.event("settled", |event| event["how"] == "abandon");
    sdk.call("settle", json!({"how": "complete"}));

    let message = sdk.event("message", |_| true);
    assert_eq!(
        (&message["body"], &message["message_id"]),
        (&json!("\"open\""), &json!("order-1"))
    );
    assert_eq!(message["properties"]["iothub-app-speed"], "slow");
    sdk.event("settled", |event| event["how"] == "complete");
    sdk.call("settle", json!({"how": "reject"}));
    send(hub, "order-2", "close");
    let settled = sdk.event("settled", |event| event["how"] == "reject");

    assert_eq!(settled["message_id"], "order-2");
    assert_eq!(waiting(hub), 0);
}

/// A device that speaks HTTPS by itself.
struct Plain<'h> {
    hub: &'h Hub,
    device: &'h Device,
}

impl Plain<'_> {
    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let token = Token::sign(&self.device.primary_key, &self.hub.resource(self.device), 3600).text();
        let mut all = vec![("Authorization", token.as_str())];
        all.extend(headers);
        self.hub.service().send(method, path, &all, body)
    }
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(
        (answer.status, answer.header("iothub-errorcode")),
        (status, Some(code)),
        "{text}"
    );
    assert!(
        text.contains(&format!("ErrorCode:{code};")) && text.contains("Tracking ID:"),
        "{text}"
    );
}

#[test]
fn each_request_of_a_device_is_answered_as_published() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("pump-7");
    let plain = Plain {
        hub: &hub,
        device: &device,
    };
    let events = "/devices/pump-7/messages/events?api-version=2016-11-14";
    let bound = "/devices/pump-7/messages/deviceBound";
    let version = "?api-version=2020-09-30";
    let batch = [("Content-Type", "application/vnd.microsoft.iothub.json")];

    // Rows 70, 71 and 40.
    assert_eq!(
        plain
            .ask("POST", events, &[("IoTHub-App-Level", "high")], b"one")?
            .status,
        204
    );
    let bad = br#"[{"body":"aGVsbG8="},{"body":"?"}]"#;
    assert_refused(&plain.ask("POST", events, &batch, bad)?, 400, "ArgumentInvalid");
    let large = vec![b'x'; 256 * 1024 + 1];
    assert_refused(&plain.ask("POST", events, &[], &large)?, 413, "MessageTooLarge");
    let mut monitor = hub.monitor();
    let event = monitor.wait_for("the event", |event| event.body == "one");
    assert_eq!(event.properties, json!({"Level": "high"}));
    assert_eq!(plain.ask("POST", events, &[], b"last")?.status, 204);
    monitor.wait_for("the last event", |event| event.body == "last");
    assert_eq!(monitor.seen().len(), 2);

    // Rows 72 to 74.
    let fetch = || plain.ask("GET", &format!("{bound}{version}"), &[], b"");
    assert_eq!(fetch()?.status, 204);
    for id in ["m-1", "m-2", "m-3"] {
        send(&hub, id, "x");
    }
    for query in ["", "&reject", "&%3Freject=true"] {
        let fetched = fetch()?;
        assert_eq!(fetched.status, 200);
        let lock = fetched.header("etag").unwrap_or_default().trim_matches('"').to_owned();
        let target = format!("{bound}/{lock}{version}{query}");
        assert_eq!(
            plain.ask("DELETE", &target, &[("If-Match", &lock)], b"")?.status,
            204,
            "{query}"
        );
        assert_refused(&plain.ask("DELETE", &target, &[], b"")?, 412, "DeviceMessageLockLost");
    }
    assert_eq!((fetch()?.status, waiting(&hub)), (204, json!(0)));

    // Row 13.
    let mut document = hub.service().call("GET", "/devices/pump-7", None);
    document["status"] = json!("disabled");
    let etag = [("If-Match", "\"*\"")];
    let disabled = hub
        .service()
        .try_call("PUT", "/devices/pump-7", &etag, Some(&document))?;
    assert_eq!(disabled.status, 200);
    assert_refused(&plain.ask("POST", events, &[], b"x")?, 401, "IotHubUnauthorized");
    Ok(())
}

#[test]
fn a_message_that_a_device_fetched_and_forgot_comes_again_over_whatever_it_connects_with() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("pump-7");
    let plain = Plain {
        hub: &hub,
        device: &device,
    };
    send(&hub, "m-1", "one");
    send(&hub, "m-2", "two");

    let target = "/devices/pump-7/messages/devicebound?api-version=2020-09-30&iothub-messagelocktimeout=5";
    let fetched = plain.ask("GET", target, &[], b"")?;
    let mut mqtt = hub.connected(&device);
    mqtt.subscribe(&[("devices/pump-7/messages/devicebound/#", 1)])?;
    let mut received = Vec::new();
    while received.len() < 2 {
        if let Some(Packet::Publish { payload, .. }) = mqtt.receive(patience::long())? {
            received.push(String::from_utf8_lossy(&payload).into_owned());
        }
    }

    assert_eq!(fetched.status, 200);
    assert_eq!(fetched.body, b"\"one\"");
    assert_eq!(received, ["\"two\"", "\"one\""]);
    Ok(())
}
