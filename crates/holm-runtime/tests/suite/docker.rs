//! The docker runtime against a real engine, with images made here from the device's own busybox.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holm_model::ModuleId;
use holm_runtime::{
    DockerConfig, DockerRuntime, LogsOptions, ModuleRuntime, ModuleSpec, PullPolicy, Reachability, RegistryAuth,
    RuntimeError, RuntimeKind, RuntimeStatus, Tail,
};
use serde_json::{Value, json};

use crate::support::{eventually, id, read_logs, wait_for_status};

/// Never in a registry.
const IMAGE: &str = "holm-test/busybox:1";

/// An edge of its own on the device's engine; what it made is removed when it is dropped.
struct Plant {
    directory: tempfile::TempDir,
    runtime: DockerRuntime,
    prefix: String,
}

impl Plant {
    /// `None`, said loudly, when there is no engine; in CI there must be one.
    async fn new() -> Option<Self> {
        static PLANTS: AtomicU32 = AtomicU32::new(0);
        let prefix = format!(
            "holm-test-{}-{}",
            std::process::id(),
            PLANTS.fetch_add(1, Ordering::Relaxed)
        );
        let runtime = DockerRuntime::new(DockerConfig {
            edge_hostname: Some("edge.plant".into()),
            instance: Some(prefix.clone()),
            ..DockerConfig::default()
        })
        .unwrap();
        if let Err(error) = runtime.engine_info().await {
            assert!(std::env::var_os("CI").is_none(), "{}", error.chain());
            eprintln!("SKIPPED, no container engine: {}", error.chain());
            return None;
        }
        import_image();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("workload.sock"), "stands for a socket").unwrap();
        Some(Self {
            directory,
            runtime,
            prefix,
        })
    }

    fn id(&self) -> ModuleId {
        id(&self.prefix)
    }

    fn spec(&self, script: &str, mut create_options: Value) -> ModuleSpec {
        create_options["Cmd"] = json!(["sh", "-c", script]);
        let mut spec = ModuleSpec::new(self.id(), RuntimeKind::Docker, IMAGE, self.directory.path());
        spec.create_options = create_options;
        spec.pull_policy = PullPolicy::Never;
        spec
    }

    async fn start(&self, script: &str, create_options: Value) -> ModuleId {
        let spec = self.spec(script, create_options);
        self.runtime.create(&spec).await.unwrap();
        self.runtime.start(&spec.id).await.unwrap();
        spec.id
    }

    async fn lines(&self) -> Vec<String> {
        let frames = read_logs(&self.runtime, &self.id(), &LogsOptions::default()).await;
        frames.into_iter().map(|(_, text)| text.trim_end().to_owned()).collect()
    }

    async fn wait_for_line(&self, line: &str) {
        eventually(&format!("the line `{line}`"), || async {
            self.lines().await.iter().any(|found| found == line).then_some(())
        })
        .await;
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.prefix]);
    }
}

/// Runs the engine's command line tool; what it says is shown when the test fails.
fn docker(arguments: &[&str]) -> bool {
    let output = Command::new("docker").args(arguments).output().unwrap();
    println!("docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success()
}

fn import_image() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("the tests need busybox-static"), bin.join("busybox")).unwrap();
        for tool in ["sh", "echo", "sleep", "cat", "hostname", "head", "tail"] {
            std::os::unix::fs::symlink("busybox", bin.join(tool)).unwrap();
        }
        let tar = directory.path().join("image.tar");
        let made = Command::new("tar")
            .arg("-C")
            .arg(directory.path())
            .arg("-cf")
            .arg(&tar)
            .arg("bin")
            .status();
        assert!(made.unwrap().success());
        assert!(docker(&["import", tar.to_str().unwrap(), IMAGE]));
    });
}

#[tokio::test]
async fn a_log_is_bounded_unless_the_manifest_says_how_it_is_kept() {
    let Some(plant) = Plant::new().await else { return };
    let log = |plant: &Plant| {
        let arguments = ["inspect", "--format", "{{json .HostConfig.LogConfig}}", &plant.prefix];
        let output = Command::new("docker").args(arguments).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };

    plant.runtime.create(&plant.spec("true", json!({}))).await.unwrap();
    let bounded = log(&plant);
    plant.runtime.remove(&plant.id()).await.unwrap();
    let own = json!({"Type": "json-file", "Config": {"max-size": "1m"}});
    let spec = plant.spec("true", json!({"HostConfig": {"LogConfig": own}}));
    plant.runtime.create(&spec).await.unwrap();

    assert_eq!(
        bounded["Config"],
        json!({"max-size": "10485760", "max-file": "3"}),
        "{bounded}"
    );
    assert_eq!(log(&plant), own);
}

#[tokio::test]
async fn a_health_check_of_a_container_is_read() {
    let Some(plant) = Plant::new().await else { return };
    let check = json!({"Test": ["CMD-SHELL", "echo not well; cat /well"], "Interval": 100_000_000, "Retries": 2});

    let id = plant
        .start(
            "trap 'exit 0' TERM; while :; do sleep 0.1; done",
            json!({"Healthcheck": check}),
        )
        .await;
    let starting = plant.runtime.inspect(&id).await.unwrap();
    let unhealthy = wait_for_status(&plant.runtime, &id, RuntimeStatus::Unhealthy).await;

    assert!(starting.health.is_some(), "{starting:?}");
    assert!(unhealthy.description.unwrap().contains("not well"));
}

#[tokio::test]
async fn a_module_lives_through_its_life_as_a_container() {
    let Some(plant) = Plant::new().await else { return };
    let script = "echo \"$A $B\"; cat /var/run/iotedge/workload.sock; echo; echo x > /var/run/iotedge/y || echo read-only; \
                  cat /etc/hosts; echo ready; trap 'exit 4' TERM; while :; do sleep 0.1; done";
    let mut spec = plant.spec(
        script,
        json!({"Env": ["B=options"], "HostConfig": {"Memory": 50_000_000}}),
    );
    spec.env = [("A", "spec"), ("B", "spec")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let gateway = plant.runtime.ensure_network().await.unwrap().gateway;

    assert_eq!(plant.runtime.prepare(&spec).await.unwrap().note, None);
    plant.runtime.create(&spec).await.unwrap();
    let created = plant.runtime.list().await.unwrap();
    plant.runtime.start(&spec.id).await.unwrap();
    plant.runtime.start(&spec.id).await.unwrap();
    plant.wait_for_line("ready").await;
    let running = plant.runtime.inspect(&spec.id).await.unwrap();
    let stats = plant.runtime.stats(&spec.id).await.unwrap();
    let processes = plant.runtime.processes(&spec.id).await.unwrap();
    plant
        .runtime
        .stop(&spec.id, Some(Duration::from_secs(20)))
        .await
        .unwrap();
    let stopped = plant.runtime.inspect(&spec.id).await.unwrap();
    let lines = plant.lines().await;
    plant.runtime.remove(&spec.id).await.unwrap();
    plant.runtime.remove(&spec.id).await.unwrap();

    assert_eq!(created.len(), 1);
    assert_eq!(
        (created[0].status, created[0].started_at, created[0].exit_code),
        (RuntimeStatus::Stopped, None, None)
    );
    assert_eq!(running.status, RuntimeStatus::Running);
    assert_eq!(running.spec_digest, Some(spec.digest()));
    assert_eq!(running.image, IMAGE);
    assert!(running.image_hash.unwrap().starts_with("sha256:"));
    assert!(processes.contains(&running.pid.unwrap()), "{processes:?}");
    assert!(
        stats.memory_bytes > 0 && stats.memory_limit_bytes == Some(50_000_000),
        "{stats:?}"
    );
    assert_eq!(
        (stopped.status, stopped.exit_code, stopped.pid),
        (RuntimeStatus::Failed, Some(4), None)
    );
    assert!(stopped.started_at.unwrap() <= stopped.exited_at.unwrap());
    for line in [
        "spec options",
        "stands for a socket",
        "read-only",
        &format!("{gateway}\tedge.plant"),
    ] {
        assert!(lines.iter().any(|found| found == line), "`{line}` in {lines:?}");
    }
    assert!(plant.runtime.list().await.unwrap().is_empty());
    assert!(plant.runtime.inspect(&spec.id).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_container_of_somebody_else_with_the_name_is_neither_seen_nor_touched() {
    let Some(plant) = Plant::new().await else { return };
    assert!(docker(&["create", "--name", &plant.prefix, IMAGE, "sleep", "1"]));

    let refused = plant.runtime.create(&plant.spec("true", json!({}))).await.unwrap_err();
    plant.runtime.remove(&plant.id()).await.unwrap();

    assert!(
        refused.to_string().contains("does not belong to this edge"),
        "{refused}"
    );
    assert!(plant.runtime.list().await.unwrap().is_empty());
    assert!(plant.runtime.start(&plant.id()).await.unwrap_err().is_not_found());
    assert!(docker(&["inspect", &plant.prefix]), "it was removed");
}

#[tokio::test]
async fn create_refuses_a_second_module_and_an_image_that_is_not_there() {
    let Some(plant) = Plant::new().await else { return };
    let mut spec = plant.spec("true", json!({}));
    plant.runtime.create(&spec).await.unwrap();

    let second = plant.runtime.create(&spec).await;
    spec.image = "holm-test/never-made:1".into();
    let unprepared = plant.runtime.prepare(&spec).await;
    plant.runtime.remove(&spec.id).await.unwrap();
    let without_image = plant.runtime.create(&spec).await;

    assert!(matches!(second, Err(RuntimeError::AlreadyExists(_))), "{second:?}");
    assert!(matches!(unprepared, Err(RuntimeError::Image { .. })), "{unprepared:?}");
    assert!(
        matches!(without_image, Err(RuntimeError::Image { .. })),
        "{without_image:?}"
    );
}

#[tokio::test]
async fn a_program_that_is_not_in_the_image_is_a_failed_start() {
    let Some(plant) = Plant::new().await else { return };
    let mut spec = plant.spec("", json!({}));
    spec.create_options["Cmd"] = json!(["/no/such/program"]);
    plant.runtime.create(&spec).await.unwrap();

    let error = plant.runtime.start(&spec.id).await.unwrap_err();

    assert!(matches!(error, RuntimeError::StartFailed { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let state = plant.runtime.inspect(&spec.id).await.unwrap();
    assert!(state.exit_code.is_none() || state.exit_code == Some(127), "{state:?}");
}

#[tokio::test]
async fn output_keeps_its_streams_and_a_terminal_gets_framed() {
    let Some(plant) = Plant::new().await else { return };
    let id = plant
        .start("echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three", json!({}))
        .await;
    wait_for_status(&plant.runtime, &id, RuntimeStatus::Stopped).await;
    let expected = [(1, "one\n"), (2, "two\n"), (1, "three\n")].map(|(n, text)| (n, text.to_owned()));

    let all = read_logs(&plant.runtime, &id, &LogsOptions::default()).await;
    let tail = LogsOptions {
        tail: Tail::Lines(1),
        follow: true,
        timestamps: true,
        ..LogsOptions::default()
    };
    let last = read_logs(&plant.runtime, &id, &tail).await;
    plant.runtime.remove(&id).await.unwrap();
    plant.start("echo tty", json!({"Tty": true})).await;
    wait_for_status(&plant.runtime, &id, RuntimeStatus::Stopped).await;
    let terminal = read_logs(&plant.runtime, &id, &LogsOptions::default()).await;

    assert_eq!(all, expected);
    assert_eq!(last.len(), 1);
    assert!(last[0].1.ends_with("Z three\n"), "{last:?}");
    assert_eq!(terminal, [(1, "tty\r\n".to_owned())]);
}

#[tokio::test]
async fn the_edge_is_tried_from_inside_the_network_of_the_container() {
    let Some(plant) = Plant::new().await else { return };
    let gateway = plant.runtime.ensure_network().await.unwrap().gateway;
    let listener = TcpListener::bind(SocketAddr::new(gateway, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let loopback_port = loopback.local_addr().unwrap().port();
    let id = plant.start("exec sleep 1000", json!({})).await;
    let probe = async |host: &str, port: u16| plant.runtime.probe_reachability(&id, host, port).await.unwrap();

    let by_name = probe("edge.plant", port).await;
    let by_address = probe(&gateway.to_string(), port).await;
    let device_loopback = probe("127.0.0.1", loopback_port).await;
    let unknown = probe("no-such-name.invalid", port).await;
    drop(listener);
    let closed = probe("edge.plant", port).await;
    plant.runtime.stop(&id, Some(Duration::ZERO)).await.unwrap();
    let stopped = probe("edge.plant", port).await;

    assert_eq!(by_name, Reachability::Reachable);
    assert_eq!(by_address, Reachability::Reachable);
    let reason = |found: Reachability| match found {
        Reachability::Unreachable { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(
        reason(device_loopback).contains("refused"),
        "the device's loopback is not the container's"
    );
    assert!(reason(unknown).contains("HostConfig.ExtraHosts"));
    assert!(reason(closed).contains("refused"));
    assert!(matches!(stopped, Reachability::NotChecked { .. }), "{stopped:?}");
}

#[tokio::test]
async fn a_module_on_the_host_network_reaches_what_the_device_reaches() {
    let Some(plant) = Plant::new().await else { return };
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = loopback.local_addr().unwrap().port();
    let id = plant
        .start("exec sleep 1000", json!({"HostConfig": {"NetworkMode": "host"}}))
        .await;

    let found = plant.runtime.probe_reachability(&id, "127.0.0.1", port).await.unwrap();

    assert_eq!(found, Reachability::Reachable);
}

#[tokio::test]
async fn an_image_that_is_present_is_used_when_its_registry_is_silent_and_that_is_told() {
    let Some(plant) = Plant::new().await else { return };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = format!("127.0.0.1:{free}/pump:1");
    assert!(docker(&["tag", IMAGE, &silent]));
    let mut spec = plant.spec("true", json!({}));
    spec.pull_policy = PullPolicy::OnCreate;
    spec.image.clone_from(&silent);

    let present = plant.runtime.prepare(&spec).await.unwrap();
    assert!(docker(&["rmi", &silent]));
    let absent = plant.runtime.prepare(&spec).await.unwrap_err();

    let note = present.note.unwrap();
    assert!(note.contains(&silent) && note.contains("cannot be reached"), "{note}");
    assert!(matches!(absent, RuntimeError::Image { .. }), "{absent}");
    assert!(absent.to_string().contains("refused"), "{absent}");
}

#[tokio::test]
async fn images_come_from_a_registry_with_the_right_credentials_and_no_others() {
    let Some(plant) = Plant::new().await else { return };
    let Some(registry) = Registry::start(plant.directory.path()).await else {
        return;
    };
    let image = format!("{}/vendor/pump:1", registry.address);
    registry.push(&image);
    assert!(docker(&["rmi", &image]));
    let mut spec = plant.spec("true", json!({}));
    spec.pull_policy = PullPolicy::OnCreate;
    spec.image.clone_from(&image);
    let auth = |password: &str| {
        Some(RegistryAuth {
            server_address: registry.address.clone(),
            username: "user".into(),
            password: password.into(),
        })
    };

    spec.registry_auth = auth("wrong");
    let refused = plant.runtime.prepare(&spec).await.unwrap_err();
    spec.registry_auth = auth("secret");
    let pulled = plant.runtime.prepare(&spec).await.unwrap();
    plant.runtime.create(&spec).await.unwrap();
    spec.registry_auth = auth("wrong");
    let refused_again = plant.runtime.prepare(&spec).await.unwrap_err();
    drop(registry);
    let offline = plant.runtime.prepare(&spec).await.unwrap();

    assert!(
        refused.to_string().contains("unauthorized") || refused.to_string().contains("basic auth"),
        "{refused}"
    );
    assert_eq!(pulled.note, None);
    assert!(
        refused_again.to_string().contains("its registry refuses it"),
        "{refused_again}"
    );
    assert!(offline.note.unwrap().contains("cannot be reached"));
    plant.runtime.remove(&spec.id).await.unwrap();
    assert!(docker(&["rmi", &image]));
}

/// Debian's registry on a free port, with one user.
struct Registry {
    child: Child,
    address: String,
    directory: tempfile::TempDir,
}

/// `secret` as the registry's password file wants it (bcrypt).
const PASSWORDS: &str = "user:$2b$12$yEud8jIZLcLgR.tfdmTXT.cI0pkcWDBTigtgfAvTxwPlEuBSbFuN6\n";

impl Registry {
    async fn start(beside: &Path) -> Option<Self> {
        let directory = tempfile::tempdir_in(beside).unwrap();
        let path = directory.path().display();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fs::write(directory.path().join("passwords"), PASSWORDS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {path}/data}}}}\n\
             http: {{addr: \"{address}\"}}\nauth: {{htpasswd: {{realm: plant, path: {path}/passwords}}}}\n"
        );
        fs::write(directory.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "docker-registry: {error}");
                eprintln!("SKIPPED, no docker-registry: {error}");
                return None;
            }
        };
        eventually("the registry", || async { TcpStream::connect(address).ok() }).await;
        Some(Self {
            child,
            address: address.to_string(),
            directory,
        })
    }

    fn push(&self, image: &str) {
        let config = self.directory.path().join("client");
        let config = config.to_str().unwrap();
        assert!(docker(&["tag", IMAGE, image]));
        assert!(docker(&[
            "--config",
            config,
            "login",
            "-u",
            "user",
            "-p",
            "secret",
            &self.address
        ]));
        assert!(docker(&["--config", config, "push", image]));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
