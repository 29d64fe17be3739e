//! The Event-Hubs-compatible endpoint, read by the original clients of Event Hubs. Numbers are rows of `hub-service-api.md` §11.

use std::collections::BTreeMap;

use holm_e2e::Language::{Node, Python};
use holm_e2e::wire::mqtt;
use holm_e2e::{Device, Hub, Language, Need, Sdk};
use serde_json::{Value, json};

/// Sends messages of a device, each on disk when this returns.
fn send(hub: &Hub, device: &Device, bodies: impl IntoIterator<Item = String>) {
    let mut client = hub.connected(device);
    let topic = format!(
        "devices/{}/messages/events/k=v&%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8",
        device.id
    );
    for body in bodies {
        store(&mut client, &topic, &body);
    }
}

fn store(client: &mut mqtt::Client, topic: &str, body: &str) {
    let stored = client.store(topic, body.as_bytes());
    stored.unwrap_or_else(|error| panic!("{error:#}"));
}

fn is_telemetry(event: &Value) -> bool {
    event["system"]["iothub-message-source"] == "Telemetry"
}

/// Takes so many messages of a reader, by partition.
fn take(sdk: &mut holm_e2e::sdk::Running, reader: &str, count: usize) -> Vec<Value> {
    (0..count)
        .map(|_| sdk.event("read", |event| event["reader"] == reader && is_telemetry(event)))
        .collect()
}

fn bodies(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["body"].as_str()).collect()
}

const NEEDS: [Need; 3] = [Need::Python, Need::Node, Need::LowPorts];

#[test]
fn python_reads_events_from_every_position() {
    reads_from_every_position(Python, "amqp");
}

#[test]
fn python_reads_events_over_websocket() {
    reads_from_every_position(Python, "amqp-ws");
}

#[test]
fn python_reads_events_with_uamqp() {
    reads_from_every_position(Python, "uamqp");
}

#[test]
fn node_reads_events_from_every_position() {
    reads_from_every_position(Node, "amqp");
}

#[test]
fn node_reads_events_over_websocket() {
    reads_from_every_position(Node, "amqp-ws");
}

/// Rows 78 and 79: all old events, only new ones, and what is between.
fn reads_from_every_position(language: Language, transport: &str) {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    send(&hub, &device, (0..3).map(|number| format!("{{\"n\":{number}}}")));
    let mut sdk = Sdk::events(language, transport, &hub).start();

    let found = sdk.call("properties", json!({}));
    sdk.call("read", json!({"reader": "all", "track": transport != "uamqp"}));
    let all = take(&mut sdk, "all", 3);
    let partition = all[0]["partition"].clone();
    let of_partition = sdk.call("partition", json!({"partition": partition}));
    sdk.call("stop", json!({"reader": "all"}));
    for (name, position) in [
        (
            "from-second",
            json!({"sequence": all[1]["sequence"], "inclusive": true}),
        ),
        (
            "after-second",
            json!({"sequence": all[1]["sequence"], "inclusive": false}),
        ),
        ("after-offset", json!({"offset": all[1]["offset"]})),
        ("after-time", json!({"time": 0})),
        ("latest", json!({"offset": "@latest"})),
    ] {
        let mut command = position;
        command["reader"] = name.into();
        command["partition"] = partition.clone();
        sdk.call("read", command);
    }
    let counts = BTreeMap::from([
        ("from-second", 2),
        ("after-second", 1),
        ("after-offset", 1),
        ("after-time", 3),
    ]);
    let read: BTreeMap<_, _> = counts
        .iter()
        .map(|(name, count)| (*name, take(&mut sdk, name, *count)))
        .collect();
    let latest = first_after_attach(&hub, &device, &mut sdk);

    assert_eq!(found["partitions"], json!(["0", "1", "2", "3"]));
    assert!(
        found["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("iothub-ehub-")),
        "{found}"
    );
    assert_eq!(
        all.iter()
            .map(|event| &event["partition"])
            .filter(|other| **other == partition)
            .count(),
        3
    );
    assert_eq!(bodies(&all), ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
    let system = &all[0]["system"];
    assert_eq!(system["iothub-connection-device-id"], "d1");
    assert!(
        system["iothub-connection-auth-method"]
            .as_str()
            .is_some_and(|text| text.contains("\"scope\":\"device\"")),
        "{system}"
    );
    assert_eq!(all[0]["properties"]["k"], "v");
    assert!(all[0]["enqueued"].is_string() || all[0]["enqueued"].is_number());
    let is_empty = of_partition.get("is_empty").or_else(|| of_partition.get("isEmpty"));
    assert_eq!(is_empty, Some(&json!(false)), "{of_partition}");
    assert_eq!(bodies(&read["from-second"]), ["{\"n\":1}", "{\"n\":2}"]);
    assert_eq!(bodies(&read["after-second"]), ["{\"n\":2}"]);
    assert_eq!(bodies(&read["after-offset"]), ["{\"n\":2}"]);
    assert_eq!(bodies(&read["after-time"]), ["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"]);
    assert!(latest.starts_with("new"), "{latest}");
}

/// When a reader at the end is attached nobody tells, so messages are sent until one arrives: it is none of the old ones.
fn first_after_attach(hub: &Hub, device: &Device, sdk: &mut holm_e2e::sdk::Running) -> String {
    let mut client = hub.connected(device);
    let topic = format!("devices/{}/messages/events/", device.id);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) && number < 600 {
                number += 1;
                let body = format!("new {number}");
                store(&mut client, &topic, &body);
                std::thread::park_timeout(std::time::Duration::from_millis(200));
            }
        });
        let event = sdk.event("read", |event| event["reader"] == "latest");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        event["body"].as_str().unwrap_or_default().to_owned()
    })
}

#[test]
fn a_reader_of_a_higher_owner_level_takes_the_partition_from_python() {
    takes_the_partition(Python);
}

#[test]
fn a_reader_of_a_higher_owner_level_takes_the_partition_from_node() {
    takes_the_partition(Node);
}

/// Row 80.
fn takes_the_partition(language: Language) {
    if !Need::all(&NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    send(&hub, &device, ["\"first\"".to_owned()]);
    let mut sdk = Sdk::events(language, "amqp", &hub).start();
    sdk.call("read", json!({"reader": "everywhere"}));
    let partition = take(&mut sdk, "everywhere", 1)[0]["partition"].clone();
    sdk.call("stop", json!({"reader": "everywhere"}));
    let read = |name: &str, level: i64| json!({"reader": name, "partition": partition, "owner_level": level});

    sdk.call("read", read("low", 1));
    take(&mut sdk, "low", 1);
    sdk.call("read", read("high", 2));
    let lost = sdk.event("error", |event| event["reader"] == "low");
    take(&mut sdk, "high", 1);
    sdk.call("read", read("late", 1));
    let refused = sdk.event("error", |event| event["reader"] == "late");

    for error in [lost, refused] {
        let told = error["message"].as_str().unwrap_or_default();
        assert!(
            told.contains("owner level 2") || told.contains("ReceiverDisconnected"),
            "{told}"
        );
    }
}

#[test]
fn a_consumer_group_is_read_by_its_name_and_unknown_ones_are_refused() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    send(&hub, &device, ["\"first\"".to_owned()]);
    hub.holm(&["hub", "consumer-group", "add", "billing"]);
    let listed = hub.holm(&["hub", "consumer-group", "list"]);
    let mut sdk = Sdk::events(Python, "amqp", &hub).start();

    sdk.call("read", json!({"reader": "billing", "group": "Billing"}));
    let read = take(&mut sdk, "billing", 1);
    // The SDKs try again for ever, and tell nobody.
    let mut proton = Sdk::proton(&hub).start();
    proton.call(
        "login",
        json!({"user": "iothubowner@sas.root.hub", "password": hub.service().token()}),
    );
    let name = sdk.call("properties", json!({}))["name"].clone();
    let name = name.as_str().unwrap_or_default();
    let of_group = |group: &str, partition: u8| format!("{name}/ConsumerGroups/{group}/Partitions/{partition}");
    let refused = proton.call("attach", json!({"address": of_group("none", 0)}));
    let no_partition = proton.call("attach", json!({"address": of_group("$Default", 4)}));
    hub.holm(&["hub", "consumer-group", "remove", "billing"]);
    let gone = sdk.event("error", |event| event["reader"] == "billing");

    assert_eq!(listed, "$Default\nbilling\n");
    assert_eq!(bodies(&read), ["\"first\""]);
    assert_eq!(refused["condition"], "amqp:not-found", "{refused}");
    assert_eq!(
        no_partition["condition"], "com.microsoft:argument-out-of-range",
        "{no_partition}"
    );
    assert!(
        gone["message"]
            .as_str()
            .is_some_and(|text| text.contains("consumer group")),
        "{gone}"
    );
}

#[test]
fn what_was_read_goes_on_after_a_crash_of_the_hub_where_it_ended() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let device = hub.create_device("d1");
    send(&hub, &device, (0..20).map(|number| number.to_string()));
    let mut sdk = Sdk::events(Python, "amqp", &hub).start();
    sdk.call("read", json!({"reader": "before"}));
    let before = take(&mut sdk, "before", 20);
    drop(sdk);

    hub.crash_and_restart();
    send(&hub, &device, (20..40).map(|number| number.to_string()));
    let last = before.last().cloned().unwrap_or_default();
    let mut sdk = Sdk::events(Python, "amqp", &hub).start();
    sdk.call(
        "read",
        json!({"reader": "after", "partition": last["partition"], "offset": last["offset"]}),
    );
    let after = take(&mut sdk, "after", 20);

    let numbers =
        |events: &[Value]| -> Vec<i64> { bodies(events).iter().filter_map(|body| body.parse().ok()).collect() };
    assert_eq!(numbers(&before), (0..20).collect::<Vec<_>>());
    assert_eq!(numbers(&after), (20..40).collect::<Vec<_>>());
    let sequence = |event: &Value| event["sequence"].as_i64().unwrap_or(-1);
    let all: Vec<i64> = before.iter().chain(&after).map(sequence).collect();
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
}

#[test]
fn monitor_shows_the_messages_and_properties_that_are_asked_for_and_ends_when_none_comes() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let module = hub.create_module("d1", "m1");
    send(&hub, &device, ["{\"of\":\"device\"}".to_owned()]);
    let mut client = hub.connected(&module);
    store(
        &mut client,
        "devices/d1/modules/m1/messages/events/k=v&%24.mid=m-1",
        "{\"of\":\"module\"}",
    );

    let of_module = hub.holm(&[
        "monitor",
        "--device",
        "d1",
        "--module",
        "m1",
        "--from",
        "start",
        "--properties",
        "app,sys,anno",
    ]);
    let followed = hub.holm(&["monitor", "--from", "start", "--follow", "--timeout", "2", "--json"]);
    let partition = serde_json::from_str::<Value>(followed.lines().next().unwrap_or_default())
        .map(|event| event["partition"].to_string())
        .unwrap_or_default();
    let of_partition = hub.holm(&["monitor", "--partition", &partition, "--from", "start"]);

    let lines: Vec<&str> = of_module.lines().collect();
    assert!(lines[0].contains("d1/m1  {\"of\":\"module\"}"), "{of_module}");
    for line in [
        "    app  k: v",
        "    sys  messageId: m-1",
        "    anno  messageSource: Telemetry",
    ] {
        assert!(lines.contains(&line), "{line}: {of_module}");
    }
    assert!(!of_module.contains("\"device\""), "{of_module}");
    assert_eq!(followed.lines().count(), 2, "{followed}");
    assert_eq!(of_partition.lines().count(), 2, "{of_partition}");
}

#[test]
fn a_reader_that_hangs_holds_up_no_device_and_costs_the_hub_no_memory() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    const COUNT: usize = 600;
    const BYTES: usize = 64 * 1024;
    const ROOM_KIB: u64 = 24 * 1024;
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut sdk = Sdk::events(Python, "amqp", &hub).start();
    sdk.call("read", json!({"reader": "all"}));
    send(&hub, &device, ["\"first\"".to_owned()]);
    take(&mut sdk, "all", 1);
    let body = |number: usize| format!("{number}{}", " ".repeat(BYTES));
    send(&hub, &device, (0..20).map(body));
    take(&mut sdk, "all", 20);
    let before = hub.daemon().resident_kib();

    sdk.pause();
    send(&hub, &device, (20..COUNT).map(body));
    let after = hub.daemon().resident_kib();
    sdk.resume();
    let rest = take(&mut sdk, "all", COUNT - 20);

    let numbers: Vec<usize> = bodies(&rest)
        .iter()
        .filter_map(|body| body.trim_end().parse().ok())
        .collect();
    assert_eq!(numbers, (20..COUNT).collect::<Vec<_>>());
    assert!(
        after < before + ROOM_KIB,
        "{before} KiB before, {after} KiB with a reader that hangs"
    );
}
