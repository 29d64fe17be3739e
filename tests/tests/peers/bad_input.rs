//! A hub that can't start says why, in one line that names the thing, and touches nothing.

use std::process::Command;

use holm_e2e::{Hub, Need, need};

struct Ended {
    success: bool,
    error: String,
}

fn hub_run(arguments: &[&str]) -> Ended {
    let mut command = Command::new(need::holm());
    command.args(["hub", "run"]).args(arguments).env_remove("HOLM_HUB");
    let done = command.output().expect("the binary can be started");
    Ended {
        success: done.status.success(),
        error: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

#[test]
fn a_second_hub_on_one_data_directory_is_refused() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let data = hub.data().to_string_lossy().into_owned();

    let second = hub_run(&["--data", &data, "--bind", "127.63.1.1", "--hostname", "127.63.1.1"]);

    assert!(!second.success);
    assert!(
        second.error.contains(&data) && second.error.contains("lock"),
        "{}",
        second.error
    );
    let _still_there = hub.create_device("d1");
}

#[test]
fn a_port_in_use_is_named() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let data = hub.scratch().join("another").to_string_lossy().into_owned();
    let host = hub.host();

    let second = hub_run(&["--data", &data, "--bind", &host, "--hostname", &host]);

    assert!(!second.success);
    assert!(second.error.contains("8883"), "{}", second.error);
}

#[test]
fn unknown_arguments_are_refused_with_the_way_to_help() {
    let ended = hub_run(&["--data", "/nonexistent", "--mqtt-prot", "1"]);

    assert!(!ended.success);
    assert!(
        ended.error.contains("--mqtt-prot") && ended.error.contains("--mqtt-port"),
        "{}",
        ended.error
    );
}
