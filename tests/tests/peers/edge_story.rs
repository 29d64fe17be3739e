//! What modules of an edge do with the original SDKs, and what an edge owes them when the link is cut or it dies.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, AmqpWs, Mqtt, MqttWs};
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Control, Device, Edge, Hub, Language, Need, Transport};
use serde_json::{Value, json};

#[test]
fn python_modules_of_an_edge_live_their_story_as_processes() {
    story(Python, Mqtt, Runtime::Process);
}

#[test]
fn python_modules_of_an_edge_live_their_story_over_websocket() {
    story(Python, MqttWs, Runtime::Process);
}

#[test]
fn node_modules_of_an_edge_live_their_story_as_processes() {
    story(Node, Mqtt, Runtime::Process);
}

#[test]
fn node_modules_of_an_edge_live_their_story_over_websocket() {
    story(Node, MqttWs, Runtime::Process);
}

#[test]
fn node_modules_of_an_edge_live_their_story_over_amqp() {
    story(Node, Amqp, Runtime::Process);
}

#[test]
fn node_modules_of_an_edge_live_their_story_over_amqp_in_websocket() {
    story(Node, AmqpWs, Runtime::Process);
}

#[test]
fn python_modules_of_an_edge_live_their_story_in_containers() {
    story(Python, Mqtt, Runtime::Docker);
}

#[test]
fn node_modules_of_an_edge_live_their_story_in_containers() {
    story(Node, Mqtt, Runtime::Docker);
}

fn needs(language: Language, runtime: Runtime) -> bool {
    let peer = match language {
        Python => Need::Python,
        Node => Need::Node,
    };
    let engine = matches!(runtime, Runtime::Docker).then_some(Need::Docker);
    Need::all(&[[peer, Need::LowPorts].as_slice(), engine.as_slice()].concat())
}

fn routes() -> Value {
    json!({
        "toWatcher": "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint(\"/modules/watcher/inputs/readings\")",
        "alerts": "FROM /messages/modules/watcher/outputs/alerts INTO $upstream",
    })
}

fn pair(language: Language, transport: Transport, runtime: Runtime) -> [SdkModule; 2] {
    ["sensor", "watcher"].map(|name| SdkModule {
        name,
        language,
        transport,
        runtime,
    })
}

/// Two modules, connected and listening.
#[track_caller]
fn connected(edge: &Edge) -> [Control; 2] {
    let mut modules = edge.accept_all(["sensor", "watcher"]);
    for module in &mut modules {
        module.call("connect", json!({}));
        for what in ["messages", "methods", "desired"] {
            module.call("listen", json!({"what": what}));
        }
    }
    modules
}

fn story(language: Language, transport: Transport, runtime: Runtime) {
    if !needs(language, runtime) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = match runtime {
        Runtime::Process => Edge::start(&hub, &device),
        Runtime::Docker => Edge::start_for_containers(&hub, &device),
    };
    edge::deploy(
        &hub,
        &device,
        &edge.manifest(&pair(language, transport, runtime), &routes()),
    );
    let [mut sensor, mut watcher] = connected(&edge);

    messages_take_their_routes(&hub, &mut sensor, &mut watcher);
    twins_are_shared(&hub, &device, &mut watcher);
    methods_are_answered(&hub, &mut sensor, &mut watcher);

    let report = edge::wait_until_reported(&hub, &device, "two running modules", |report| {
        ["sensor", "watcher"]
            .iter()
            .all(|name| report["modules"][name]["runtimeStatus"] == "running")
    });
    assert_eq!(report["lastDesiredStatus"]["code"], 200, "{report}");
}

fn messages_take_their_routes(hub: &Hub, sensor: &mut Control, watcher: &mut Control) {
    let mut monitor = hub.monitor();

    sensor.call(
        "send",
        json!({"output": "readings", "body": "{\"flow\":1}", "message_id": "r1",
        "content_type": "application/json", "content_encoding": "utf-8", "properties": {"unit": "l/s"}}),
    );
    sensor.call("send", json!({"output": "nowhere", "body": "dropped"}));
    let reading = watcher.event("message", |_| true);
    watcher.call(
        "send",
        json!({"output": "alerts", "body": "{\"flow\":9}", "message_id": "a1"}),
    );

    assert_eq!(
        (&reading["input"], &reading["body"]),
        (&json!("readings"), &json!("{\"flow\":1}"))
    );
    assert_eq!(
        (&reading["message_id"], &reading["properties"]["unit"]),
        (&json!("r1"), &json!("l/s"))
    );
    let alert = monitor.wait_for("the alert", |event| event.system["messageId"] == "a1");
    assert_eq!(
        (alert.device.as_str(), alert.module.as_deref()),
        ("pump-7", Some("watcher"))
    );
    assert_eq!(monitor.seen().len(), 1, "only alerts leave the edge");
}

fn twins_are_shared(hub: &Hub, device: &Device, watcher: &mut Control) {
    let path = format!("/twins/{}/modules/watcher", device.id);

    hub.service().call(
        "PATCH",
        &path,
        Some(&json!({"properties": {"desired": {"threshold": 7}}})),
    );
    watcher.event("desired", |event| event["patch"]["threshold"] == 7);
    let twin = watcher.call("twin", json!({}));
    watcher.call("report", json!({"patch": {"threshold": 7}}));

    assert_eq!(twin["desired"]["threshold"], 7);
    holm_e2e::patience::wait("the reported threshold", holm_e2e::patience::short(), || {
        let reported = hub.service().call("GET", &path, None)["properties"]["reported"].clone();
        if reported["threshold"] == 7 {
            Ok(())
        } else {
            Err(reported.to_string())
        }
    });
}

fn methods_are_answered(hub: &Hub, sensor: &mut Control, watcher: &mut Control) {
    let body = json!({"methodName": "echo", "payload": {"n": 1}, "responseTimeoutInSeconds": 20});

    let from_cloud = hub
        .service()
        .call("POST", "/twins/pump-7/modules/watcher/methods", Some(&body));
    let request = json!({"device": "pump-7", "module": "watcher", "method": "echo", "payload": {"n": 2}});
    let from_module = sensor.call("invoke", request);

    assert_eq!(
        from_cloud,
        json!({"status": 200, "payload": {"method": "echo", "payload": {"n": 1}}})
    );
    assert_eq!(
        from_module,
        json!({"status": 200, "payload": {"method": "echo", "payload": {"n": 2}}})
    );
    watcher.event("method", |event| event["payload"]["n"] == 2);
}

#[test]
fn a_cut_link_stops_nothing_on_the_device_and_loses_nothing() {
    if !needs(Python, Runtime::Process) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    edge::deploy(
        &hub,
        &device,
        &edge.manifest(&pair(Python, Mqtt, Runtime::Process), &routes()),
    );
    let [mut sensor, mut watcher] = connected(&edge);

    link.cut();
    for number in 0..20 {
        let text = number.to_string();
        sensor.call("send", json!({"output": "readings", "body": text}));
        watcher.event("message", |event| event["body"] == text.as_str());
        watcher.call("send", json!({"output": "alerts", "body": text}));
    }
    let request = json!({"device": "pump-7", "module": "watcher", "method": "echo", "payload": null});
    assert_eq!(sensor.call("invoke", request)["status"], 200);
    link.restore();

    let mut monitor = hub.monitor();
    monitor.wait_until("all alerts", |seen| {
        let bodies: std::collections::BTreeSet<String> = seen.iter().map(|event| event.body.to_string()).collect();
        bodies.len() == 20
    });
    let mut first: Vec<i64> = Vec::new();
    for body in monitor.seen().iter().filter_map(|event| event.body.as_i64()) {
        if !first.contains(&body) {
            first.push(body);
        }
    }
    assert_eq!(
        first,
        (0..20).collect::<Vec<_>>(),
        "first arrivals keep the order of sending"
    );
}

#[test]
fn a_killed_edge_leaves_its_modules_running_and_finds_them_again() {
    if !needs(Python, Runtime::Process) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let mut edge = Edge::start(&hub, &device);
    edge::deploy(
        &hub,
        &device,
        &edge.manifest(&pair(Python, Mqtt, Runtime::Process), &routes()),
    );
    let [mut sensor, mut watcher] = connected(&edge);
    sensor.call("send", json!({"output": "readings", "body": "before"}));
    watcher.event("message", |event| event["body"] == "before");

    edge.crash();
    edge.restart();

    // The same programs on the same lines: nobody started them anew. The SDK comes back by itself.
    sensor.event("connection", |event| event["connected"] == true);
    holm_e2e::patience::wait("a message through the new edge", holm_e2e::patience::long(), || {
        sensor
            .try_call("send", json!({"output": "readings", "body": "after"}))
            .map_err(|failure| failure.message)
    });
    watcher.event("message", |event| event["body"] == "after");
}

#[test]
fn a_bad_route_leaves_the_routes_in_force_and_is_reported_by_name() {
    if !needs(Python, Runtime::Process) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let modules = pair(Python, Mqtt, Runtime::Process);
    edge::deploy(&hub, &device, &edge.manifest(&modules, &routes()));
    let [mut sensor, mut watcher] = connected(&edge);

    let bad = json!({"broken": "FROM /messages/* WHERE INTO $upstream", "worse": "FROM nowhere", "fine": "FROM /messages/* INTO $upstream"});
    edge::deploy(&hub, &device, &edge.manifest(&modules, &bad));

    let status = holm_e2e::patience::wait("a refusal of the routes", holm_e2e::patience::long(), || {
        let twin = hub.service().call("GET", "/twins/pump-7/modules/$edgeHub", None);
        let status = twin["properties"]["reported"]["lastDesiredStatus"].clone();
        if status["code"] == 400 {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    let description = status["description"].as_str().unwrap_or_default();
    assert!(
        description.contains("broken") && description.contains("worse"),
        "{description}"
    );
    assert!(!description.contains("`fine`"), "{description}");
    sensor.call("send", json!({"output": "readings", "body": "still routed"}));
    watcher.event("message", |event| event["body"] == "still routed");
}
