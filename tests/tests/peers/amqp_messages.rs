//! Messages over AMQP: what a device sends and what becomes of it, what it is sent and what it says of it. Source:
//! `hub-device-protocols.md` §3.3 to §3.5, §7, §8 rows 40, 63, 64 and 67.

use holm_e2e::amqp::{address, token};
use holm_e2e::{Amqp, Device, Hub, Need, patience};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Node, Need::LowPorts];
/// What a message of a device may have.
const MAX_MESSAGE: usize = 256 * 1024;

/// A hub with a device that has a sending link `events`.
fn sending() -> (Hub, Device, Amqp) {
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    client.sender("c", "events", &address(&device, "messages/events"));
    (hub, device, client)
}

/// A hub with a device that has a receiving link `mail`.
fn receiving(credit: u32) -> (Hub, Device, Amqp) {
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    client.receiver("c", "mail", &address(&device, "messages/devicebound"), credit);
    (hub, device, client)
}

#[track_caller]
fn tell(hub: &Hub, device: &Device, id: &str) {
    let headers = [("iothub-messageid", id), ("iothub-app-speed", "slow")];
    let path = format!("/devices/{}/messages/deviceBound", device.id);
    let answer = hub.service().try_call("POST", &path, &headers, Some(&json!("close")));
    let answer = answer.expect("the hub answers");
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
}

/// How many messages wait for a device, as the hub says.
fn waiting(hub: &Hub, device: &Device) -> u64 {
    let found = hub.service().call("GET", &format!("/devices/{}", device.id), None);
    found["cloudToDeviceMessageCount"].as_u64().expect("a count")
}

#[track_caller]
fn wait_for_none(hub: &Hub, device: &Device) {
    patience::wait("an empty mailbox", patience::short(), || match waiting(hub, device) {
        0 => Ok(()),
        count => Err(format!("{count} messages wait")),
    });
}

#[test]
fn what_a_device_says_of_its_message_arrives_and_an_accepted_message_survives_a_crash() {
    if !Need::all(NEEDS) {
        return;
    }
    let (mut hub, _device, mut client) = sending();

    client.send(
        "events",
        &json!({
            "body": "{\"flow\": 12.5}",
            "properties": {
                "message_id": {"uuid": "123e4567-e89b-12d3-a456-426614174000"}, "correlation_id": {"ulong": 9},
                "user_id": "me", "content_type": "application/json", "content_encoding": "utf-8",
            },
            "application": {"unit": "m³/h", "count": {"int": 7}, "iothub-message-schema": "s1"},
            "annotations": {"dt-subject": "pump"},
        }),
    );
    hub.crash_and_restart();

    let mut monitor = hub.monitor();
    let event = monitor.wait_for("the message", |event| event.device == "dev1");
    assert_eq!(event.body, json!({"flow": 12.5}));
    assert_eq!(event.properties, json!({"unit": "m³/h", "count": "7"}));
    assert_eq!(event.system["messageId"], "123e4567-e89b-12d3-a456-426614174000");
    assert_eq!(
        (&event.system["cid"], &event.system["userId"]),
        (&json!("9"), &json!("me"))
    );
}

#[test]
fn bodies_of_every_form_that_is_bytes_are_taken() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = sending();
    let mut monitor = hub.monitor();

    for (id, message, body) in [
        ("one", json!({"body": "one"}), "one"),
        ("two", json!({"kind": "sections", "body": ["a", "b"]}), "ab"),
        ("text", json!({"kind": "value", "body": "text"}), "text"),
        ("bytes", json!({"kind": "value", "body": {"binary": "bytes"}}), "bytes"),
        ("none", json!({"body": ""}), ""),
    ] {
        let mut message = message;
        message["properties"] = json!({"message_id": id});
        client.send("events", &message);

        let event = monitor.wait_for(id, |event| event.system["messageId"] == id);
        assert_eq!(event.body.as_str(), Some(body), "{}", event.line);
    }
}

#[test]
fn a_batch_is_its_messages_and_is_accepted_once() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = sending();
    let one = |id: &str| json!({"body": id, "properties": {"message_id": id}, "application": {"of": "batch"}});

    client.send("events", &json!({"batch": [one("b1"), one("b2"), one("b3")]}));

    let mut monitor = hub.monitor();
    for id in ["b1", "b2", "b3"] {
        let event = monitor.wait_for(id, |event| event.system["messageId"] == id);
        assert_eq!((event.body, event.properties), (json!(id), json!({"of": "batch"})));
    }
}

#[test]
fn settled_messages_are_taken_without_an_outcome() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = sending();
    let how = json!({"snd": 1, "session": "other"});
    let taken = client.try_attach("c", "settled", "sender", &address(&device, "messages/events"), &how);

    taken.expect("the link is taken");
    client
        .try_send("settled", &json!({"body": "{}", "properties": {"message_id": "s1"}}))
        .expect("it is sent");
    client
        .try_send(
            "events",
            &json!({"body": "{}", "settled": true, "properties": {"message_id": "s2"}}),
        )
        .expect("it is sent");

    let mut monitor = hub.monitor();
    for id in ["s1", "s2"] {
        monitor.wait_for(id, |event| event.system["messageId"] == id);
    }
    assert!(client.left().iter().all(|event| event["event"] != "outcome"));
}

#[test]
fn a_message_that_is_too_large_is_rejected_by_its_size_and_the_next_is_taken() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, _device, mut client) = sending();

    let largest = client
        .try_send("events", &json!({"size": MAX_MESSAGE - 100}))
        .expect("it is answered");
    let too_large = client
        .try_send("events", &json!({"size": MAX_MESSAGE + 1}))
        .expect("it is answered");
    let batch = json!({"batch": [{"body": "small", "properties": {"message_id": "no"}}, {"size": MAX_MESSAGE + 1}]});
    let too_large_in_batch = client.try_send("events", &batch).expect("it is answered");
    client.send("events", &json!({"body": "{}", "properties": {"message_id": "after"}}));

    assert_eq!(largest["outcome"], "accepted", "{largest}");
    for refused in [too_large, too_large_in_batch] {
        assert_eq!(refused["condition"], "amqp:link:message-size-exceeded", "{refused}");
        assert!(
            refused["description"]
                .as_str()
                .is_some_and(|text| text.contains("262144")),
            "{refused}"
        );
        assert!(refused["info"]["com.microsoft:tracking-id"].is_string(), "{refused}");
    }
    let mut monitor = hub.monitor();
    monitor.wait_for("the message behind them", |event| event.system["messageId"] == "after");
    // Of a batch all or none.
    assert!(!monitor.seen().iter().any(|event| event.system["messageId"] == "no"));
}

#[test]
fn what_is_larger_than_a_batch_may_be_costs_its_link_and_nothing_else() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = sending();
    let other = hub.create_device("other");
    client.prove("c", &hub, &other);
    let session = json!({"session": "other"});
    let taken = client.try_attach("c", "others", "sender", &address(&other, "messages/events"), &session);
    taken.expect("the link is taken");

    let refused = client.try_send("events", &json!({"size": 3 * 1024 * 1024}));

    assert_eq!(
        refused.expect_err("the link is detached").kind,
        "amqp:link:message-size-exceeded"
    );
    client.send("others", &json!({"body": "{}"}));
    let again = json!({"session": "again"});
    let taken = client.try_attach("c", "again", "sender", &address(&device, "messages/events"), &again);
    taken.expect("the link is taken again");
    client.send("again", &json!({"body": "{}"}));
}

#[test]
fn what_can_not_be_read_is_rejected_by_its_field_and_the_link_stays() {
    if !Need::all(NEEDS) {
        return;
    }
    let (_hub, _device, mut client) = sending();
    let mut deep = "c0020145".to_owned();
    for _ in 0..200 {
        // A list of one list.
        let bytes = deep.len() / 2;
        deep = format!("d0{:08x}00000001{deep}", bytes + 4);
    }

    for (message, field) in [
        (json!({"bytes": "ffffff"}), "delivery"),
        (json!({"bytes": "005377"}), "delivery"),
        (json!({"bytes": format!("005377{deep}")}), "delivery"),
        (json!({"body": "{}", "application": {"list": {"list": []}}}), "list"),
        (json!({"body": "{}", "properties": {"user_id": "\u{ff}"}}), "user-id"),
        (json!({"kind": "value", "body": {"long": 5}}), "body"),
        (json!({"kind": "sequence", "body": [1]}), "body"),
        (
            json!({"batch": [{"body": "fine"}, {"kind": "value", "body": {"long": 5}}]}),
            "body",
        ),
    ] {
        let refused = client.try_send("events", &message).expect("it is answered");

        assert_eq!(refused["outcome"], "rejected", "{message}: {refused}");
        assert_eq!(
            refused["condition"], "com.microsoft:argument-error",
            "{message}: {refused}"
        );
        assert!(
            refused["description"].as_str().is_some_and(|text| text.contains(field)),
            "{message}: {refused}"
        );
    }
    client.send("events", &json!({"body": "{}"}));
}

#[test]
fn a_message_from_the_cloud_has_what_each_sdk_reads() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);

    tell(&hub, &device, "order-1");

    let message = client.message("mail");
    assert_eq!(
        (&message["tag_bytes"], &message["presettled"], &message["format"]),
        (&json!(16), &json!(false), &json!(0))
    );
    assert_eq!(
        message["body"],
        json!({"kind": "data", "count": 1, "text": "\"close\""})
    );
    assert_eq!(message["properties"]["message_id"], "order-1");
    assert_eq!(message["properties"]["to"], "/devices/dev1/messages/devicebound");
    assert_eq!(message["application"]["speed"], "slow");
    let annotations = &message["annotations"];
    assert!(
        annotations["iothub-enqueuedtime"]["timestamp"].is_number(),
        "{annotations}"
    );
    assert!(
        annotations["iothub-deliverycount"]["ubyte"].is_number(),
        "{annotations}"
    );
    assert!(
        annotations["x-opt-sequence-number"]["ulong"].is_number(),
        "{annotations}"
    );
    assert!(annotations["x-opt-lock-token"].is_string(), "{annotations}");
    assert_eq!(waiting(&hub, &device), 1);

    client.settle(&message, "accepted");

    wait_for_none(&hub, &device);
}

#[test]
fn released_and_modified_messages_come_again_and_are_counted_until_they_are_dead_letters() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);
    tell(&hub, &device, "again");
    let count = |message: &Value| {
        message["annotations"]["iothub-deliverycount"]["ubyte"]
            .as_u64()
            .expect("a count")
    };

    let first = client.message("mail");
    client.settle(&first, "released");
    let second = client.message("mail");
    client.settle(&second, "modified");
    let third = client.message("mail");

    assert_eq!(
        [&first, &second, &third].map(|message| message["properties"]["message_id"].clone()),
        ["again", "again", "again"]
    );
    assert_eq!((count(&second) - count(&first), count(&third) - count(&second)), (1, 1));
    assert_ne!(
        first["annotations"]["x-opt-lock-token"],
        second["annotations"]["x-opt-lock-token"]
    );

    // 10 deliveries at most; two were given back.
    client.settle(&third, "released");
    client.run("credit", json!({"link": "mail", "credit": 20}));
    for _ in 3..10 {
        let message = client.message("mail");
        client.settle(&message, "released");
    }
    wait_for_none(&hub, &device);
    tell(&hub, &device, "next");
    assert_eq!(client.message("mail")["properties"]["message_id"], "next");
}

#[test]
fn a_rejected_message_never_comes_again() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);
    tell(&hub, &device, "no");
    tell(&hub, &device, "yes");

    let refused = client.message("mail");
    client.settle(&refused, "rejected");
    let kept = client.message("mail");
    client.settle(&kept, "accepted");

    assert_eq!(
        (&refused["properties"]["message_id"], &kept["properties"]["message_id"]),
        (&json!("no"), &json!("yes"))
    );
    wait_for_none(&hub, &device);
}

#[test]
fn what_was_not_settled_when_the_connection_was_cut_comes_again_first_and_uncounted() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);
    for id in ["m1", "m2", "m3"] {
        tell(&hub, &device, id);
    }
    let lost = [(); 3].map(|()| client.message("mail"));

    client.run("cut", json!({"connection": "c"}));
    client.log_in("d", &hub, &device);
    client.receiver("d", "mail again", &address(&device, "messages/devicebound"), 10);

    for before in lost {
        let message = client.message("mail again");
        assert_eq!(message["properties"]["message_id"], before["properties"]["message_id"]);
        assert_eq!(
            message["annotations"]["iothub-deliverycount"],
            before["annotations"]["iothub-deliverycount"]
        );
        client.settle(&message, "accepted");
    }
    wait_for_none(&hub, &device);
}

#[test]
fn what_a_detached_link_left_unsettled_comes_to_the_next_uncounted_while_the_device_stays() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);
    client.sender("c", "events", &address(&device, "messages/events"));
    for id in ["m1", "m2"] {
        tell(&hub, &device, id);
    }
    let lost = [(); 2].map(|()| client.message("mail"));

    client.run("detach", json!({"link": "mail"}));
    client.detached("mail");
    client.receiver("c", "mail again", &address(&device, "messages/devicebound"), 10);

    for before in lost {
        let message = client.message("mail again");
        assert_eq!(message["properties"]["message_id"], before["properties"]["message_id"]);
        assert_eq!(
            message["annotations"]["iothub-deliverycount"],
            before["annotations"]["iothub-deliverycount"]
        );
        client.settle(&message, "accepted");
    }
    client.send("events", &json!({"body": "{}"}));
    wait_for_none(&hub, &device);
}

#[test]
fn credit_of_one_brings_one_message_at_a_time() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(1);
    for id in ["m1", "m2", "m3"] {
        tell(&hub, &device, id);
    }

    for id in ["m1", "m2", "m3"] {
        let message = client.message("mail");
        assert_eq!(message["properties"]["message_id"], id);
        assert!(client.left().iter().all(|event| event["event"] != "message"));
        client.settle(&message, "accepted");
        client.run("credit", json!({"link": "mail", "credit": 1}));
    }
    wait_for_none(&hub, &device);
}

#[test]
fn a_receiver_that_settles_second_is_answered_and_the_message_is_gone() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    let how = json!({"rcv": 1, "snd": 0, "credit": 50});
    let taken = client.try_attach("c", "mail", "receiver", &address(&device, "messages/deviceBound"), &how);
    taken.expect("the link is taken");
    tell(&hub, &device, "m1");

    let message = client.message("mail");
    client.run(
        "settle",
        json!({"delivery": message["delivery"], "outcome": "accepted", "settled": false}),
    );

    client.event("settled", |event| event["delivery"] == message["delivery"]);
    wait_for_none(&hub, &device);
}

#[test]
fn a_drain_brings_what_waits_and_gives_the_rest_of_the_credit_back() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(0);
    for id in ["m1", "m2", "m3"] {
        tell(&hub, &device, id);
    }

    client.run("credit", json!({"link": "mail", "credit": 10, "drain": true}));

    client.event("drained", |event| event["link"] == "mail");
    let came: Vec<_> = client
        .left()
        .iter()
        .filter(|event| event["event"] == "message")
        .collect();
    assert_eq!(came.len(), 3, "{came:?}");
    for _ in 0..3 {
        let message = client.message("mail");
        client.settle(&message, "accepted");
    }
    // With nothing there, and again with credit that is not drained.
    client.run("credit", json!({"link": "mail", "credit": 10, "drain": true}));
    client.event("drained", |event| event["link"] == "mail");
    tell(&hub, &device, "m4");
    client.run("credit", json!({"link": "mail", "credit": 1}));
    assert_eq!(client.message("mail")["properties"]["message_id"], "m4");
}

#[test]
fn many_messages_are_settled_by_one_word_and_a_suspended_link_goes_on() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(20);
    for number in 0..20 {
        tell(&hub, &device, &format!("m{number}"));
    }

    // As many as may be on their way at a time.
    let came = [(); 16].map(|()| client.message("mail")["delivery"].clone());
    client.run("settle", json!({"deliveries": came, "outcome": "accepted"}));
    let rest = [(); 4].map(|()| client.message("mail"));
    client.run("detach", json!({"link": "mail", "closed": false}));
    client.detached("mail");
    client.receiver("c", "mail", &address(&device, "messages/devicebound"), 20);

    for before in rest {
        let message = client.message("mail");
        assert_eq!(message["properties"]["message_id"], before["properties"]["message_id"]);
        client.settle(&message, "accepted");
    }
    wait_for_none(&hub, &device);
}

#[test]
fn a_client_with_small_frames_sends_and_receives_large_messages_in_parts() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = Amqp::start(&hub);
    client
        .try_open("c", &json!({"max_frame": 512}))
        .expect("the connection opens");
    client.prove("c", &hub, &device);
    client.sender("c", "events", &address(&device, "messages/events"));
    client.receiver("c", "mail", &address(&device, "messages/devicebound"), 5);
    let text = "x".repeat(50_000);

    let answer = hub
        .service()
        .try_call("POST", "/devices/dev1/messages/deviceBound", &[], Some(&json!(text)));
    assert_eq!(answer.expect("the hub answers").status, 204);
    let message = client.message("mail");
    client.settle(&message, "accepted");
    client.send(
        "events",
        &json!({"size": 200_000, "properties": {"message_id": "large"}}),
    );

    assert_eq!(message["body"]["text"].as_str().map(str::len), Some(text.len() + 2));
    let mut monitor = hub.monitor();
    let event = monitor.wait_for("the large message", |event| event.system["messageId"] == "large");
    assert_eq!(event.body.as_str().map(str::len), Some(200_000));
}

#[test]
fn messages_that_arrive_while_a_device_has_no_link_wait_for_it() {
    if !Need::all(NEEDS) {
        return;
    }
    let (hub, device, mut client) = receiving(10);
    client.run("detach", json!({"link": "mail"}));
    client.detached("mail");
    tell(&hub, &device, "m1");

    client.receiver("c", "mail again", &address(&device, "messages/devicebound"), 10);

    let message = client.message("mail again");
    assert_eq!(message["properties"]["message_id"], "m1");
    client.settle(&message, "accepted");
    wait_for_none(&hub, &device);
}

#[test]
fn a_stop_accepts_what_it_has_stored_and_says_that_it_was_forced() {
    if !Need::all(NEEDS) {
        return;
    }
    let (mut hub, _device, mut client) = sending();
    for number in 0..200 {
        let message = json!({"link": "events", "wait": false, "number": number, "body": "{}", "properties": {"message_id": format!("n{number}")}});
        client.call("send", message);
    }

    hub.stop();

    let closed = client.event("closed", |_| true);
    assert_eq!(closed["condition"], "amqp:connection:forced", "{closed}");
    client.event("disconnected", |_| true);
    let accepted: Vec<u64> = client
        .left()
        .iter()
        .filter(|event| event["event"] == "outcome" && event["outcome"] == "accepted")
        .filter_map(|event| event["number"].as_u64())
        .collect();
    assert!(!accepted.is_empty());
    hub.restart();
    let mut monitor = hub.monitor();
    for number in accepted {
        monitor.wait_for("what was accepted", |event| {
            event.system["messageId"] == format!("n{number}")
        });
    }
}

#[test]
fn a_policys_token_sends_for_a_device_and_nobody_elses_does() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let devices = ["dev1", "dev2"].map(|id| hub.create_device(id));
    let mut client = Amqp::start(&hub);
    client.open("c");
    let own = client.put_token("c", &token(&hub, &devices[0], 3600));
    assert_eq!(own["status"], json!({"int": 200}));
    let foreign = client.try_attach(
        "c",
        "two",
        "sender",
        &address(&devices[1], "messages/events"),
        &json!({}),
    );
    let owner = client.put_token("c", &hub.service().token());

    assert_eq!(foreign.expect_err("it is refused").kind, "amqp:unauthorized-access");
    assert_eq!(owner["status"], json!({"int": 200}), "{owner}");
    client.sender("c", "two", &address(&devices[1], "messages/events"));
    client.send("two", &json!({"body": "{}"}));
}

#[test]
fn a_full_disk_is_told_with_the_link_and_what_was_accepted_stays() {
    if !Need::all(&[NEEDS, &[Need::Mount]].concat()) {
        return;
    }
    let hub = Hub::start_on_small_disk();
    let device = hub.create_device("dev1");
    let events = address(&device, "messages/events");
    let mut client = Amqp::start(&hub);
    client.log_in("c", &hub, &device);
    client.sender("c", "before", &events);
    let message = |number: usize| json!({"size": 20_000, "properties": {"message_id": format!("n{number}")}});

    hub.disk().fill();
    let mut accepted = 0;
    let refused = loop {
        match client.try_send("before", &message(accepted)) {
            Ok(outcome) if outcome["outcome"] == "accepted" => accepted += 1,
            Ok(outcome) => break outcome["condition"].clone(),
            Err(detached) => break json!(detached.kind),
        }
    };
    let detached = client.detached("before");
    hub.disk().free();
    hub.daemon().wait_until_healthy();
    client.sender("c", "after", &events);
    client.send("after", &message(accepted));

    assert_eq!(
        (&refused, &detached["condition"]),
        (&json!("amqp:internal-error"), &json!("amqp:internal-error"))
    );
    let mut monitor = hub.monitor();
    for number in 0..=accepted {
        let id = format!("n{number}");
        monitor.wait_for("what was accepted", |event| event.system["messageId"] == *id);
    }
}
