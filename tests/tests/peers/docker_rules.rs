//! Containers: where their images come from, and that a manifest is the same for processes.

use holm_e2e::edge::{self, IMAGE};
use holm_e2e::engine::{self, Registry};
use holm_e2e::{Device, Edge, Hub, Need};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::Docker, Need::Registry, Need::LowPorts];

/// A module that does nothing, from an image.
fn sleeper(image: &str) -> Value {
    let options = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["trap 'exit 0' TERM; while :; do sleep 1; done"]});
    json!({
        "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": image, "createOptions": options.to_string()},
    })
}

#[track_caller]
fn deploy(hub: &Hub, device: &Device, modules: &Value) {
    edge::deploy(hub, device, &edge::manifest(modules, &json!({})));
}

#[track_caller]
fn wait_until_running(hub: &Hub, device: &Device, name: &str) -> Value {
    edge::wait_until_reported(hub, device, &format!("`{name}` running"), |report| {
        report["modules"][name]["runtimeStatus"] == "running"
    })
}

#[test]
fn an_image_is_pulled_and_used_again_when_its_registry_is_gone() {
    if !Need::all(NEEDS) {
        return;
    }
    let mut registry = Registry::start();
    let image = registry.take_image(IMAGE, "e2e/sleeper:1");
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("pulled");
    edge.owns_container("present");

    deploy(&hub, &device, &json!({"pulled": sleeper(&image)}));
    wait_until_running(&hub, &device, "pulled");
    registry.go_away();
    deploy(
        &hub,
        &device,
        &json!({"pulled": sleeper(&image), "present": sleeper(&image)}),
    );
    let report = wait_until_running(&hub, &device, "present");

    assert_eq!(report["modules"]["pulled"]["runtimeStatus"], "running");
    engine::docker(&["rmi", "--force", &image]);
}

#[test]
fn an_image_that_can_not_be_had_is_reported_by_name_and_other_modules_run() {
    if !Need::all(NEEDS) {
        return;
    }
    let registry = Registry::start();
    let missing = registry.image("e2e/nowhere:1");
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("fine");

    deploy(
        &hub,
        &device,
        &json!({"fine": sleeper(IMAGE), "broken": sleeper(&missing)}),
    );

    wait_until_running(&hub, &device, "fine");
    let report = edge::wait_until_reported(&hub, &device, "the missing image", |report| {
        report["lastDesiredStatus"]["code"] == 500
    });
    let description = report["lastDesiredStatus"]["description"].as_str().unwrap_or_default();
    assert!(
        description.contains(&missing) || description.contains("broken"),
        "{description}"
    );
}

#[test]
fn a_container_that_can_not_reach_the_edge_is_reported_with_the_reason() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("near");
    edge.owns_container("far");
    let in_network = |mode: &str| {
        let mut module = sleeper(IMAGE);
        let options = module["settings"]["createOptions"].as_str().unwrap_or_default();
        let mut options: Value = serde_json::from_str(options).expect("the options are JSON");
        options["HostConfig"] = json!({"NetworkMode": mode, "ExtraHosts": ["edge.test:203.0.113.9"]});
        module["settings"]["createOptions"] = options.to_string().into();
        module
    };
    let about = |report: &Value, name: &str| {
        let text = report["modules"][name]["statusDescription"].as_str();
        text.unwrap_or_default().to_owned()
    };

    deploy(
        &hub,
        &device,
        &json!({"near": sleeper(IMAGE), "far": in_network("none")}),
    );
    let report = edge::wait_until_reported(&hub, &device, "the module out of reach", |report| {
        report["modules"]["near"]["runtimeStatus"] == "running" && about(report, "far").contains("can't reach the edge")
    });
    deploy(&hub, &device, &json!({"near": sleeper(IMAGE), "far": sleeper(IMAGE)}));
    edge::wait_until_reported(&hub, &device, "the module within reach", |report| {
        report["modules"]["far"]["runtimeStatus"] == "running" && !about(report, "far").contains("can't reach")
    });

    assert_eq!(
        report["modules"]["far"]["runtimeStatus"], "running",
        "it is told of a module that runs"
    );
    let told = about(&report, "far");
    let reason = told.split_once("edge.test:8883: ").map(|(_, reason)| reason);
    assert!(
        reason.is_some_and(|it| it.contains("203.0.113.9:8883: Network is unreachable")),
        "{told}"
    );
    assert!(!about(&report, "near").contains("can't reach"), "{report}");
}

#[test]
fn one_manifest_runs_as_process_and_as_container() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_beside_containers(&hub, &device);
    edge.owns_container("sensor");
    let image = engine::image_of_ready_made("sensor", hub.scratch());
    let mut monitor = hub.monitor();
    let sensor = |kind: &str, image: &str| {
        json!({"sensor": {
            "type": kind, "version": "1.0", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {"image": image, "createOptions": json!({"Env": ["INTERVAL_MS=50"]}).to_string()},
        }})
    };
    let routes = json!({"up": "FROM /messages/modules/sensor/outputs/* INTO $upstream"});
    let run_of = |id: &Value| {
        id.as_str()
            .and_then(|id| id.rsplit_once('-'))
            .map(|(run, _)| run.to_owned())
    };

    edge::deploy(
        &hub,
        &device,
        &edge::manifest(&sensor("process", "holm/sensor"), &routes),
    );
    let first = monitor.wait_for("a reading of the process", |event| {
        event.module.as_deref() == Some("sensor")
    });
    let first = run_of(&first.system["messageId"]);
    edge::deploy(&hub, &device, &edge::manifest(&sensor("docker", &image), &routes));
    monitor.wait_for("a reading of the container", |event| {
        event.module.as_deref() == Some("sensor") && run_of(&event.system["messageId"]) != first
    });

    let names = engine::docker(&["ps", "--format", "{{.Names}}"]);
    assert!(names.lines().any(|name| name == "sensor"), "{names}");
}

#[test]
fn a_container_that_the_engine_has_lost_is_made_again_and_no_other_is_touched() {
    if !Need::all(NEEDS) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start_for_containers(&hub, &device);
    edge.owns_container("lost");
    edge.owns_container("kept");
    deploy(&hub, &device, &json!({"lost": sleeper(IMAGE), "kept": sleeper(IMAGE)}));
    wait_until_running(&hub, &device, "lost");
    wait_until_running(&hub, &device, "kept");
    let started = |name: &str| engine::docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name]);
    let (lost, kept) = (started("lost"), started("kept"));

    engine::docker(&["rm", "--force", "lost"]);

    holm_e2e::patience::wait("another container", holm_e2e::patience::long(), || {
        let status = edge.status();
        let is_there =
            status["agent"]["modules"]["lost"]["status"] == "running" && status["agent"]["plan"]["steps"] == json!([]);
        let ids = engine::docker(&["ps", "--no-trunc", "--quiet", "--filter", "name=^/lost$"]);
        let is_new = !ids.trim().is_empty() && !lost.starts_with(ids.trim());
        if is_there && is_new {
            Ok(())
        } else {
            Err(status["agent"].to_string())
        }
    });
    assert_eq!(started("kept"), kept);
}
