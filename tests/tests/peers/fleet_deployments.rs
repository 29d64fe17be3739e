//! Configurations and automatic deployments, with the original service SDKs, the command line and a real edge.

use holm_e2e::Language::{Node, Python};
use holm_e2e::edge;
use holm_e2e::patience;
use holm_e2e::{Edge, Hub, Language, Need, Sdk};
use serde_json::{Value, json};

fn configuration(id: &str, priority: u32, condition: &str, content: &Value) -> Value {
    json!({"configuration": {
        "id": id, "priority": priority, "targetCondition": condition, "content": content, "labels": {"by": "test"},
        "metrics": {"everybody": "SELECT deviceId FROM devices"},
    }})
}

fn module(line: &str) -> Value {
    let options = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [line]});
    json!({
        "type": "process", "status": "running", "restartPolicy": "always", "version": "1.0",
        "settings": {"image": "holm/sensor", "createOptions": options.to_string()},
    })
}

const RUNS: &str = "echo runs; while :; do sleep 1; done";

#[test]
fn a_python_service_configures_a_fleet() {
    configures_a_fleet(Python);
}

#[test]
fn a_node_service_configures_a_fleet() {
    configures_a_fleet(Node);
}

#[test]
fn a_deployment_to_one_device_that_another_puts_back_is_told() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    hub.holm(&["device", "create", "e1", "--edge"]);
    let file = hub.scratch().join("manifest.json");
    let empty = json!({"schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": {}});
    let content = json!({"modulesContent": {"$edgeAgent": {"properties.desired": empty}}});
    std::fs::write(&file, content.to_string()).expect("the file can be written");
    let file = file.to_str().expect("the path is text");
    let deploy = || {
        let done = hub.command(&["deploy", "e1", file]).output();
        let done = done.expect("the binary can be started");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };

    let before = deploy();
    hub.holm(&[
        "deployment",
        "create",
        "fleet",
        "--content",
        file,
        "--target-condition",
        "*",
    ]);
    let overruled = deploy();
    hub.holm(&["deployment", "delete", "fleet"]);
    let after = deploy();

    assert!(
        overruled.0 == Some(0)
            && overruled
                .1
                .contains("does not stay: the deployment `fleet` is for `e1`"),
        "{overruled:?}"
    );
    for stays in [before, after] {
        assert!(
            stays.0 == Some(0) && stays.1.contains("`e1` has the deployment"),
            "{stays:?}"
        );
    }
}

fn configures_a_fleet(language: Language) {
    let need = match language {
        Python => Need::Python,
        Node => Need::Node,
    };
    if !Need::all(&[need, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _devices = ["d1", "d2"].map(|id| hub.create_device(id));
    let mut service = Sdk::service(language, &hub).start();
    service.call(
        "update_twin",
        json!({"device": "d1", "patch": {"tags": {"site": "mine"}}}),
    );
    let content = json!({"deviceContent": {"properties.desired.rate": 5}});

    let made = service.call(
        "create_configuration",
        configuration("adm", 10, "tags.site = 'mine'", &content),
    );
    let again = service.try_call("create_configuration", configuration("adm", 10, "*", &content));
    let changed = service.call("update_configuration", json!({"name": "adm", "priority": 20}));
    let applied = patience::wait("the setting at the device", patience::long(), || {
        let twin = service.call("twin", json!({"device": "d1"}));
        let rate = &twin["properties"]["desired"]["rate"];
        if *rate == 5 {
            Ok(twin.clone())
        } else {
            Err(twin.to_string())
        }
    });
    let other = service.call("twin", json!({"device": "d2"}));
    let listed = service.call("configurations", json!({}));
    service.call("delete_configuration", json!({"name": "adm"}));
    patience::wait("the setting taken back", patience::long(), || {
        let twin = service.call("twin", json!({"device": "d1"}));
        let desired = &twin["properties"]["desired"];
        if desired.get("rate").is_none() {
            Ok(())
        } else {
            Err(twin.to_string())
        }
    });
    let gone = service.try_call("configuration", json!({"name": "adm"}));

    assert_eq!(made["priority"], 10);
    assert!(again.is_err());
    assert_eq!(changed["priority"], 20);
    assert!(applied["properties"]["desired"]["$version"].as_u64() > Some(1));
    assert!(other["properties"]["desired"].get("rate").is_none());
    assert_eq!(listed, json!(["adm"]));
    assert!(gone.is_err());
}

#[test]
fn a_python_service_tests_queries_before_they_are_used() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let mut service = Sdk::service(Python, &hub).start();

    let asked = json!({"condition": "tags.a = 1", "metrics": {"bad": "SELECT FROM", "good": "SELECT * FROM devices"}});
    let told = service.call("test_queries", asked);

    assert!(told["target_condition_error"].is_null());
    let errors: Vec<_> = told["custom_metric_query_errors"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(errors, ["bad"]);
}

/// The figures of a deployment, once so many have reported that it is in force.
#[track_caller]
fn counted(hub: &Hub, id: &str, successful: u32) -> Value {
    patience::wait("the reports counted", patience::long(), || {
        let shown = hub.holm(&["deployment", "show", id, "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
        let results = shown["systemMetrics"]["results"].clone();
        if results["reportedSuccessfulCount"] == successful {
            Ok(results)
        } else {
            Err(results.to_string())
        }
    })
}

#[test]
fn a_real_edge_gets_a_base_and_a_layer_by_the_command_line_and_its_report_is_counted() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let _edge = Edge::start(&hub, &device);
    let base = hub.scratch().join("base.json");
    let manifest = edge::manifest(&json!({"pump": module(RUNS)}), &json!({}));
    std::fs::write(&base, manifest.to_string()).expect("a file");
    let layer = hub.scratch().join("layer.json");
    let content = json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.valve": module(RUNS)}}});
    std::fs::write(&layer, content.to_string()).expect("a file");
    let (base, layer) = (base.display().to_string(), layer.display().to_string());

    let plan: Value = serde_json::from_str(&hub.holm(&[
        "deployment",
        "plan",
        "base",
        "--content",
        &base,
        "--target-condition",
        "*",
        "--json",
    ]))
    .expect("the plan is JSON");
    hub.holm(&[
        "deployment",
        "create",
        "base",
        "--content",
        &base,
        "--target-condition",
        "*",
        "--priority",
        "1",
    ]);
    hub.holm(&[
        "deployment",
        "create",
        "valves",
        "--content",
        &layer,
        "--target-condition",
        "tags.valves = true",
        "--priority",
        "2",
    ]);
    hub.holm(&["twin", "update", "--device", "pump-7", "--tags", "{\"valves\": true}"]);
    let report = edge::wait_until_reported(&hub, &device, "both modules", |report| {
        let runs = |name: &str| report["modules"][name]["runtimeStatus"] == "running";
        runs("pump") && runs("valve") && report["lastDesiredStatus"]["code"] == 200
    });
    let counted = counted(&hub, "valves", 1);
    let told = hub.holm(&["deployment", "explain", "--device", "pump-7"]);
    let list = hub.holm(&["deployment", "list"]);
    hub.holm(&["deployment", "delete", "valves"]);
    edge::wait_until_reported(&hub, &device, "the layer taken away", |report| {
        report["modules"].get("valve").is_none() && report["modules"]["pump"]["runtimeStatus"] == "running"
    });

    assert_eq!((&plan["targeted"], &plan["changed"]), (&json!(1), &json!(1)));
    assert!(report["lastDesiredVersion"].as_u64() > Some(1));
    assert_eq!(counted["appliedCount"], 1);
    assert!(told.contains("module valve") && told.contains("valves"), "{told}");
    assert!(list.contains("base") && list.contains("layer"), "{list}");
}
