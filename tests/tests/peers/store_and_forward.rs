//! What an edge keeps while its hub is away, seen from outside: limits, order, and what can't be delivered.

use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Edge, Hub, Need, patience};
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

/// A manifest with other keys in `storeAndForwardConfiguration`.
fn storing(edge: &Edge, modules: &[SdkModule], keys: &Value) -> Value {
    let mut manifest = edge.manifest(modules, &routes());
    let desired = &mut manifest["modulesContent"]["$edgeHub"]["properties.desired"];
    for (key, value) in keys.as_object().unwrap() {
        desired["storeAndForwardConfiguration"][key] = value.clone();
    }
    manifest
}

#[test]
fn messages_of_a_module_that_was_deleted_at_the_hub_are_dead_letters_that_a_command_lists_and_resends() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    edge::deploy(&hub, &device, &edge.manifest(&[WATCHER], &routes()));
    let mut watcher = edge.accept();
    watcher.call("connect", json!({}));

    link.cut();
    for number in 0..3 {
        watcher.call("send", json!({"output": "alerts", "body": number.to_string()}));
    }
    edge::deploy(&hub, &device, &edge.manifest(&[], &routes()));
    hub.service()
        .try_call("DELETE", "/devices/pump-7/modules/watcher", &[("If-Match", "*")], None)
        .unwrap();
    link.restore();

    let letters = patience::wait("three dead letters", patience::long(), || {
        let list = edge.holm(&["dead-letters", "list", "--json"]);
        let list: Value = serde_json::from_str(&list).map_err(|error| error.to_string())?;
        match list.as_array() {
            Some(letters) if letters.len() == 3 => Ok(letters.clone()),
            _ => Err(list.to_string()),
        }
    });
    assert!(letters.iter().all(|letter| letter["reason"] == "unknownSender"
        && letter["sender"] == "pump-7/watcher"
        && letter["endpoint"] == "$upstream"));
    let first = letters[0]["id"].to_string();
    let shown = edge.holm(&["dead-letters", "show", &first, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["body"], "0");
    assert_eq!(edge.status()["deadLetters"]["messages"], 3);

    edge::deploy(&hub, &device, &edge.manifest(&[WATCHER], &routes()));
    // Its start says that the edge knows the new identity.
    let _watcher = edge.accept();
    let sent = edge.holm(&["dead-letters", "resend", "--all"]);
    assert_eq!(sent.trim(), "Sent 3 again");
    let mut monitor = hub.monitor();
    monitor.wait_until("all three, from the watcher", |seen| {
        let own = seen.iter().filter(|event| event.module.as_deref() == Some("watcher"));
        let bodies: std::collections::BTreeSet<_> = own.map(|event| event.body.to_string()).collect();
        bodies.len() == 3
    });
    assert_eq!(edge.holm(&["dead-letters", "purge"]).trim(), "Removed 0");
}

#[test]
fn a_full_store_refuses_or_lets_the_oldest_go_as_the_deployment_says() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let limits = json!({"storeLimits": {"maxSizeBytes": 2 << 20, "whenFull": "dropOldest"}});
    edge::deploy(&hub, &device, &storing(&edge, &[WATCHER], &limits));
    let mut watcher = edge.accept();
    watcher.call("connect", json!({}));
    patience::wait(
        "the limit is in force",
        patience::long(),
        || match edge.status()["quota"]["whenFull"].as_str() {
            Some("dropOldest") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );

    link.cut();
    let filling = "x".repeat(64 << 10);
    for _ in 0..60 {
        watcher.call("send", json!({"output": "alerts", "body": filling}));
    }
    let status = edge.status();
    assert!(status["counts"]["dropped_quota"].as_u64() > Some(0), "{status}");
    assert_eq!(status["counts"]["refused_quota"], 0, "{status}");
    assert!(edge.holm(&["dead-letters", "list"]).contains("quota"));
    link.restore();

    let wrong = json!({"storeLimits": {"maxSizeBytes": 1, "whenFull": "explode"}});
    edge::deploy(&hub, &device, &storing(&edge, &[WATCHER], &wrong));
    let refused = patience::wait("a refusal", patience::long(), || {
        let twin = hub.service().call("GET", "/twins/pump-7/modules/$edgeHub", None);
        let status = twin["properties"]["reported"]["lastDesiredStatus"].clone();
        if status["code"] == 400 {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    });
    let description = refused["description"].as_str().unwrap_or_default();
    assert!(description.contains("`refuse` or `dropOldest`"), "{description}");
}
