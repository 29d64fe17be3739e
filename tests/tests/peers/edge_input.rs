//! An edge that can't start says why, by name and place; one that can't reach its hub goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use holm_e2e::daemon::{Daemon, Directory};
use holm_e2e::sas::spoiled;
use holm_e2e::{Address, Device, Hub, Need, edge, need};

/// A hub with an edge device, and a directory for what is told to the edge.
struct Bench {
    hub: Hub,
    device: Device,
    address: Address,
    directory: Directory,
}

impl Bench {
    fn new() -> Self {
        let hub = Hub::start();
        let device = hub.create_edge_device("pump-7");
        Self {
            hub,
            device,
            address: Address::take(),
            directory: Directory::new(),
        }
    }

    fn good(&self) -> String {
        let ip = self.address.ip();
        edge::configuration(&self.hub, &self.device, ip, &ip.to_string(), self.directory.path())
    }

    /// The command `holm edge run` on a configuration.
    fn command(&self, config: &str, mode: u32) -> Command {
        let path = self.directory.path().join("edge.toml");
        std::fs::write(&path, config).expect("a file of the test can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode can be set");
        let mut command = Command::new(need::holm());
        command.args(["edge", "run", "--config"]).arg(path);
        command
    }

    /// What `--check` says about a configuration.
    fn check(&self, config: &str, mode: u32) -> Output {
        self.command(config, mode)
            .arg("--check")
            .output()
            .expect("the binary can be started")
    }

    #[track_caller]
    fn assert_refused(&self, config: &str, mode: u32, words: &[&str]) {
        let done = self.check(config, mode);
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "accepted:\n{config}");
        for word in words {
            assert!(error.contains(word), "`{word}` is not in:\n{error}");
        }
    }
}

#[test]
fn a_configuration_is_refused_by_the_name_and_place_of_what_is_wrong() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let good = bench.good();

    assert!(
        bench.check(&good, 0o600).status.success(),
        "{:?}",
        bench.check(&good, 0o600)
    );
    bench.assert_refused(
        &format!("hostnam = \"x\"\n{good}"),
        0o600,
        &["hostnam", "hostname", "1"],
    );
    bench.assert_refused(
        &good.replace("module_paths", "module_path"),
        0o600,
        &["module_path", "module_paths"],
    );
    bench.assert_refused(&good.replace("\"manual\"", "\"dps\""), 0o600, &["dps", "not yet"]);
    bench.assert_refused(&good.replace("[holm]", "[holm"), 0o600, &["edge.toml"]);
    bench.assert_refused(&good.replace("SharedAccessKey=", "SharedKey="), 0o600, &["SharedKey"]);
    bench.assert_refused(&good, 0o644, &["edge.toml", "chmod"]);
}

#[test]
fn no_key_of_a_refused_configuration_is_shown() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let config = format!("unknown = 1\n{}", bench.good());

    let done = bench.check(&config, 0o600);

    let said = [done.stdout, done.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(&bench.device.primary_key));
}

#[test]
fn a_second_edge_on_one_data_directory_is_refused() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let running = holm_e2e::Edge::start(&bench.hub, &bench.device);
    let data = running.data().display().to_string();
    let own = format!("{}/edge", bench.directory.path().display());

    let second = bench
        .command(&bench.good().replace(&own, &data), 0o600)
        .output()
        .expect("the binary can be started");

    let error = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && error.contains(&data) && error.contains("lock"),
        "{error}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let _taken = std::net::TcpListener::bind((bench.address.ip(), 8883)).expect("the port is free");

    let done = bench
        .command(&bench.good(), 0o600)
        .output()
        .expect("the binary can be started");

    let error = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && error.contains("8883"), "{error}");
}

#[test]
fn an_edge_with_a_wrong_key_says_so_and_waits() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let config = bench
        .good()
        .replace(&bench.device.primary_key, &spoiled(&bench.device.primary_key));

    let mut running = Daemon::start("edge", bench.directory.path(), &mut bench.command(&config, 0o600));

    running.wait_until("a word about the refusal", || {
        let log = running_log(&bench);
        let told = ["not authorized", "unauthorized", "refused", "401"]
            .iter()
            .any(|word| log.to_lowercase().contains(word));
        if told { Ok(()) } else { Err(log) }
    });
    assert!(!running.log().contains(&bench.device.primary_key));
    assert!(running.ended().is_none());
}

#[test]
fn an_edge_whose_hub_is_not_there_waits_for_it() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let mut bench = Bench::new();
    bench.hub.crash();
    let config = bench.good();
    let mut running = Daemon::start("edge", bench.directory.path(), &mut bench.command(&config, 0o600));
    let socket = bench.directory.path().join("mgmt.sock");
    running.wait_until("an edge that answers", || {
        std::os::unix::net::UnixStream::connect(&socket)
            .map(drop)
            .map_err(|error| error.to_string())
    });

    bench.hub.restart();

    edge::wait_until_reported(&bench.hub, &bench.device, "the agent's first report", |report| {
        report["lastDesiredStatus"]["code"].is_number()
    });
    assert!(running.ended().is_none());
}

fn running_log(bench: &Bench) -> String {
    std::fs::read_to_string(bench.directory.path().join("edge.log")).unwrap_or_default()
}
