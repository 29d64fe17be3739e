//! Backups of a hub that runs, restores, and what is killed in the middle of either.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::Result;
use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::{Hub, Need, Sdk};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::LowPorts, Need::Python];

/// What is left of the other end of a pipe cannot be waited for, so a backup is larger than all that lies between.
fn make_it_large(hub: &Hub) {
    for number in 0..16 {
        let file = hub.data().join(format!("large-{number}"));
        std::fs::write(file, vec![b'x'; 1 << 20]).expect("a file can be written");
    }
}

#[test]
fn a_device_goes_on_at_a_restored_hub_and_what_is_killed_half_way_does_no_harm() -> Result<()> {
    if !Need::all(NEEDS) {
        return Ok(());
    }
    let mut hub = Hub::start();
    let device = hub.create_device("d1");
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("send", json!({"body": "before"}));
    drop(sdk);
    hub.service()
        .call("PATCH", "/twins/d1", Some(&json!({"tags": {"site": "a"}})));
    make_it_large(&hub);
    let (data, backup) = (hub.data(), hub.scratch().join("hub.tar"));
    let (data_text, backup_text) = (
        data.to_string_lossy().into_owned(),
        backup.to_string_lossy().into_owned(),
    );

    // The hub is killed while somebody receives.
    let mut receiving = hub
        .command(&["hub", "backup", "--data", &data_text, "--to", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    while !data.join("backup.part/SHA256SUMS").exists() {
        assert!(receiving.try_wait()?.is_none(), "it ended before it was received");
        std::thread::yield_now();
    }
    hub.crash();
    let cut = receiving.wait_with_output()?;
    hub.restart();
    let is_left = data.join("backup.part").exists();
    let told: Value =
        serde_json::from_str(&hub.holm(&["hub", "backup", "--data", &data_text, "--to", &backup_text, "--json"]))?;
    hub.holm(&["hub", "backup", "verify", &backup_text]);

    assert!(!cut.status.success() && !is_left);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("broke"), "{cut:?}");
    assert_eq!(told["file"], backup_text);

    // What comes after the backup is gone; a restore is killed in the middle, and then made.
    hub.service()
        .call("PATCH", "/twins/d1", Some(&json!({"tags": {"site": "late"}})));
    hub.crash();
    std::fs::rename(&data, hub.scratch().join("hub.old"))?;
    let bytes = std::fs::read(&backup)?;
    let mut restoring = hub
        .command(&["hub", "restore", "--from", "-", "--data", &data_text])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut pipe = restoring.stdin.take().expect("it has an input");
    pipe.write_all(&bytes[..bytes.len() / 2])?;
    while !data.join("ca.pem").exists() {
        std::thread::yield_now();
    }
    restoring.kill()?;
    restoring.wait()?;
    let refused = hub.run_command().output()?;
    hub.holm(&["hub", "restore", "--from", &backup_text, "--data", &data_text]);
    hub.restart();

    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("holm hub restore"), "{refused}");
    assert_eq!(hub.service().call("GET", "/twins/d1", None)["tags"]["site"], "a");
    // The same program of the device, with the connection string that it has.
    let mut sdk = Sdk::device(Python, Mqtt, &hub, &device).start();
    sdk.call("connect", json!({}));
    sdk.call("send", json!({"body": "after"}));
    let mut monitor = hub.monitor();
    monitor.wait_for("what came before the backup", |event| event.body == "before");
    monitor.wait_for("what came after the restore", |event| event.body == "after");
    Ok(())
}

#[test]
fn a_disk_without_room_for_a_backup_is_told_and_the_hub_goes_on() -> Result<()> {
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return Ok(());
    }
    let hub = Hub::start_on_small_disk();
    let device = hub.create_device("d1");
    let target = hub.scratch().join("hub.tar");

    let refused = hub.command(&["hub", "backup", "--to"]).arg(&target).output()?;

    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("bytes free; free space on it"),
        "{text}"
    );
    assert!(!target.exists() && !hub.scratch().join("hub.tar.part").exists());
    assert!(!hub.data().join("backup.part").exists());
    drop(hub.connected(&device));
    Ok(())
}
