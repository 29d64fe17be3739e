//! What a hub still knows after it was killed.

use anyhow::Result;
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Hub, Need, patience};
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
