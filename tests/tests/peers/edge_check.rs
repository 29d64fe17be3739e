//! `holm edge check` on a device as it is, and the original's command line by its name.

use std::process::Command;

use holm_e2e::{Edge, Hub, Need, need};
use serde_json::Value;

fn check(edge: &Edge, more: &[&str]) -> (Option<i32>, Value) {
    let mut command = Command::new(need::holm());
    command
        .args(["edge", "check", "--json", "--config"])
        .arg(edge.config())
        .args(more);
    let done = command.output().expect("the binary can be started");
    let text = String::from_utf8_lossy(&done.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{text}`: {error}"));
    (done.status.code(), report)
}

fn words(report: &Value, of: &str) -> Vec<String> {
    let checks = report["checks"].as_object().expect("the published form");
    let named = checks.iter().filter(|(_, check)| check["result"] == of);
    named.map(|(id, _)| id.clone()).collect()
}

#[test]
fn an_edge_in_order_is_told_so_and_what_a_lost_hub_changes_is_told_with_what_to_do() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    edge.wait_for_link();

    let (code, report) = check(&edge, &[]);
    assert_eq!(words(&report, "error"), Vec::<String>::new(), "{report}");
    assert_eq!(code, Some(0));
    for id in [
        "aziot-edged-running",
        "link",
        "identities",
        "host-connect-iothub-mqtt",
        "host-connect-iothub-https",
        "host-local-time",
    ] {
        assert_eq!(report["checks"][id]["result"], "ok", "{id}: {report}");
    }
    hub.crash();
    let (code, report) = check(&edge, &["--dont-run", "host-connect-iothub-https"]);

    assert_eq!(code, Some(1));
    assert_eq!(words(&report, "error"), ["host-connect-iothub-mqtt"], "{report}");
    assert_eq!(words(&report, "ignored"), ["host-connect-iothub-https"]);
    let remedy = report["checks"]["host-connect-iothub-mqtt"]["additional_info"]["remedy"].as_str();
    assert!(remedy.is_some_and(|text| text.contains("firewall")), "{report}");
}

#[test]
fn called_by_the_name_of_the_original_the_program_takes_its_command_line() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let link = hub.scratch().join("iotedge");
    std::os::unix::fs::symlink(need::holm(), &link).expect("a link can be made");

    let list = Command::new(&link).args(["-H", &edge.socket_uri(), "list"]).output();
    let list = list.expect("the binary can be started");
    let version = Command::new(&link)
        .arg("version")
        .output()
        .expect("the binary can be started");

    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success(), "{list:?}");
    assert!(text.starts_with("NAME"), "{text}");
    assert!(version.status.success(), "{version:?}");
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}
