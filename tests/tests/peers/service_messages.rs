//! What back ends do over AMQP beside reading events: messages to devices, feedback, notifications of files, and what the command
//! line of the original does by itself. Numbers are rows of `hub-service-api.md` §11.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, AmqpWs, Mqtt};
use holm_e2e::sas::{Token, encode, part, spoiled};
use holm_e2e::{Device, Hub, Language, Need, Sdk, Transport};
use serde_json::{Value, json};

const NEEDS: [Need; 3] = [Need::Python, Need::Node, Need::LowPorts];

fn listening(hub: &Hub, device: &Device) -> holm_e2e::sdk::Running {
    let mut sdk = Sdk::device(Python, Mqtt, hub, device).start();
    sdk.call("connect", json!({}));
    sdk.call("listen", json!({"what": "messages"}));
    sdk
}

#[test]
fn node_sends_to_a_device_without_sasl_and_hears_that_it_was_completed() {
    sends_and_hears(Node, Amqp);
}

#[test]
fn node_sends_to_a_device_over_websocket_and_hears_that_it_was_completed() {
    sends_and_hears(Node, AmqpWs);
}

#[test]
fn python_sends_to_a_device_with_uamqp_and_node_hears_that_it_was_completed() {
    sends_and_hears(Python, Amqp);
}

/// Rows 71, 72 and 75.
fn sends_and_hears(language: Language, transport: Transport) {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut client = listening(&hub, &device);
    let mut service = Sdk::service(language, &hub).over(transport).start();
    let mut listener = Sdk::service(Node, &hub).over(transport).start();
    listener.call("listen", json!({"what": "feedback"}));

    let properties = json!({"ack": "full", "messageId": "m-1", "level": "high"});
    service.call(
        "send",
        json!({"device": "d1", "body": "hello", "properties": properties}),
    );
    let message = client.event("message", |_| true);
    let feedback = listener.event("feedback", |_| true);

    assert_eq!(message["body"], "hello", "{message}");
    assert_eq!(message["properties"]["level"], "high", "{message}");
    assert_eq!(feedback["failed"], Value::Null);
    let record = &feedback["data"][0];
    assert_eq!(
        (&record["originalMessageId"], &record["deviceId"], &record["statusCode"]),
        (&json!("m-1"), &json!("d1"), &json!("Success")),
        "{feedback}"
    );
}

#[test]
fn a_message_that_no_mailbox_takes_is_rejected_with_the_published_condition() {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let mut node = Sdk::service(Node, &hub).start();
    let mut python = Sdk::service(Python, &hub).start();
    let mut proton = Sdk::proton(&hub).start();
    log_in(&hub, &mut proton);
    let send = |device: &str| json!({"to": format!("/devices/{device}/messages/devicebound"), "body": "x"});

    // Row 73.
    let unknown = node
        .try_call("send", json!({"device": "nobody", "body": "x"}))
        .unwrap_err();
    python
        .try_call("send", json!({"device": "nobody", "body": "x"}))
        .unwrap_err();
    let unknown_told = proton.call("send", send("nobody"));
    let taken: Vec<_> = (0..50)
        .map(|_| proton.call("send", send("d1"))["outcome"].clone())
        .collect();
    // Row 74.
    let full = proton.call("send", send("d1"));
    let large = proton.call(
        "send",
        json!({"to": "/devices/d1/messages/devicebound", "body": "x".repeat(70_000)}),
    );
    let nowhere = proton.call("send", json!({"to": "/devices/d1", "body": "x"}));
    let bad_ack = proton.call(
        "send",
        json!({"to": "/devices/d1/messages/devicebound", "body": "x", "ack": "some"}),
    );

    assert_eq!(unknown.kind, "DeviceNotFoundError");
    assert!(taken.iter().all(|outcome| outcome == "accepted"), "{taken:?}");
    for (told, condition) in [
        (unknown_told, "amqp:not-found"),
        (full, "amqp:resource-limit-exceeded"),
        (large, "amqp:link:message-size-exceeded"),
        (nowhere, "com.microsoft:argument-error"),
        (bad_ack, "com.microsoft:argument-error"),
    ] {
        assert_eq!(
            (&told["outcome"], &told["condition"]),
            (&json!("rejected"), &json!(condition)),
            "{told}"
        );
        assert!(told["info"]["com.microsoft:tracking-id"].is_string(), "{told}");
    }
}

/// Row 76, and feedback on what was purged.
#[test]
fn what_is_purged_is_told_to_who_wanted_to_know() {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let mut service = Sdk::service(Node, &hub).start();
    for number in 0..3 {
        let properties = json!({"ack": "negative", "messageId": format!("m-{number}")});
        service.call("send", json!({"device": "d1", "body": "x", "properties": properties}));
    }

    let purged = hub.service().call("DELETE", "/devices/d1/commands", None);
    service.call("listen", json!({"what": "feedback"}));
    let feedback = service.event("feedback", |_| true);

    assert_eq!(purged["totalMessagesPurged"], 3);
    let records = feedback["data"].as_array().cloned().unwrap_or_default();
    let told: Vec<_> = records
        .iter()
        .map(|record| (&record["originalMessageId"], &record["statusCode"]))
        .collect();
    let purged = json!("Purged");
    assert_eq!(
        told,
        [
            (&json!("m-0"), &purged),
            (&json!("m-1"), &purged),
            (&json!("m-2"), &purged)
        ]
    );
}

#[test]
fn feedback_that_a_receiver_abandons_comes_again() {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let mut service = Sdk::service(Node, &hub).start();
    let properties = json!({"ack": "full", "messageId": "m-1"});
    service.call("send", json!({"device": "d1", "body": "x", "properties": properties}));
    hub.service().call("DELETE", "/devices/d1/commands", None);

    service.call("listen", json!({"what": "feedback", "settle": "abandon"}));
    let first = service.event("feedback", |_| true);
    let second = service.event("feedback", |_| true);

    assert_eq!(first["data"], second["data"]);
}

#[test]
fn node_is_told_of_a_file_that_a_device_has_uploaded() {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut service = Sdk::service(Node, &hub).start();
    service.call("listen", json!({"what": "files"}));
    let mut sdk = Sdk::device(Node, Transport::Http, &hub, &device).start();

    sdk.call("upload", json!({"name": "a.txt", "size": 1000}));
    let told = service.event("files", |_| true);

    assert_eq!(told["failed"], Value::Null);
    let data = &told["data"];
    assert_eq!(
        (&data["deviceId"], &data["blobSizeInBytes"]),
        (&json!("d1"), &json!(1000)),
        "{told}"
    );
    assert!(
        data["blobName"].as_str().is_some_and(|name| name.ends_with("a.txt")),
        "{told}"
    );
}

fn log_in(hub: &Hub, proton: &mut holm_e2e::sdk::Running) {
    // As `az iot hub monitor-events` and `monitor-feedback` do.
    let password = hub.service().token();
    proton.call(
        "login",
        json!({"user": "iothubowner@sas.root.hub", "password": password}),
    );
}

#[test]
fn a_command_line_logs_in_with_plain_and_is_sent_on_to_the_event_hub() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut client = hub.connected(&device);
    for body in ["old", "new"] {
        let stored = client.store("devices/d1/messages/events/", body.as_bytes());
        stored.unwrap_or_else(|error| panic!("{error:#}"));
    }
    let mut proton = Sdk::proton(&hub).start();
    log_in(&hub, &mut proton);

    // Row 77.
    let sent_on = proton.call("attach", json!({"address": "amqps://any/messages/events/$management"}));
    let address = sent_on["info"]["address"].as_str().unwrap_or_default().to_owned();
    let name = address.split('/').nth(3).unwrap_or_default().to_owned();
    let partition = hub.service().call("GET", "/holm/v1/partitions", None);
    let (number, _) = partition
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .find(|(_, one)| one["nextSequenceNumber"] != 0)
        .expect("a partition with events");
    // Row 79: the command line's own name of the time, without quotes.
    let events = proton.call(
        "read",
        json!({
            "address": format!("amqps://any/{name}/ConsumerGroups/$Default/Partitions/{number}"),
            "filter": "amqp.annotation.x-opt-enqueuedtimeutc > 1000",
            "count": 3,
        }),
    );

    assert_eq!(sent_on["condition"], "amqp:link:redirect", "{sent_on}");
    let expected = format!("amqps://{}:5671/{name}/$management", hub.host());
    assert_eq!(address, expected);
    let bodies: Vec<_> = events
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["body"].as_str())
        .collect();
    // The first is that the device was made.
    assert_eq!(bodies.get(1..), Some(&["old", "new"][..]), "{bodies:?}");
}

/// `az iot device c2d-message send` and `monitor-feedback`: each logs in with PLAIN and says nothing more of who it is.
#[test]
fn a_command_line_sends_a_message_and_reads_its_feedback_with_plain() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut client = listening(&hub, &device);
    let mut proton = Sdk::proton(&hub).start();
    log_in(&hub, &mut proton);

    let order =
        json!({"to": "/devices/d1/messages/devicebound", "body": "{\"on\":true}", "ack": "full", "message_id": "m-1"});
    let sent = proton.call("send", order);
    let message = client.event("message", |_| true);
    let told = proton.call(
        "read",
        json!({"address": "/messages/servicebound/feedback", "count": 1}),
    );

    assert_eq!(sent["outcome"], "accepted", "{sent}");
    assert_eq!(message["message_id"], "m-1", "{message}");
    let records: Value = serde_json::from_str(told[0]["body"].as_str().unwrap_or_default()).expect("a JSON array");
    assert_eq!(
        (
            &records[0]["originalMessageId"],
            &records[0]["deviceId"],
            &records[0]["statusCode"]
        ),
        (&json!("m-1"), &json!("d1"), &json!("Success")),
        "{told}"
    );
}

/// Row 87.
#[test]
fn a_bad_token_is_answered_with_401_and_opens_nothing() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let text = hub.service().connection_string().to_owned();
    let token = |key: &str, seconds: i64| {
        let resource = encode(part(&text, "HostName"));
        Token::sign(key, &resource, seconds).of_policy("iothubowner").text()
    };
    let key = part(&text, "SharedAccessKey");
    let mut proton = Sdk::proton(&hub).start();
    proton.call("login", json!({}));

    let mut refused = Vec::new();
    for bad in [token(&spoiled(key), 600), token(key, -3600), "no token".to_owned()] {
        let answer = proton.call("put_token", json!({"token": bad}));
        let link = proton.call("attach", json!({"address": "/messages/serviceBound/feedback"}));
        refused.push((answer, link));
    }
    let good = proton.call("put_token", json!({"token": token(key, 600)}));
    let sent = proton.call("send", json!({"to": "/devices/d1/messages/devicebound", "body": "x"}));

    for (answer, link) in refused {
        assert_eq!(
            (&answer["status"], &answer["type"]),
            (&json!(401), &json!("int32")),
            "{answer}"
        );
        assert_eq!(answer["correlation"], "ask");
        assert_eq!(link["condition"], "amqp:unauthorized-access", "{link}");
    }
    assert_eq!(good["status"], 200);
    assert_eq!(sent["outcome"], "accepted");
}

#[test]
fn a_policy_without_the_right_opens_no_link_of_a_back_end() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut proton = Sdk::proton(&hub).start();
    proton.call("login", json!({}));
    let token = Token::sign(&device.primary_key, &hub.resource(&device), 600).text();

    // The device's own token is good, and for other things.
    let answer = proton.call("put_token", json!({"token": token}));
    let links: Vec<_> = [
        "/messages/serviceBound/feedback",
        "/messages/events/$management",
        "$management",
    ]
    .into_iter()
    .map(|address| proton.call("attach", json!({"address": address})))
    .collect();

    assert_eq!(answer["status"], 200);
    for link in links {
        assert_eq!(link["condition"], "amqp:unauthorized-access", "{link}");
    }
}

#[test]
fn a_link_is_detached_when_the_token_that_opened_it_has_ended_and_the_connection_stays() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let text = hub.service().connection_string().to_owned();
    let token = |seconds: i64| {
        let resource = encode(part(&text, "HostName"));
        let token = Token::sign(part(&text, "SharedAccessKey"), &resource, seconds);
        token.of_policy("iothubowner").text()
    };
    let mut proton = Sdk::proton(&hub).start();
    proton.call("login", json!({}));

    // It has ended, and holds for five minutes more, of which ten seconds are left.
    let nearly_over = proton.call("put_token", json!({"token": token(-290)}));
    let ended = proton.call("attach", json!({"address": "/messages/serviceBound/feedback"}));
    let good = proton.call("put_token", json!({"token": token(600)}));
    let again = proton.call("attach", json!({"address": "/messages/events"}));

    assert_eq!((&nearly_over["status"], &good["status"]), (&json!(200), &json!(200)));
    assert_eq!(ended["condition"], "amqp:unauthorized-access");
    assert!(
        ended["description"]
            .as_str()
            .is_some_and(|text| text.contains("the token that opened this link has ended")),
        "{ended}"
    );
    assert_eq!(again["condition"], "amqp:link:redirect", "{again}");
}
