//! Simulated fleets, from the command line to what the hub has of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Output;

use holm_e2e::{Daemon, Hub, Need, edge};
use serde_json::{Value, json};

/// Writes a file beside the hub; gives its path.
fn file(hub: &Hub, name: &str, content: &Value) -> String {
    let path: PathBuf = hub.scratch().join(name);
    std::fs::write(&path, content.to_string()).expect("a file");
    path.display().to_string()
}

/// A deployment of one module.
fn deployment(hub: &Hub) -> String {
    let pump = json!({
        "type": "process", "status": "running", "restartPolicy": "always", "version": "1.0",
        "settings": {"image": "holm/sensor", "createOptions": "{}"},
    });
    file(
        hub,
        "deployment.json",
        &edge::manifest(&json!({"pump": pump}), &json!({})),
    )
}

/// Runs a simulation to its end.
fn simulate(hub: &Hub, options: &[&str]) -> Output {
    let arguments: Vec<&str> = ["simulate", "--json"].iter().chain(options).copied().collect();
    hub.command(&arguments).output().expect("the binary can be started")
}

/// The report of a simulation that went as it should.
#[track_caller]
fn report(done: &Output) -> Value {
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{}: {log}", done.status);
    serde_json::from_slice(&done.stdout).expect("the report is JSON")
}

/// Starts a simulation in the background.
fn begin(hub: &Hub, options: &[&str]) -> Daemon {
    let arguments: Vec<&str> = ["simulate", "--json"].iter().chain(options).copied().collect();
    Daemon::start("simulation", hub.scratch(), &mut hub.command(&arguments))
}

/// The report that a simulation in the background wrote at its end.
#[track_caller]
fn written(simulation: &Daemon) -> Value {
    let log = simulation.log();
    let line = log.lines().rev().find(|line| line.starts_with("{\""));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no report: {log}"))).expect("the report is JSON")
}

/// How many devices a condition of the query language is true for.
#[track_caller]
fn count(hub: &Hub, condition: &str) -> u64 {
    let text = format!("SELECT COUNT() AS n FROM devices WHERE {condition}");
    let told: Value = serde_json::from_str(&hub.holm(&["query", &text, "--json"])).expect("it is JSON");
    told[0]["n"].as_u64().unwrap_or(0)
}

#[test]
fn five_hundred_simulated_members_report_and_the_hub_counts_the_same() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let deployment = deployment(&hub);
    let behaviour = file(
        &hub,
        "behaviour.json",
        &json!({"every": "1s", "tags": {"ring": "{n%4}"}}),
    );

    let done = simulate(
        &hub,
        &[
            "--devices",
            "400",
            "--edges",
            "100",
            "--deployment",
            &deployment,
            "--behaviour",
            &behaviour,
            "--for",
            "2s",
        ],
    );

    let report = report(&done);
    let shown: Value = serde_json::from_str(&hub.holm(&["deployment", "show", "sim-deployment", "--json"])).unwrap();
    let figure = |name: &str| report[name].clone();
    assert_eq!(
        [figure("made"), figure("registered"), figure("left")],
        [json!(500), json!(500), json!(500)]
    );
    assert_eq!(
        [figure("neverConnected"), figure("reported"), figure("deployed")],
        [json!(0), json!(500), json!(100)]
    );
    assert_eq!((figure("acknowledged"), figure("failed")), (figure("sent"), json!(0)));
    assert!(report["sent"].as_u64() > Some(0), "{report}");
    assert_eq!(shown["systemMetrics"]["results"]["reportedSuccessfulCount"], 100);
    assert_eq!(count(&hub, "properties.reported.simulated = true"), 400);
    assert_eq!(count(&hub, "tags.ring = 3 AND capabilities.iotEdge = false"), 100);
}

#[test]
fn members_that_share_connections_report_as_others_do() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let deployment = deployment(&hub);

    let done = simulate(
        &hub,
        &[
            "--devices",
            "60",
            "--edges",
            "20",
            "--deployment",
            &deployment,
            "--protocol",
            "amqp",
            "--shared",
            "--for",
            "1s",
        ],
    );
    let wrong = simulate(&hub, &["--devices", "1", "--shared"]);

    let report = report(&done);
    assert_eq!([&report["reported"], &report["deployed"]], [&json!(80), &json!(20)]);
    // Their tokens go through one link: it has room for all that connect at a time.
    assert!(!report["lastTrouble"].to_string().contains("was not sent"), "{report}");
    assert_eq!(report["failed"], 0);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_simulation_deletes_what_it_made_and_leaves_what_was_there() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let deployment = deployment(&hub);
    let (mine, edge) = (hub.create_device("sim-device-1"), hub.create_edge_device("sim-edge-0"));
    hub.holm(&[
        "twin",
        "update",
        "--device",
        "sim-device-1",
        "--tags",
        "{\"site\": \"mine\"}",
    ]);
    let fleet = [
        "--devices",
        "5",
        "--edges",
        "2",
        "--deployment",
        &deployment,
        "--for",
        "0s",
    ];
    let behaviour = file(&hub, "behaviour.json", &json!({"tags": {"site": "theirs"}}));

    // A first one leaves its fleet, a second one finds it.
    let first = report(&simulate(&hub, &[&fleet[..], &["--behaviour", &behaviour]].concat()));
    let second = report(&simulate(&hub, &[&fleet[..], &["--delete"]].concat()));

    let figures =
        |report: &Value| ["made", "found", "foreign", "deployed", "deleted", "left"].map(|name| report[name].clone());
    assert_eq!(figures(&first), [5, 0, 2, 1, 0, 7].map(|number| json!(number)));
    assert_eq!(figures(&second), [0, 5, 2, 1, 5, 2].map(|number| json!(number)));
    assert_eq!(hub.find_device("sim-device-1").primary_key, mine.primary_key);
    assert_eq!(hub.find_device("sim-edge-0").primary_key, edge.primary_key);
    assert_eq!(count(&hub, "tags.site = 'mine'"), 1);
    assert_eq!(count(&hub, "STARTSWITH(deviceId, 'sim-')"), 2);
    assert_eq!(
        serde_json::from_str::<Value>(&hub.holm(&["deployment", "list", "--json"])).unwrap(),
        json!([])
    );
}

#[test]
fn a_deployment_that_somebody_else_made_is_neither_replaced_nor_deleted() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let deployment = deployment(&hub);
    let condition = ["--content", &deployment, "--target-condition", "tags.mine = true"];
    hub.holm(&[&["deployment", "create", "sim-deployment"][..], &condition[..]].concat());

    let done = simulate(
        &hub,
        &["--edges", "2", "--deployment", &deployment, "--for", "0s", "--delete"],
    );

    let shown: Value = serde_json::from_str(&hub.holm(&["deployment", "show", "sim-deployment", "--json"])).unwrap();
    let log = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1));
    assert!(
        log.contains("`sim-deployment` is there and no simulation has made it"),
        "{log}"
    );
    assert_eq!(shown["targetCondition"], "tags.mine = true");
    assert_eq!(count(&hub, "STARTSWITH(deviceId, 'sim-')"), 0);
}

#[test]
fn a_simulation_that_is_interrupted_while_it_registers_tells_what_stays() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    // So many that they are not all there before the signal is.
    let mut simulation = begin(&hub, &["--devices", "200000", "--register-only"]);
    simulation.wait_until("the first devices", || match count(&hub, "tags.simulation = 'sim-'") {
        0 => Err("none is there".to_owned()),
        number => Ok(number),
    });

    let status = simulation.terminate();

    let report = written(&simulation);
    let there = count(&hub, "tags.simulation = 'sim-'");
    assert_eq!(status.code(), Some(1));
    assert!(there < 200_000, "{there} were registered before the signal");
    assert_eq!((&report["registered"], &report["left"]), (&json!(there), &json!(there)));
    assert!(simulation.log().contains("interrupted: "), "{}", simulation.log());
}

#[test]
fn a_fleet_outlives_its_hub_and_loses_nothing() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let behaviour = file(&hub, "behaviour.json", &json!({"every": "1s"}));
    let mut simulation = begin(&hub, &["--devices", "50", "--behaviour", &behaviour]);
    simulation.wait_until("the fleet", || {
        let log = simulation_log(&hub);
        if log.contains("connected 50") { Ok(()) } else { Err(log) }
    });

    hub.crash_and_restart();
    simulation.wait_until("all connected again", || {
        match count(&hub, "connectionState = 'Connected'") {
            50 => Ok(()),
            number => Err(format!("{number} are connected")),
        }
    });
    let status = simulation.terminate();

    let report = written(&simulation);
    // Those of a device are numbered; what was on its way in the crash may be there twice.
    let mut kept = BTreeSet::new();
    holm_e2e::monitor::read_log(&hub, |event| {
        kept.extend(event.body["count"].as_u64().map(|number| (event.device, number)));
    });
    assert!(status.success(), "{}", simulation.log());
    assert!(report["brokenConnections"].as_u64() > Some(0), "{report}");
    assert_eq!(
        (&report["acknowledged"], &report["failed"]),
        (&report["sent"], &json!(0))
    );
    assert_eq!(
        Some(kept.len()),
        report["acknowledged"]
            .as_u64()
            .and_then(|number| number.try_into().ok()),
        "{report}"
    );
}

/// What a simulation in the background has written so far.
fn simulation_log(hub: &Hub) -> String {
    std::fs::read_to_string(hub.scratch().join("simulation.log")).unwrap_or_default()
}
