//! Modules and the death of others: of the edge, of the supervisor, of the machine.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Device, HOLM, eventually, id, wait_for_status};
use holm_runtime::{ModuleRuntime, RuntimeStatus};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn state(device: &Device) -> Value {
    let text = fs::read_to_string(device.module_directory().join("state.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn change_state(device: &Device, change: impl FnOnce(&mut Value)) {
    let mut state = state(device);
    change(&mut state);
    fs::write(device.module_directory().join("state.json"), state.to_string()).unwrap();
}

fn kill(pid: &Value) {
    let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn an_edge_that_is_killed_leaves_its_modules_running_and_the_next_finds_them() {
    let device = Device::new();
    device.script("run", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    let directory = device.directory.path();
    let mut edge = Command::new(HOLM)
        .arg("edge")
        .args([directory.join("root"), directory.join("modules")])
        .arg("run")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = String::new();
    BufReader::new(edge.stdout.take().unwrap())
        .read_line(&mut word)
        .unwrap();
    assert_eq!(word, "started\n");
    let orphan = id("orphan");
    let before = device.runtime.inspect(&orphan).await.unwrap();

    edge.kill().unwrap();
    edge.wait().unwrap();

    let after = device.another_edge().list().await.unwrap();
    assert_eq!(before.status, RuntimeStatus::Running);
    assert_eq!(after, [before]);
    device.wait_for_output(&orphan, "ready").await;
    device.another_edge().stop(&orphan, None).await.unwrap();
    assert_eq!(device.runtime.inspect(&orphan).await.unwrap().exit_code, Some(5));
}

#[tokio::test]
async fn a_supervisor_holds_nothing_of_the_edge_and_is_small() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    device.start("run", json!({})).await;
    let supervisor = state(&device)["supervisor"]["pid"].as_u64().unwrap();

    let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap();
    let (parent, session) = parent_and_session(&supervisor.to_string());
    let (_, own_session) = parent_and_session("self");
    let smaps = fs::read_to_string(format!("/proc/{supervisor}/smaps_rollup")).unwrap();
    // Not `Private_Dirty`: pages of a program that was just built, and is on its way to the disk yet, count there.
    let private: u64 = smaps
        .lines()
        .filter(|line| line.starts_with("Anonymous:"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();

    assert!(
        status.contains("Name:\texe") || status.contains("Name:\tholm-supervise"),
        "{status}"
    );
    assert_ne!(parent, std::process::id().to_string(), "it is a child of the edge");
    assert_ne!(session, own_session, "it is in the session of the edge");
    assert!(status.contains("Threads:\t1\n"));
    let output = fs::read_link(format!("/proc/{supervisor}/fd/1")).unwrap();
    assert_eq!(output, std::path::Path::new("/dev/null"));
    assert!(private <= 1024, "{private} KiB are private to the supervisor");
    eprintln!("supervisor: {private} KiB private");
}

/// From the kernel's own table: a session that began outside of a container has no number inside, which libraries do not expect.
fn parent_and_session(pid: &str) -> (String, String) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[1].to_owned(), fields[3].to_owned())
}

#[tokio::test]
async fn a_module_does_not_outlive_its_supervisor_and_that_is_told() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    let main = state(&device)["main"]["pid"].clone();

    kill(&state(&device)["supervisor"]["pid"]);

    let state = wait_for_status(&device.runtime, &id, RuntimeStatus::Failed).await;
    assert_eq!(state.exit_code, Some(137));
    assert!(state.description.as_deref().unwrap().contains("supervisor was killed"));
    assert!(!fs::exists(format!("/proc/{main}/exe")).unwrap() || !process_is_alive(&main));
    assert_eq!(
        device.another_edge().inspect(&id).await.unwrap(),
        state,
        "it is told the same way again"
    );
    device.runtime.start(&id).await.unwrap();
    assert_eq!(
        device.runtime.inspect(&id).await.unwrap().status,
        RuntimeStatus::Running
    );
}

fn process_is_alive(pid: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn a_later_process_with_the_same_pid_is_not_taken_for_the_module_and_not_ended() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    device.runtime.stop(&id, Some(Duration::ZERO)).await.unwrap();
    let supervisor = state(&device)["supervisor"]["pid"].clone();
    eventually("the supervisor to go", || async {
        (!process_is_alive(&supervisor)).then_some(())
    })
    .await;
    let mut other = Command::new("sleep")
        .arg("60")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    change_state(&device, |state| {
        state["phase"] = "running".into();
        // Start times are counted in hundredths of a second, and this test is faster.
        state["main"]["start"] = 1.into();
        state["main"]["pid"] = other.id().into();
        state["supervisor"]["start"] = 1.into();
        state["supervisor"]["pid"] = other.id().into();
    });
    let seen = device.runtime.inspect(&id).await.unwrap();
    device.runtime.remove(&id).await.unwrap();

    assert_eq!(seen.status, RuntimeStatus::Failed);
    assert!(other.try_wait().unwrap().is_none(), "another process was ended");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_run_of_an_earlier_boot_has_ended_with_the_machine() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    let supervisor = state(&device)["supervisor"]["pid"].clone();
    kill(&supervisor);
    wait_for_status(&device.runtime, &id, RuntimeStatus::Failed).await;

    change_state(&device, |state| {
        state["phase"] = "running".into();
        state["boot_id"] = "an earlier one".into();
    });
    let seen = device.runtime.inspect(&id).await.unwrap();

    assert_eq!((seen.status, seen.exit_code), (RuntimeStatus::Failed, Some(255)));
    assert!(seen.description.unwrap().contains("restarted"));
    assert_eq!(seen.is_from_before_boot, Some(true));
    assert!(seen.exited_at.is_some());
}

#[tokio::test]
async fn ending_the_supervisor_politely_ends_the_module_politely() {
    let device = Device::new();
    device.script(
        "run",
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
    );
    let id = device.start("run", json!({})).await;
    device.wait_for_output(&id, "ready").await;
    let supervisor = state(&device)["supervisor"]["pid"].as_i64().unwrap();

    kill_process(Pid::from_raw(i32::try_from(supervisor).unwrap()).unwrap(), Signal::TERM).unwrap();

    let state = wait_for_status(&device.runtime, &id, RuntimeStatus::Stopped).await;
    assert_eq!(state.exit_code, Some(0));
    assert_eq!(device.output(&id).await.last().unwrap().1, "bye\n");
}

#[tokio::test]
async fn a_supervisor_answers_another_version_and_nonsense_and_goes_on() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(device.module_directory().join("s")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    };

    let newer = ask("{\"v\":9,\"op\":\"dance\"}\n");
    let nonsense = ask("\u{fffd}\n");
    let endless = ask(&"x".repeat(5000));
    let status: Value = serde_json::from_str(&ask("{\"v\":1,\"op\":\"status\"}\n")).unwrap();

    assert!(newer.contains("speaks version 1"), "{newer}");
    assert!(nonsense.contains("error"), "{nonsense}");
    assert!(endless.contains("longer than 4096"), "{endless}");
    assert_eq!(status["state"]["phase"], "running");
    assert_eq!(
        device.runtime.inspect(&id).await.unwrap().status,
        RuntimeStatus::Running
    );
}

#[tokio::test]
async fn a_record_of_another_format_is_refused_and_a_damaged_one_is_begun_again() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let spec = device.spec("run", json!({}));
    device.runtime.create(&spec).await.unwrap();
    let path = device.module_directory().join("module.json");

    fs::write(&path, r#"{"format":2}"#).unwrap();
    let error = device.runtime.list().await.unwrap_err().to_string();
    let refused = device.runtime.create(&spec).await.unwrap_err().to_string();
    fs::write(&path, r#"{"for"#).unwrap();
    let without = device.runtime.list().await.unwrap();
    device.runtime.create(&spec).await.unwrap();

    assert!(error.contains("format 2") && error.contains("format 1"), "{error}");
    assert_eq!(error, refused);
    assert!(without.is_empty());
    assert_eq!(device.runtime.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_record_of_a_run_is_told_and_does_not_keep_the_module_from_starting() {
    let device = Device::new();
    device.script("run", "exec sleep 1000");
    let id = device.start("run", json!({})).await;
    let path = device.module_directory().join("state.json");

    fs::write(&path, "{").unwrap();
    let running = device.runtime.inspect(&id).await.unwrap();
    device.runtime.stop(&id, Some(Duration::ZERO)).await.unwrap();
    fs::write(&path, "{").unwrap();
    let lost = device.runtime.inspect(&id).await.unwrap();
    device.runtime.start(&id).await.unwrap();

    assert_eq!(running.status, RuntimeStatus::Running);
    assert_eq!((lost.status, lost.exit_code), (RuntimeStatus::Failed, Some(255)));
    assert!(lost.description.unwrap().contains("damaged"));
    assert_eq!(
        device.runtime.inspect(&id).await.unwrap().status,
        RuntimeStatus::Running
    );
}

#[tokio::test]
async fn two_edges_that_start_a_module_at_once_start_it_once() {
    let device = Device::new();
    device.script("run", "echo begun; exec sleep 1000");
    let spec = device.spec("run", json!({}));
    device.runtime.create(&spec).await.unwrap();
    let other = device.another_edge();

    let (first, second) = tokio::join!(device.runtime.start(&spec.id), other.start(&spec.id));

    first.unwrap();
    second.unwrap();
    device.wait_for_output(&spec.id, "begun").await;
    assert_eq!(device.output(&spec.id).await.len(), 1);
    let mut word = String::new();
    let mut stream = UnixStream::connect(device.module_directory().join("s")).unwrap();
    stream.write_all(b"{\"v\":1,\"op\":\"kill\"}\n").unwrap();
    stream.read_to_string(&mut word).unwrap();
    assert!(word.contains("\"ended\""), "{word}");
}
