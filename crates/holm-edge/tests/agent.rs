//! The agent, the workload API and real processes together, without any hub: what was deployed is in the edge's memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests do")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_client::{Endpoint, Interests};
use holm_edge::agent::{Agent, AgentParts, Outbox, Surroundings};
use holm_edge::config::{DeviceProof, EdgeCa};
use holm_edge::identities::{Identities, IdentitiesOptions};
use holm_edge::keys::ModuleKeys;
use holm_edge::runtimes::Runtimes;
use holm_edge::security::{Security, SecurityOptions};
use holm_edge::state::{State, Vault};
use holm_edge::uplink::{Uplink, UplinkSettings};
use holm_edge::workload::Sockets;
use holm_identity::tls::{Roots, client_config};
use holm_identity::{CertificateAuthority, SymmetricKey, private_file};
use holm_model::{DeviceId, ModuleId, Timestamp};
use holm_net::http::Client;
use holm_net::{ListeningSockets, Scope};
use holm_runtime::{ModuleRuntime, ModuleState, ProcessConfig, ProcessRuntime};
use serde_json::{Value, json};
use tempfile::TempDir;

const HOLM: &str = env!("CARGO_BIN_EXE_holm-edge-test-modules");

fn id(text: &str) -> ModuleId {
    ModuleId::new(text).unwrap()
}

/// What stays when an edge stops: its data directory and its modules.
struct Device {
    data: TempDir,
    runtime: ProcessRuntime,
}

/// There is no broker here.
struct NothingSent;

impl Outbox for NothingSent {
    fn has_left(&self, _: &ModuleId) -> bool {
        true
    }
}

/// A running edge, as far as modules are concerned.
struct Edge {
    agent: Agent,
    scope: Scope,
}

impl Edge {
    async fn stop(self) {
        self.scope.drain(Duration::from_secs(20)).await.unwrap();
    }
}

impl Device {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let known = json!({"format": 1, "hub": "hub.test", "device": "dev1", "modules": {"m": {
            "generation": "g1", "managed_by": "IotEdge", "has_keys": true, "was_deployed": true}}});
        private_file::write(&data.path().join("identities.json"), known.to_string().as_bytes()).unwrap();
        let config = ProcessConfig {
            ready_made: ["signer", "crasher"].map(str::to_owned).into(),
            ..ProcessConfig::new(data.path().join("process"), vec![data.path().join("images")], HOLM)
        };
        Self {
            runtime: ProcessRuntime::new(config),
            data,
        }
    }

    fn out(&self) -> PathBuf {
        self.data.path().join("out")
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.out()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Starts an edge that finds this deployment in its memory.
    async fn start(&self, version: u64, modules: Value) -> Edge {
        let data = self.data.path();
        let scope = Scope::new();
        let state = State::open(
            &data.join("state.sqlite"),
            Vault::in_directory(&data.join("vault")).await.unwrap(),
        )
        .await
        .unwrap();
        let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": modules});
        let document = json!({"desired": desired, "version": version});
        state.put_document("agent.deployment", &document).await.unwrap();
        let now = Timestamp::from(std::time::SystemTime::now());
        let security = SecurityOptions {
            data: data.to_owned(),
            device: DeviceId::new("dev1").unwrap(),
            hub_host: "hub.test".to_owned(),
            proof: DeviceProof::Key(SymmetricKey::from_bytes(*b"0123456789abcdef").unwrap()),
            edge_ca: EdgeCa::QuickStart { days: 10 },
            trust_bundle_cert: None,
            system_roots: None,
            names: vec!["edge.test".to_owned()],
        };
        let security = Arc::new(Security::open(security, now).await.unwrap());
        let nobody = CertificateAuthority::create("nobody", 1, now).unwrap();
        let roots = Roots::none().with_pem(nobody.certificate_pem().as_bytes()).unwrap();
        let tls = Arc::new(client_config(roots, None).unwrap());
        let identities = IdentitiesOptions {
            cache: data.join("identities.json"),
            hub: Client::new(Arc::clone(&tls), "127.0.0.1", 1),
            timeout: Duration::from_secs(5),
            clock: holm_net::Clock::system(),
            refusals: holm_edge::uplink::Refusals::default(),
        };
        let identities = Arc::new(Identities::open(security, identities).unwrap());
        let runtimes = Runtimes::new([Arc::new(self.runtime.clone()) as Arc<dyn ModuleRuntime>]);
        let listening = ListeningSockets::default();
        let sockets = Sockets::new(
            data,
            Arc::clone(&identities),
            runtimes.clone(),
            listening,
            scope.clone(),
        );
        let endpoint = Endpoint {
            host: "127.0.0.1".to_owned(),
            port: 1,
        };
        let upload_tls = Arc::clone(&tls);
        let uplink = Uplink::new(
            UplinkSettings::new(endpoint, tls),
            Arc::clone(&identities) as Arc<_>,
            scope.clone(),
        );
        let agent = Agent::open(AgentParts {
            surroundings: Surroundings {
                device: identities.device().clone(),
                hub_host: "hub.test".to_owned(),
                gateway_host: "edge.test".to_owned(),
                mqtt_port: 8883,
                hub_protocol: holm_client::Transport::Mqtt,
                data: data.to_owned(),
                network: tokio::sync::watch::channel(None).1,
            },
            own_log: holm_edge::own_log::OwnLog::default(),
            version: "0".to_owned(),
            period: Duration::from_millis(100),
            trial: Duration::from_millis(200),
            state,
            identities,
            runtimes,
            sockets: Arc::new(sockets),
            outbox: Arc::new(NothingSent),
            refusals: uplink.refusals(),
            upload_tls,
            clock: holm_net::Clock::system(),
        })
        .await
        .unwrap();
        let (client, events) = uplink.open(&ModuleId::edge_agent(), Interests::default());
        let (task, own) = (agent.clone(), scope.clone());
        scope.spawn(async move { task.run(own, client, events).await });
        Edge { agent, scope }
    }

    fn module(&self, image: &str, policy: &str) -> Value {
        json!({"m": {"type": "process", "status": "running", "restartPolicy": policy, "settings": {"image": image},
            "env": {"OUT": {"value": self.out()}}}})
    }

    async fn state(&self) -> Option<ModuleState> {
        self.runtime.inspect(&id("m")).await.ok()
    }

    async fn pid(&self) -> u32 {
        let running = until("the module runs", async || {
            self.state().await.and_then(|state| state.pid)
        });
        running.await
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A module is no child of the test, so it would outlive it. The supervisor ends what it started when it is ended.
        let root = self.data.path().join("process");
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("state.json")).unwrap_or_default();
            let state: Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = state.pointer("/supervisor/pid").and_then(Value::as_i64);
            let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
            if let Some(pid) = pid.filter(|_| state["phase"] != "ended") {
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), wait).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain until {what}"),
    }
}

#[tokio::test]
async fn a_restart_of_the_edge_leaves_a_module_running_and_its_workload_socket_works_again() {
    let device = Device::new();
    let edge = device.start(1, device.module("holm/signer", "always")).await;
    let pid = device.pid().await;
    until("the module got a signature", async || {
        device.lines().iter().any(|line| line == "ok").then_some(())
    })
    .await;

    edge.stop().await;
    until("the module found the edge gone", async || {
        device.lines().last().is_some_and(|line| line != "ok").then_some(())
    })
    .await;
    let edge = device.start(1, device.module("holm/signer", "always")).await;
    until("the module gets signatures again", async || {
        device.lines().last().is_some_and(|line| line == "ok").then_some(())
    })
    .await;

    assert_eq!(device.pid().await, pid);
    assert_eq!(edge.agent.desired_status().code, 200);
    edge.stop().await;
}

#[tokio::test]
async fn a_changed_module_is_made_anew_and_a_removed_one_is_gone() {
    let device = Device::new();
    let edge = device.start(1, device.module("holm/signer", "always")).await;
    let pid = device.pid().await;
    edge.stop().await;

    let mut changed = device.module("holm/signer", "always");
    changed["m"]["version"] = json!("2");
    let edge = device.start(2, changed).await;
    until("the module runs anew", async || {
        let state = device.state().await;
        state.and_then(|state| state.pid).filter(|new| *new != pid)
    })
    .await;
    edge.stop().await;

    let edge = device.start(3, json!({})).await;
    until("the module is gone", async || {
        device.state().await.is_none().then_some(())
    })
    .await;
    edge.stop().await;
}

#[tokio::test]
async fn a_module_that_crashes_is_backed_off() {
    let device = Device::new();
    let edge = device.start(1, device.module("holm/crasher", "always")).await;

    let status = until("the module is backed off", async || {
        let module = edge.agent.status()["modules"]["m"].clone();
        (module["status"] == "backoff").then_some(module)
    })
    .await;

    assert_eq!(status["error"], Value::Null);
    assert_eq!(device.state().await.unwrap().exit_code, Some(3));
    assert!(edge.agent.status()["plan"]["next_due"].is_string());
    edge.stop().await;
}

#[tokio::test]
async fn an_image_that_is_not_there_is_an_error_with_its_name() {
    let device = Device::new();
    let edge = device.start(1, device.module("nowhere", "always")).await;

    let status = until("the error is told", async || {
        Some(edge.agent.desired_status()).filter(|status| status.code == 500)
    })
    .await;

    assert!(
        status.description.contains("image `nowhere` is not available"),
        "{}",
        status.description
    );
    edge.stop().await;
}
