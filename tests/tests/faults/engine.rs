//! The container engine is not there, hangs, and restarts, under a running edge. (A container that it loses: `docker_rules`.)
#![allow(clippy::print_stderr, reason = "a test tells what it measured")]

use anyhow::Result;
use holm_e2e::edge::{self, IMAGE};
use holm_e2e::{Edge, Need, OwnEngine, Setup, patience, processes};
use serde_json::{Value, json};

use crate::scene::{self, Pair, Scene, assert_kept};

const NEEDS: &[Need] = &[Need::LowPorts, Need::Docker, Need::Dockerd];

/// A container that waits.
fn drum(setting: &str) -> Value {
    let options = json!({"Cmd": ["sh", "-c", "trap exit TERM; while :; do sleep 1; done"], "Env": [format!("SETTING={setting}")]});
    json!({
        "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
        "settings": {"image": IMAGE, "createOptions": options.to_string()},
    })
}

/// A process that waits.
fn pump() -> Value {
    let options = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["while :; do sleep 1; done"]});
    json!({
        "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": options.to_string()},
    })
}

fn modules(more: &[(&str, Value)]) -> Value {
    let mut all = json!({"probe": scene::idle(), "sink": scene::idle(), "pump": pump()});
    for (name, module) in more {
        all[name] = module.clone();
    }
    all
}

fn setup(engine: &OwnEngine) -> Setup {
    Setup {
        engine: Some(engine.socket()),
        ..Setup::default()
    }
}

#[track_caller]
fn wait_for_status(edge: &Edge, module: &str, wanted: &str) -> Value {
    patience::wait(&format!("`{module}` as `{wanted}`"), patience::long(), || {
        let agent = edge.status()["agent"].clone();
        let told = agent["modules"][module].clone();
        if told["status"] == wanted {
            Ok(told)
        } else {
            Err(agent.to_string())
        }
    })
}

/// The process of the module `pump`.
fn pump_process(edge: &Edge) -> Option<processes::Process> {
    processes::modules(&edge.data()).remove("pump")
}

#[test]
fn an_edge_without_its_engine_works_and_runs_containers_as_soon_as_it_comes() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut engine = OwnEngine::prepare();
    let scene = Scene::start(setup(&engine));
    edge::deploy(
        &scene.hub,
        &scene.device,
        &edge::manifest(&modules(&[]), &scene::routes()),
    );
    wait_for_status(&scene.edge, "pump", "running");

    edge::deploy(
        &scene.hub,
        &scene.device,
        &edge::manifest(&modules(&[("drum", drum("1"))]), &scene::routes()),
    );
    edge::wait_until_reported(&scene.hub, &scene.device, "what the deployment waits for", |report| {
        let text = report["lastDesiredStatus"].to_string();
        text.contains("container engine answers")
    });
    let mut sender = scene.sender();
    sender.send(10)?;
    scene.assert_delivered(&sender);
    engine.start();

    edge::wait_until_reported(&scene.hub, &scene.device, "a container that runs", |report| {
        report["modules"]["drum"]["runtimeStatus"] == "running" && report["lastDesiredStatus"]["code"] == 200
    });
    assert!(engine.docker(&["ps", "--format", "{{.Names}}"]).contains("drum"));
    Ok(())
}

#[test]
fn an_engine_that_hangs_and_restarts_holds_up_nothing_but_its_containers_which_come_back() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut engine = OwnEngine::prepare();
    engine.start();
    let scene = Scene::start(setup(&engine));
    let mut deployed = modules(&[("drum", drum("1"))]);
    edge::deploy(&scene.hub, &scene.device, &edge::manifest(&deployed, &scene::routes()));
    wait_for_status(&scene.edge, "drum", "running");
    wait_for_status(&scene.edge, "pump", "running");
    let mut pair = Pair::open(&scene)?;
    let before = pair.latency(50)?;

    engine.hang();
    let told = wait_for_status(&scene.edge, "drum", "unknown");
    let during = pair.latency(50)?;
    let first = pump_process(&scene.edge).expect("the module runs");
    first.kill();
    patience::wait(
        "another process of the module",
        patience::long(),
        || match pump_process(&scene.edge) {
            Some(next) if next != first => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    drop(pair);
    let mut sender = scene.sender();
    sender.send(10)?;
    scene.assert_delivered(&sender);
    deployed["drum"] = drum("2");
    edge::deploy(&scene.hub, &scene.device, &edge::manifest(&deployed, &scene::routes()));
    engine.go_on();
    patience::wait("the container of the new deployment", patience::long(), || {
        // In between the old one is gone and the new one is not there yet.
        let env = engine.try_docker(&["inspect", "--format", "{{.Config.Env}}", "drum"])?;
        if env.contains("SETTING=2") { Ok(()) } else { Err(env) }
    });
    wait_for_status(&scene.edge, "drum", "running");

    engine.stop();
    wait_for_status(&scene.edge, "drum", "unknown");
    sender.send(10)?;
    engine.start();
    edge::wait_until_reported(&scene.hub, &scene.device, "the container again", |report| {
        report["modules"]["drum"]["runtimeStatus"] == "running"
    });
    let running = engine.docker(&["inspect", "--format", "{{.State.Running}}", "drum"]);

    eprintln!("while the engine hung: {told}; a local message took {before:?} before and {during:?} meanwhile");
    assert_eq!(running.trim(), "true");
    assert_kept("a local message", before, during);
    scene.assert_delivered(&sender);
    Ok(())
}
