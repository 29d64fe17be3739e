//! Devices below an edge, on the original SDKs, with nothing but the gateway's host name added to their connection string.
#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::{Amqp, AmqpWs, Mqtt, MqttWs};
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::sas::Token;
use holm_e2e::sdk::Running;
use holm_e2e::{Certificate, Control, Device, Edge, Hub, Language, Monitor, Need, Sdk, Setup, Transport, patience};
use serde_json::{Value, json};

pub(crate) const GATEWAY: &str = "gateway-1";

pub(crate) fn is_here(language: Language) -> bool {
    let peer = match language {
        Python => Need::Python,
        Node => Need::Node,
    };
    Need::all(&[peer, Need::LowPorts])
}

/// An edge that sends up all telemetry, and has modules if they are given.
pub(crate) fn gateway(hub: &Hub, modules: &[SdkModule]) -> Edge {
    gateway_with(hub, modules, Setup::default())
}

/// The same, otherwise than usual.
pub(crate) fn gateway_with(hub: &Hub, modules: &[SdkModule], setup: Setup) -> Edge {
    let device = hub.create_edge_device(GATEWAY);
    let edge = Edge::start_with(hub, &device, setup);
    let routes = json!({
        "up": "FROM /messages/* INTO $upstream",
        "local": "FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint(\"/modules/watcher/inputs/in\")",
    });
    edge::deploy(hub, &device, &edge.manifest(modules, &routes));
    patience::wait(
        "the routes in force",
        patience::long(),
        || match edge.status()["configuration"]["version"].as_u64() {
            Some(version) if version > 0 => Ok(()),
            _ => Err(edge.status().to_string()),
        },
    );
    edge
}

pub(crate) fn child(hub: &Hub, id: &str) -> Device {
    let device = hub.create_device(id);
    hub.holm(&["device", "children", "add", GATEWAY, id]);
    device
}

pub(crate) fn below(language: Language, transport: Transport, hub: &Hub, edge: &Edge, device: &Device) -> Running {
    Sdk::device(language, transport, hub, device)
        .through(edge, device)
        .start()
}

#[track_caller]
pub(crate) fn connect(device: &mut Control) {
    device.call("connect", json!({}));
    for what in ["messages", "methods", "desired"] {
        device.call("listen", json!({"what": what}));
    }
}

#[test]
fn a_python_device_with_a_key_lives_its_story_through_a_gateway() {
    story_with_keys(Python, Mqtt);
}

#[test]
fn a_python_device_lives_its_story_through_a_gateway_over_websocket() {
    story_with_keys(Python, MqttWs);
}

#[test]
fn a_node_device_with_a_key_lives_its_story_through_a_gateway() {
    story_with_keys(Node, Mqtt);
}

#[test]
fn a_node_device_lives_its_story_through_a_gateway_over_websocket() {
    story_with_keys(Node, MqttWs);
}

#[test]
fn a_node_device_lives_its_story_through_a_gateway_over_amqp() {
    story_with_keys(Node, Amqp);
}

#[test]
fn a_node_device_lives_its_story_through_a_gateway_over_amqp_in_websocket() {
    story_with_keys(Node, AmqpWs);
}

fn story_with_keys(language: Language, transport: Transport) {
    if !is_here(language) {
        return;
    }
    let hub = Hub::start();
    let edge = gateway(&hub, &[]);
    let device = child(&hub, "leaf");
    let mut leaf = below(language, transport, &hub, &edge, &device);

    story(&hub, &mut leaf);
}

#[test]
fn a_python_device_with_a_certificate_lives_its_story_through_a_gateway() {
    if !is_here(Python) {
        return;
    }
    let hub = Hub::start();
    let edge = gateway(&hub, &[]);
    let certificate = Certificate::self_signed(hub.scratch(), "leaf");
    let device = hub.create_x509_device("leaf", &certificate.sha256, "");
    hub.holm(&["device", "children", "add", GATEWAY, "leaf"]);
    let sdk = Sdk::device(Python, Mqtt, &hub, &device);
    let mut leaf = sdk.with_certificate(&certificate).through(&edge, &device).start();

    story(&hub, &mut leaf);
}

#[test]
fn a_device_with_a_certificate_logs_in_with_no_hub_after_a_restart_of_the_edge() {
    if !is_here(Python) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let mut edge = gateway(&hub, &[]);
    let certificate = Certificate::self_signed(hub.scratch(), "leaf");
    let device = hub.create_x509_device("leaf", &certificate.sha256, "");
    hub.holm(&["device", "children", "add", GATEWAY, "leaf"]);
    let below = |edge: &Edge| {
        let sdk = Sdk::device(Python, Mqtt, &hub, &device).with_certificate(&certificate);
        sdk.through(edge, &device).start()
    };
    below(&edge).call("connect", json!({}));

    link.cut();
    edge.crash();
    edge.restart();
    let mut leaf = below(&edge);
    leaf.call("connect", json!({}));
    leaf.call("send", json!({"body": "hello", "message_id": "offline"}));
    link.restore();

    let mut monitor = hub.monitor();
    let event = monitor.wait_for("the message", |event| event.system["messageId"] == "offline");
    assert_eq!(event.device, "leaf");
}

/// With a certificate the Node SDK does not look at `GatewayHostName`: what it connects to is the `HostName`.
#[test]
fn a_node_device_with_a_certificate_lives_its_story_through_a_gateway_that_it_takes_for_its_hub() {
    if !is_here(Node) {
        return;
    }
    let hub = Hub::start();
    let edge = gateway(&hub, &[]);
    let certificate = Certificate::self_signed(hub.scratch(), "leaf");
    let device = hub.create_x509_device("leaf", &certificate.sha256, "");
    hub.holm(&["device", "children", "add", GATEWAY, "leaf"]);
    let text = format!("HostName={};DeviceId=leaf;x509=true", edge.ip());
    let sdk = Sdk::device(Node, Mqtt, &hub, &device).with_certificate(&certificate);
    let mut leaf = sdk.through(&edge, &device).with_connection_string(&text).start();

    story(&hub, &mut leaf);
}

#[test]
fn a_python_module_of_a_device_below_lives_its_story_through_a_gateway() {
    story_of_a_module(Python);
}

#[test]
fn a_node_module_of_a_device_below_lives_its_story_through_a_gateway() {
    story_of_a_module(Node);
}

fn story_of_a_module(language: Language) {
    if !is_here(language) {
        return;
    }
    let hub = Hub::start();
    let edge = gateway(&hub, &[]);
    child(&hub, "leaf");
    let module = hub.create_module("leaf", "meter");
    let mut meter = below(language, Mqtt, &hub, &edge, &module);
    let mut monitor = hub.monitor();

    connect(&mut meter);
    let reading = json!({"output": "readings", "body": "{\"flow\":1}", "message_id": "m1",
        "content_type": "application/json", "content_encoding": "utf-8"});
    meter.call("send", reading);
    let desired = json!({"properties": {"desired": {"rate": 7}}});
    hub.service().call("PATCH", "/twins/leaf/modules/meter", Some(&desired));
    meter.event("desired", |event| event["patch"]["rate"] == 7);
    meter.call("report", json!({"patch": {"rate": 7}}));
    let call = json!({"methodName": "echo", "payload": {"n": 1}, "responseTimeoutInSeconds": 20, "connectTimeoutInSeconds": 20});
    let answer = hub
        .service()
        .call("POST", "/twins/leaf/modules/meter/methods", Some(&call));

    assert_eq!(answer["payload"]["payload"], json!({"n": 1}));
    let event = monitor.wait_for("the reading", |event| event.system["messageId"] == "m1");
    assert_eq!(
        (event.device.as_str(), event.module.as_deref()),
        ("leaf", Some("meter"))
    );
    patience::wait("the reported property", patience::long(), || {
        let twin = hub.service().call("GET", "/twins/leaf/modules/meter", None);
        let reported = &twin["properties"]["reported"];
        if reported["rate"] == 7 {
            Ok(())
        } else {
            Err(reported.to_string())
        }
    });
}

/// Telemetry, twin, method and cloud-to-device message of the device `leaf`.
#[track_caller]
pub(crate) fn story(hub: &Hub, leaf: &mut Control) {
    let mut monitor = hub.monitor();
    connect(leaf);

    leaf.call(
        "send",
        json!({"body": "{\"flow\":1}", "message_id": "m1", "content_type": "application/json",
        "content_encoding": "utf-8", "properties": {"unit": "l/s"}}),
    );
    let event = monitor.wait_for("the reading", |event| event.system["messageId"] == "m1");
    assert_eq!((event.device.as_str(), event.module.as_deref()), ("leaf", None));
    assert_eq!(
        (&event.body["flow"], &event.properties["unit"]),
        (&json!(1), &json!("l/s"))
    );

    let desired = json!({"properties": {"desired": {"rate": 7}}});
    hub.service().call("PATCH", "/twins/leaf", Some(&desired));
    leaf.event("desired", |event| event["patch"]["rate"] == 7);
    leaf.call("report", json!({"patch": {"rate": 7}}));
    assert_eq!(leaf.call("twin", json!({}))["reported"]["rate"], 7);
    wait_for_reported(hub, "rate", &json!(7));

    let call = json!({"methodName": "echo", "payload": {"n": 1}, "responseTimeoutInSeconds": 20, "connectTimeoutInSeconds": 20});
    let answer = hub.service().call("POST", "/twins/leaf/methods", Some(&call));
    assert_eq!(
        answer,
        json!({"status": 200, "payload": {"method": "echo", "payload": {"n": 1}}})
    );

    hub.holm(&["c2d", "send", "--device", "leaf", "open the valve"]);
    leaf.event("message", |event| event["body"] == "open the valve");
    patience::wait("the message settled at the hub", patience::short(), || {
        let waiting = hub.service().call("GET", "/devices/leaf", None)["cloudToDeviceMessageCount"].clone();
        if waiting == 0 { Ok(()) } else { Err(waiting.to_string()) }
    });
}

#[track_caller]
fn wait_for_reported(hub: &Hub, name: &str, value: &Value) {
    patience::wait("the reported property", patience::long(), || {
        let reported = hub.service().call("GET", "/twins/leaf", None)["properties"]["reported"].clone();
        if reported[name] == *value {
            Ok(())
        } else {
            Err(reported.to_string())
        }
    });
}

#[test]
fn a_module_reads_a_devices_telemetry_and_calls_its_methods_with_no_hub() {
    if !is_here(Python) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let watcher = SdkModule {
        name: "watcher",
        language: Python,
        transport: Mqtt,
        runtime: Runtime::Process,
    };
    let edge = gateway(&hub, &[watcher]);
    let mut watcher = edge.accept();
    watcher.call("connect", json!({}));
    watcher.call("listen", json!({"what": "messages"}));
    let device = child(&hub, "leaf");
    let mut leaf = below(Python, Mqtt, &hub, &edge, &device);
    connect(&mut leaf);

    link.cut();
    leaf.call("send", json!({"body": "hot"}));
    watcher.event("message", |event| event["body"] == "hot" && event["input"] == "in");
    let call = json!({"device": "leaf", "method": "echo", "payload": {"fan": true}});
    let answer = watcher.call("invoke", call);

    assert_eq!(answer["payload"]["payload"], json!({"fan": true}));
}

#[test]
fn a_device_goes_on_without_a_hub_also_after_a_restart_of_the_edge_and_all_arrives_once() {
    if !is_here(Python) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let mut edge = gateway(&hub, &[]);
    let device = child(&hub, "leaf");
    let mut leaf = below(Python, Mqtt, &hub, &edge, &device);
    connect(&mut leaf);
    let desired = json!({"properties": {"desired": {"rate": 1}}});
    hub.service().call("PATCH", "/twins/leaf", Some(&desired));
    leaf.event("desired", |event| event["patch"]["rate"] == 1);

    link.cut();
    for number in 0..10 {
        leaf.call(
            "send",
            json!({"body": number.to_string(), "message_id": number.to_string()}),
        );
    }
    edge.crash();
    edge.restart();
    leaf.event("connection", |event| event["connected"] == true);
    for number in 10..20 {
        let message = json!({"body": number.to_string(), "message_id": number.to_string()});
        patience::wait("a message through the new edge", patience::long(), || {
            leaf.try_call("send", message.clone())
                .map_err(|failure| failure.message)
        });
    }
    let twin = leaf.call("twin", json!({}));
    leaf.call("report", json!({"patch": {"mode": "alone"}}));
    let desired = json!({"properties": {"desired": {"rate": 2}}});
    hub.service().call("PATCH", "/twins/leaf", Some(&desired));
    link.restore();

    assert_eq!(twin["desired"]["rate"], 1);
    leaf.event("desired", |event| event["patch"]["rate"] == 2);
    wait_for_reported(&hub, "mode", &json!("alone"));
    let mut monitor = hub.monitor();
    monitor.wait_until("all messages", |seen| of(seen, "leaf").count() >= 20);
    let bodies: Vec<_> = of(monitor.seen(), "leaf").map(|event| event.body.clone()).collect();
    assert_eq!(
        bodies,
        (0..20).map(Value::from).collect::<Vec<_>>(),
        "once, and in order"
    );
}

#[test]
fn what_a_device_below_posts_over_https_is_kept_while_the_link_is_cut_and_arrives_in_its_name() -> anyhow::Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let (hub, link) = Hub::start_behind_link();
    let edge = gateway(&hub, &[]);
    let leaf = child(&hub, "leaf");
    let token = Token::sign(&leaf.primary_key, &hub.resource(&leaf), 3600).text();
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let mut all = vec![("Authorization", token.as_str())];
        all.extend(headers);
        edge.ask(method, &format!("{path}?api-version=2021-04-12"), &all, body)
    };
    let events = "/devices/leaf/messages/events";
    patience::wait("a device let in", patience::long(), || {
        match ask("POST", events, &[], b"\"first\"") {
            Ok(answer) if answer.status == 204 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    link.cut();
    let one = ask("POST", events, &[("iothub-app-n", "1")], b"1")?;
    let batch = [("Content-Type", "application/vnd.microsoft.iothub.json")];
    let many = ask(
        "POST",
        events,
        &batch,
        br#"[{"body":"Mg=="},{"body":"3","base64Encoded":false}]"#,
    )?;
    let bad = ask("POST", events, &batch, br#"[{"body":"NA=="},{"body":"?"}]"#)?;
    let mail = ask("GET", "/devices/leaf/messages/devicebound", &[], b"")?;
    let foreign = edge.ask(
        "POST",
        "/devices/leaf/messages/events?api-version=2021-04-12",
        &[],
        b"x",
    )?;
    link.restore();

    assert_eq!(
        (one.status, many.status, bad.status, foreign.status),
        (204, 204, 400, 401)
    );
    // The edge has them only for those who are connected to it.
    let text = String::from_utf8_lossy(&mail.body).into_owned();
    assert!(
        mail.status == 400 && text.contains("InvalidOperation") && text.contains("MQTT or AMQP"),
        "{} {text}",
        mail.status
    );
    let mut monitor = hub.monitor();
    monitor.wait_for("the last event", |event| event.body == 3);
    let bodies: Vec<_> = of(monitor.seen(), "leaf").map(|event| event.body.clone()).collect();
    assert_eq!(bodies.last(), Some(&json!(3)));
    assert!(bodies.ends_with(&[json!(1), json!(2), json!(3)]), "{bodies:?}");
    Ok(())
}

/// With `HOLM_E2E_DEVICES=5000` it takes some minutes, and 20,000 open files.
#[test]
fn what_a_device_below_listened_to_before_and_does_not_now_is_given_up_above() {
    if !is_here(Node) {
        return;
    }
    let hub = Hub::start();
    let mut edge = gateway(&hub, &[]);
    let device = child(&hub, "leaf");
    let invoke = || {
        let body = json!({"methodName": "echo", "payload": 1, "responseTimeoutInSeconds": 5});
        let answer = hub.service().try_call("POST", "/twins/leaf/methods", &[], Some(&body));
        answer.map(|answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    };
    let mut before = below(Node, Amqp, &hub, &edge, &device);
    connect(&mut before);
    patience::wait("a method that is answered", patience::long(), || match invoke() {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    edge.crash();
    drop(before);
    edge.restart();

    // Over AMQP nothing of the session before stands: this one listens to nothing.
    let mut now = below(Node, Amqp, &hub, &edge, &device);
    now.call("connect", json!({}));
    now.call("send", json!({"body": "here"}));

    patience::wait("nobody who listens", patience::long(), || match invoke() {
        Ok((404, text)) if text.contains("404103") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    hub.holm(&["c2d", "send", "-d", "leaf", "later"]);
    let mut monitor = hub.monitor();
    now.call("send", json!({"body": "still here"}));
    monitor.wait_for("what it sends", |event| event.body == "still here");
    let standing = hub.service().call("GET", "/devices/leaf", None);
    assert_eq!(
        (&standing["connectionState"], &standing["cloudToDeviceMessageCount"]),
        (&json!("Connected"), &json!(1)),
        "{standing}"
    );
    now.call("listen", json!({"what": "messages"}));
    now.event("message", |event| event["body"] == "later");
}

#[test]
fn many_devices_listen_and_send_through_one_gateway() {
    many_devices(Setup::default());
}

#[test]
fn many_devices_listen_and_send_through_one_gateway_and_share_its_connection() {
    many_devices(Setup {
        holm: vec!["hub_protocol = \"amqp\""],
        ..Setup::default()
    });
}

fn many_devices(setup: Setup) {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let count = std::env::var("HOLM_E2E_DEVICES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(100);
    let hub = Hub::start();
    let edge = gateway_with(&hub, &[], setup);
    let scope = hub.service().call("GET", "/devices/gateway-1", None)["deviceScope"].clone();
    let devices: Vec<Device> = (0..count)
        .map(|number| {
            let device = hub.create_device(&format!("leaf-{number}"));
            place(&hub, &device.id, &json!({"deviceScope": scope}));
            device
        })
        .collect();
    let ca = edge.ca();
    let before = edge.daemon().resident_kib();

    let mut clients: Vec<_> = devices
        .iter()
        .map(|device| {
            let mut client = edge.mqtt(&ca).expect("the edge takes connections");
            let mut hello = hub.connect_packet(device);
            hello.keep_alive = 0;
            patience::wait("a device let in", patience::long(), || {
                let welcome = client.open(&hello).map(drop);
                welcome.or_else(|error| {
                    client = edge.mqtt(&ca).map_err(|error| error.to_string())?;
                    Err(error.to_string())
                })
            });
            client
        })
        .collect();
    let (idle, hub_idle) = (edge.daemon().resident_kib(), hub.daemon().resident_kib());
    for (client, device) in clients.iter_mut().zip(&devices) {
        client
            .subscribe(&[("$iothub/methods/POST/#", 1)])
            .expect("a subscription");
        let topic = format!("devices/{}/messages/events/", device.id);
        client
            .publish(&topic, 1, false, device.id.as_bytes())
            .expect("a message");
    }
    patience::wait("a connection above for each", 10 * patience::long(), || {
        match edge.status()["uplinksConnected"].as_u64() {
            Some(up) if up > count => Ok(()),
            other => Err(format!("{other:?} are up")),
        }
    });

    let busy = edge.daemon().resident_kib();
    let hub_more = hub.daemon().resident_kib().saturating_sub(hub_idle);
    let protocol = edge.status()["uplinkProtocol"].clone();
    eprintln!(
        "{count} devices: {before} KiB before, {idle} KiB connected, {busy} KiB with a way up each over {protocol}; \
         the hub {hub_more} KiB more for those"
    );
    assert_eq!(edge.status()["children"], count);
    let mut monitor = hub.monitor();
    monitor.wait_until("a message of each", |seen| {
        let senders: std::collections::BTreeSet<_> = seen.iter().map(|event| &event.device).collect();
        senders.len() == devices.len()
    });
}

/// Gives a device another parent by REST: the command goes over the link.
#[track_caller]
fn place(hub: &Hub, id: &str, scopes: &Value) {
    let path = format!("/devices/{id}");
    let answer = hub.service().try_call("PUT", &path, &[("If-Match", "*")], Some(scopes));
    assert_eq!(answer.expect("the hub answers").status, 200);
}

fn of<'e>(events: &'e [holm_e2e::Event], device: &'e str) -> impl Iterator<Item = &'e holm_e2e::Event> {
    events.iter().filter(move |event| event.device == device)
}

#[test]
fn children_that_come_and_go_while_the_link_is_cut_are_learned_on_return() {
    if !is_here(Python) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let edge = gateway(&hub, &[]);
    let device = child(&hub, "leaf");
    let mut leaf = below(Python, Mqtt, &hub, &edge, &device);
    leaf.call("connect", json!({}));

    link.cut();
    let newcomer = hub.create_device("newcomer");
    let scope = hub.service().call("GET", "/devices/gateway-1", None)["deviceScope"].clone();
    place(&hub, "newcomer", &json!({"deviceScope": scope}));
    place(&hub, "leaf", &json!({"deviceScope": "", "parentScopes": []}));
    leaf.call("send", json!({"body": "still let in"}));
    let mut new = below(Python, Mqtt, &hub, &edge, &newcomer);
    assert!(
        new.try_call("connect", json!({})).is_err(),
        "nobody could tell of it yet"
    );
    link.restore();

    leaf.event("connection", |event| event["connected"] == false);
    patience::wait("the newcomer let in", patience::long(), || {
        new.try_call("connect", json!({})).map_err(|failure| failure.message)
    });
    let mut monitor: Monitor = hub.monitor();
    new.call("send", json!({"body": "hello", "message_id": "n1"}));
    monitor.wait_for("the newcomer's message", |event| event.system["messageId"] == "n1");
    let listed = hub.holm(&["device", "children", "list", GATEWAY]);
    assert!(listed.contains("newcomer") && !listed.contains("leaf"), "{listed}");
    hub.holm(&["device", "children", "remove", GATEWAY, "newcomer"]);
    new.event("connection", |event| event["connected"] == false);
    let call = json!({"methodName": "RefreshDeviceScopeIdentityCache", "responseTimeoutInSeconds": 20});
    let told = hub
        .service()
        .call("POST", "/twins/gateway-1/modules/$edgeHub/methods", Some(&call));
    assert_eq!(told["status"], 200);
    assert_eq!(edge.status()["children"], 0);
}
