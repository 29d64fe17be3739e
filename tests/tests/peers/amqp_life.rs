//! Twins, methods, and who may stay, over AMQP. Source: `hub-device-protocols.md` §3.2 to §3.5, §8 rows 65, 66, 69, 88 and 89.

use std::thread;

use holm_e2e::amqp::{address, token};
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Amqp, Device, Hub, Need, patience};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Node, Need::LowPorts];
/// How long after its end a token is still good, for clocks that differ.
const SKEW: i64 = 300;
const UUID: &str = "123e4567-e89b-12d3-a456-426614174000";

/// A hub with a device that has sending and receiving links to its twin: `ask` and `answers`.
fn with_twin() -> (Hub, Device, Amqp) {
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    open_twin(&mut client, "c", &device);
    (hub, device, client)
}

fn open_twin(client: &mut Amqp, connection: &str, device: &Device) {
    let pair = json!({"com.microsoft:channel-correlation-id": "twin:1"});
    for (link, role) in [("ask", "sender"), ("answers", "receiver")] {
        let how = json!({"properties": pair, "snd": 1, "credit": 50});
        let taken = client.try_attach(connection, link, role, &address(device, "twin"), &how);
        taken.expect("the link is taken");
    }
}

const LINKS: [&str; 2] = ["ask", "answers"];

/// A hub with a device that has links for methods: `calls` and `done`.
fn with_methods() -> (Hub, Device, Amqp) {
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    let address = address(&device, "methods/devicebound");
    client.sender("c", "done", &address);
    client.receiver("c", "calls", &address, 50);
    (hub, device, client)
}

/// Calls a method from another thread; status and body of the answer.
fn invoke(hub: &Hub, name: &str, payload: &Value, timeout: u32) -> thread::JoinHandle<(u16, Value)> {
    let service = hub.service().clone();
    let body = json!({"methodName": name, "payload": payload, "responseTimeoutInSeconds": timeout});
    thread::spawn(move || {
        let answer = service.try_call("POST", "/twins/dev1/methods", &[], Some(&body));
        let answer = answer.expect("the hub answers");
        (answer.status, answer.json())
    })
}

fn answer(client: &mut Amqp, id: &Value, status: i32, body: &str) {
    let message =
        json!({"properties": {"correlation_id": id}, "application": {"IoThub-status": {"int": status}}, "body": body});
    client.send("done", &message);
}

#[test]
fn every_operation_on_a_twin_is_answered_with_the_type_of_its_id() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = with_twin();
    let desired = json!({"properties": {"desired": {"limit": 3}}});
    hub.service().call("PATCH", "/twins/dev1", Some(&desired));
    let reported = json!({"operation": "PATCH", "resource": "/properties/reported"});
    let notifications = "/notifications/twin/properties/desired";

    let twin = client.ask_twin(LINKS, &json!(UUID), &json!({"operation": "GET"}), " ");
    let patched = client.ask_twin(LINKS, &json!({"uuid": UUID}), &reported, r#"{"firmware": "1.4"}"#);
    let put = json!({"operation": "PUT", "resource": notifications});
    let subscribed = client.ask_twin(LINKS, &json!({"ulong": 0}), &put, "");
    hub.service().call(
        "PATCH",
        "/twins/dev1",
        Some(&json!({"properties": {"desired": {"limit": 4}}})),
    );
    let change = client.event("message", |event| {
        event["annotations"]["resource"] == "/properties/desired"
    });
    let delete = json!({"operation": "DELETE", "resource": notifications});
    let unsubscribed = client.ask_twin(LINKS, &json!("Delete-1"), &delete, " ");

    let body: Value = serde_json::from_str(twin["body"]["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(
        (&body["desired"]["limit"], &twin["annotations"]["status"]),
        (&json!(3), &json!({"int": 200}))
    );
    assert_eq!(patched["annotations"]["status"], json!({"int": 204}));
    assert_eq!(patched["annotations"]["version"], json!({"long": 2}));
    for answer in [&patched, &subscribed, &unsubscribed] {
        assert!(
            answer["annotations"]["status"]["int"]
                .as_u64()
                .is_some_and(|status| (200..300).contains(&status)),
            "{answer}"
        );
        assert_eq!(answer["body"], json!({"kind": "data", "count": 1, "text": ""}));
    }
    assert_eq!(
        (&change["properties"]["correlation_id"], &change["body"]["kind"]),
        (&Value::Null, &json!("data"))
    );
    let patch: Value = serde_json::from_str(change["body"]["text"].as_str().expect("a text")).expect("JSON");
    assert_eq!(
        (&patch["limit"], &change["annotations"]["version"]["long"]),
        (&json!(4), &patch["$version"])
    );
    let found = hub.service().call("GET", "/twins/dev1", None);
    assert_eq!(found["properties"]["reported"]["firmware"], "1.4");
}

#[test]
fn changes_are_told_between_put_and_delete_only() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = with_twin();
    let change = |number: u32| {
        let desired = json!({"properties": {"desired": {"number": number}}});
        hub.service().call("PATCH", "/twins/dev1", Some(&desired));
    };
    let resource = "/notifications/twin/properties/desired";

    change(1);
    client.ask_twin(
        LINKS,
        &json!("p"),
        &json!({"operation": "PUT", "resource": resource}),
        " ",
    );
    change(2);
    let told = client.event("message", |event| {
        event["annotations"]["resource"] == "/properties/desired"
    });
    client.ask_twin(
        LINKS,
        &json!("d"),
        &json!({"operation": "DELETE", "resource": resource}),
        " ",
    );
    change(3);
    // A later answer on the same link: a change would have come before it.
    client.ask_twin(LINKS, &json!("g"), &json!({"operation": "GET"}), " ");

    assert!(
        told["body"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("\"number\":2")),
        "{told}"
    );
    let others: Vec<_> = client
        .left()
        .iter()
        .filter(|event| event["event"] == "message")
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn a_bad_request_to_a_twin_is_answered_with_a_code_and_the_next_one_is_served() {
    if !Need::all(NEEDS) {
        return;
    }
    let (_hub, _device, mut client) = with_twin();
    let reported = "/properties/reported";
    let patch = |version: Value| json!({"operation": "PATCH", "resource": reported, "version": version});

    for (annotations, body, status) in [
        (json!({"operation": "PATCH", "resource": reported}), "[1]", 400),
        (json!({"operation": "PATCH", "resource": reported}), "{", 400),
        (
            json!({"operation": "PATCH", "resource": "/properties/desired"}),
            "{}",
            400,
        ),
        (json!({"operation": "POST"}), "", 400),
        (json!({}), "", 400),
        (json!({"operation": "PUT", "resource": reported}), "", 400),
        (patch(json!("one")), r#"{"a": 1}"#, 400),
        (patch(json!({"long": 77})), r#"{"a": 1}"#, 412),
        (patch(json!({"long": 1})), r#"{"a": 1}"#, 204),
    ] {
        let answer = client.ask_twin(LINKS, &json!(UUID), &annotations, body);

        assert_eq!(
            answer["annotations"]["status"],
            json!({"int": status}),
            "{annotations}: {answer}"
        );
        if status >= 400 {
            let text = answer["body"]["text"].as_str().expect("a text");
            let error: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(
                error["errorCode"].as_u64().map(|code| code / 1000),
                Some(status),
                "{error}"
            );
            assert!(error["message"].is_string(), "{error}");
        }
    }
}

#[test]
fn an_answer_that_waits_for_credit_stands_in_nobodys_way() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    client.sender("c", "ask", &address(&device, "twin"));
    client.receiver("c", "answers", &address(&device, "twin"), 0);
    client.receiver("c", "mail", &address(&device, "messages/devicebound"), 10);
    let answered = |client: &mut Amqp| {
        client.run("credit", json!({"link": "answers", "credit": 1}));
        client.message("answers")["properties"]["correlation_id"].clone()
    };
    let ask = |client: &mut Amqp, id: &str| {
        let request = json!({"link": "ask", "properties": {"correlation_id": id}, "annotations": {"operation": "GET"}, "body": " "});
        client.run("send", request);
    };

    // Twice: peers count what came between.
    for id in ["one", "two"] {
        ask(&mut client, id);
        let answer = hub
            .service()
            .try_call("POST", "/devices/dev1/messages/deviceBound", &[], Some(&json!(id)));
        assert_eq!(answer.expect("the hub answers").status, 204);
        let message = client.message("mail");
        client.settle(&message, "accepted");

        assert_eq!(answered(&mut client), id);
    }
}

#[test]
fn the_answer_to_a_method_is_known_by_its_id_as_text_and_as_uuid() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = with_methods();

    for as_text in [true, false] {
        let caller = invoke(&hub, "reboot", &json!({"delay": 5}), 30);
        let call = client.message("calls");
        let uuid = call["properties"]["correlation_id"]["uuid"]
            .as_str()
            .expect("a UUID")
            .to_owned();
        let id = if as_text { json!(uuid) } else { json!({"uuid": uuid}) };
        answer(&mut client, &id, 201, r#"{"done": true}"#);

        assert_eq!(call["application"]["IoThub-methodname"], "reboot");
        assert_eq!(
            call["body"],
            json!({"kind": "data", "count": 1, "text": "{\"delay\":5}"})
        );
        let (status, body) = caller.join().expect("a thread that calls");
        assert_eq!((status, body), (200, json!({"status": 201, "payload": {"done": true}})));
    }
}

#[test]
fn a_call_without_a_payload_has_a_body_that_node_can_read() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = with_methods();

    let caller = invoke(&hub, "reboot", &Value::Null, 30);
    let call = client.message("calls");
    answer(&mut client, &call["properties"]["correlation_id"], 200, "");

    assert_eq!(call["body"]["text"], "null");
    let (status, body) = caller.join().expect("a thread that calls");
    assert_eq!((status, body), (200, json!({"status": 200, "payload": null})));
}

#[test]
fn calls_without_an_answer_without_a_link_and_without_json_have_their_codes() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = with_methods();

    let late = invoke(&hub, "slow", &json!(1), 5);
    let call = client.message("calls");
    let (no_answer, _) = late.join().expect("a thread that calls");
    answer(&mut client, &call["properties"]["correlation_id"], 200, "{}");
    let bad = invoke(&hub, "bad", &json!(1), 30);
    let call = client.message("calls");
    answer(&mut client, &call["properties"]["correlation_id"], 200, "no JSON");
    let (bad, _) = bad.join().expect("a thread that calls");
    client.run("detach", json!({"link": "calls"}));
    client.detached("calls");
    let (not_online, _) = invoke(&hub, "gone", &json!(1), 5).join().expect("a thread that calls");

    assert_eq!((no_answer, bad, not_online), (504, 502, 404));
    // The late answer was dropped, and nothing else with it.
    client.receiver("c", "calls", &address(&device, "methods/devicebound"), 50);
    let caller = invoke(&hub, "again", &json!(1), 30);
    let call = client.message("calls");
    answer(&mut client, &call["properties"]["correlation_id"], 200, "1");
    assert_eq!(caller.join().expect("a thread that calls").0, 200);
}

#[test]
fn the_newest_connection_wins_across_protocols_and_nothing_stays_locked() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mail = address(&device, "messages/devicebound");
    let mut client = Amqp::start(&hub);
    client.log_in("first", &hub, &device);
    client.receiver("first", "mail", &mail, 10);
    let answer = hub
        .service()
        .try_call("POST", "/devices/dev1/messages/deviceBound", &[], Some(&json!("close")));
    assert_eq!(answer.expect("the hub answers").status, 204);
    let held = client.message("mail");

    // MQTT takes over; what AMQP held comes to it.
    let mut mqtt = hub.connected(&device);
    let stolen = client.detached("mail");
    mqtt.subscribe(&[("devices/dev1/messages/devicebound/#", 1)])
        .expect("the hub answers");
    let received = mqtt.receive(patience::short()).expect("the hub sends");

    assert_eq!(stolen["condition"], "amqp:link:stolen", "{stolen}");
    assert!(matches!(received, Some(Packet::Publish { .. })), "{received:?}");

    // AMQP takes over again, on the connection that it had; what MQTT did not acknowledge comes to it.
    client.receiver("first", "mail again", &mail, 10);
    let ended = mqtt.receive(patience::short());
    let again = client.message("mail again");

    assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
    assert_eq!(again["body"], held["body"]);
    client.settle(&again, "accepted");

    // And another connection of AMQP.
    client.log_in("second", &hub, &device);
    client.receiver("second", "newest", &mail, 10);
    assert_eq!(client.detached("mail again")["condition"], "amqp:link:stolen");
    let found = hub.service().call("GET", "/devices/dev1", None);
    assert_eq!(
        (&found["cloudToDeviceMessageCount"], &found["connectionState"]),
        (&json!(0), &json!("Connected"))
    );
}

#[test]
fn a_token_that_ends_detaches_its_links_and_a_renewed_one_keeps_them() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let [ending, renewed] = ["ending", "renewed"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    client.open("c");
    for device in [&ending, &renewed] {
        // It is past its end and good for some seconds more.
        let answer = client.put_token("c", &token(&hub, device, 15 - SKEW));
        assert_eq!(answer["status"], json!({"int": 200}), "{answer}");
        let how = json!({"session": device.id});
        let taken = client.try_attach("c", &device.id, "sender", &address(device, "messages/events"), &how);
        taken.expect("the link is taken");
    }
    client.prove("c", &hub, &renewed);

    let detached = client.detached("ending");
    client.send("renewed", &json!({"body": "{}"}));
    let again = client.try_attach("c", "again", "sender", &address(&ending, "messages/events"), &json!({}));

    assert_eq!(detached["condition"], "amqp:unauthorized-access", "{detached}");
    assert_eq!(again.expect_err("its token has ended").kind, "amqp:unauthorized-access");
    client.prove("c", &hub, &ending);
    client.sender("c", "again", &address(&ending, "messages/events"));
    client.send("again", &json!({"body": "{}"}));
    assert!(
        client.left().iter().all(|event| event["event"] != "detached"),
        "{:?}",
        client.left()
    );
}

#[test]
fn a_device_that_is_disabled_or_has_a_new_key_loses_its_links() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let devices = ["disabled", "rekeyed", "other"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    client.open("c");
    for device in &devices {
        client.prove("c", &hub, device);
        let how = json!({"session": device.id});
        let taken = client.try_attach("c", &device.id, "sender", &address(device, "messages/events"), &how);
        taken.expect("the link is taken");
    }
    let change = |id: &str, change: &dyn Fn(&mut Value)| {
        let path = format!("/devices/{id}");
        let mut device = hub.service().call("GET", &path, None);
        change(&mut device);
        let headers = [("If-Match", "*")];
        let answer = hub
            .service()
            .try_call("PUT", &path, &headers, Some(&device))
            .expect("the hub answers");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    };

    change("disabled", &|device| device["status"] = json!("disabled"));
    let keys = json!({"primaryKey": holm_e2e::sas::spoiled(&devices[1].primary_key), "secondaryKey": devices[1].secondary_key});
    change("rekeyed", &|device| {
        device["authentication"]["symmetricKey"] = keys.clone()
    });

    for id in ["disabled", "rekeyed"] {
        assert_eq!(client.detached(id)["condition"], "amqp:unauthorized-access");
        // What was proved on the connection is proved no more.
        let again = client.try_attach(
            "c",
            "again",
            "sender",
            &format!("/devices/{id}/messages/events"),
            &json!({}),
        );
        assert_eq!(again.expect_err("it is refused").kind, "amqp:unauthorized-access");
    }
    client.send("other", &json!({"body": "{}"}));
}
