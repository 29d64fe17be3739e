//! Modules of an edge and devices below it over AMQP: what an edge owes them, with its hub and without, and beside MQTT.

use holm_e2e::amqp::{address, token};
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Amqp, Device, Edge, Hub, Link, Need, edge, patience};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Node, Need::LowPorts];
const GATEWAY: &str = "gateway-1";

/// A hub behind a link, an edge with the modules `sensor` and `watcher`, and a device `leaf` below it.
struct Scene {
    edge: Edge,
    hub: Hub,
    link: Link,
    device: Device,
    leaf: Device,
}

impl Scene {
    #[track_caller]
    fn start() -> Self {
        let (hub, link) = Hub::start_behind_link();
        let device = hub.create_edge_device(GATEWAY);
        let leaf = hub.create_device("leaf");
        hub.holm(&["device", "children", "add", GATEWAY, "leaf"]);
        let edge = Edge::start(&hub, &device);
        let idle = json!({
            "type": "process", "version": "1.0", "status": "stopped", "restartPolicy": "always",
            "settings": {"image": "none", "createOptions": "{}"},
        });
        let routes = json!({
            "local": "FROM /messages/modules/sensor/outputs/out INTO BrokeredEndpoint(\"/modules/watcher/inputs/in\")",
            "up": "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO $upstream",
        });
        let modules = json!({"sensor": idle, "watcher": idle});
        edge::deploy(&hub, &device, &edge::manifest(&modules, &routes));
        patience::wait("the routes in force", patience::long(), || {
            let status = edge.status();
            match status["configuration"]["version"].as_u64() {
                Some(version) if version > 0 => Ok(()),
                _ => Err(status.to_string()),
            }
        });
        Self {
            edge,
            hub,
            link,
            device,
            leaf,
        }
    }

    fn client(&self) -> Amqp {
        Amqp::start(&self.hub).through(&self.edge)
    }

    /// Proves a module by the key that the edge sets for it, and the device below, as soon as the edge knows it.
    #[track_caller]
    fn prove(&self, client: &mut Amqp, connection: &str, name: &str) -> Device {
        patience::wait("a token that is taken", patience::long(), || {
            let device = match name {
                "leaf" => self.leaf.clone(),
                module => self.hub.find_module(&self.device.id, module)?,
            };
            if device.primary_key.is_empty() {
                return Err("it has no key".to_owned());
            }
            let answer = client.put_token(connection, &token(&self.hub, &device, 3600));
            if answer["status"] == json!({"int": 200}) {
                Ok(device)
            } else {
                Err(answer.to_string())
            }
        })
    }
}

fn output(name: &str, id: &str) -> Value {
    json!({
        "body": id, "properties": {"message_id": id, "content_type": "application/json"},
        "application": {"iothub-outputname": name, "unit": "l/s"},
    })
}

#[test]
fn a_modules_message_goes_from_output_to_input_over_amqp_with_who_sent_it() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut client = scene.client();
    client.open("c");
    let [sensor, watcher] = ["sensor", "watcher"].map(|name| scene.prove(&mut client, "c", name));
    client.sender("c", "out", &address(&sensor, "messages/events"));
    let inputs = json!({"session": "watcher", "credit": 10});
    let taken = client.try_attach("c", "in", "receiver", &address(&watcher, "messages/events"), &inputs);
    taken.expect("the link is taken");

    for id in ["m1", "m2", "m3"] {
        client.send("out", &output("out", id));
    }

    for id in ["m1", "m2", "m3"] {
        let message = client.message("in");
        assert_eq!(message["properties"]["message_id"], id);
        assert_eq!(
            (&message["tag_bytes"], &message["body"]["text"]),
            (&json!(16), &json!(id))
        );
        let annotations = &message["annotations"];
        assert_eq!(annotations["x-opt-input-name"], "in");
        assert_eq!(annotations["iothub-connection-device-id"], GATEWAY);
        assert_eq!(annotations["iothub-connection-module-id"], "sensor");
        assert!(annotations["x-opt-lock-token"].is_string(), "{annotations}");
        assert_eq!(message["application"], json!({"unit": "l/s"}));
        client.settle(&message, "accepted");
    }
}

#[test]
fn messages_to_an_input_that_are_released_come_again_and_rejected_ones_do_not() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut client = scene.client();
    client.open("c");
    let [sensor, watcher] = ["sensor", "watcher"].map(|name| scene.prove(&mut client, "c", name));
    client.sender("c", "out", &address(&sensor, "messages/events"));
    client.receiver("c", "in", &address(&watcher, "messages/events"), 1);
    for id in ["m1", "m2"] {
        client.send("out", &output("out", id));
    }

    let first = client.message("in");
    client.settle(&first, "released");
    client.run("credit", json!({"link": "in", "credit": 1}));
    let second = client.message("in");
    client.settle(&second, "accepted");
    client.run("credit", json!({"link": "in", "credit": 1}));
    let again = client.message("in");
    client.settle(&again, "rejected");

    // What was given back does not stand in the way of the others.
    let ids = [&first, &second, &again].map(|message| message["properties"]["message_id"].clone());
    assert_eq!(ids, ["m1", "m2", "m1"]);
    let letters = patience::wait("the dead letter", patience::short(), || {
        let text = scene.edge.holm(&["dead-letters", "list", "--json"]);
        let letters: Vec<Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if letters.is_empty() { Err(text) } else { Ok(letters) }
    });
    assert_eq!(
        (letters.len(), &letters[0]["reason"]),
        (1, &json!("rejected")),
        "{letters:?}"
    );
}

#[test]
fn what_a_detached_link_of_an_input_left_unsettled_comes_to_the_next_in_order() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut client = scene.client();
    client.open("c");
    let [sensor, watcher] = ["sensor", "watcher"].map(|name| scene.prove(&mut client, "c", name));
    client.sender("c", "out", &address(&sensor, "messages/events"));
    // Its module stays: it has another link.
    client.sender("c", "stay", &address(&watcher, "messages/events"));
    client.receiver("c", "in", &address(&watcher, "messages/events"), 2);
    for id in ["m1", "m2", "m3", "m4"] {
        client.send("out", &output("out", id));
    }
    for _ in 0..2 {
        client.message("in");
    }

    client.run("detach", json!({"link": "in"}));
    client.detached("in");
    client.receiver("c", "in again", &address(&watcher, "messages/events"), 10);

    for id in ["m1", "m2", "m3", "m4"] {
        let message = client.message("in again");
        assert_eq!(message["properties"]["message_id"], id);
        client.settle(&message, "accepted");
    }
}

#[test]
fn messages_pass_between_modules_on_mqtt_and_on_amqp_in_both_directions() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut client = scene.client();
    client.open("c");

    // From MQTT to AMQP.
    let watcher = scene.prove(&mut client, "c", "watcher");
    client.receiver("c", "in", &address(&watcher, "messages/events"), 10);
    let mut mqtt = scene.edge.connected(&scene.hub, &scene.device, "sensor");
    let topic = format!("devices/{GATEWAY}/modules/sensor/messages/events/%24.mid=m1&%24.on=out&unit=l%2Fs");
    mqtt.publish(&topic, 1, false, b"one").expect("it is sent");
    assert!(matches!(mqtt.receive(patience::short()), Ok(Some(Packet::Puback(_)))));
    let message = client.message("in");
    client.settle(&message, "accepted");
    assert_eq!(
        (&message["properties"]["message_id"], &message["body"]["text"]),
        (&json!("m1"), &json!("one"))
    );
    assert_eq!(message["application"], json!({"unit": "l/s"}));

    // From AMQP to MQTT: each takes over the other's identity.
    let sensor = scene.prove(&mut client, "c", "sensor");
    client.sender("c", "out", &address(&sensor, "messages/events"));
    let mut mqtt = scene.edge.connected(&scene.hub, &scene.device, "watcher");
    assert_eq!(client.detached("in")["condition"], "amqp:link:stolen");
    let inputs = format!("devices/{GATEWAY}/modules/watcher/inputs/#");
    mqtt.subscribe(&[(&inputs, 1)]).expect("the edge answers");
    client.send("out", &output("out", "m2"));
    let received = mqtt.receive(patience::short()).expect("the edge sends");
    let Some(Packet::Publish { topic, payload, .. }) = received else {
        panic!("{received:?}");
    };
    assert_eq!(payload, b"m2");
    assert!(
        topic.contains("inputs/in") && topic.contains("unit=l%2Fs") && topic.contains("mid=m2"),
        "{topic}"
    );

    // And back: nothing is locked.
    client.receiver("c", "in again", &address(&watcher, "messages/events"), 10);
    let again = client.message("in again");
    assert_eq!(again["properties"]["message_id"], "m2");
    client.settle(&again, "accepted");
}

#[test]
fn a_device_below_lives_its_story_over_amqp_with_the_link_up_and_cut() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let (hub, leaf) = (&scene.hub, &scene.leaf);
    let mut monitor = hub.monitor();
    let mut client = scene.client();
    client.open("c");
    scene.prove(&mut client, "c", "leaf");
    client.sender("c", "events", &address(leaf, "messages/events"));
    client.receiver("c", "mail", &address(leaf, "messages/devicebound"), 10);
    let twin = address(leaf, "twin");
    client.sender("c", "ask", &twin);
    client.receiver("c", "answers", &twin, 50);

    // Telemetry: one, a batch, and one that is too large.
    client.send("events", &json!({"body": "{}", "properties": {"message_id": "t1"}}));
    let one = |id: &str| json!({"body": id, "properties": {"message_id": id}});
    client.send("events", &json!({"batch": [one("b1"), one("b2")]}));
    let refused = client
        .try_send("events", &json!({"size": 256 * 1024 + 1}))
        .expect("it is answered");
    assert_eq!(refused["condition"], "amqp:link:message-size-exceeded", "{refused}");
    for id in ["t1", "b1", "b2"] {
        assert_eq!(
            monitor.wait_for(id, |event| event.system["messageId"] == id).device,
            "leaf"
        );
    }

    // A batch of which one message could not be passed on is refused whole.
    let long = json!({"body": "{}", "application": {"long": "/".repeat(40_000)}, "properties": {"message_id": "no 2"}});
    let refused = client
        .try_send("events", &json!({"batch": [one("no 1"), long, one("no 3")]}))
        .expect("it is answered");
    assert_eq!(refused["condition"], "com.microsoft:argument-error", "{refused}");

    // A message from the cloud, given back once.
    let answer = hub
        .service()
        .try_call("POST", "/devices/leaf/messages/deviceBound", &[], Some(&json!("close")));
    assert_eq!(answer.expect("the hub answers").status, 204);
    let message = client.message("mail");
    client.settle(&message, "released");
    let again = client.message("mail");
    assert_eq!(again["body"], message["body"]);
    client.settle(&again, "accepted");

    // Its twin, from here on without a hub.
    let got = client.ask_twin(["ask", "answers"], &json!("g1"), &json!({"operation": "GET"}), " ");
    assert_eq!(got["annotations"]["status"], json!({"int": 200}), "{got}");
    scene.link.cut();
    let patch = json!({"operation": "PATCH", "resource": "/properties/reported"});
    let patched = client.ask_twin(["ask", "answers"], &json!("p1"), &patch, r#"{"firmware": "1.4"}"#);
    assert_eq!(patched["annotations"]["status"], json!({"int": 204}), "{patched}");
    client.send(
        "events",
        &json!({"body": "{}", "properties": {"message_id": "offline"}}),
    );
    scene.link.restore();
    let mut monitor = hub.monitor();
    monitor.wait_for("what was sent meanwhile", |event| {
        event.system["messageId"] == "offline"
    });
    patience::wait("the reported property", patience::long(), || {
        let twin = hub.service().call("GET", "/twins/leaf", None);
        if twin["properties"]["reported"]["firmware"] == "1.4" {
            Ok(())
        } else {
            Err(twin.to_string())
        }
    });
    let sent: Vec<_> = monitor
        .seen()
        .iter()
        .map(|event| event.system["messageId"].clone())
        .collect();
    assert!(
        !sent.iter().any(|id| id.as_str().is_some_and(|id| id.starts_with("no"))),
        "{sent:?}"
    );
}

#[test]
fn a_device_below_answers_methods_over_amqp() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut client = scene.client();
    client.open("c");
    scene.prove(&mut client, "c", "leaf");
    let methods = address(&scene.leaf, "methods/devicebound");
    client.sender("c", "done", &methods);
    client.receiver("c", "calls", &methods, 50);

    let service = scene.hub.service().clone();
    let body =
        json!({"methodName": "reboot", "payload": 1, "responseTimeoutInSeconds": 60, "connectTimeoutInSeconds": 60});
    let caller = std::thread::spawn(move || service.call("POST", "/twins/leaf/methods", Some(&body)));
    let call = client.message("calls");
    let id = &call["properties"]["correlation_id"];
    client.send(
        "done",
        &json!({"properties": {"correlation_id": id}, "application": {"IoThub-status": {"int": 200}}, "body": "{}"}),
    );

    assert!(id["uuid"].is_string(), "{call}");
    assert_eq!(
        caller.join().expect("a thread that calls"),
        json!({"status": 200, "payload": {}})
    );
}

#[test]
fn a_device_that_is_no_child_and_a_wrong_token_are_refused_by_an_edge() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let stranger = scene.hub.create_device("stranger");
    let mut client = scene.client();
    client.open("c");
    scene.prove(&mut client, "c", "leaf");
    client.sender("c", "events", &address(&scene.leaf, "messages/events"));

    let foreign = client.put_token("c", &token(&scene.hub, &stranger, 3600));
    let mut wrong = scene.leaf.clone();
    wrong.primary_key = holm_e2e::sas::spoiled(&wrong.primary_key);
    let wrong = client.put_token("c", &token(&scene.hub, &wrong, 3600));
    let link = client.try_attach(
        "c",
        "foreign",
        "sender",
        &address(&stranger, "messages/events"),
        &json!({}),
    );

    assert_eq!(
        (&foreign["status"], &wrong["status"]),
        (&json!({"int": 401}), &json!({"int": 401}))
    );
    assert_eq!(link.expect_err("it is refused").kind, "amqp:unauthorized-access");
    client.send("events", &json!({"body": "{}"}));
}
