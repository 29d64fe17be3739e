//! What an edge does when the identities of its modules change at the hub, on purpose or by mistake: no message is lost.

use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Device, Edge, Hub, Need, patience};
use serde_json::{Value, json};

const WATCHER: SdkModule = SdkModule {
    name: "watcher",
    language: Python,
    transport: Mqtt,
    runtime: Runtime::Process,
};

fn routes() -> Value {
    json!({"alerts": "FROM /messages/modules/watcher/outputs/alerts INTO $upstream"})
}

fn start(hub: &Hub) -> (Device, Edge) {
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(hub, &device);
    edge::deploy(hub, &device, &edge.manifest(&[WATCHER], &routes()));
    (device, edge)
}

#[test]
fn keys_that_were_changed_at_the_hub_are_set_again_and_what_waited_arrives() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let (_, edge) = start(&hub);
    let mut watcher = edge.accept();
    watcher.call("connect", json!({}));
    let path = "/devices/pump-7/modules/watcher";
    let mut module = hub.service().call("GET", path, None);
    for key in ["primaryKey", "secondaryKey"] {
        module["authentication"]["symmetricKey"][key] = json!("c29tZWJvZHkgZWxzZSdzIGtleSBvZiAzMiBieXRlcyE=");
    }

    let answer = hub.service().try_call("PUT", path, &[("If-Match", "*")], Some(&module));
    assert_eq!(answer.unwrap().status, 200);
    hub.crash_and_restart();
    watcher.call("send", json!({"output": "alerts", "body": "late", "message_id": "a1"}));

    let mut monitor = hub.monitor();
    monitor.wait_for("the alert", |event| event.system["messageId"] == "a1");
    patience::wait(
        "nobody is refused",
        patience::short(),
        || match &edge.status()["refused"] {
            Value::Array(refused) if refused.is_empty() => Ok(()),
            other => Err(other.to_string()),
        },
    );
    assert_ne!(
        hub.service().call("GET", path, None)["authentication"],
        module["authentication"]
    );
}

#[test]
fn a_module_that_is_removed_while_offline_is_deleted_after_its_last_message_has_arrived() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let (device, edge) = start(&hub);
    let mut watcher = edge.accept();
    watcher.call("connect", json!({}));

    link.cut();
    for number in 0..50 {
        watcher.call("send", json!({"output": "alerts", "body": number.to_string()}));
    }
    edge::deploy(&hub, &device, &edge.manifest(&[], &routes()));
    link.restore();

    let mut monitor = hub.monitor();
    monitor.wait_until("all alerts, from the watcher", |seen| {
        let alerts = seen.iter().filter(|event| event.module.as_deref() == Some("watcher"));
        let bodies: std::collections::BTreeSet<String> = alerts.map(|event| event.body.to_string()).collect();
        bodies.len() == 50
    });
    patience::wait("the identity is gone", patience::long(), || {
        let modules = hub.service().call("GET", "/devices/pump-7/modules", None);
        let ids = modules
            .as_array()
            .into_iter()
            .flatten()
            .map(|module| &module["moduleId"]);
        let left: Vec<_> = ids.filter(|id| **id == "watcher").collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(modules.to_string())
        }
    });
}
