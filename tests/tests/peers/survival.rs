//! What a hub still knows after it was killed or stopped, and who comes back.

use std::time::{Duration, Instant};

use anyhow::Result;
use holm_e2e::Language::Node;
use holm_e2e::Transport::{Amqp, AmqpWs};
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Hub, Need, Sdk, patience};
use serde_json::json;

#[test]
fn what_a_killed_hub_acknowledged_is_there_when_it_returns() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let mut hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut acknowledged = Vec::new();

    for round in 0..5 {
        let mut client = hub.connected(&device);
        let twin = hub.service().call(
            "PATCH",
            "/twins/dev1",
            Some(&json!({"properties": {"desired": {"round": round}}})),
        );
        assert_eq!(twin["properties"]["desired"]["round"], round);
        for number in 0..20 {
            let text = format!("{round}.{number}");
            let id = client.publish(
                "devices/dev1/messages/events/",
                1,
                false,
                json!(text).to_string().as_bytes(),
            )?;
            assert_eq!(client.receive(patience::short())?, Some(Packet::Puback(id)));
            acknowledged.push(json!(text));
        }
        // These may be lost: nobody was told that they are safe.
        for _ in 0..5 {
            client.publish("devices/dev1/messages/events/", 1, false, b"\"unacknowledged\"")?;
        }
        hub.crash_and_restart();
    }

    let mut monitor = hub.monitor();
    let last = acknowledged.last().cloned().unwrap_or_default();
    monitor.wait_for("the last acknowledged one", |event| event.body == last);
    let kept: Vec<_> = monitor
        .seen()
        .iter()
        .map(|event| event.body.clone())
        .filter(|it| it != "unacknowledged")
        .collect();
    assert_eq!(kept, acknowledged);
    assert_eq!(
        hub.service().call("GET", "/twins/dev1", None)["properties"]["desired"]["round"],
        4
    );
    Ok(())
}

#[test]
fn sigterm_ends_a_hub_with_success_and_nothing_acknowledged_is_lost() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let mut hub = Hub::start();
    let device = hub.create_device("dev1");
    let mut client = hub.connected(&device);
    let id = client.publish("devices/dev1/messages/events/", 1, false, b"\"kept\"")?;
    assert_eq!(client.receive(patience::short())?, Some(Packet::Puback(id)));

    hub.stop();
    hub.restart();

    hub.monitor().wait_for("the event", |event| event.body == "kept");
    Ok(())
}

#[test]
fn node_devices_over_amqp_are_back_soon_after_a_stop_and_listen_again() {
    if !Need::all(&[Need::Node, Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let mut devices: Vec<_> = [Amqp, AmqpWs]
        .into_iter()
        .map(|transport| {
            let device = hub.create_device(transport.name());
            let mut sdk = Sdk::device(Node, transport, &hub, &device).start();
            sdk.call("connect", json!({}));
            for what in ["messages", "methods"] {
                sdk.call("listen", json!({"what": what}));
            }
            (device, sdk)
        })
        .collect();

    hub.stop();
    hub.restart();
    for (device, _) in &devices {
        hub.holm(&["c2d", "send", "--device", &device.id, "hello"]);
    }

    // What it waits 45 s for, if it is not told as it likes it, are answers to the ends of its links.
    let until = Instant::now() + Duration::from_secs(40);
    for (device, sdk) in &mut devices {
        let came = std::iter::from_fn(|| sdk.next_event(until.saturating_duration_since(Instant::now())));
        let hello = came.into_iter().find(|event| event["event"] == "message");
        assert_eq!(hello.expect("the message comes")["body"], "hello");
        let call = json!({"methodName": "echo", "payload": 1, "responseTimeoutInSeconds": 20});
        patience::wait("a method is answered", patience::long(), || {
            let answer = hub
                .service()
                .try_call("POST", &format!("/twins/{}/methods", device.id), &[], Some(&call))
                .map_err(|error| format!("{error:#}"))?;
            match answer.status {
                200 => Ok(()),
                status => Err(format!("{status} {}", answer.json())),
            }
        });
    }
}
