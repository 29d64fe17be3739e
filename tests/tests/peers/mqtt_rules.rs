//! What a connected device may say, and what it gets: the rows of `hub-device-protocols.md` §8 about MQTT, by number.

use std::time::Duration;

use anyhow::Result;
use holm_e2e::wire::mqtt::{self, Packet};
use holm_e2e::{Hub, Need, patience};
use serde_json::{Value, json};

const TELEMETRY: &str = "devices/dev1/messages/events/";

#[test]
fn pipelined_publishes_are_acknowledged_in_order_and_all_are_in_the_log() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));
    let mut monitor = hub.monitor();

    // Row 42.
    let mut sent = Vec::new();
    for number in 0..100 {
        sent.push(client.publish(TELEMETRY, 1, false, number.to_string().as_bytes())?);
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < sent.len() {
        match client.receive(patience::short())? {
            Some(Packet::Puback(id)) => acknowledged.push(id),
            other => panic!("a PUBACK was expected; it came {other:?}"),
        }
    }

    assert_eq!(acknowledged, sent);
    monitor.wait_until("100 events", |seen| seen.len() >= 100);
    let bodies: Vec<Value> = monitor.seen().iter().map(|event| event.body.clone()).collect();
    assert_eq!(bodies, (0..100).map(|number| json!(number)).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn property_bags_of_every_sdks_shape_are_read() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));
    let mut monitor = hub.monitor();
    let cases = [
        // Row 31: system names encoded or not.
        ("%24.mid=m1", json!({}), "m1"),
        ("$.mid=m2/", json!({}), "m2"),
        // Row 32: raw spaces and slashes. Row 33: without a value, empty, a plus that stays one.
        ("%24.mid=m3&path=a b/c d", json!({"path": "a b/c d"}), "m3"),
        ("a&b=&c=%2B+&%24.mid=m4", json!({"a": null, "b": "", "c": "++"}), "m4"),
    ];

    for (bag, properties, id) in cases {
        client.publish(&format!("{TELEMETRY}{bag}"), 1, false, b"x")?;
        let event = monitor.wait_for(bag, |event| event.system["messageId"] == id);
        assert_eq!(event.properties, properties, "{bag}");
    }
    // Row 34: retain is not kept, but told.
    client.publish(&format!("{TELEMETRY}%24.mid=m5"), 1, true, b"x")?;
    let event = monitor.wait_for("the retained one", |event| event.system["messageId"] == "m5");
    assert_eq!(event.properties["mqtt-retain"], "true");
    Ok(())
}

#[test]
fn a_publish_that_is_not_allowed_ends_the_connection_and_leaves_nothing_in_the_log() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let _other = hub.create_device("dev2");
    let mut monitor = hub.monitor();
    let large = vec![b'x'; 256 * 1024 + 1];
    let cases: [(&str, u8, &[u8]); 6] = [
        // Row 39: another device's topic, a module's that it is not. Row 35: QoS 2. Row 40: too large.
        ("devices/dev2/messages/events/", 1, b"x"),
        ("devices/dev1/modules/m/messages/events/", 1, b"x"),
        ("plant/line1/flow", 1, b"x"),
        ("$iothub/unknown", 1, b"x"),
        (TELEMETRY, 2, b"x"),
        (TELEMETRY, 1, &large),
    ];

    for (topic, qos, payload) in cases {
        let mut client = hub.connected(&device);
        client.publish(topic, qos, false, payload).ok();
        let before = client.closed(patience::short())?;
        assert!(
            !before.iter().any(|packet| matches!(packet, Packet::Puback(_))),
            "{topic}: {before:?}"
        );
    }

    let mut client = hub.connected(&device);
    client.publish(TELEMETRY, 1, false, b"\"last\"")?;
    monitor.wait_for("the last", |event| event.body == "last");
    assert_eq!(monitor.seen().len(), 1);
    Ok(())
}

#[test]
fn filters_are_granted_one_by_one() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));

    // Rows 36, 37 and 38.
    let codes = client.subscribe(&[
        ("devices/dev1/messages/devicebound/#", 2),
        ("devices/dev2/messages/devicebound/#", 1),
        ("$iothub/twin/res/#", 0),
        ("plant/#", 1),
    ])?;

    assert_eq!(codes, [1, 0x80, 0, 0x80]);
    Ok(())
}

#[test]
fn twin_requests_are_answered_with_their_own_id_and_errors_have_a_code() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));
    client.subscribe(&[("$iothub/twin/res/#", 1)])?;
    let mut ask = |topic: &str, payload: &str| -> Result<(String, Value)> {
        client.publish(topic, 0, false, payload.as_bytes())?;
        match client.receive(patience::short())? {
            Some(Packet::Publish { topic, payload, .. }) => {
                Ok((topic, serde_json::from_slice(&payload).unwrap_or(Value::Null)))
            }
            other => panic!("an answer was expected; it came {other:?}"),
        }
    };

    // Rows 43 to 46.
    let (topic, twin) = ask("$iothub/twin/GET/?$rid=a-1", " ")?;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=a-1");
    assert_eq!(twin, json!({"desired": {"$version": 1}, "reported": {"$version": 1}}));
    let (topic, _) = ask("$iothub/twin/PATCH/properties/reported/?$rid=2", r#"{"a":{"b":1}}"#)?;
    assert_eq!(topic, "$iothub/twin/res/204/?$rid=2&$version=2");
    let (topic, _) = ask("$iothub/twin/PATCH/properties/reported/?$rid=3", r#"{"a":{"b":null}}"#)?;
    assert_eq!(topic, "$iothub/twin/res/204/?$rid=3&$version=3");
    let large = json!({"a": "x".repeat(4000), "b": "x".repeat(4000), "c": "x".repeat(4000), "d": "x".repeat(4000),
        "e": "x".repeat(4000), "f": "x".repeat(4000), "g": "x".repeat(4000), "h": "x".repeat(4000), "i": "x".repeat(4000)});
    for (body, status) in [("{\"a\":", "400"), (r#"{"a.b":1}"#, "400"), (&large.to_string(), "413")] {
        let (topic, error) = ask("$iothub/twin/PATCH/properties/reported/?$rid=4", body)?;
        assert_eq!(topic, format!("$iothub/twin/res/{status}/?$rid=4"));
        assert!(
            error["errorCode"].is_number() && error["message"].is_string(),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn a_twin_request_without_an_id_gets_no_answer_and_the_connection_lives() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));
    client.subscribe(&[("$iothub/twin/res/#", 1)])?;

    // Row 48.
    client.publish("$iothub/twin/GET/", 0, false, b" ")?;
    client.send(&mqtt::packet(0xc0, &[]))?;

    assert_eq!(client.receive(patience::short())?, Some(Packet::Pingresp));
    Ok(())
}

#[test]
fn a_message_from_the_cloud_waits_for_its_device_and_comes_until_it_is_acknowledged() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let filter = [("devices/dev1/messages/devicebound/#", 1)];
    let mut first = hub.connected(&device);
    first.subscribe(&filter)?;
    drop(first);

    let headers = [("iothub-messageid", "m1"), ("iothub-app-k", "v")];
    let sent = hub
        .service()
        .try_call("POST", "/devices/dev1/messages/deviceBound", &headers, Some(&json!(1)))?;
    assert_eq!(sent.status, 204);

    // Rows 25, 53 and 54: the session was kept; unacknowledged, the message comes again.
    let mut second = hub.mqtt(None)?;
    assert!(second.open(&hub.connect_packet(&device))?, "the session goes on");
    let (topic, dup, _) = message(&mut second)?;
    assert!(
        topic.starts_with("devices/dev1/messages/devicebound/%24.to=%2Fdevices%2Fdev1%2Fmessages%2Fdevicebound"),
        "{topic}"
    );
    assert!(topic.contains("%24.mid=m1") && topic.contains("k=v"), "{topic}");
    assert!(!dup);
    drop(second);
    let mut third = hub.mqtt(None)?;
    assert!(third.open(&hub.connect_packet(&device))?);
    let (again, dup, id) = message(&mut third)?;
    assert_eq!((again, dup), (topic, true));
    third.acknowledge(id)?;
    third.send(&mqtt::packet(0xc0, &[]))?;
    assert_eq!(third.receive(patience::short())?, Some(Packet::Pingresp));
    drop(third);
    let mut fourth = hub.mqtt(None)?;
    fourth.open(&hub.connect_packet(&device))?;
    fourth.subscribe(&filter)?;
    fourth.send(&mqtt::packet(0xc0, &[]))?;
    assert_eq!(fourth.receive(patience::short())?, Some(Packet::Pingresp));
    Ok(())
}

#[test]
fn a_silent_client_is_dropped_after_one_and_a_half_keep_alives() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut connect = hub.connect_packet(&device);
    connect.keep_alive = 2;
    let mut client = hub.mqtt(None)?;
    client.open(&connect)?;
    let began = std::time::Instant::now();

    // Row 24.
    client.closed(patience::long())?;

    assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
    Ok(())
}

#[test]
fn a_will_becomes_telemetry_when_the_connection_breaks_and_not_when_it_is_closed() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut monitor = hub.monitor();
    let with_will = |text: &str| -> Result<mqtt::Client> {
        let mut connect = hub.connect_packet(&device);
        connect.will = Some((format!("{TELEMETRY}%24.mid={text}"), b"gone".to_vec()));
        let mut client = hub.mqtt(None)?;
        client.open(&connect)?;
        Ok(client)
    };

    // Row 41.
    let mut polite = with_will("polite")?;
    polite.send(&mqtt::packet(0xe0, &[]))?;
    polite.closed(patience::short())?;
    drop(with_will("cut")?);

    let event = monitor.wait_for("the will", |event| event.system["messageId"] == "cut");
    assert_eq!(
        (&event.properties["iothub-MessageType"], &event.body),
        (&json!("Will"), &json!("gone"))
    );
    assert_eq!(monitor.seen().len(), 1);
    Ok(())
}

fn message(client: &mut mqtt::Client) -> Result<(String, bool, u16)> {
    match client.receive(patience::short())? {
        Some(Packet::Publish { topic, dup, id, .. }) => Ok((topic, dup, id)),
        other => panic!("a message was expected; it came {other:?}"),
    }
}
