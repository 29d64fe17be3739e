//! Message routing at the hub, with an original device SDK, an original Event Hubs client, and web servers as endpoints.

use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::web_receiver::WebReceiver;
use holm_e2e::{Hub, Need, Sdk, patience};
use serde_json::{Value, json};

fn bodies(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["Body"].clone()).collect()
}

/// How an endpoint is, as `holm endpoint list` tells it.
fn health(hub: &Hub, endpoint: &str) -> Value {
    let listed = hub.holm(&["endpoint", "list", "--json"]);
    let listed: Vec<Value> = serde_json::from_str(&listed).expect("a list");
    let found = listed.into_iter().find(|one| one["name"] == endpoint);
    found.expect("the endpoint is there")["health"].clone()
}

#[test]
fn messages_of_an_sdk_go_where_routes_say_while_an_endpoint_is_down_and_the_hub_is_killed() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let device = hub.create_device("pump");
    hub.service()
        .call("PATCH", "/twins/pump", Some(&json!({ "tags": { "site": "north" } })));
    let (up, down) = (WebReceiver::start(200), WebReceiver::start(503));
    for (name, server) in [("up", &up), ("down", &down)] {
        let url = format!("url={}", server.url());
        hub.holm(&["endpoint", "create", name, "--kind", "webhook", "--set", &url]);
        let condition = "level = 'alarm' AND $body.temp > 30 AND $twin.tags.site = 'north'";
        hub.holm(&["route", "create", name, "--endpoint", name, "--condition", condition]);
    }
    let enriched = ["--value", "$twin.tags.site", "--endpoints", "up,events"];
    hub.holm(&[&["enrichment", "create", "site"][..], &enriched].concat());
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    let mut send = |temp: i64, level: &str| {
        let message = json!({
            "body": json!({ "temp": temp }).to_string(), "properties": { "level": level },
            "content_type": "application/json", "content_encoding": "utf-8",
        });
        sdk.call("send", message);
    };

    let tried = [
        "route",
        "test",
        "--body",
        r#"{"temp":31}"#,
        "-p",
        "level=alarm",
        "--device",
        "pump",
        "--json",
    ];
    let tried: Value = serde_json::from_str(&hub.holm(&tried)).unwrap();
    for temp in 29..34 {
        send(temp, "alarm");
    }
    send(50, "note");
    hub.holm(&["route", "fallback", "off"]);
    send(51, "note");
    hub.holm(&["route", "fallback", "on"]);
    send(52, "note");
    let at_once = up.wait_for(&json!({ "temp": 33 }));
    patience::wait("the endpoint is told to be ill", patience::long(), || {
        let health = health(&hub, "down");
        match (&health["status"], &health["waiting"]) {
            (status, waiting) if status == "unhealthy" && waiting == 3 => Ok(()),
            _ => Err(health.to_string()),
        }
    });
    hub.crash_and_restart();
    down.answer(200);
    let late = down.wait_for(&json!({ "temp": 33 }));
    let mut events = Sdk::events(Python, "amqp", &hub).start();
    events.call("read", json!({ "reader": "all" }));
    let is_telemetry = |event: &Value| event["system"]["iothub-message-source"] == "Telemetry";
    let read: Vec<Value> = (0..4).map(|_| events.event("read", is_telemetry)).collect();

    let alarms: Vec<Value> = (31..34).map(|temp| json!({ "temp": temp })).collect();
    assert_eq!(tried["endpoints"], json!(["down", "up"]));
    assert_eq!(tried["properties"]["up"], json!({ "level": "alarm", "site": "north" }));
    assert_eq!(bodies(&at_once), alarms);
    assert_eq!(at_once[0]["Properties"], json!({ "level": "alarm", "site": "north" }));
    assert_eq!(at_once[0]["SystemProperties"]["connectionDeviceId"], "pump");
    // It was told of no enrichment.
    assert_eq!(
        (bodies(&late), &late[0]["Properties"]),
        (alarms, &json!({ "level": "alarm" }))
    );
    let temperatures: Vec<Value> = read
        .iter()
        .map(|event| serde_json::from_str::<Value>(event["body"].as_str().unwrap()).unwrap()["temp"].clone())
        .collect();
    assert_eq!(temperatures, [29, 30, 50, 52]);
    assert_eq!(read[0]["properties"]["site"], "north");
}
