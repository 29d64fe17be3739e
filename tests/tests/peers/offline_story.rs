//! Extended offline, as programs on the original SDKs live it: modules of an edge and a device below it, the link cut, the edge
//! restarted in between, the link back.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Control, Edge, Hub, Language, Need, Sdk, patience};
use serde_json::{Value, json};

#[test]
fn python_modules_and_a_device_below_live_on_without_a_hub_and_agree_with_it_on_return() {
    story(Python);
}

#[test]
fn node_modules_and_a_device_below_live_on_without_a_hub_and_agree_with_it_on_return() {
    story(Node);
}

fn routes() -> Value {
    json!({
        "readings": "FROM /messages/modules/sensor/outputs/readings INTO BrokeredEndpoint(\"/modules/watcher/inputs/readings\")",
        "leaves": "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint(\"/modules/watcher/inputs/leaves\")",
        "up": "FROM /messages/* INTO $upstream",
    })
}

#[track_caller]
fn connect(client: &mut Control) {
    client.call("connect", json!({}));
    for what in ["messages", "methods", "desired"] {
        client.call("listen", json!({"what": what}));
    }
}

/// A command that is given until it succeeds: an SDK that has lost its connection says so for a while.
#[track_caller]
fn again(client: &mut Control, action: &str, arguments: &Value) -> Value {
    patience::wait(&format!("`{action}` to succeed"), patience::long(), || {
        client
            .try_call(action, arguments.clone())
            .map_err(|failure| failure.message)
    })
}

/// Sets desired properties at the hub, whatever the link does.
#[track_caller]
fn desire(hub: &Hub, identity: &str, desired: &Value) {
    let patch = json!({"properties": {"desired": desired}});
    hub.service().call("PATCH", &format!("/twins/{identity}"), Some(&patch));
}

/// Waits until the hub has exactly these reported properties.
#[track_caller]
fn wait_for_reported(hub: &Hub, identity: &str, expected: &Value) {
    patience::wait("the reported properties", patience::long(), || {
        let twin = hub.service().call("GET", &format!("/twins/{identity}"), None);
        let mut reported = twin["properties"]["reported"].clone();
        if let Some(members) = reported.as_object_mut() {
            members.retain(|name, _| !name.starts_with('$'));
        }
        if reported == *expected {
            Ok(())
        } else {
            Err(reported.to_string())
        }
    });
}

fn echo(device: &str, module: Option<&str>, number: u64) -> Value {
    let mut request = json!({"device": device, "method": "echo", "payload": {"n": number}});
    if let Some(module) = module {
        request["module"] = json!(module);
    }
    request
}

fn story(language: Language) {
    let peer = match language {
        Python => Need::Python,
        Node => Need::Node,
    };
    if !Need::all(&[peer, Need::LowPorts]) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("gateway-1");
    let mut edge = Edge::start(&hub, &device);
    let modules = ["sensor", "watcher"].map(|name| SdkModule {
        name,
        language,
        transport: Mqtt,
        runtime: Runtime::Process,
    });
    edge::deploy(&hub, &device, &edge.manifest(&modules, &routes()));
    let [mut sensor, mut watcher] = edge.accept_all(["sensor", "watcher"]);
    let leaf = hub.create_device("leaf");
    hub.holm(&["device", "children", "add", "gateway-1", "leaf"]);
    let mut leaf = Sdk::device(language, Mqtt, &hub, &leaf).through(&edge, &leaf).start();
    for client in [&mut sensor, &mut watcher, &mut leaf] {
        connect(client);
    }
    let (of_watcher, of_leaf) = ("gateway-1/modules/watcher", "leaf");
    desire(&hub, of_watcher, &json!({"threshold": 1, "old": true}));
    desire(&hub, of_leaf, &json!({"rate": 1}));
    watcher.event("desired", |event| event["patch"]["threshold"] == 1);
    leaf.event("desired", |event| event["patch"]["rate"] == 1);
    watcher.call("report", json!({"patch": {"mode": "linked", "gone": 1}}));
    wait_for_reported(&hub, of_watcher, &json!({"mode": "linked", "gone": 1}));

    link.cut();
    everybody_talks(&mut sensor, &mut watcher, &mut leaf, 1);
    watcher.call("report", json!({"patch": {"mode": "alone", "gone": null}}));
    leaf.call("report", json!({"patch": {"mode": "alone"}}));
    desire(&hub, of_watcher, &json!({"threshold": 2}));
    desire(&hub, of_watcher, &json!({"threshold": 3, "old": null}));
    desire(&hub, of_leaf, &json!({"rate": 2}));
    hub.service().call(
        "POST",
        "/devices/leaf/messages/deviceBound",
        Some(&json!("open the valve")),
    );
    edge.crash();
    edge.restart();
    // The SDKs come back by themselves; until they have, they refuse or fail.
    for client in [&mut sensor, &mut watcher, &mut leaf] {
        again(client, "twin", &json!({}));
    }
    again(&mut sensor, "invoke", &echo("gateway-1", Some("watcher"), 0));
    again(&mut sensor, "invoke", &echo("leaf", None, 0));
    everybody_talks(&mut sensor, &mut watcher, &mut leaf, 2);
    let known = watcher.call("twin", json!({}));
    link.restore();

    assert_eq!(
        (&known["desired"]["threshold"], &known["desired"]["old"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(
        (&known["reported"]["mode"], known["reported"].get("gone")),
        (&json!("alone"), None)
    );
    watcher.event("desired", |event| event["patch"]["threshold"] == 3);
    leaf.event("desired", |event| event["patch"]["rate"] == 2);
    let known = watcher.call("twin", json!({}));
    assert_eq!(
        (&known["desired"]["threshold"], known["desired"].get("old")),
        (&json!(3), None)
    );
    wait_for_reported(&hub, of_watcher, &json!({"mode": "alone"}));
    wait_for_reported(&hub, of_leaf, &json!({"mode": "alone"}));
    leaf.event("message", |event| event["body"] == "\"open the valve\"");
    let mut monitor = hub.monitor();
    for id in ["reading-1", "leaf-1", "reading-2", "leaf-2"] {
        monitor.wait_for(id, |event| event.system["messageId"] == id);
    }
    let mut service = Sdk::service(language, &hub).start();
    for request in [echo("gateway-1", Some("watcher"), 9), echo("leaf", None, 9)] {
        let answer = again(&mut service, "invoke", &request);
        assert_eq!(answer["payload"]["payload"]["n"], 9, "{answer}");
    }
}

/// A module to a module and to a device, and the device to a module: messages and methods.
#[track_caller]
fn everybody_talks(sensor: &mut Control, watcher: &mut Control, leaf: &mut Control, round: u64) {
    let (reading, news) = (format!("reading-{round}"), format!("leaf-{round}"));
    sensor.call(
        "send",
        json!({"output": "readings", "body": "r", "message_id": reading}),
    );
    watcher.event("message", |event| {
        event["input"] == "readings" && event["message_id"] == reading.as_str()
    });
    leaf.call("send", json!({"body": "l", "message_id": news}));
    watcher.event("message", |event| {
        event["input"] == "leaves" && event["message_id"] == news.as_str()
    });
    for request in [echo("gateway-1", Some("watcher"), round), echo("leaf", None, round)] {
        let answer = sensor.call("invoke", request);
        assert_eq!(answer["payload"]["payload"]["n"], round, "{answer}");
    }
    watcher.event("method", |event| event["payload"]["n"] == round);
    leaf.event("method", |event| event["payload"]["n"] == round);
}
