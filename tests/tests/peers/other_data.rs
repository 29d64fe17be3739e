//! Data that this release can't use: of another version, in use, on a disk that can't be written. A hub or an edge that meets
//! it ends with one precise error, and leaves it as it is.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use holm_e2e::daemon::Directory;
use holm_e2e::{Daemon, Device, Edge, Hub, Need, need};

/// Where a SQLite file has `user_version`: <https://www.sqlite.org/fileformat2.html>, 1.3.
const USER_VERSION: u64 = 60;
/// Where it has `application_id`.
const APPLICATION_ID: u64 = 68;

/// Writes a number into the header of a SQLite file that nobody has open.
#[track_caller]
fn set_header(file: &Path, at: u64, number: u32) {
    let opened = std::fs::OpenOptions::new().write(true).open(file);
    let opened = opened.unwrap_or_else(|error| panic!("`{}`: {error}", file.display()));
    opened
        .write_all_at(&number.to_be_bytes(), at)
        .expect("a header can be written");
}

/// Every file below a directory with its content, but for locks, which say nothing.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let entries = std::fs::read_dir(directory).expect("a directory of the test can be read");
    for path in entries.map(|entry| entry.expect("its entries too").path()) {
        if path.is_dir() {
            all.extend(content(&path));
        } else if path.is_file() && !path.ends_with("lock") {
            let bytes = std::fs::read(&path).expect("a file of the test can be read");
            all.insert(path, bytes);
        }
    }
    all
}

/// Runs a command that must fail with these words in its one line, and must change nothing below `data`.
#[track_caller]
fn assert_refused(data: &Path, mut command: Command, words: &[&str]) {
    let directory = Directory::new();
    let before = content(data);

    let (code, log) = Daemon::start("refused", directory.path(), &mut command).wait_until_ended();

    assert_eq!(code, Some(1), "{log}");
    let error = log.lines().find(|line| line.starts_with("holm: "));
    let error = error.unwrap_or_else(|| panic!("no error is told:\n{log}"));
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    let after = content(data);
    let changed = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "changed: {changed:?}");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn stopped_hub() -> Hub {
    let mut hub = Hub::start();
    let _device = hub.create_device("d1");
    hub.stop();
    hub
}

fn stopped_edge() -> (Hub, Edge) {
    let hub = Hub::start();
    let edge = start_and_stop(&hub, &hub.create_edge_device("pump-7"), Edge::start);
    (hub, edge)
}

fn start_and_stop(hub: &Hub, device: &Device, start: fn(&Hub, &Device) -> Edge) -> Edge {
    let mut edge = start(hub, device);
    holm_e2e::edge::wait_until_reported(hub, device, "the agent's first report", |report| {
        report["lastDesiredStatus"]["code"].is_number()
    });
    assert!(edge.stop().success());
    edge
}

#[test]
fn a_hub_refuses_a_database_of_another_version_and_names_both() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = stopped_hub();
    let database = hub.data().join("hub.db");

    set_header(&database, USER_VERSION, 7);
    assert_refused(
        &hub.data(),
        hub.run_command(),
        &[&text(&database), "format 7", "format 1"],
    );

    set_header(&database, USER_VERSION, 1);
    hub.restart();
    hub.service().call("GET", "/devices/d1", None);
}

#[test]
fn a_hub_refuses_a_database_that_is_not_a_hubs() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = stopped_hub();
    let database = hub.data().join("hub.db");

    set_header(&database, APPLICATION_ID, 0x1234_5678);
    assert_refused(
        &hub.data(),
        hub.run_command(),
        &[&text(&database), "not the database of a hub"],
    );

    std::fs::write(&database, "no database at all ".repeat(400)).expect("a file of the test can be written");
    assert_refused(&hub.data(), hub.run_command(), &[&text(&database), "not a database"]);
}

#[test]
fn a_hub_refuses_an_event_log_of_another_version_and_names_both() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut hub = stopped_hub();
    let format = hub.data().join("events/format");
    let good = std::fs::read_to_string(&format).expect("the queue says its format");

    let other = good.replacen("format 1", "format 9", 1);
    std::fs::write(&format, &other).expect("a file of the test can be written");
    let events = text(&hub.data().join("events"));
    assert_refused(&hub.data(), hub.run_command(), &[&events, "format 9", "format 1"]);

    std::fs::write(&format, good).expect("a file of the test can be written");
    hub.restart();
}

#[test]
fn an_edge_refuses_a_state_of_another_version_and_names_both() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let (_hub, mut edge) = stopped_edge();
    let state = edge.data().join("state.db");

    set_header(&state, USER_VERSION, 7);
    assert_refused(
        &edge.data(),
        edge.run_command(),
        &[&text(&state), "version 7", "version 3"],
    );
    set_header(&state, USER_VERSION, 3);
    set_header(&state, APPLICATION_ID, 0x1234_5678);
    assert_refused(
        &edge.data(),
        edge.run_command(),
        &[&text(&state), "not the state of an edge"],
    );

    set_header(&state, APPLICATION_ID, 0x484f_4c4d);
    edge.restart();
}

#[test]
fn an_edge_refuses_messages_of_another_version_and_names_both() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let (_hub, mut edge) = stopped_edge();
    let format = edge.data().join("queue/format");
    let good = std::fs::read_to_string(&format).expect("the queue says its format");

    std::fs::write(&format, good.replacen("format 1", "format 9", 1)).expect("a file of the test can be written");
    let queue = text(&edge.data().join("queue"));
    assert_refused(&edge.data(), edge.run_command(), &[&queue, "format 9", "format 1"]);

    std::fs::write(&format, good).expect("a file of the test can be written");
    edge.restart();
}

#[test]
fn a_data_directory_in_use_is_refused_by_hub_and_edge_and_the_first_goes_on() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);

    // On other ports: with the same ones it would fail at those, before it looks at the directory.
    let mut second_hub = Command::new(need::holm());
    second_hub
        .args([
            "hub",
            "run",
            "--mqtt-port",
            "0",
            "--amqp-port",
            "0",
            "--https-port",
            "0",
        ])
        .arg("--data")
        .arg(hub.data());
    let config = std::fs::read_to_string(edge.config()).expect("the configuration can be read");
    let other_config = hub.scratch().join("other.toml");
    std::fs::copy(edge.config(), &other_config).expect("its mode goes with it");
    std::fs::write(&other_config, config.replace(":9600", ":0")).expect("a file can be written");
    let mut second_edge = Command::new(need::holm());
    second_edge.args(["edge", "run", "--config"]).arg(&other_config);

    for (data, mut command, whose) in [
        (hub.data(), second_hub, "another hub"),
        (edge.data(), second_edge, "another edge"),
    ] {
        let (code, log) = Daemon::start("second", hub.scratch(), &mut command).wait_until_ended();

        let error = log
            .lines()
            .rfind(|line| line.starts_with("holm: "))
            .unwrap_or_default()
            .to_owned();
        assert_eq!(code, Some(1), "{log}");
        assert!(
            error.contains(&text(&data)) && error.contains("locked by") && error.contains(whose),
            "{error}"
        );
    }
    assert_eq!(hub.daemon().health().0, 200);
    assert_eq!(edge.daemon().health().0, 200);
}

#[test]
fn a_hub_on_a_read_only_disk_names_the_file_that_it_can_not_write() {
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return;
    }
    let mut hub = Hub::start_on_small_disk();
    hub.stop();

    hub.disk().make_read_only();

    assert_refused(
        &hub.data(),
        hub.run_command(),
        &[&text(&hub.data()), "Read-only file system"],
    );
}

#[test]
fn an_edge_on_a_read_only_disk_names_the_file_that_it_can_not_write() {
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = start_and_stop(&hub, &device, Edge::start_on_small_disk);

    edge.disk().make_read_only();

    assert_refused(
        &edge.data(),
        edge.run_command(),
        &[&text(&edge.data()), "Read-only file system"],
    );
}
