//! `holm device`, `module`, `twin`, `policy` and `audit`: what an operator does with a registry.

use std::process::Output;

use anyhow::Result;
use holm_e2e::{Hub, Need};
use serde_json::{Value, json};

fn run(hub: &Hub, line: &str) -> Output {
    let words: Vec<&str> = line.split(' ').collect();
    hub.command(&words).output().expect("the binary can be started")
}

/// The result of a command with `--json`.
#[track_caller]
fn told(hub: &Hub, line: &str) -> Value {
    let done = run(hub, line);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{line}: {error}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{line}: {:?}", done.stdout))
}

#[test]
fn a_device_and_its_module_are_changed_step_by_step() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let made = told(&hub, "device create d1 --json");
    let keys = &made["authentication"]["symmetricKey"];

    let off = told(&hub, "device update d1 --status disabled --reason stolen --json");
    let stale = run(&hub, "device update d1 --status enabled --etag AAAA");
    let swapped = told(&hub, "device renew-key d1 --key swap --json");
    let renewed = told(&hub, "device renew-key d1 --key primary --json");
    let string = hub.holm(&["device", "connection-string", "d1", "--key", "secondary"]);
    let module = told(&hub, "module create --device d1 m1 --json");
    let of_module = hub.holm(&["module", "connection-string", "--device", "d1", "m1"]);
    let nothing = run(&hub, "device update d1");
    hub.holm(&["module", "delete", "--device", "d1", "m1"]);
    let gone = run(&hub, "module show --device d1 m1");

    assert_eq!(
        (&off["status"], &off["statusReason"]),
        (&json!("disabled"), &json!("stolen"))
    );
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("PreconditionFailed"));
    let after = |document: &Value| document["authentication"]["symmetricKey"].clone();
    assert_eq!(
        after(&swapped),
        json!({"primaryKey": keys["secondaryKey"], "secondaryKey": keys["primaryKey"]})
    );
    assert_ne!(after(&renewed)["primaryKey"], keys["secondaryKey"]);
    let key = keys["primaryKey"].as_str().unwrap_or_default();
    assert!(
        string.trim().ends_with(&format!(";DeviceId=d1;SharedAccessKey={key}")),
        "{string}"
    );
    let key = module["authentication"]["symmetricKey"]["primaryKey"]
        .as_str()
        .unwrap_or_default();
    assert!(
        of_module
            .trim()
            .ends_with(&format!(";DeviceId=d1;ModuleId=m1;SharedAccessKey={key}")),
        "{of_module}"
    );
    assert_eq!((nothing.status.code(), gone.status.code()), (Some(2), Some(1)));
    Ok(())
}

#[test]
fn a_registry_is_exported_and_imported_by_another_hub() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let (old, new) = (Hub::start(), Hub::start());
    let items: Value = (0..100).map(|n| json!({"id": format!("bulk-{n:02}")})).collect();
    old.service().call("POST", "/devices", Some(&items));
    let key = told(&old, "device create d1 --json")["authentication"]["symmetricKey"].clone();
    old.holm(&["twin", "update", "--device", "d1", "--tags", r#"{"site":"north"}"#]);
    let file = old.scratch().join("devices.txt");
    let file = file.to_str().expect("the path is text");

    old.holm(&["device", "export", "--output", file]);
    let imported = told(&new, &format!("device import {file} --json"));
    let listed = told(&new, "device list --json");
    let first = told(&new, "device list --max 3 --json");
    std::fs::write(file, "{\"id\":\"d1\",\"importMode\":\"create\"}\n{\"id\":\"d2\"}\n")?;
    let failed = run(&new, &format!("device import {file}"));

    assert_eq!(imported["errors"], json!([]));
    assert_eq!(listed.as_array().map(Vec::len), Some(101));
    assert_eq!(first.as_array().map(Vec::len), Some(3));
    assert_eq!(
        told(&new, "device show d1 --json")["authentication"]["symmetricKey"],
        key
    );
    assert_eq!(
        told(&new, "twin show --device d1 --json")["tags"],
        json!({"site": "north"})
    );
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        failed.status.code() == Some(1) && error.contains("line 1: device `d1` is registered already"),
        "{error}"
    );
    told(&new, "device show d2 --json");
    Ok(())
}

#[test]
fn policies_are_made_rotated_and_deleted_and_the_audit_log_says_by_whom() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();

    let made = told(&hub, "policy create reader --rights registryread,ServiceConnect --json");
    let rotated = told(&hub, "policy rotate reader --json");
    let shown = hub.holm(&["policy", "show", "reader"]);
    let listed = told(&hub, "policy list --json");
    let only = run(&hub, "policy delete iothubowner");
    hub.holm(&["policy", "delete", "reader"]);
    let audit = told(&hub, "audit --target reader --since 1h --json");
    let last = told(&hub, "audit --target reader --max 1 --json");
    let table = hub.holm(&["audit"]);

    assert_eq!(made["rights"], json!(["RegistryRead", "ServiceConnect"]));
    assert_eq!(rotated["secondaryKey"], made["primaryKey"]);
    let key = rotated["primaryKey"].as_str().unwrap_or_default();
    assert!(
        shown.contains(&format!(";SharedAccessKeyName=reader;SharedAccessKey={key}")),
        "{shown}"
    );
    assert_eq!(listed.as_array().map(Vec::len), Some(6));
    assert!(String::from_utf8_lossy(&only.stderr).contains("last policy with all rights"));
    let operations: Vec<_> = audit
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| &record["operation"])
        .collect();
    assert_eq!(operations, ["policy.create", "policy.rotate", "policy.delete"]);
    assert_eq!(last, json!([audit[2]]));
    assert!(
        audit[0]["actor"] == "policy:iothubowner" && table.contains("policy.rotate"),
        "{table}"
    );
    Ok(())
}

#[test]
fn a_twin_is_replaced_looked_at_as_it_was_and_restored() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    hub.holm(&[
        "twin",
        "update",
        "--device",
        "d1",
        "--desired",
        r#"{"limit":3,"mode":"eco"}"#,
    ]);
    hub.holm(&["twin", "replace", "--device", "d1", "--desired", r#"{"limit":5}"#]);

    let history = told(&hub, "twin history d1 --json");
    let before = told(&hub, "twin show d1 --at 3 --json");
    let diff = told(&hub, "twin diff --device d1 3 --json");
    let restored = told(&hub, "twin restore --device d1 3 --json");
    let table = hub.holm(&["twin", "history", "--device", "d1"]);

    assert_eq!(history[0]["operation"], "twin.replace");
    assert_eq!(
        before["properties"]["desired"],
        json!({"limit": 3, "mode": "eco", "$version": 2})
    );
    assert_eq!(diff, json!({"properties": {"desired": {"limit": 5, "mode": null}}}));
    assert_eq!(restored["properties"]["desired"]["mode"], "eco");
    assert!(table.contains("policy:iothubowner"), "{table}");
    Ok(())
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let done = std::process::Command::new(holm_e2e::need::holm())
            .args(["completions", shell])
            .output()
            .expect("the binary can be started");

        let script = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && script.contains("policy"), "{shell}");
    }
}

#[test]
fn what_is_there_already_is_told_with_a_command_that_goes_on_from_it() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let content = hub.scratch().join("content.json");
    std::fs::write(&content, r#"{"deviceContent": {"properties.desired.a": 1}}"#)?;
    let configuration = format!("configuration create c1 --content {}", content.display());

    for (line, way_out) in [
        ("device create d1", "holm device update d1"),
        ("module create -d d1 m1", "holm module delete -d d1 m1"),
        ("policy create p1 --rights RegistryRead", "holm policy update p1"),
        (
            "dps policy create p1 --rights ServiceConfig",
            "holm dps policy update p1",
        ),
        ("dps enrollment create e1", "holm dps enrollment update e1"),
        ("dps group create g1", "holm dps group update g1"),
        ("route create r1 --endpoint events", "holm route update r1"),
        (&configuration, "holm configuration update c1"),
    ] {
        let (first, again) = (run(&hub, line), run(&hub, line));

        let error = String::from_utf8_lossy(&again.stderr).into_owned();
        assert_eq!(
            (first.status.code(), again.status.code()),
            (Some(0), Some(1)),
            "{line}: {error}"
        );
        assert!(
            error.contains("is there already; ") && error.contains(way_out),
            "{line}: {error}"
        );
        assert!(!error.contains("If-Match"), "{line}: {error}");
    }
    Ok(())
}
