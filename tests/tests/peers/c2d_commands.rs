//! `holm c2d`: what an operator sends, what becomes of it, and what is left to others.

use std::process::{Child, Output, Stdio};

use anyhow::Result;
use holm_e2e::wire::mqtt::{Client, Packet};
use holm_e2e::{Hub, Need, patience};
use serde_json::Value;

const FILTER: &str = "devices/dev1/messages/devicebound/#";

fn error(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

fn run(hub: &Hub, arguments: &[&str]) -> Output {
    hub.command(arguments).output().expect("the binary can be started")
}

fn start(hub: &Hub, arguments: &[&str]) -> Result<Child> {
    let mut command = hub.command(arguments);
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Takes the next message and acknowledges it; its topic and body.
fn take(client: &mut Client) -> Result<(String, Vec<u8>)> {
    loop {
        match client.receive(patience::long())? {
            Some(Packet::Publish { topic, id, payload, .. }) => {
                client.acknowledge(id)?;
                return Ok((topic, payload));
            }
            Some(_) => {}
            None => panic!("the hub has closed"),
        }
    }
}

#[test]
fn who_sends_and_waits_learns_what_became_of_the_message_and_takes_nothing_from_others() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let mut client = hub.connected(&hub.create_device("dev1"));
    client.subscribe(&[(FILTER, 1)])?;
    let file = hub.scratch().join("order.json");
    std::fs::write(&file, br#"{"valve":"open"}"#)?;
    let file = file.to_str().expect("the path is text");

    let options = "c2d send --device dev1 --message-id m-1 --correlation-id c-1 --user-id u-1 --property level=2 \
                   --content-type application/json --content-encoding utf-8 --expires-in 10m --wait 60 --json --file";
    let arguments: Vec<&str> = options
        .split(' ')
        .filter(|word| !word.is_empty())
        .chain([file])
        .collect();
    let sending = start(&hub, &arguments)?;
    let (topic, body) = take(&mut client)?;
    let sent = sending.wait_with_output()?;
    let peeked = run(
        &hub,
        &["c2d", "feedback", "--peek", "--timeout", "0", "--device", "dev1"],
    );
    let taken = run(&hub, &["c2d", "feedback", "--max", "1", "--json"]);

    assert_eq!(body, br#"{"valve":"open"}"#);
    for part in [
        "%24.mid=m-1",
        "%24.cid=c-1",
        "%24.uid=u-1",
        "%24.ct=application%2Fjson",
        "%24.ce=utf-8",
        "%24.exp=",
        "level=2",
    ] {
        assert!(topic.contains(part), "{part} is not in {topic}");
    }
    assert_eq!(sent.status.code(), Some(0), "{}", error(&sent));
    let told: Value = serde_json::from_slice(&sent.stdout)?;
    assert_eq!(
        (&told["messageId"], &told["feedback"]["statusCode"]),
        (&"m-1".into(), &"Success".into())
    );
    let line = String::from_utf8(peeked.stdout)?;
    assert!(
        line.contains("Success") && line.trim_end().ends_with("dev1  m-1"),
        "{line}"
    );
    // The batch that all back ends share still had it.
    let taken: Value = serde_json::from_slice(&taken.stdout)?;
    assert_eq!(taken, told["feedback"]);
    let nothing = run(&hub, &["c2d", "feedback", "--peek", "--timeout", "0"]);
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(0), 0));
    Ok(())
}

#[test]
fn what_no_device_took_is_thrown_away_and_told_to_who_waits_with_exit_code_1() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let _device = hub.create_device("dev1");

    let waiting = start(&hub, &["c2d", "send", "--device", "dev1", "--wait", "120", "x"])?;
    let count = || hub.service().call("GET", "/devices/dev1", None)["cloudToDeviceMessageCount"].clone();
    patience::wait("the message waits", patience::long(), || match count() {
        one if one == 1 => Ok(()),
        other => Err(other.to_string()),
    });
    let purged = run(&hub, &["c2d", "purge", "--device", "dev1", "--json"]);
    let told = waiting.wait_with_output()?;
    let late = run(&hub, &["c2d", "send", "--device", "dev1", "--wait", "1", "x"]);
    let unknown = run(&hub, &["c2d", "purge", "--device", "nope"]);

    let purged: Value = serde_json::from_slice(&purged.stdout)?;
    assert_eq!(purged["totalMessagesPurged"], 1);
    assert_eq!(told.status.code(), Some(1));
    assert!(error(&told).contains("Purged"), "{}", error(&told));
    assert!(String::from_utf8_lossy(&told.stdout).contains("Purged"), "{told:?}");
    assert_eq!(late.status.code(), Some(1));
    assert!(error(&late).contains("no feedback"), "{}", error(&late));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(error(&unknown).contains("DeviceNotFound"), "{}", error(&unknown));
    Ok(())
}
