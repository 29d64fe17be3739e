//! What an operator does on the device, by commands: lists, logs, bundles, configurations, the service.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use holm_e2e::daemon::Directory;
use holm_e2e::{Edge, Hub, Need, edge, need, patience};
use serde_json::{Value, json};

fn run(edge: &Edge, words: &[&str]) -> Output {
    let mut command = Command::new(need::holm());
    command.arg("edge").args(words).env("IOTEDGE_HOST", edge.socket_uri());
    command.output().expect("the binary can be started")
}

fn out(done: &Output) -> String {
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn error(done: &Output) -> String {
    String::from_utf8_lossy(&done.stderr).into_owned()
}

/// The modules of `edge list --json`, by name.
fn listed(edge: &Edge) -> Value {
    let modules: Value = serde_json::from_str(&edge.holm(&["list", "--json"])).expect("it is JSON");
    let all = modules.as_array().expect("it is a list").iter();
    Value::Object(
        all.map(|module| (module["name"].as_str().unwrap_or_default().to_owned(), module.clone()))
            .collect(),
    )
}

fn process(image: &str, options: &Value) -> Value {
    json!({
        "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
        "settings": {"image": image, "createOptions": options.to_string()},
    })
}

/// Deploys modules that fare as they fare: the trial is over when the first edition counts as good.
fn deploy(hub: &Hub, device: &holm_e2e::Device, modules: &Value) {
    edge::deploy(hub, device, &edge::manifest(modules, &json!({})));
}

#[test]
fn the_list_shows_the_parts_of_the_edge_and_every_module_with_the_reason_why_it_is_not_well() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let fine = process("holm/sensor", &json!({}));

    deploy(&hub, &device, &json!({"fine": fine}));
    patience::wait("the first module", patience::long(), || {
        let all = listed(&edge);
        let status = &all["fine"]["status"]["runtimeStatus"]["status"];
        if status == "running" {
            Ok(())
        } else {
            Err(all.to_string())
        }
    });
    deploy(
        &hub,
        &device,
        &json!({"fine": fine, "nowhere": process("no-such-program", &json!({}))}),
    );
    let all = patience::wait("the reason of the second", patience::long(), || {
        let all = listed(&edge);
        let reason = all["nowhere"]["status"]["runtimeStatus"]["description"].as_str();
        match reason {
            Some(reason) if reason.contains("no-such-program") => Ok(all),
            _ => Err(all.to_string()),
        }
    });
    let table = edge.holm(&["list"]);

    for (name, image) in [("edgeAgent", "holm/edge-agent"), ("edgeHub", "holm/edge-hub")] {
        assert_eq!(all[name]["status"]["runtimeStatus"]["status"], "running", "{all}");
        let found = all[name]["config"]["settings"]["image"].as_str().unwrap_or_default();
        assert!(found.starts_with(image), "{found}");
    }
    // Tried in force, or still to be made ready: by which of the two was sooner.
    let status = all["nowhere"]["status"]["runtimeStatus"]["status"].as_str();
    assert!(matches!(status, Some("unknown" | "failed")), "{all}");
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line("fine").contains(" Up "), "{table}");
    assert!(line("nowhere").contains("no-such-program"), "{table}");
}

#[test]
fn a_module_that_ended_is_told_with_its_exit_code_and_when_it_is_started_again() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    let script = edge.data().parent().expect("it has one").join("modules/short");
    std::fs::write(&script, "#!/bin/sh\nexit 3\n").expect("a file can be written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");

    deploy(&hub, &device, &json!({"short": process("short", &json!({}))}));

    patience::wait("the end of the module", patience::long(), || {
        let table = edge.holm(&["list"]);
        let line = table.lines().find(|line| line.starts_with("short")).unwrap_or_default();
        let is_told = line.contains("Failed (3)") && line.contains("it ended with exit code 3");
        if is_told { Ok(()) } else { Err(table) }
    });
}

#[test]
fn the_edges_own_log_is_that_of_its_parts_and_a_module_that_is_not_there_is_not_found() {
    if !Need::all(&[Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let edge = Edge::start(&hub, &device);
    edge.wait_for_link();

    let own = run(&edge, &["logs", "edgeHub", "--tail", "all", "--since", "1 hour"]);
    let last = run(&edge, &["logs", "edgeAgent", "--tail", "1"]);
    let unknown = run(&edge, &["logs", "nobody"]);
    let restart = run(&edge, &["restart", "nobody"]);
    let built_in = run(&edge, &["restart", "edgeAgent"]);

    assert!(out(&own).contains("the edge is ready"), "{own:?}");
    assert_eq!(out(&last).lines().count(), 1, "{last:?}");
    for done in [&unknown, &restart] {
        assert_eq!(done.status.code(), Some(1));
        assert!(
            error(done).contains("there is no module `nobody`") && error(done).contains("404"),
            "{done:?}"
        );
    }
    assert_eq!(built_in.status.code(), Some(1));
    assert!(error(&built_in).contains("holm edge system restart"), "{built_in:?}");
}

/// The files of an archive, by Python's reader.
fn unpacked(archive: &Path) -> Value {
    let program = "import json, sys, zipfile\narchive = zipfile.ZipFile(sys.argv[1])\nassert archive.testzip() is None\n\
                   json.dump({name: archive.read(name).decode() for name in archive.namelist()}, sys.stdout)";
    let done = Command::new("python3").args(["-c", program]).arg(archive).output();
    let done = done.expect("Python can be started");
    assert!(done.status.success(), "{done:?}");
    serde_json::from_slice(&done.stdout).expect("it is JSON")
}

#[test]
fn a_support_bundle_holds_what_helps_and_no_secret_with_the_edge_running_and_without() {
    if !Need::all(&[Need::Python, Need::LowPorts]) {
        return;
    }
    let hub = Hub::start();
    let device = hub.create_edge_device("pump-7");
    let mut edge = Edge::start(&hub, &device);
    let script = edge.data().parent().expect("it has one").join("modules/talker");
    std::fs::write(
        &script,
        "#!/bin/sh\necho 'at work; SharedAccessKey=bGV0bWVpbg=='\nexec sleep 1000\n",
    )
    .expect("a file can be written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    deploy(
        &hub,
        &device,
        &json!({"talker": process("talker", &json!({"Env": ["PASSWORD=hunter22"]}))}),
    );
    patience::wait("a line of the module", patience::long(), || {
        let log = run(&edge, &["logs", "talker"]);
        if out(&log).contains("at work") {
            Ok(())
        } else {
            Err(error(&log))
        }
    });
    let config = edge.config().display().to_string();
    let archive = hub.scratch().join("bundle.zip");
    let path = archive.display().to_string();
    let key = device
        .connection_string
        .rsplit_once("SharedAccessKey=")
        .expect("it has a key")
        .1
        .to_owned();
    let make = |edge: &Edge, more: &[&str]| {
        let words = [&["support-bundle", "--config", &config, "-o", &path], more].concat();
        let done = run(edge, &words);
        assert!(done.status.success(), "{done:?}");
        let files = unpacked(&archive);
        assert!(!files.to_string().contains(&key), "the device's key is in it");
        assert!(
            !files.to_string().contains("hunter22") && !files.to_string().contains("bGV0bWVpbg"),
            "{files}"
        );
        (files, done)
    };

    let (whole, _) = make(&edge, &[]);
    let (runtime_only, quiet) = make(&edge, &["-e", "-q", "--since", "1h"]);
    let to_stdout = run(&edge, &["support-bundle", "-q", "-o", "-", "--config", &config]);
    let mut nobody_says_where = Command::new(need::holm());
    nobody_says_where.args(["edge", "support-bundle", "-q", "-o", &path, "--config", &config]);
    let found = nobody_says_where.env_remove("IOTEDGE_HOST").status();
    let by_its_configuration = unpacked(&archive);
    edge.stop();
    let (stopped, _) = make(&edge, &[]);

    for name in [
        "check.json",
        "systeminfo.json",
        "config.toml",
        "status.json",
        "modules.json",
        "inspect/talker.json",
    ] {
        assert!(whole[name].is_string(), "{name}");
    }
    assert!(
        whole["logs/talker_log.txt"]
            .as_str()
            .is_some_and(|log| log.contains("at work")),
        "{}",
        whole["logs/talker_log.txt"]
    );
    assert!(
        whole["logs/edgeAgent_log.txt"]
            .as_str()
            .is_some_and(|log| log.contains("the edge is ready"))
    );
    assert!(runtime_only["logs/talker_log.txt"].is_null() && runtime_only["logs/edgeAgent_log.txt"].is_string());
    assert_eq!(out(&quiet), "");
    assert!(found.is_ok_and(|status| status.success()));
    assert!(
        by_its_configuration["status.json"].is_string(),
        "{by_its_configuration}"
    );
    assert!(to_stdout.stdout.starts_with(b"PK\x03\x04"));
    assert!(
        stopped["edge-not-reached.txt"]
            .as_str()
            .is_some_and(|why| why.contains("no edge answers")),
        "{stopped}"
    );
    assert!(stopped["check.json"].is_string() && stopped["status.json"].is_null());
}

/// A directory that stands first on the path, with a `systemctl` and a `journalctl` that note how they were called. Real ones
/// would act on this machine.
struct Systemd {
    folder: Directory,
    config: String,
    /// As whom the service runs: somebody else, where this test may make files that are somebody else's.
    uid: u32,
}

impl Systemd {
    fn new() -> Self {
        let folder = Directory::new();
        let config = folder.path().join("service.toml").display().to_string();
        let of = |words: &[&str]| {
            let done = Command::new("id").args(words).output().expect("`id` can be started");
            out(&done).trim().to_owned()
        };
        let user = if of(&["-u"]) == "0" {
            "nobody".to_owned()
        } else {
            of(&["-un"])
        };
        let uid = of(&["-u", &user]).parse().expect("it is a number");
        let systemd = Self { folder, config, uid };
        let answer = format!(
            "LoadState=loaded\\nActiveState=active\\nSubState=running\\nResult=success\\nNRestarts=0\\nUser={user}\\nExecStart={{ argv[]=/usr/bin/holm edge run --config {} ; }}\\n",
            systemd.config
        );
        let called = systemd.folder.path().join("called").display().to_string();
        for name in ["systemctl", "journalctl"] {
            let script = format!(
                "#!/bin/sh\necho \"{name} $*\" >> {called}\ncase \"$1\" in show) printf '{answer}';; esac\n[ {name} = journalctl ] && echo 'a line of the journal'\nexit 0\n"
            );
            let path = systemd.folder.path().join(name);
            std::fs::write(&path, script).expect("a file can be written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        }
        systemd
    }

    fn run(&self, words: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.folder.path().display());
        let mut command = Command::new(need::holm());
        command
            .arg("edge")
            .args(words)
            .env("PATH", path)
            .env("IOTEDGE_HOST", "unix:///nonexistent/mgmt.sock");
        command.output().expect("the binary can be started")
    }

    /// How the programs were called, but for questions.
    fn told(&self) -> Vec<String> {
        let called = std::fs::read_to_string(self.folder.path().join("called")).unwrap_or_default();
        let orders = called.lines().filter(|line| !line.starts_with("systemctl show"));
        orders.map(str::to_owned).collect()
    }
}

const CONNECTION: &str = "HostName=hub.test;DeviceId=pump-7;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==";

#[test]
fn a_configuration_is_made_checked_and_given_to_the_service() {
    let systemd = Systemd::new();
    let made = systemd.folder.path().join("made.toml").display().to_string();

    let mp = systemd.run(&["config", "mp", "--connection-string", CONNECTION, "-o", &made]);
    let again = systemd.run(&["config", "mp", "--connection-string", CONNECTION, "-o", &made]);
    let wrong = systemd.run(&["config", "mp", "-c", "HostName=x", "-o", &made, "-f"]);
    let apply = systemd.run(&["config", "apply", "-c", &made]);

    assert!(mp.status.success(), "{mp:?}");
    assert!(
        !again.status.success() && error(&again).contains("--force"),
        "{again:?}"
    );
    assert!(
        !wrong.status.success() && error(&wrong).contains("DeviceId"),
        "{wrong:?}"
    );
    assert!(apply.status.success(), "{apply:?}");
    let service = std::fs::read_to_string(&systemd.config).expect("the service has its configuration");
    assert!(service.contains(CONNECTION), "{service}");
    let made_for = std::fs::metadata(&systemd.config).expect("it is there");
    assert_eq!(
        (made_for.permissions().mode() & 0o777, made_for.uid()),
        (0o600, systemd.uid)
    );
    assert_eq!(systemd.told(), ["systemctl restart holm-edge"]);

    std::fs::write(&made, "hostnam = \"x\"\n").expect("a file can be written");
    let broken = systemd.run(&["config", "apply", "-c", &made]);
    assert!(
        !broken.status.success() && error(&broken).contains("hostname"),
        "{broken:?}"
    );
    assert_eq!(
        std::fs::read_to_string(&systemd.config).expect("it is there"),
        service,
        "it is as it was"
    );
    assert_eq!(systemd.told().len(), 1, "nothing was restarted");
}

#[test]
fn a_configuration_of_1_1_is_taken_over_key_by_key() {
    let systemd = Systemd::new();
    let (old, new) = (
        systemd.folder.path().join("config.yaml"),
        systemd.folder.path().join("config.toml"),
    );
    let (from, to) = (old.display().to_string(), new.display().to_string());
    let yaml = format!(
        "provisioning:\n  source: manual\n  device_connection_string: \"{CONNECTION}\"\nhostname: pump-7\nhomedir: /var/lib/iotedge\n"
    );
    std::fs::write(&old, yaml).expect("a file can be written");

    let done = systemd.run(&["config", "import", "-c", &from, "-o", &to]);
    let check = Command::new(need::holm())
        .args(["edge", "run", "--check", "--config", &to])
        .output();
    std::fs::write(&old, "provisioning:\n  source: dps\n  scope_id: x\nhostname: a\n").expect("a file can be written");
    let dps = systemd.run(&["config", "import", "-c", &from, "-o", &to, "--force", "--json"]);

    assert!(done.status.success(), "{done:?}");
    for word in ["provisioning.connection_string", "homedir", "left out"] {
        assert!(out(&done).contains(word), "{word}: {}", out(&done));
    }
    let check = check.expect("the binary can be started");
    assert!(check.status.success(), "{check:?}");
    assert!(
        !dps.status.success() && error(&dps).contains("nothing was written"),
        "{dps:?}"
    );
    let told: Value = serde_json::from_str(&out(&dps)).expect("it is JSON");
    assert_eq!(told["notKept"][0]["key"], "provisioning.source", "{told}");
    assert!(
        std::fs::read_to_string(&new).expect("it is there").contains(CONNECTION),
        "it is as it was"
    );
}

#[test]
fn what_can_not_be_taken_over_is_told_at_the_end_and_by_the_exit_code() {
    let systemd = Systemd::new();
    let folder = systemd.folder.path();
    let file = |name: &str| folder.join(name).display().to_string();
    let old = file("config.yaml");
    let yaml = format!(
        "provisioning: {{source: manual, device_connection_string: \"{CONNECTION}\"}}\nhostname: pump-7\nown: {{thing: 1}}\n"
    );
    std::fs::write(&old, &yaml).expect("a file can be written");

    let nowhere = systemd.run(&["config", "import", "-c", &old, "-o", &file("no/such/config.toml")]);
    let done = systemd.run(&["config", "import", "-c", &old, "-o", &file("new/config.toml")]);
    std::fs::write(&old, yaml + "agent: {name:\n").expect("a file can be written");
    let open = systemd.run(&["config", "import", "-c", &old, "-o", &file("open.toml")]);

    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    assert!(
        error(&nowhere).contains("no/such") && !folder.join("no").exists(),
        "{nowhere:?}"
    );
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(
        error(&done).contains("without what can't be kept: `own.thing`"),
        "{done:?}"
    );
    assert!(error(&done).contains("/new` was made"), "{done:?}");
    let text = std::fs::read_to_string(file("new/config.toml")).expect("it was written");
    assert!(text.contains(CONNECTION), "{text}");
    assert!(!open.status.success() && error(&open).contains("line 4"), "{open:?}");
    assert!(!Path::new(&file("open.toml")).exists());
}

#[test]
fn a_file_in_the_place_of_the_data_is_found_before_the_start() {
    let systemd = Systemd::new();
    let file = |name: &str| systemd.folder.path().join(name).display().to_string();
    let (config, data) = (file("config.toml"), file("data"));
    let text = format!(
        "hostname = \"pump-7\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{CONNECTION}\"\n[holm]\ndata = \"{data}\"\n"
    );
    std::fs::write(&config, text).expect("a file can be written");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let fine = systemd.run(&["run", "--check", "--config", &config]);
    std::fs::write(&data, "text").expect("a file can be written");

    let refused = systemd.run(&["run", "--check", "--config", &config]);

    assert!(fine.status.success(), "{fine:?}");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        error(&refused).contains(&data) && error(&refused).contains("it is a file"),
        "{refused:?}"
    );
}

#[test]
fn system_commands_ask_systemd_and_say_so_where_there_is_none() {
    let systemd = Systemd::new();

    let restart = systemd.run(&["system", "restart"]);
    let logs = systemd.run(&["system", "logs", "--", "-n", "5"]);
    let status = systemd.run(&["system", "status"]);
    let empty = Directory::new();
    let mut alone = Command::new(need::holm());
    let alone = alone
        .args(["edge", "system", "restart"])
        .env("PATH", empty.path())
        .output();
    let alone = alone.expect("the binary can be started");

    assert!(restart.status.success(), "{restart:?}");
    assert_eq!(out(&logs).trim(), "a line of the journal");
    assert_eq!(
        systemd.told(),
        ["systemctl restart holm-edge", "journalctl --unit holm-edge -n 5"]
    );
    assert_eq!(status.status.code(), Some(1), "no edge answers");
    assert!(
        out(&status).contains("holm-edge  Down") && out(&status).contains("systemd: active (running)"),
        "{status:?}"
    );
    assert_eq!(alone.status.code(), Some(1));
    assert!(
        error(&alone).contains("there is no systemd on this device"),
        "{alone:?}"
    );
}
