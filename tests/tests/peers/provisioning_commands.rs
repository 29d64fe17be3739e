//! `holm dps enrollment` and `group`: what an operator changes.

use std::process::Output;

use holm_e2e::{Certificate, Hub, Need};
use serde_json::{Value, json};

fn run(hub: &Hub, line: &str) -> Output {
    let words: Vec<&str> = line.split(' ').collect();
    hub.command(&words).output().expect("the binary can be started")
}

/// The result of a command with `--json`.
#[track_caller]
fn told(hub: &Hub, line: &str) -> Value {
    let done = run(hub, &format!("{line} --json"));
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{line}: {error}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{line}: {:?}", done.stdout))
}

#[track_caller]
fn refused(done: &Output, why: &str) {
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && error.contains(why), "{error}");
}

#[test]
fn enrollments_are_changed_and_get_new_keys_on_the_command_line() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let made = told(
        &hub,
        "dps enrollment create r1 --device-id d1 --reprovision never --takeover refuse",
    );
    told(&hub, "dps group create g1 --initial-twin {\"tags\":{\"a\":1}}");
    let keys = |shown: &Value| shown["attestation"]["symmetricKey"].clone();
    let of_group = keys(&told(&hub, "dps group show g1 --keys"));

    let changed = told(&hub, "dps enrollment update r1 --device-id d2 --reprovision migrate");
    let group = told(
        &hub,
        "dps group update g1 --takeover refuse --initial-twin {\"tags\":{\"a\":2}}",
    );
    let shown = hub.holm(&["dps", "group", "show", "g1"]);
    let stale = run(&hub, "dps enrollment update r1 --reprovision reset --etag AAAA");
    let nothing = run(&hub, "dps enrollment update r1");
    let unasked = run(&hub, "dps enrollment update r1 --webhook https://decides.test");
    let elsewhere = run(&hub, "dps enrollment update r1 --iot-hub elsewhere.test");
    let kept = keys(&told(&hub, "dps enrollment show r1 --keys"));
    let swapped = keys(&told(&hub, "dps enrollment renew-key r1 --key swap"));
    let second = keys(&told(&hub, "dps enrollment renew-key r1 --key secondary"));
    let both = keys(&told(&hub, "dps group renew-key g1 --key both"));

    assert_eq!(
        (&changed["deviceId"], &changed["deviceTakeover"]),
        (&json!("d2"), &json!("refuse"))
    );
    assert_eq!(
        changed["reprovisionPolicy"],
        json!({ "updateHubAssignment": true, "migrateDeviceData": true })
    );
    assert_eq!(
        (&group["initialTwin"]["tags"]["a"], &group["deviceTakeover"]),
        (&json!(2), &json!("refuse"))
    );
    assert!(
        shown.contains("takeover       refuse") && shown.contains(r#"initial twin   {"tags":{"a":2}}"#),
        "{shown}"
    );
    refused(&stale, "etag");
    refused(&unasked, "--allocation custom");
    assert_eq!(nothing.status.code(), Some(2));
    refused(&elsewhere, "elsewhere.test");
    assert_eq!(kept, keys(&made), "what is not said stays");
    assert_eq!(
        swapped,
        json!({ "primaryKey": kept["secondaryKey"], "secondaryKey": kept["primaryKey"] })
    );
    assert_eq!(second["primaryKey"], swapped["primaryKey"]);
    assert_ne!(second["secondaryKey"], swapped["secondaryKey"]);
    for name in ["primaryKey", "secondaryKey"] {
        assert!(both[name].is_string() && both[name] != of_group[name], "{name}");
    }
}

#[test]
fn certificates_of_an_enrollment_are_rolled_over_on_the_command_line() {
    if !Need::all(&[Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let [old, new] = ["Old", "New"].map(|name| {
        let certificate = Certificate::authority(hub.scratch(), name).certificate;
        certificate.to_str().expect("paths of tests are text").to_owned()
    });
    told(&hub, &format!("dps group create g1 --signing-certificate {old}"));
    let names = |shown: &Value| {
        let pair = &shown["attestation"]["x509"]["signingCertificates"];
        let name = |which: &str| pair[which]["info"]["subjectName"].as_str().unwrap_or("-").to_owned();
        [name("primary"), name("secondary")]
    };

    let second = told(
        &hub,
        &format!("dps group update g1 --secondary-signing-certificate {new}"),
    );
    let first = told(&hub, &format!("dps group update g1 --signing-certificate {new}"));
    let alone = told(&hub, "dps group update g1 --no-secondary");
    let by_keys = run(&hub, "dps group renew-key g1 --key both");

    let [old, new] = ["CN=Old", "CN=New"].map(str::to_owned);
    assert_eq!(names(&second), [old, new.clone()]);
    assert_eq!(names(&first), [new.clone(), new.clone()]);
    assert_eq!(names(&alone), [new, "-".to_owned()]);
    refused(&by_keys, "has no keys");
}
