//! Flipped bits in what an edge keeps. (Full and read-only disks: the peers' `full_disk` and `other_data`; torn writes: the
//! queue's own tests, which tear every one.)

use std::path::{Path, PathBuf};

use anyhow::Result;
use holm_e2e::{Need, Setup, edge, patience};

use crate::scene::{Scene, Sender};

/// The files of a journal.
fn segments(journal: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(journal).expect("the queue has a journal");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    paths.filter(|path| path.is_file()).collect()
}

/// Turns one bit over in the file that holds these bytes, in their first byte.
#[track_caller]
fn flip(journal: &Path, wanted: &[u8]) {
    for path in segments(journal) {
        let mut bytes = std::fs::read(&path).expect("a file of the queue can be read");
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            bytes[at] ^= 0x04;
            std::fs::write(&path, bytes).expect("a file of the queue can be written");
            return;
        }
    }
    panic!("no file of the queue holds `{}`", String::from_utf8_lossy(wanted));
}

#[test]
fn a_flipped_bit_in_a_stored_message_costs_that_message_and_is_counted_and_told() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let mut scene = Scene::start(Setup::default());
    let mut sender = scene.sender();
    sender.send(5)?;
    scene.wait_until_drained();
    scene.link.cut();
    sender.send_filled(200, 300)?;
    assert!(scene.edge.stop().success());

    flip(&scene.edge.data().join("queue/journal"), b"[100,\"");
    scene.edge.restart();
    scene.link.restore();
    scene.wait_until_drained();

    let status = scene.edge.status();
    sender.acknowledged.retain(|number| *number != 100);
    scene.assert_delivered(&sender);
    assert_eq!(status["counts"]["dropped_unreadable"], 1, "{status}");
    let log = scene.edge.daemon().log();
    let told = log
        .lines()
        .any(|line| line.contains("ERROR") && line.contains("damaged"));
    assert!(told, "the log does not tell of it");
    Ok(())
}

#[test]
fn an_edge_whose_state_is_damaged_goes_on_with_its_messages_and_learns_the_rest_from_the_hub() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let mut scene = Scene::start(Setup::default());
    let mut sender = scene.sender();
    scene.link.cut();
    sender.send(20)?;
    assert!(scene.edge.stop().success());

    let state = scene.edge.data().join("state.db");
    let mut bytes = std::fs::read(&state)?;
    for byte in bytes.iter_mut().skip(4096).step_by(64) {
        *byte ^= 0x04;
    }
    std::fs::write(&state, bytes)?;
    scene.edge.restart();
    let status = scene.edge.status();
    scene.link.restore();

    // Routes come with the hub; until then a module's message has nowhere to go, and is not acknowledged.
    let next = sender.acknowledged.len();
    patience::wait("routes in force", patience::long(), || {
        let configuration = scene.edge.status()["configuration"].clone();
        if configuration["version"].as_u64() > Some(0) {
            Ok(())
        } else {
            Err(configuration.to_string())
        }
    });
    let mut again = Sender::after(scene.edge.connected(&scene.hub, &scene.device, "probe"), next);
    again.send(20)?;
    sender.acknowledged.extend(again.acknowledged);
    scene.assert_delivered(&sender);
    edge::wait_until_reported(&scene.hub, &scene.device, "a deployment in force", |report| {
        report["lastDesiredStatus"]["code"] == 200
    });
    let kept = status["damagedState"]["kept"].as_str().unwrap_or_default();
    assert!(Path::new(kept).is_file(), "{status}");
    Ok(())
}
