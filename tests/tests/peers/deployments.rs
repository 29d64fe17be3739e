//! A deployment is all or nothing, as a user at the hub sees it, on a real edge with process modules.

use holm_e2e::Language::Python;
use holm_e2e::edge;
use holm_e2e::{Device, Edge, Hub, Need, Sdk};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::LowPorts];

/// A module that runs a line of shell.
fn module(line: &str, more: &Value) -> Value {
    let mut options = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [line]});
    for (name, value) in more.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    json!({
        "type": "process", "status": "running", "restartPolicy": "always", "version": "1.0",
        "settings": {"image": "holm/sensor", "createOptions": options.to_string()},
    })
}

const RUNS: &str = "echo runs; while :; do sleep 1; done";

#[track_caller]
fn deploy(hub: &Hub, device: &Device, modules: &Value) {
    edge::deploy(hub, device, &edge::manifest(modules, &json!({})));
}

/// An edge with a good deployment of two modules.
#[track_caller]
fn edge_with_good(hub: &Hub, device: &Device) -> Edge {
    let edge = Edge::start(hub, device);
    deploy(
        hub,
        device,
        &json!({"pump": module(RUNS, &json!({})), "valve": module(RUNS, &json!({}))}),
    );
    holm_e2e::patience::wait(
        "a deployment that has proved itself",
        holm_e2e::patience::long(),
        || match &edge.status()["agent"]["rollout"]["phase"] {
            phase if phase == "committed" => Ok(()),
            phase => Err(phase.to_string()),
        },
    );
    edge
}

fn pid(edge: &Edge, module: &str) -> String {
    let list = edge.holm(&["list", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("the list is JSON");
    let found = list.as_array().into_iter().flatten().find(|it| it["name"] == module);
    let found = found.expect("the module is there");
    format!("{} {}", found["id"], found["status"]["startTime"])
}

#[test]
fn a_bad_deployment_is_taken_back_whole_and_the_reason_is_reported() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = edge_with_good(&hub, &device);
    let good = edge::reported(&hub, &device)["lastDesiredVersion"].clone();
    let valve = pid(&edge, "valve");

    deploy(
        &hub,
        &device,
        &json!({
            "pump": module("echo broken; exit 3", &json!({})),
            "valve": module(RUNS, &json!({})),
            "lamp": module(RUNS, &json!({})),
        }),
    );
    let report = edge::wait_until_reported(&hub, &device, "a deployment that was taken back", |report| {
        report["lastDesiredStatus"]["code"] == 500
            && report["modules"]["pump"]["runtimeStatus"] == "running"
            && report["modules"].get("lamp").is_none()
    });

    let text = report["lastDesiredStatus"]["description"].as_str().unwrap_or_default();
    assert!(text.contains("pump: it ended with exit code 3"), "{text}");
    assert!(text.contains(&format!("went back to version {good}")), "{text}");
    assert_ne!(report["lastDesiredVersion"], good);
    let about = report["modules"]["pump"]["statusDescription"]
        .as_str()
        .unwrap_or_default();
    assert!(about.contains("exit code 3"), "{report}");
    assert_eq!(pid(&edge, "valve"), valve, "what was not changed is not touched");
    let plan = edge.holm(&["plan"]);
    assert!(
        plan.contains("was taken back") && plan.contains("nothing to do now"),
        "{plan}"
    );

    deploy(&hub, &device, &json!({"pump": module(RUNS, &json!({"Env": ["A=1"]}))}));
    edge::wait_until_reported(&hub, &device, "a better deployment", |report| {
        report["lastDesiredStatus"] == json!({"code": 200, "description": ""})
            && report["modules"].as_object().is_some_and(|modules| modules.len() == 1)
    });
}

#[test]
fn a_module_whose_health_check_fails_is_reported_unhealthy_and_started_anew() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = edge_with_good(&hub, &device);

    let check =
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "test ! -e sick"], "Interval": 200_000_000, "Retries": 2}});
    let mut pump = module("echo runs; while :; do sleep 1; done; rm -f sick", &check);
    pump["restartPolicy"] = json!("on-unhealthy");
    deploy(&hub, &device, &json!({"pump": pump}));
    edge::wait_until_reported(&hub, &device, "a deployment that has proved itself", |report| {
        report["lastDesiredStatus"]["code"] == 200 && report["modules"].get("valve").is_none()
    });
    let before = pid(&edge, "pump");
    let sick = walk(&edge.data())
        .into_iter()
        .find(|path| path.ends_with("work"))
        .expect("a working directory");
    std::fs::write(sick.join("sick"), "").expect("the file is written");

    holm_e2e::patience::wait("a restart", holm_e2e::patience::long(), || {
        let now = pid(&edge, "pump");
        if now == before { Err(now) } else { Ok(()) }
    });
    let report = edge::wait_until_reported(&hub, &device, "the restart's count", |report| {
        report["modules"]["pump"]["restartCount"].as_u64() >= Some(1)
    });
    assert_eq!(report["modules"]["pump"]["restartPolicy"], "on-unhealthy");
}

#[test]
fn an_operators_program_reads_the_logs_of_modules_by_the_published_method() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = edge_with_good(&hub, &device);
    let mut service = Sdk::service(Python, &hub).start();
    let mut invoke = |method: &str, payload: Value| {
        let request = json!({"device": "pump-7", "module": "$edgeAgent", "method": method, "payload": payload});
        service.call("invoke", request)
    };

    let items = json!([{"id": "^pump$", "filter": {"tail": 10, "regex": "runs"}}]);
    let logs = invoke(
        "GetModuleLogs",
        json!({"schemaVersion": "1.0", "items": items, "encoding": "none", "contentType": "text"}),
    );
    let wrong = invoke(
        "GetModuleLogs",
        json!({"schemaVersion": "1.0", "items": [{"id": "nobody"}]}),
    );
    let unknown = invoke(
        "GetTaskStatus",
        json!({"schemaVersion": "1.0", "correlationId": "none"}),
    );

    assert_eq!(
        logs,
        json!({"status": 200, "payload": [{"id": "pump", "payload": "runs\n", "payloadBytes": null}]})
    );
    assert_eq!(wrong["status"], 400, "{wrong}");
    assert_eq!(
        (&unknown["status"], &unknown["payload"]["status"]),
        (&json!(200), &json!("Unknown"))
    );
    drop(edge);
}

/// Every directory below a path.
fn walk(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    directories
        .flat_map(|path| [vec![path.clone()], walk(&path)].concat())
        .collect()
}
