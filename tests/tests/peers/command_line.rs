//! What scripts rely on: the exit codes of `holm`, and what is on which stream.

use std::process::{Command, Output, Stdio};

use anyhow::Result;
use holm_e2e::wire::mqtt::Packet;
use holm_e2e::{Hub, Need, need, patience};
use serde_json::{Value, json};

fn error(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// Runs `holm` with a connection string that leads nowhere.
fn holm(arguments: &[&str]) -> Output {
    let mut command = Command::new(need::holm());
    command.args(arguments).env(
        "HOLM_HUB",
        "HostName=127.0.0.1:1;SharedAccessKeyName=x;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAA==",
    );
    command.output().expect("the binary can be started")
}

#[test]
fn a_wrong_value_of_an_option_is_a_wrong_command_line_whichever_option_it_is() {
    for arguments in [
        &["twin", "update", "--device", "d", "--desired", "text"][..],
        &["twin", "update", "--device", "d", "--tags", "{"],
        &["method", "invoke", "--device", "d", "m", "--payload", "text"],
        &["method", "invoke", "--device", "d", "m", "--timeout", "1"],
        &["monitor", "--from", "yesterday"],
        &["monitor", "--source", "Everything"],
        &["c2d", "send", "--device", "d", "x", "--property", "novalue"],
        &["c2d", "send", "--device", "d"],
        &["c2d", "send", "--device", "d", "x", "--file", "y"],
        &["c2d", "send", "--device", "d", "x", "--ack", "maybe"],
        &["c2d", "send", "--device", "d", "x", "--expires-in", "10"],
        &["c2d", "send", "--device", "d", "x", "--expires-in", "3d"],
        &["c2d", "send", "--device", "d", "x", "--ack", "none", "--wait", "1"],
        &["c2d", "feedback", "--device", "d"],
        &["hub", "run", "--data", "/nonexistent", "--c2d-ttl", "59s"],
        &[
            "hub",
            "run",
            "--data",
            "/nonexistent",
            "--feedback-max-delivery-count",
            "101",
        ],
        &[
            "device",
            "create",
            "d",
            "--auth",
            "x509-thumbprint",
            "--thumbprint",
            "12",
        ],
        &["dps", "enrollment", "create", "r", "--webhook", "https://decides.test"],
        &["dps", "enrollment", "create", "r", "--initial-twin", r#"{"tag":{}}"#],
        &["dps", "enrollment", "update", "r"],
        &["dps", "hub", "update", "hub.test"],
        &["device", "update", "d"],
        &["route", "update", "r"],
        &["deployment", "update", "v1"],
        &[
            "job",
            "update-twins",
            "j",
            "--where",
            "*",
            "--tags",
            "{}",
            "--start",
            "tomorrow",
        ],
        &["device", "list", "--hub", "nonsense"],
        &["login", "nonsense"],
        &["edge", "list", "--host", "tcp://1.2.3.4"],
        &["edge", "logs", "m", "--since", "garbage"],
        &["edge", "support-bundle", "--until", "garbage"],
        &["edge", "dead-letters", "show", "x"],
        &["edge", "dead-letters", "resend", "1", "x"],
        &["hub", "run", "--data", "/nonexistent", "--hostname", ""],
        &["run", "nothing"],
    ] {
        let done = holm(arguments);

        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", error(&done));
        assert!(!error(&done).is_empty() && done.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_result_that_could_not_be_written_is_no_success() {
    for arguments in [
        &["edge", "check-list"][..],
        &["edge", "check-list", "--json"],
        &["--help"],
        &["--version"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = Command::new(need::holm());
        command.args(arguments).stdout(full.expect("every Linux has it"));
        let done = command.output().expect("the binary can be started");

        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {done:?}");
        assert!(
            error(&done).contains("can't be written"),
            "{arguments:?}: {}",
            error(&done)
        );
    }
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let (reader, writer) = std::io::pipe().expect("pipes can be made");
    drop(reader);
    let mut command = Command::new(need::holm());
    command.args(["edge", "check-list"]).stdout(writer);
    let done = command.output().expect("the binary can be started");

    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn a_connection_string_that_is_wrong_is_not_shown() {
    let done = holm(&["device", "list", "--hub", "HostName=h;SharedAccessKey=c2VjcmV0"]);

    assert_eq!(done.status.code(), Some(2), "{}", error(&done));
    assert!(!error(&done).contains("c2VjcmV0"), "{}", error(&done));
}

#[test]
fn what_fails_is_told_apart_from_a_wrong_command_line() {
    let done = holm(&["device", "list"]);

    assert_eq!(done.status.code(), Some(1), "{}", error(&done));
}

#[test]
fn an_empty_variable_is_as_none() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(need::holm());
    command.args(["device", "list"]).env("HOME", home.path());
    for name in ["HOLM_HUB", "HOLM_CA", "HOLM_LOG", "HOLM_LOG_FORMAT", "XDG_CONFIG_HOME"] {
        command.env(name, "");
    }
    let done = command.output().expect("the binary can be started");

    assert_eq!(done.status.code(), Some(1), "{}", error(&done));
    assert!(error(&done).contains("no hub is given"), "{}", error(&done));
}

#[test]
fn a_hub_whose_port_is_taken_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let folder = tempfile::tempdir().expect("a temporary directory");
    for (option, port) in [
        ("--mqtt-port", port.clone()),
        ("--https-port", port.clone()),
        ("--status", format!("127.0.0.1:{port}")),
    ] {
        let data = folder.path().join("new");

        let mut arguments = vec!["hub", "run", "--data", data.to_str().expect("the path is text")];
        for free in ["--mqtt-port", "--https-port"] {
            if free != option {
                arguments.extend([free, "0"]);
            }
        }
        arguments.extend([option, &port]);
        let done = holm(&arguments);

        assert_eq!(done.status.code(), Some(1), "{}", error(&done));
        assert!(error(&done).contains(&port), "{}", error(&done));
        assert!(!data.exists(), "{option}");
    }
}

#[test]
fn monitor_says_that_there_is_no_such_device() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _other = hub.create_device("dev1");
    let run = |arguments: &[&str]| hub.command(arguments).output().expect("the binary can be started");

    let unknown = run(&["monitor", "--device", "nope", "--from", "start"]);
    let known = run(&["monitor", "--device", "dev1", "--from", "start"]);

    assert_eq!(unknown.status.code(), Some(1));
    assert!(
        error(&unknown).contains("`nope` is not registered"),
        "{}",
        error(&unknown)
    );
    assert_eq!((known.status.code(), error(&known)), (Some(0), String::new()));
}

/// Calls a method of `dev1` with `holm`, which answers with a status and a payload.
fn invoke(hub: &Hub, status: i32, payload: &Value) -> Result<Output> {
    let mut client = hub.connected(&hub.create_device(&format!("dev{status}")));
    client.subscribe(&[("$iothub/methods/POST/#", 0)])?;
    let device = format!("dev{status}");
    let mut command = hub.command(&["method", "invoke", "--device", &device, "look", "--json"]);
    let call = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let rid = loop {
        match client.receive(patience::short())? {
            Some(Packet::Publish { topic, .. }) => {
                let (_, rid) = topic.split_once("$rid=").expect("a call has a request id");
                break rid.to_owned();
            }
            Some(_) => {}
            None => panic!("the hub has closed"),
        }
    };
    let topic = format!("$iothub/methods/res/{status}/?$rid={rid}");
    client.publish(&topic, 0, false, payload.to_string().as_bytes())?;
    Ok(call.wait_with_output()?)
}

#[test]
fn the_exit_code_of_a_method_call_says_whether_the_method_did_it() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();

    let good = invoke(&hub, 200, &json!({"seen": 3}))?;
    let bad = invoke(&hub, 503, &json!({"why": "busy"}))?;

    let answer = |done: &Output| serde_json::from_slice::<Value>(&done.stdout);
    assert_eq!(good.status.code(), Some(0), "{}", error(&good));
    assert_eq!(answer(&good)?, json!({"status": 200, "payload": {"seen": 3}}));
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(answer(&bad)?, json!({"status": 503, "payload": {"why": "busy"}}));
    assert!(error(&bad).contains("503"), "{}", error(&bad));
    Ok(())
}

#[test]
fn a_usage_error_names_what_is_missing_and_nothing_that_a_variable_gives() {
    let done = Command::new(need::holm())
        .args(["device", "show"])
        .envs([
            ("HOLM_CA", "/ca.pem"),
            ("HOLM_LOG_FORMAT", "json"),
            ("IOTEDGE_HOST", "unix:///s"),
        ])
        .output()
        .expect("the binary can be started");

    assert_eq!(done.status.code(), Some(2));
    assert!(error(&done).contains("<DEVICE"), "{}", error(&done));
    for option in ["--ca", "--log-format"] {
        assert!(!error(&done).contains(option), "{}", error(&done));
    }
}

#[test]
fn a_wrong_value_of_a_variable_is_a_wrong_command_line_and_is_named() {
    for (name, arguments) in [
        ("HOLM_LOG_FORMAT", &["device", "list"][..]),
        ("HOLM_LOG", &["device", "list"]),
        ("HOLM_HUB", &["device", "list"]),
        ("IOTEDGE_HOST", &["edge", "list"]),
    ] {
        let done = Command::new(need::holm())
            .args(arguments)
            .env(name, "non=sense")
            .output();
        let done = done.expect("the binary can be started");

        assert_eq!(done.status.code(), Some(2), "{}", error(&done));
        assert!(error(&done).contains(name), "{}", error(&done));
    }
}

#[test]
fn help_tells_a_commands_own_options_before_those_of_all() {
    let done = holm(&["device", "create", "--help"]);

    let help = String::from_utf8_lossy(&done.stdout).into_owned();
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("no `{text}` in:\n{help}"));
    assert!(at("--edge") < at("--hub-file"), "{help}");
    assert!(at("--hub-file") < at("Global options:"), "{help}");
    let (_, global) = help.split_once("Global options:").expect("they are there");
    let global: Vec<_> = global.trim().lines().collect();
    assert!(global.len() <= 2 && global[0].contains("--log-format"), "{global:?}");
}

#[test]
fn a_device_that_is_there_and_one_that_sdks_cannot_name_are_told_with_what_to_do() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let run = |arguments: &[&str]| hub.command(arguments).output().expect("the binary can be started");

    let first = run(&["device", "create", "pump"]);
    let again = run(&["device", "create", "pump"]);
    let odd = run(&["device", "create", "a;b"]);

    assert_eq!((first.status.code(), error(&first)), (Some(0), String::new()));
    assert_eq!(again.status.code(), Some(1));
    assert!(error(&again).contains("holm device delete pump"), "{}", error(&again));
    assert!(!error(&again).contains("If-Match"), "{}", error(&again));
    assert_eq!(odd.status.code(), Some(0), "{}", error(&odd));
    for done in [odd, run(&["device", "show", "a;b"])] {
        assert!(
            error(&done).contains("`a;b`") && error(&done).contains("`;`"),
            "{}",
            error(&done)
        );
    }
}

#[test]
fn a_twin_is_indented_for_people_and_one_line_for_scripts() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let _device = hub.create_device("dev1");

    let people = hub.holm(&["twin", "show", "--device", "dev1"]);
    let scripts = hub.holm(&["twin", "show", "--device", "dev1", "--json"]);

    assert!(people.contains("\n  \"deviceId\": \"dev1\""), "{people}");
    assert_eq!(scripts.lines().count(), 1, "{scripts}");
}
