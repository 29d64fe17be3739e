//! What changed, when, and by whom: a twin that a back end, an operator, a job, a configuration and its device have changed.

use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::{Hub, Need, Sdk, patience};
use serde_json::{Value, json};

#[test]
fn a_twin_tells_what_back_end_operator_job_deployment_and_device_have_changed_and_when() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("pump");
    hub.holm(&["policy", "create", "backend", "--rights", "ServiceConnect"]);
    let shown = hub.holm(&["policy", "show", "backend"]);
    let string = shown
        .split_whitespace()
        .find(|word| word.starts_with("HostName="))
        .expect("the connection string is shown");
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    let mut service = Sdk::service(Python, &hub).with_connection_string(string).start();

    // By an SDK, by command, by the device.
    service.call(
        "update_twin",
        json!({"device": "pump", "patch": {"tags": {"site": "north"}, "desired": {"rate": 1}}}),
    );
    hub.holm(&["twin", "update", "--device", "pump", "--desired", r#"{"rate":2}"#]);
    sdk.call("connect", json!({}));
    sdk.call("report", json!({"patch": {"rate": 2}}));
    // By a job and a configuration that somebody has made.
    let job = [
        "job",
        "update-twins",
        "winter",
        "--where",
        "tags.site = 'north'",
        "--desired",
    ];
    hub.holm(&[&job[..], &[r#"{"heating":"on"}"#]].concat());
    wait_for(&hub, "job:winter");
    let content = hub.scratch().join("content.json");
    let text = json!({"deviceContent": {"properties.desired.period": 5}}).to_string();
    std::fs::write(&content, text).expect("a file");
    let content = content.display().to_string();
    let create = ["configuration", "create", "slow", "--content", &content];
    hub.holm(
        &[
            &create[..],
            &["--target-condition", "tags.site = 'north'", "--priority", "1"],
        ]
        .concat(),
    );
    wait_for(&hub, "deployment:slow");

    let steps = history(&hub);
    let told: Vec<_> = steps
        .iter()
        .rev()
        .map(|step| {
            let text = |name: &str| step[name].as_str().unwrap_or_default();
            (text("actor"), text("operation"), step["changed"].clone())
        })
        .collect();
    let desired = |value: Value| json!({"properties": {"desired": value}});
    assert_eq!(
        told,
        [
            (
                "policy:backend",
                "twin.update",
                json!({"tags": {"site": "north"}, "properties": {"desired": {"rate": 1}}})
            ),
            ("policy:iothubowner", "twin.update", desired(json!({"rate": 2}))),
            (
                "device:pump",
                "twin.report",
                json!({"properties": {"reported": {"rate": 2}}})
            ),
            ("job:winter", "twin.update", desired(json!({"heating": "on"}))),
            ("deployment:slow", "twin.replace", desired(json!({"period": 5}))),
        ]
    );
    let times: Vec<_> = steps.iter().rev().map(|step| step["time"].as_str()).collect();
    assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{times:?}");
    // The log of the hub knows the same, and who stands behind job and configuration.
    let audit: Value = serde_json::from_str(&hub.holm(&["audit", "--json"])).expect("JSON");
    let audit: Vec<String> = audit
        .as_array()
        .into_iter()
        .flatten()
        .map(|it| {
            let text = |name: &str| it[name].as_str().unwrap_or_default();
            format!("{} {} {}", text("actor"), text("operation"), text("target"))
        })
        .collect();
    for wanted in [
        "policy:backend twin.update pump",
        "policy:iothubowner twin.update pump",
        "policy:iothubowner job.create winter",
        "job:winter twin.update pump",
        "policy:iothubowner configuration.create slow",
        "deployment:slow twin.replace pump",
    ] {
        assert!(audit.iter().any(|told| told == wanted), "{wanted}: {audit:#?}");
    }
}

/// The changes of the twin, newest first.
fn history(hub: &Hub) -> Vec<Value> {
    let text = hub.holm(&["twin", "history", "--device", "pump", "--json"]);
    serde_json::from_str(&text).expect("the history is JSON")
}

#[track_caller]
fn wait_for(hub: &Hub, actor: &str) {
    patience::wait(actor, patience::long(), || {
        let steps = history(hub);
        if steps.iter().any(|step| step["actor"] == *actor) {
            Ok(())
        } else {
            Err(json!(steps).to_string())
        }
    });
}
