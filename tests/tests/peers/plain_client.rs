//! A client that knows nothing of IoT Hub but topics and a token: those of mosquitto; and one that knows TLS alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holm_e2e::{Device, Hub, Need, need};
use serde_json::json;

fn client(program: &str, hub: &Hub, device: &Device) -> Command {
    let connect = hub.connect_packet(device);
    let mut command = Command::new(need::find(program).expect("the test asked for it"));
    command.args([
        "-h",
        &hub.host(),
        "-p",
        "8883",
        "-V",
        "mqttv311",
        "-q",
        "1",
        "-i",
        &connect.client_id,
    ]);
    command.arg("--cafile").arg(hub.ca()).args(["-u", &connect.user]);
    command.args(["-P", &connect.password.unwrap_or_default()]);
    command
}

#[test]
fn mosquitto_pub_sends_telemetry() {
    if !Need::all(&[Need::Mosquitto, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");

    let topic = "devices/dev1/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8&from=mosquitto";
    let done = client("mosquitto_pub", &hub, &device)
        .args(["-t", topic, "-m", "{\"t\":21.5}"])
        .output();

    let done = done.expect("mosquitto_pub can be started");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let event = hub
        .monitor()
        .wait_for("the message", |event| event.body == json!({"t": 21.5}));
    assert_eq!(event.properties, json!({"from": "mosquitto"}));
}

#[test]
fn mosquitto_pub_fails_on_a_topic_that_is_not_there() {
    if !Need::all(&[Need::Mosquitto, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");

    // It may try again what was not acknowledged: after the third try it has been told often enough.
    let mut command = client("mosquitto_pub", &hub, &device);
    let child = command
        .args(["-t", "plant/line1", "-m", "x", "-d"])
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.expect("mosquitto_pub can be started");
    let output = BufReader::new(child.stdout.take().expect("the output is a pipe"));
    let mut tries = 0;
    let acknowledged = output.lines().map_while(Result::ok).find(|line| {
        tries += u32::from(line.contains("sending PUBLISH"));
        tries > 2 || line.contains("received PUBACK")
    });
    child.kill().ok();
    child.wait().ok();

    assert!(!acknowledged.is_some_and(|line| line.contains("PUBACK")));
    assert!(tries > 0);
}

#[test]
fn mosquitto_sub_receives_a_message_from_the_cloud() {
    if !Need::all(&[Need::Mosquitto, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_device("dev1");
    let path = "/devices/dev1/messages/deviceBound";
    let sent = hub
        .service()
        .try_call("POST", path, &[("iothub-app-k", "v")], Some(&json!("open")));
    assert_eq!(sent.expect("the hub answers").status, 204);

    let filter = "devices/dev1/messages/devicebound/#";
    let done = client("mosquitto_sub", &hub, &device)
        .args(["-t", filter, "-C", "1", "-W", "20", "-v"])
        .output();

    let done = done.expect("mosquitto_sub can be started");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains("k=v") && said.trim_end().ends_with("\"open\""), "{said}");
}

#[test]
fn a_client_that_negotiates_tls_anew_is_told_at_once_that_nobody_does_that() {
    if !Need::all(&[Need::Openssl, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let address = format!("{}:8883", hub.host());
    let mut client = Command::new(need::find("openssl").expect("the test asked for it"))
        .args(["s_client", "-tls1_2", "-connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl can be started");
    let mut keys = client.stdin.take().expect("it is piped");
    let began = Instant::now();

    keys.write_all(b"R\n").expect("openssl reads");
    let said = BufReader::new(client.stderr.take().expect("it is piped")).lines();
    let told = said.map_while(Result::ok).any(|line| line.contains("no renegotiation"));
    client.wait().expect("it was started");

    // A connection without CONNECT ends after 60 s, and what is still to be said leaves then.
    assert!(
        told && began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}
