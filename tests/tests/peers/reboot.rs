//! A restart of the device: everything is gone at once, and modules come back in order, with no hub.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use holm_e2e::edge::{self, IMAGE};
use holm_e2e::processes::{self, Process};
use holm_e2e::{Edge, Hub, Need, engine, patience};
use serde_json::{Value, json};

/// It is well a second after it began: what waits for it must begin later than that.
const FIRST: &str = "#!/bin/sh\nrm -f ready\nsleep 1\ntouch ready\nexec sleep 100000\n";
const OTHER: &str = "#!/bin/sh\nexec sleep 100000\n";
/// A second in the unit of start times.
const TICKS: u64 = 100;

fn process(image: &str, order: u32, options: &Value) -> Value {
    json!({
        "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always", "startupOrder": order,
        "settings": {"image": image, "createOptions": options.to_string()},
    })
}

fn deployment() -> Value {
    let check =
        json!({"Healthcheck": {"Test": ["CMD-SHELL", "test -e ready"], "Interval": 200_000_000, "Retries": 100}});
    let sleep = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["while :; do sleep 1; done"]});
    // Their names are in another order than they are to start in.
    json!({
        "c-first": process("first", 1, &check),
        "b-second": process("other", 2, &json!({})),
        "a-third": process("other", 3, &json!({})),
        "contained": {
            "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always", "startupOrder": 4,
            "imagePullPolicy": "never", "settings": {"image": IMAGE, "createOptions": sleep.to_string()},
        },
    })
}

/// Makes every module of the edge one that ran before the machine was started.
fn age(data: &Path) {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a Linux system has it");
    let directories = std::fs::read_dir(data.join("processes")).expect("the edge has process modules");
    for directory in directories {
        let path = directory.expect("it can be read").path().join("state.json");
        let state = std::fs::read_to_string(&path).expect("a module that ran has a state");
        let mut state: Value = serde_json::from_str(&state).expect("it is JSON");
        assert_eq!(state["boot_id"], boot.trim(), "{state}");
        state["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        // Long before this machine was started.
        state["started_at_millis"] = 1_000_000_000_000_u64.into();
        std::fs::write(&path, state.to_string()).expect("a file of the edge can be written");
    }
}

#[track_caller]
fn wait_for_all(edge: &Edge, but: &BTreeMap<String, Process>) -> BTreeMap<String, Process> {
    patience::wait("three processes", patience::long(), || {
        let now = processes::modules(&edge.data());
        let is_new = |(name, process): (&String, &Process)| but.get(name) != Some(process);
        if now.len() == 3 && now.iter().all(is_new) {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    })
}

fn container() -> (String, bool, String) {
    let what = "{{.Id}} {{.State.Running}} {{.State.StartedAt}}";
    let told = engine::docker(&["inspect", "--format", what, "contained"]);
    let words: Vec<&str> = told.split_whitespace().collect();
    (words[0].to_owned(), words[1] == "true", words[2].to_owned())
}

#[test]
fn a_restarted_device_brings_its_modules_back_in_order_with_no_hub() {
    if !Need::all(&[Need::Docker, Need::LowPorts]) {
        return;
    }
    let (hub, link) = Hub::start_behind_link();
    let device = hub.create_edge_device("pump-7");
    let mut edge = Edge::start_beside_containers(&hub, &device);
    edge.owns_container("contained");
    let programs = edge.data().with_file_name("modules");
    for (name, script) in [("first", FIRST), ("other", OTHER)] {
        let path = programs.join(name);
        std::fs::write(&path, script).expect("a file of the test can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    }
    edge::deploy(&hub, &device, &edge::manifest(&deployment(), &json!({})));
    let before = wait_for_all(&edge, &BTreeMap::new());
    edge::wait_until_reported(&hub, &device, "the deployment to be good", |report| {
        report["lastDesiredStatus"]["code"] == 200 && report["modules"]["contained"]["runtimeStatus"] == "running"
    });
    let (id, _, started) = container();

    edge.crash();
    link.cut();
    processes::end_modules(&edge.data());
    engine::docker(&["kill", "contained"]);
    patience::wait("no module", patience::short(), || {
        let left = processes::modules(&edge.data());
        left.is_empty().then_some(()).ok_or_else(|| format!("{left:?}"))
    });
    age(&edge.data());
    edge.restart();
    let after = wait_for_all(&edge, &before);

    let [first, second, third] = ["c-first", "b-second", "a-third"].map(|name| after[name].start);
    assert!(
        first + TICKS <= second,
        "the second waits until the first is well: {after:?}"
    );
    assert!(second <= third, "{after:?}");
    patience::wait("the container again", patience::long(), || match container() {
        (same, true, again) if same == id && again != started => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(edge.status()["link"]["connected"], false);
    link.restore();
    edge.wait_for_link();
}
