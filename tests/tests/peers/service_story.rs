//! What an operator's program does with the original service SDKs.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::{Hub, Language, Need, Sdk};
use serde_json::{Value, json};

#[test]
fn python_service_keeps_the_registry() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Python, &hub).start();

    let made = service.call("create_device", json!({"device": "d1"}));
    assert_eq!((&made["device_id"], &made["status"]), (&json!("d1"), &json!("enabled")));
    assert_eq!(
        made["authentication"]["symmetric_key"]["primary_key"]
            .as_str()
            .map(str::len),
        Some(44)
    );

    let again = service.try_call("create_device", json!({"device": "d1"})).unwrap_err();
    assert!(again.message.contains("409 DeviceAlreadyExists"), "{}", again.message);

    let off = service.call("update_device", json!({"device": "d1", "status": "disabled"}));
    assert_eq!(off["status"], "disabled");
    assert_eq!(
        off["authentication"]["symmetric_key"],
        made["authentication"]["symmetric_key"]
    );

    service.call("create_module", json!({"device": "d1", "module": "m1"}));
    assert_eq!(service.call("modules", json!({"device": "d1"})), json!(["m1"]));
    service.call("delete_module", json!({"device": "d1", "module": "m1"}));
    let gone = service
        .try_call("get_module", json!({"device": "d1", "module": "m1"}))
        .unwrap_err();
    assert!(gone.message.contains("404 ModuleNotFound"), "{}", gone.message);

    service.call("delete_device", json!({"device": "d1"}));
    let gone = service.try_call("get_device", json!({"device": "d1"})).unwrap_err();
    assert!(gone.message.contains("404 DeviceNotFound"), "{}", gone.message);
}

#[test]
fn python_service_creates_an_edge_device_with_its_two_system_modules() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Python, &hub).start();

    let made = service.call("create_device", json!({"device": "e1", "edge": true}));

    let scope = made["device_scope"].as_str().unwrap_or_default();
    assert!(scope.starts_with("ms-azure-iot-edge://e1-"), "{made}");
    let modules = service.call("modules", json!({"device": "e1"}));
    let mut modules: Vec<&str> = modules
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    modules.sort_unstable();
    assert_eq!(modules, ["$edgeAgent", "$edgeHub"]);
}

#[test]
fn python_service_updates_a_twin_only_with_the_right_etag() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let mut service = Sdk::service(Python, &hub).start();

    let first = service.call("twin", json!({"device": "d1"}));
    let patch = json!({"tags": {"site": "north"}, "desired": {"limit": 3}});
    let second = service.call(
        "update_twin",
        json!({"device": "d1", "patch": patch, "etag": first["etag"]}),
    );
    let refused = service.try_call(
        "update_twin",
        json!({"device": "d1", "patch": patch, "etag": first["etag"]}),
    );
    let replaced = service.call(
        "replace_twin",
        json!({"device": "d1", "twin": {"tags": {}, "desired": {"other": 1}}}),
    );

    assert_eq!(second["tags"], json!({"site": "north"}));
    assert_eq!(second["properties"]["desired"]["limit"], 3);
    assert_ne!(second["etag"], first["etag"]);
    let refused = refused.unwrap_err();
    assert!(
        refused.message.contains("412 PreconditionFailed"),
        "{}",
        refused.message
    );
    assert_eq!(replaced["properties"]["desired"]["limit"], Value::Null);
    assert_eq!(replaced["properties"]["desired"]["other"], 1);
}

#[test]
fn python_service_invokes_methods_of_device_and_module() {
    invokes_methods(Python);
}

#[test]
fn node_service_invokes_methods_of_device_and_module() {
    invokes_methods(Node);
}

fn invokes_methods(language: Language) {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let module = hub.create_module("d1", "m1");
    let mut service = Sdk::service(language, &hub).start();

    let offline = service
        .try_call("invoke", json!({"device": "d1", "method": "echo"}))
        .expect_err("nobody can be reached");
    for identity in [&device, &module] {
        let mut sdk = Sdk::device(Python, Mqtt, &hub, identity).start();
        sdk.call("connect", json!({}));
        sdk.call("listen", json!({"what": "methods"}));
        let mut request = json!({"device": "d1", "method": "echo", "payload": [1, "zwei"]});
        if let Some(module) = &identity.module {
            request["module"] = json!(module);
        }

        let answer = service.call("invoke", request);

        assert_eq!(
            answer,
            json!({"status": 200, "payload": {"method": "echo", "payload": [1, "zwei"]}})
        );
    }
    let unknown = service
        .try_call("invoke", json!({"device": "nobody", "method": "echo"}))
        .expect_err("nobody can be reached");

    assert!(
        offline.message.contains("404") || offline.message.contains("Not found"),
        "{}",
        offline.message
    );
    assert!(
        unknown.message.contains("DeviceNotFound") || unknown.kind.contains("DeviceNotFound"),
        "{unknown:?}"
    );
}

#[test]
fn python_service_gets_504_for_a_method_that_is_never_answered() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("listen", json!({"what": "methods"}));
    sdk.call("answer", json!({"method": "silent", "status": null}));
    let mut service = Sdk::service(Python, &hub).start();

    let request = json!({"device": "d1", "method": "silent", "response_timeout": 5});
    let failure = service.try_call("invoke", request).unwrap_err();

    assert!(failure.message.contains("504"), "{}", failure.message);
}

#[test]
fn python_service_applies_a_deployment_to_an_edge_device() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_edge_device("e1");
    let mut service = Sdk::service(Python, &hub).start();

    service.call("apply", json!({"device": "e1", "content": manifest()}));

    let modules = service.call("modules", json!({"device": "e1"}));
    let mut modules: Vec<&str> = modules
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    modules.sort_unstable();
    assert_eq!(modules, ["$edgeAgent", "$edgeHub", "sensor"]);
    let agent = service.call("twin", json!({"device": "e1", "module": "$edgeAgent"}));
    assert_eq!(agent["properties"]["desired"]["modules"]["sensor"]["type"], "docker");
    let made = service.call("get_module", json!({"device": "e1", "module": "sensor"}));
    assert_eq!(
        made["managed_by"].as_str().map(str::to_lowercase).as_deref(),
        Some("iotedge")
    );
}

#[test]
fn node_service_keeps_registry_and_twins() {
    if !Need::all(&[Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Node, &hub).start();

    let made = service.call("create_device", json!({"device": "n1"}));
    service.call("create_module", json!({"device": "n1", "module": "m1"}));
    let patched = service.call(
        "update_twin",
        json!({"device": "n1", "patch": {"tags": {"a": 1}, "desired": {"limit": 9}}}),
    );
    let off = service.call("update_device", json!({"device": "n1", "status": "disabled"}));
    let modules = service.call("modules", json!({"device": "n1"}));
    let devices = service.call("devices", json!({}));
    service.call("delete_device", json!({"device": "n1"}));
    let gone = service.try_call("get_device", json!({"device": "n1"})).unwrap_err();

    assert_eq!(
        made["authentication"]["symmetricKey"]["primaryKey"]
            .as_str()
            .map(str::len),
        Some(44)
    );
    assert_eq!(
        (&patched["tags"]["a"], &patched["properties"]["desired"]["limit"]),
        (&json!(1), &json!(9))
    );
    assert_eq!(off["status"], "disabled");
    assert_eq!((modules, devices), (json!(["m1"]), json!(["n1"])));
    assert_eq!(gone.kind, "DeviceNotFoundError");
}

fn manifest() -> Value {
    let system = |name: &str| {
        json!({"type": "docker", "status": "running", "restartPolicy": "always",
        "settings": {"image": format!("holm/{name}"), "createOptions": "{}"}})
    };
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25"}},
            "systemModules": {"edgeAgent": system("edge-agent"), "edgeHub": system("edge-hub")},
            "modules": {"sensor": {"type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always",
                "settings": {"image": "holm-e2e/busybox:1", "createOptions": "{}"}}},
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"up": "FROM /messages/* INTO $upstream"},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200},
        }},
    }})
}
