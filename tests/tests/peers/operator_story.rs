//! What an operator's program does with an edge by the original service SDKs: deploys, reads how it stands, calls the methods
//! of its agent, and says which devices are below it.

use holm_e2e::Language::{Node, Python};
use holm_e2e::Transport::Mqtt;
use holm_e2e::blob_store::BlobStore;
use holm_e2e::edge::{Runtime, SdkModule};
use holm_e2e::sdk::Running;
use holm_e2e::{Edge, Hub, Language, Need, Sdk, patience};
use serde_json::{Value, json};

#[test]
fn a_python_operator_runs_an_edge_by_deployment_twin_and_methods() {
    runs_an_edge(Python);
}

#[test]
fn a_node_operator_runs_an_edge_by_deployment_twin_and_methods() {
    runs_an_edge(Node);
}

fn runs_an_edge(language: Language) {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let mut service = Sdk::service(language, &hub).start();
    let sensor = SdkModule {
        name: "sensor",
        language,
        transport: Mqtt,
        runtime: Runtime::Process,
    };
    let routes = json!({"up": "FROM /messages/* INTO $upstream"});

    let content = edge.manifest(&[sensor], &routes);
    service.call("apply", json!({"device": "pump-7", "content": content}));
    let first = edge.accept();

    reads_how_the_edge_stands(&mut service);
    reads_logs(&mut service);
    uploads_logs_and_a_bundle(&mut service);
    assert_eq!(invoke(&mut service, "ping", Value::Null)["status"], 200);
    let restarted = invoke(
        &mut service,
        "RestartModule",
        json!({"schemaVersion": "1.0", "id": "sensor"}),
    );
    assert_eq!(restarted["status"], 200, "{restarted}");
    assert_eq!(edge.accept().name(), "sensor", "it was started anew");
    drop(first);
    let nobody = invoke(
        &mut service,
        "RestartModule",
        json!({"schemaVersion": "1.0", "id": "nobody"}),
    );
    assert_eq!(nobody["status"], 500, "{nobody}");
    let unknown = invoke(&mut service, "Explode", json!({}));
    assert_eq!(unknown["status"], 400, "{unknown}");
    let said = unknown["payload"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("supported commands"), "{unknown}");
}

/// Calls a method of the agent.
#[track_caller]
fn invoke(service: &mut Running, method: &str, payload: Value) -> Value {
    let request = json!({"device": "pump-7", "module": "$edgeAgent", "method": method, "payload": payload});
    service.call("invoke", request)
}

fn reads_how_the_edge_stands(service: &mut Running) {
    let mut reported = |module: &str| {
        let twin = service.call("twin", json!({"device": "pump-7", "module": module}));
        twin["properties"]["reported"].clone()
    };
    patience::wait("a deployment that has proved itself", patience::long(), || {
        let agent = reported("$edgeAgent");
        let is_good = agent["lastDesiredStatus"]["code"] == 200
            && agent["modules"]["sensor"]["runtimeStatus"] == "running"
            && agent["systemModules"]["edgeHub"]["runtimeStatus"] == "running";
        if is_good { Ok(()) } else { Err(agent.to_string()) }
    });
    patience::wait("routes in force", patience::long(), || {
        let hub = reported("$edgeHub");
        if hub["lastDesiredStatus"]["code"] == 200 {
            Ok(())
        } else {
            Err(hub.to_string())
        }
    });
}

fn reads_logs(service: &mut Running) {
    let items = json!([{"id": "^sens", "filter": {"tail": 5}}]);
    let logs = invoke(
        service,
        "GetModuleLogs",
        json!({"schemaVersion": "1.0", "items": items, "encoding": "gzip", "contentType": "json"}),
    );

    assert_eq!(
        (&logs["status"], &logs["payload"][0]["id"]),
        (&json!(200), &json!("sensor"))
    );
    assert!(logs["payload"][0]["payloadBytes"].is_string(), "{logs}");
}

fn uploads_logs_and_a_bundle(service: &mut Running) {
    let store = BlobStore::open();

    let items = json!({"id": "sensor", "filter": {}});
    let logs = json!({"schemaVersion": "1.0", "sasUrl": store.sas_url(), "items": items, "encoding": "none", "contentType": "text"});
    wait_for_task(service, "UploadModuleLogs", logs);
    let bundle =
        json!({"schemaVersion": "1.0", "sasUrl": store.sas_url(), "since": "1 hour", "edgeRuntimeOnly": false});
    wait_for_task(service, "UploadSupportBundle", bundle);

    let blobs = store.blobs();
    let of = |part: &str| blobs.iter().find(|(name, _)| name.contains(part));
    let (name, _) = of("/pump-7/sensor-").expect("a blob of the module's log");
    assert!(name.ends_with(".log"), "{name}");
    let (_, bundle) = of("support-bundle").expect("a blob of the bundle");
    assert_eq!(bundle.get(..2), Some(b"PK".as_slice()), "a zip archive");
}

/// Calls a method that takes its time, and waits until it has done its work.
#[track_caller]
fn wait_for_task(service: &mut Running, method: &str, payload: Value) {
    let begun = invoke(service, method, payload);
    assert_eq!(begun["status"], 200, "{begun}");
    let id = begun["payload"]["correlationId"].clone();
    patience::wait(&format!("the end of {method}"), patience::long(), || {
        let task = invoke(
            service,
            "GetTaskStatus",
            json!({"schemaVersion": "1.0", "correlationId": id}),
        );
        if task["payload"]["status"] == "Completed" {
            Ok(())
        } else {
            Err(task.to_string())
        }
    });
}

#[test]
fn a_python_operator_puts_devices_below_an_edge() {
    puts_devices_below_an_edge(Python);
}

#[test]
fn a_node_operator_puts_devices_below_an_edge() {
    puts_devices_below_an_edge(Node);
}

fn puts_devices_below_an_edge(language: Language) {
    if !Need::all(&[Need::Python, Need::Node, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(language, &hub).start();
    let made = service.call("create_device", json!({"device": "gateway-1", "edge": true}));
    // The Python SDK's models write `device_scope`, the wire and the Node SDK `deviceScope`.
    let scope = [&made["device_scope"], &made["deviceScope"]]
        .into_iter()
        .find(|scope| scope.is_string());
    let scope = scope
        .unwrap_or_else(|| panic!("an edge device has a scope: {made}"))
        .clone();

    service.call("create_device", json!({"device": "leaf", "scope": scope}));

    let edge = Edge::start(&hub, &hub.find_device("gateway-1"));
    let leaf = hub.find_device("leaf");
    let mut leaf = Sdk::device(language, Mqtt, &hub, &leaf).through(&edge, &leaf).start();
    patience::wait("a device let in", patience::long(), || {
        leaf.try_call("connect", json!({})).map_err(|failure| failure.message)
    });
    leaf.call("listen", json!({"what": "methods"}));
    let answer = patience::wait("an answer of the device", patience::long(), || {
        let request = json!({"device": "leaf", "method": "echo", "payload": 1});
        service.try_call("invoke", request).map_err(|failure| failure.message)
    });
    assert_eq!(answer["payload"]["payload"], 1);
}
