//! The agent below a small hub that speaks the real protocol, over a runtime in memory that can be made to fail.

mod deployments;
mod logs;
mod runtime;
mod store;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use holm_client::Interests;
use holm_model::DeviceId;
use holm_runtime::{Health, RuntimeKind};
use tempfile::TempDir;

use super::identity_keeper::Updating;
use super::*;
use crate::broker::tests::hub::Hub;
use crate::broker::tests::keys::Keys;
use crate::broker::tests::{module, soon, until};
use crate::identities::MayGo;
use crate::keys::ModuleKeys;
use crate::local_api::SocketError;
use crate::uplink::{Uplink, UplinkSettings};
use runtime::InMemory;

/// Identities that a hub gives as soon as it can be reached.
struct Registry {
    keys: Keys,
    is_reachable: AtomicBool,
    updates: AtomicUsize,
}

impl ModuleKeys for Registry {
    fn device(&self) -> &DeviceId {
        self.keys.device()
    }
    fn hub_host(&self) -> &str {
        self.keys.hub_host()
    }
    fn generation(&self, module: &ModuleId) -> Option<String> {
        self.keys.generation(module)
    }
    fn modules(&self) -> Vec<ModuleId> {
        self.keys.modules()
    }
    fn sign(&self, module: &ModuleId, data: &[u8]) -> Option<[u8; 32]> {
        self.keys.sign(module, data)
    }
    fn verify(&self, module: &ModuleId, data: &[u8], signature: &[u8]) -> bool {
        self.keys.verify(module, data, signature)
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.keys.changes()
    }
}

impl IdentitySource for Registry {
    fn update<'a>(&'a self, wanted: Option<&'a BTreeSet<ModuleId>>, may_go: MayGo<'a>) -> Updating<'a> {
        Box::pin(async move {
            if !self.is_reachable.load(Ordering::SeqCst) {
                return Err("the registry is out of reach".to_owned());
            }
            self.updates.fetch_add(1, Ordering::SeqCst);
            wanted.into_iter().flatten().for_each(|id| self.keys.add(id));
            let unwanted = self.keys.modules().into_iter().filter(|id| !id.is_system());
            let unwanted = unwanted.filter(|id| wanted.is_some_and(|wanted| !wanted.contains(id)));
            let (going, staying): (Vec<_>, Vec<_>) = unwanted.partition(|id| may_go(id));
            going.iter().for_each(|id| self.keys.remove(id.as_str()));
            Ok(staying)
        })
    }
}

/// Modules of which something is on its way, or not.
#[derive(Default)]
struct Sent(AtomicBool);

impl Outbox for Sent {
    fn has_left(&self, _: &ModuleId) -> bool {
        !self.0.load(Ordering::SeqCst)
    }
}

struct NoSockets;

impl ModuleSockets for NoSockets {
    fn ensure(&self, module: &ModuleId) -> Result<std::path::PathBuf, SocketError> {
        Ok(module.as_str().into())
    }
    fn close(&self, _: &ModuleId) {}
}

/// A device with an agent; what is on its disk and in its runtime outlives the agent.
struct Device {
    hub: Hub,
    data: TempDir,
    runtime: Arc<InMemory>,
    registry: Arc<Registry>,
    /// Whether something waits for the hub.
    outbox: Arc<Sent>,
    running: Mutex<Option<(Agent, Scope)>>,
    /// How far its clock is ahead of the true time, in seconds.
    ahead: Arc<AtomicU64>,
}

impl Device {
    async fn new(hub: Hub) -> Self {
        let registry = Registry {
            keys: Keys::of(&["$edgeAgent"]),
            is_reachable: AtomicBool::new(true),
            updates: AtomicUsize::new(0),
        };
        Self {
            hub,
            data: tempfile::tempdir().unwrap(),
            runtime: Arc::default(),
            registry: Arc::new(registry),
            outbox: Arc::default(),
            running: Mutex::new(None),
            ahead: Arc::default(),
        }
    }

    async fn started() -> Self {
        let device = Self::new(Hub::start().await).await;
        device.start().await;
        device
    }

    async fn start(&self) {
        let scope = Scope::new();
        let mut settings = UplinkSettings::new(self.hub.endpoint(), self.hub.tls());
        settings.longest_retry_wait = Duration::from_millis(100);
        let keys = Arc::clone(&self.registry) as Arc<dyn ModuleKeys>;
        let uplink = Uplink::new(settings, keys, scope.clone());
        let agent = Agent::open(AgentParts {
            surroundings: Surroundings {
                device: self.registry.device().clone(),
                hub_host: self.registry.hub_host().to_owned(),
                gateway_host: "edge.test".to_owned(),
                mqtt_port: 8883,
                hub_protocol: holm_client::Transport::Mqtt,
                data: self.data.path().to_owned(),
                network: watch::channel(None).1,
            },
            own_log: OwnLog::default(),
            version: "1.2.3".to_owned(),
            period: Duration::from_millis(20),
            trial: Duration::from_millis(100),
            state: State::open(
                &self.data.path().join("state.sqlite"),
                crate::state::Vault::in_directory(&self.data.path().join("vault"))
                    .await
                    .unwrap(),
            )
            .await
            .unwrap(),
            identities: Arc::clone(&self.registry) as Arc<dyn IdentitySource>,
            runtimes: Runtimes::new([Arc::clone(&self.runtime) as Arc<dyn holm_runtime::ModuleRuntime>]),
            sockets: Arc::new(NoSockets),
            outbox: Arc::clone(&self.outbox) as Arc<dyn Outbox>,
            refusals: uplink.refusals(),
            upload_tls: self.hub.tls(),
            clock: {
                let ahead = Arc::clone(&self.ahead);
                Clock::new(move || SystemTime::now() + Duration::from_secs(ahead.load(Ordering::SeqCst)))
            },
        })
        .await
        .unwrap();
        let interests = Interests {
            methods: true,
            desired_properties: true,
            ..Interests::default()
        };
        let (client, events) = uplink.open(&ModuleId::edge_agent(), interests);
        let task = agent.clone();
        let own = scope.clone();
        scope.spawn(async move { task.run(own, client, events).await });
        *self.running.lock().unwrap() = Some((agent, scope));
    }

    async fn stop(&self) {
        let (agent, scope) = self.running.lock().unwrap().take().unwrap();
        soon(scope.drain(Duration::from_secs(20))).await.unwrap();
        drop(agent);
    }

    fn status(&self) -> Value {
        self.running.lock().unwrap().as_ref().unwrap().0.status()
    }

    /// Replaces the modules of the deployment.
    fn deploy(&self, modules: Value) {
        let desired = json!({
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25", "loggingOptions": ""}},
            "systemModules": {
                "edgeAgent": {"type": "docker", "settings": {"image": "agent:1"}},
                "edgeHub": {"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "hub:1"}},
            },
            "modules": modules,
        });
        self.hub.desire("$edgeAgent", desired);
    }

    fn reported(&self) -> Value {
        Value::Object(self.hub.reported("$edgeAgent"))
    }

    async fn reports(&self, pointer: &str, expected: Value) {
        until(&format!("{pointer} is {expected}"), || {
            self.reported().pointer(pointer) == Some(&expected)
        })
        .await;
    }

    /// Waits until this version has proved itself.
    async fn commits(&self, version: u64) {
        until(&format!("version {version} is good"), || {
            let rollout = &self.status()["rollout"];
            rollout["phase"] == "committed" && rollout["good"] == version
        })
        .await;
    }

    /// Waits until so many more looks were taken.
    async fn passes(&self, count: usize) {
        for _ in 0..count {
            let before = self.status()["lastPass"].clone();
            until("another pass", || self.status()["lastPass"] != before).await;
        }
    }
}

fn process(image: &str) -> Value {
    json!({"type": "process", "status": "running", "restartPolicy": "always", "settings": {"image": image}})
}

#[tokio::test]
async fn a_deployment_is_carried_out_and_reported_in_the_published_form() {
    let device = Device::started().await;

    device.deploy(json!({"m": process("image-1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;

    assert_eq!(device.runtime.take_log(), ["prepare m", "create m", "start m"]);
    let mut reported = device.reported();
    for path in [
        "/modules/m/lastStartTimeUtc",
        "/systemModules/edgeAgent/lastStartTimeUtc",
        "/systemModules/edgeHub/lastStartTimeUtc",
        "/runtime/platform/architecture",
    ] {
        let slot = reported.pointer_mut(path).unwrap();
        assert_ne!(*slot, json!("0001-01-01T00:00:00Z"));
        *slot = json!("…");
    }
    let never = "0001-01-01T00:00:00Z";
    let built_in = |image: &str| {
        json!({
            "type": "docker", "imagePullPolicy": "on-create", "runtimeStatus": "running", "exitCode": 0,
            "lastStartTimeUtc": "…", "lastExitTimeUtc": never,
            "settings": {"image": image, "imageHash": "", "createOptions": "{}"}, "env": {},
        })
    };
    let mut hub = built_in("hub:1");
    for (name, value) in [
        ("status", json!("running")),
        ("restartPolicy", json!("always")),
        ("version", json!("")),
        ("restartCount", json!(0)),
        ("lastRestartTimeUtc", json!(never)),
    ] {
        hub[name] = value;
    }
    assert_eq!(
        reported,
        json!({
            "schemaVersion": "1.0",
            "version": {"version": "1.2.3", "build": "", "commit": ""},
            "lastDesiredVersion": 2,
            "lastDesiredStatus": {"code": 200, "description": ""},
            "runtime": {"type": "docker", "settings": {"minDockerVersion": "v1.25", "loggingOptions": ""},
                "platform": {"os": "linux", "architecture": "…", "version": "1.2.3"}},
            "systemModules": {"edgeAgent": built_in("agent:1"), "edgeHub": hub},
            "modules": {"m": {
                "type": "process", "status": "running", "restartPolicy": "always", "imagePullPolicy": "on-create",
                "version": "", "runtimeStatus": "running", "exitCode": 0, "lastStartTimeUtc": "…", "lastExitTimeUtc": never,
                "restartCount": 0, "lastRestartTimeUtc": never,
                "settings": {"image": "image-1", "imageHash": "sha256:image-1", "createOptions": "{}"}, "env": {},
            }},
        })
    );
}

#[tokio::test]
async fn nothing_is_done_or_reported_while_nothing_changes() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("image-1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    device.runtime.take_log();
    let before = device.reported();

    device.passes(5).await;

    assert_eq!(device.runtime.take_log(), Vec::<String>::new());
    assert_eq!(device.reported(), before);
    assert_eq!(device.status()["plan"]["steps"], json!([]));
}

#[tokio::test]
async fn changes_touch_only_the_modules_that_they_are_about() {
    let device = Device::started().await;
    device.deploy(json!({"a": process("1"), "b": process("1"), "c": process("1")}));
    device.commits(2).await;
    device.runtime.take_log();

    device.deploy(json!({"b": process("2"), "c": null}));
    until("b runs anew and c is gone", || {
        device.runtime.image(&module("b")).as_deref() == Some("2") && device.runtime.image(&module("c")).is_none()
    })
    .await;
    device.reports("/modules/b/settings/image", json!("2")).await;

    let log = device.runtime.take_log();
    assert_eq!(log[0], "prepare b", "all is made ready before anything is touched");
    assert_eq!(log[1..3], ["stop c", "remove c"]);
    assert_eq!(log[3..], ["stop b", "remove b", "create b", "start b"]);
    assert_eq!(device.reported().pointer("/modules/c"), None);
}

#[tokio::test]
async fn a_deployment_that_cannot_be_read_is_reported_and_changes_nothing() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    device.runtime.take_log();

    device.deploy(json!({"m": {"status": "perhaps"}}));
    device.reports("/lastDesiredStatus/code", json!(400)).await;

    let text = device.reported()["lastDesiredStatus"]["description"].to_string();
    assert!(
        text.contains("Agent configuration format is invalid.") && text.contains("modules.m.status"),
        "{text}"
    );
    assert_eq!(device.reported()["lastDesiredVersion"], 3);
    assert_eq!(device.runtime.take_log(), Vec::<String>::new());
}

#[tokio::test]
async fn a_module_that_fails_is_reported_with_the_reason_and_the_others_go_on() {
    let device = Device::started().await;
    device.runtime.fail("bad", Some("the registry said no"));

    device.deploy(json!({"bad": process("bad"), "good": process("good"),
        "box": {"type": "docker", "status": "running", "settings": {"image": "a:1"}}}));
    device.reports("/modules/good/runtimeStatus", json!("running")).await;
    device.reports("/lastDesiredStatus/code", json!(500)).await;

    let text = device.reported()["lastDesiredStatus"]["description"].to_string();
    assert!(
        text.contains("bad: ") && text.contains("the registry said no"),
        "{text}"
    );
    assert!(text.contains("module `box` needs the runtime `docker`"), "{text}");
    assert!(!text.contains("good"), "{text}");
    assert_eq!(device.reported()["modules"]["bad"]["runtimeStatus"], "failed");
}

#[tokio::test]
async fn a_failed_change_leaves_the_old_module_running() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.commits(2).await;
    device.runtime.take_log();
    device.runtime.fail("2", Some("no such image"));

    device.deploy(json!({"m": process("2")}));
    device.reports("/lastDesiredStatus/code", json!(500)).await;

    assert_eq!(device.runtime.take_log(), ["prepare m"]);
    assert_eq!(device.runtime.image(&module("m")).as_deref(), Some("1"));
    assert_eq!(device.reported()["modules"]["m"]["runtimeStatus"], "running");
    device.runtime.fail("2", None);
    device.deploy(json!({"m": process("3")}));
    device.reports("/lastDesiredStatus/code", json!(200)).await;
}

#[tokio::test]
async fn a_restart_without_hub_leaves_healthy_modules_alone_and_starts_missing_ones() {
    let device = Device::started().await;
    device.deploy(json!({"a": process("1"), "b": process("1")}));
    device.reports("/modules/a/runtimeStatus", json!("running")).await;
    device.reports("/modules/b/runtimeStatus", json!("running")).await;

    device.stop().await;
    device.hub.cut().await;
    device.registry.is_reachable.store(false, Ordering::SeqCst);
    device.runtime.lose(&module("b"));
    device.runtime.take_log();
    device.start().await;
    until("b is there again", || device.runtime.image(&module("b")).is_some()).await;
    device.passes(2).await;

    assert_eq!(device.runtime.take_log(), ["prepare b", "create b", "start b"]);
    assert_eq!(device.status()["lastDesiredVersion"], 2);
}

#[tokio::test]
async fn what_was_deployed_while_the_link_was_cut_is_carried_out_when_it_returns() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;

    device.hub.cut().await;
    device.deploy(json!({"m": process("2")}));
    device.hub.restore().await;

    device.reports("/modules/m/settings/imageHash", json!("sha256:2")).await;
}

#[tokio::test]
async fn a_module_without_identity_waits_for_the_registry_and_says_so() {
    let device = Device::started().await;
    device.registry.is_reachable.store(false, Ordering::SeqCst);
    device.deploy(json!({"m": process("1")}));
    device.reports("/lastDesiredStatus/code", json!(500)).await;
    let text = device.reported()["lastDesiredStatus"]["description"].to_string();
    assert!(text.contains("the registry is out of reach"), "{text}");
    assert_eq!(device.runtime.take_log(), Vec::<String>::new());

    device.registry.is_reachable.store(true, Ordering::SeqCst);

    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    device.reports("/lastDesiredStatus/code", json!(200)).await;
}

#[tokio::test]
async fn an_identity_is_deleted_when_its_module_has_ended_and_what_it_sent_has_arrived() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    device.outbox.0.store(true, Ordering::SeqCst);

    device.deploy(json!({"m": null}));
    until("m is gone", || device.runtime.image(&module("m")).is_none()).await;
    let updates = device.registry.updates.load(Ordering::SeqCst);
    until("the registry is asked again", || {
        device.registry.updates.load(Ordering::SeqCst) >= updates + 2
    })
    .await;
    assert!(device.registry.generation(&module("m")).is_some());

    device.outbox.0.store(false, Ordering::SeqCst);

    until("its identity is deleted", || {
        device.registry.generation(&module("m")).is_none()
    })
    .await;
}

#[tokio::test]
async fn an_identity_that_the_hub_refuses_is_looked_at_again() {
    let device = Device::new(Hub::start().await).await;
    device.hub.refuse("$edgeAgent", true);

    device.start().await;
    until("the registry is asked again", || {
        device.registry.updates.load(Ordering::SeqCst) >= 2
    })
    .await;
    device.hub.refuse("$edgeAgent", false);
    device.deploy(json!({"m": process("1")}));

    device.reports("/modules/m/runtimeStatus", json!("running")).await;
}

#[tokio::test]
async fn a_crash_is_backed_off_counted_and_reported() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;

    device.runtime.crash(&module("m"), 137, SystemTime::now().into());
    device.reports("/modules/m/runtimeStatus", json!("backoff")).await;
    assert_eq!(device.reported()["modules"]["m"]["exitCode"], 137);

    device.runtime.crash(
        &module("m"),
        137,
        Timestamp::from(SystemTime::now()).plus_millis(-60_000),
    );
    device.reports("/modules/m/restartCount", json!(1)).await;
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
}

#[tokio::test]
async fn an_empty_deployment_is_417_and_stops_nothing() {
    let device = Device::started().await;
    device.reports("/lastDesiredStatus/code", json!(417)).await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    device.runtime.take_log();

    device.hub.desire(
        "$edgeAgent",
        json!({"schemaVersion": null, "runtime": null, "systemModules": null, "modules": null}),
    );
    device.reports("/lastDesiredStatus/code", json!(417)).await;

    assert_eq!(device.runtime.take_log(), Vec::<String>::new());
}

#[tokio::test]
async fn methods_ping_and_restart() {
    let device = Device::started().await;
    device.deploy(json!({"m": process("1")}));
    device.reports("/modules/m/runtimeStatus", json!("running")).await;
    until("methods are subscribed", || device.hub.listens_to_methods("$edgeAgent")).await;
    device.runtime.take_log();

    let call = async |name: &str, payload: Value| soon(device.hub.call("$edgeAgent", name, payload)).await.unwrap();
    assert_eq!(call("ping", json!({})).await.status, 200);
    let restarted = call("RestartModule", json!({"schemaVersion": "1.0", "id": "m"})).await;
    let unknown = call("RestartModule", json!({"schemaVersion": "1.0", "id": "nobody"})).await;
    let nonsense = call("Dance", json!({})).await;

    assert_eq!(restarted.status, 200);
    assert_eq!(device.runtime.take_log(), ["stop m", "start m"]);
    assert_eq!(unknown.status, 500);
    assert_eq!(nonsense.status, 400);
    device.passes(2).await;
    assert_eq!(device.reported()["modules"]["m"]["restartCount"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_told_and_holds_no_other_up() {
    let (hanging, well) = (Arc::<InMemory>::default(), Arc::<InMemory>::default());
    hanging.hang();
    let spec = holm_runtime::ModuleSpec::new(module("m"), RuntimeKind::Process, "1", "/m");
    holm_runtime::ModuleRuntime::create(well.as_ref(), &spec).await.unwrap();
    let runtimes = Runtimes::new([
        hanging as Arc<dyn holm_runtime::ModuleRuntime>,
        well as Arc<dyn holm_runtime::ModuleRuntime>,
    ]);

    let (modules, silent) = runtimes.list().await;

    assert_eq!(modules.len(), 1);
    let [(_, error)] = silent.as_slice() else {
        panic!("{silent:?}")
    };
    assert!(error.is_of_runtime() && error.to_string().contains("15 s"), "{error}");
}

#[test]
fn only_process_is_in_memory() {
    assert_eq!(
        holm_runtime::ModuleRuntime::kind(&InMemory::default()),
        RuntimeKind::Process
    );
}
