//! Endpoints of message routing behind a hub that is killed: files, and a real broker.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use holm_e2e::{Daemon, Hub, Need, patience};
use serde_json::Value;

/// What is sent before and after the hub is killed.
const HALF: u64 = 150;

/// The numbers in the bodies of all finished files.
fn in_files(folder: &Path) -> Vec<u64> {
    let (mut numbers, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten() {
            let path = entry.expect("a folder can be read").path();
            if path.is_dir() {
                folders.extend(Some(path).filter(|path| !path.ends_with(".holm")));
                continue;
            }
            let text = std::fs::read_to_string(path).expect("a finished file can be read");
            numbers.extend(text.lines().map(number));
        }
    }
    numbers.sort_unstable();
    numbers
}

/// The number in the body of a record.
fn number(line: &str) -> u64 {
    let record: Value = serde_json::from_str(line).expect("a record is JSON");
    record["Body"]["n"].as_u64().expect("a body has a number")
}

#[test]
fn every_acknowledged_message_is_in_one_file_once_and_at_a_broker_though_the_hub_is_killed() {
    if !Need::all(&[Need::Mosquitto, Need::LowPorts]) {
        return;
    }
    let mut hub = Hub::start();
    let device = hub.create_device("pump");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = hub.scratch().join("mosquitto.conf");
    let settings = format!("user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
    std::fs::write(&config, settings).unwrap();
    let _broker = Daemon::start(
        "mosquitto",
        hub.scratch(),
        Command::new("mosquitto").arg("-c").arg(&config),
    );
    let reader = |arguments: &[&str]| {
        let port = port.to_string();
        let mut command = Command::new("mosquitto_sub");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-q",
            "1",
            "-t",
            "plant/#",
            "-c",
            "-i",
            "reader",
        ]);
        command.args(arguments).output().unwrap()
    };
    patience::wait("the broker has a session", patience::short(), || {
        let subscribed = reader(&["-E"]);
        let said = String::from_utf8_lossy(&subscribed.stderr).into_owned();
        if subscribed.status.success() { Ok(()) } else { Err(said) }
    });
    let url = format!("url=mqtt://127.0.0.1:{port}");
    for (name, settings) in [
        ("cold", ["folder=cold", "maxFileSeconds=1"]),
        ("plant", [&url, "topic=plant/{device}"]),
    ] {
        let kind = if name == "cold" { "file" } else { "mqtt" };
        hub.holm(&[
            "endpoint",
            "create",
            name,
            "--kind",
            kind,
            "--set",
            settings[0],
            "--set",
            settings[1],
        ]);
        hub.holm(&["route", "create", name, "--endpoint", name]);
    }
    let topic = "devices/pump/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8";
    let send = |hub: &Hub, numbers: std::ops::Range<u64>| {
        let mut client = hub.connected(&device);
        for number in numbers {
            client.store(topic, format!("{{\"n\":{number}}}").as_bytes()).unwrap();
        }
    };

    send(&hub, 0..HALF);
    hub.crash_and_restart();
    send(&hub, HALF..2 * HALF);
    let folder = hub.data().join("routed/cold");
    let all: Vec<u64> = (0..2 * HALF).collect();
    patience::wait("all is in files", patience::long(), || {
        let found = in_files(&folder);
        if found == all {
            Ok(())
        } else {
            Err(format!("{} are", found.len()))
        }
    });
    let last = (2 * HALF - 1).to_string();
    let mut at_broker = BTreeSet::new();
    patience::wait("all is at the broker", patience::long(), || {
        let got = String::from_utf8(reader(&["-W", "2", "-F", "%p"]).stdout).unwrap();
        at_broker.extend(got.lines().map(number));
        if at_broker.len() == all.len() {
            Ok(())
        } else {
            Err(format!("{} are, of {last}", at_broker.len()))
        }
    });

    assert_eq!(in_files(&folder), all);
    assert_eq!(at_broker.into_iter().collect::<Vec<_>>(), all);
}
