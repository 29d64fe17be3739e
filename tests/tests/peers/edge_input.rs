//! An edge that can't start says why, by name and place; one that can't reach its hub goes on.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use holm_e2e::daemon::{Daemon, Directory};
use holm_e2e::sas::spoiled;
use holm_e2e::{Address, Device, Hub, Need, edge, need};
use serde_json::json;

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
    bench.assert_refused(
        &good.replace("\"manual\"", "\"dps\""),
        0o600,
        &["dps", "global_endpoint", "id_scope", "missing"],
    );
    bench.assert_refused(&good.replace("\"manual\"", "\"tpm\""), 0o600, &["tpm", "manual", "dps"]);
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

#[test]
fn files_that_the_configuration_names_are_looked_at_before_the_edge_starts() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let good = bench.good();
    let ca = bench.hub.ca().display().to_string();

    bench.assert_refused(
        &good.replace(&ca, "/nonexistent/roots.pem"),
        0o600,
        &["/nonexistent/roots.pem", "trust_bundle_cert"],
    );
    let authority = "[edge_ca]\ncert = \"file:///nonexistent/ca.pem\"\npk = \"file:///nonexistent/ca.key\"\n";
    bench.assert_refused(
        &format!("{good}{authority}"),
        0o600,
        &["/nonexistent/ca", "edge_ca.cert"],
    );
}

#[test]
fn an_edge_goes_on_without_the_usual_metrics_address_and_not_without_one_that_was_asked_for() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let bench = Bench::new();
    let asked = format!("metrics_bind = \"{}:9600\"\n", bench.address.ip());
    let good = bench.good();
    assert!(good.contains(&asked), "{good}");
    // Where it can't be had here, somebody else has it, which is as good.
    let _usual = std::net::TcpListener::bind("127.0.0.1:9600");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string()));
    let (_taken, address) = taken.expect("it is bound");

    let refused = bench
        .command(&good.replace(&asked, &format!("metrics_bind = \"{address}\"\n")), 0o600)
        .output()
        .expect("the binary can be started");
    let mut command = bench.command(&good.replace(&asked, ""), 0o600);
    let mut running = Daemon::start("edge", bench.directory.path(), &mut command);

    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains(&address) && error.contains("metrics_bind"), "{error}");
    running.wait_until("an edge that is ready", || {
        let log = running_log(&bench);
        running_without_metrics(&log).then_some(()).ok_or(log)
    });
}

fn running_without_metrics(log: &str) -> bool {
    let warned = log
        .lines()
        .any(|line| line.contains("WARN") && line.contains("127.0.0.1:9600"));
    let ready = log.lines().find(|line| line.starts_with("ready "));
    warned && ready.is_some_and(|line| !line.contains("status="))
}

#[test]
fn a_module_with_a_user_of_its_own_reaches_its_socket_whatever_the_umask_was() {
    // Who may mount may become another user.
    if !Need::all(&[Need::LowPorts, Need::Mount]) {
        return;
    }
    let bench = Bench::new();
    let outer = bench.directory.path();
    std::fs::set_permissions(outer, std::fs::Permissions::from_mode(0o711)).expect("its mode can be set");
    drop(bench.command(&bench.good(), 0o600));
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" edge run --config \"$1\""])
        .arg(need::holm())
        .arg(outer.join("edge.toml"));
    let mut running = Daemon::start("edge", outer, &mut command);
    // It says once whether it may connect, and again after each start.
    let script = "test -w \"${IOTEDGE_WORKLOADURI#unix://}\" && echo reached || echo barred; sleep 3600";
    let options = json!({"User": "4242:4242", "Entrypoint": ["/bin/sh", "-c", script]});
    let probe = json!({"type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": "holm/sensor", "createOptions": options.to_string()}});
    edge::deploy(
        &bench.hub,
        &bench.device,
        &edge::manifest(&json!({"probe": probe}), &json!({})),
    );
    let socket = format!("unix://{}", outer.join("mgmt.sock").display());
    let ask = |what: &str| {
        let mut command = Command::new(need::holm());
        command.args(["edge", what, "probe"]).env("IOTEDGE_HOST", &socket);
        let done = command.output().expect("the binary can be started");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let mut last_word = |word: &str| {
        running.wait_until(word, || {
            let log = ask("logs");
            let said = log.lines().last().is_some_and(|line| line.ends_with(word));
            if said { Ok(()) } else { Err(log) }
        });
    };

    last_word("reached");
    let data = outer.join("edge");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("its mode can be set");
    ask("restart");
    last_word("barred");

    let log = running_log(&bench);
    let remedy = format!("chmod o+x {}", data.display());
    assert!(
        log.lines().any(|line| line.contains("WARN") && line.contains(&remedy)),
        "{log}"
    );
    running.kill();
    holm_e2e::processes::end_modules(&data);
}

fn running_log(bench: &Bench) -> String {
    std::fs::read_to_string(bench.directory.path().join("edge.log")).unwrap_or_default()
}
