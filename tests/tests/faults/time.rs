//! The time of day jumps by 90 days under a running edge, or is 1970 when it starts: `libfaketime` moves it for the edge and its
//! module, and for nobody else. The monotonic clock goes on as it does on a real device.

use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use holm_e2e::Language::Python;
use holm_e2e::Transport::Mqtt;
use holm_e2e::daemon::Directory;
use holm_e2e::edge::{self, Runtime, SdkModule};
use holm_e2e::{Control, Device, Edge, Hub, Link, Need, Setup, need, patience};
use serde_json::{Value, json};

const NEEDS: &[Need] = &[Need::LowPorts, Need::Python, Need::Faketime];
const DAY: i64 = 86_400;

const WATCHER: SdkModule = SdkModule {
    name: "watcher",
    language: Python,
    transport: Mqtt,
    runtime: Runtime::Process,
};

/// A device's clock.
struct Clock {
    directory: Directory,
}

impl Clock {
    fn new() -> Self {
        let clock = Self {
            directory: Directory::new(),
        };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Moves it so many seconds away from the right time.
    fn set(&self, seconds: i64) {
        // Put in place whole: it is read at any moment.
        let new = self.directory.path().join("next");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("a file of the test can be written");
        std::fs::rename(new, self.file()).expect("and put in place");
    }

    /// Sets it to ten minutes after the beginning of 1970, as on a device that has no battery.
    fn unset(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
        self.set(600 - i64::try_from(now.as_secs()).expect("it fits"));
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let library = need::faketime().expect("the test asked for it");
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

/// An edge with a module on the Python SDK, on a device whose clock can be moved.
struct Scene {
    edge: Edge,
    hub: Hub,
    link: Link,
    clock: Clock,
}

impl Scene {
    fn start() -> Self {
        let clock = Clock::new();
        let (hub, link) = Hub::start_behind_link();
        let device = hub.create_edge_device("pump-7");
        let setup = Setup {
            env: clock.env(),
            ..Setup::default()
        };
        let edge = Edge::start_with(&hub, &device, setup);
        deploy(&hub, &device, &edge, &clock);
        Self { edge, hub, link, clock }
    }

    /// Starts the module anew, and logs in.
    #[track_caller]
    fn restart_module(&self) -> Control {
        self.edge.holm(&["restart", "watcher"]);
        let mut watcher = self.edge.accept();
        watcher.call("connect", json!({}));
        watcher
    }

    #[track_caller]
    fn wait_for_move(&self, count: u64) {
        patience::wait("the clock's move in the status", patience::long(), || {
            let moves = self.edge.status()["clockMoves"].clone();
            if moves["count"].as_u64() >= Some(count) {
                Ok(())
            } else {
                Err(moves.to_string())
            }
        });
    }

    /// What `holm edge check` says of the clock, on this device.
    fn check_clock(&self) -> Value {
        let mut command = Command::new(need::holm());
        command
            .args(["edge", "check", "--json", "--config"])
            .arg(self.edge.config());
        let done = command
            .envs(self.clock.env())
            .output()
            .expect("the binary can be started");
        let report: Value = serde_json::from_slice(&done.stdout).expect("a report in JSON");
        report["checks"]["host-local-time"].clone()
    }

    /// Waits until these bodies have come, each of them once, in this order.
    #[track_caller]
    fn assert_delivered(&self, wanted: &[&str]) {
        let mut monitor = self.hub.monitor();
        let is_wanted = |body: &Value| body.as_str().is_some_and(|body| wanted.contains(&body));
        monitor.wait_until("everything at the hub", |seen| {
            seen.iter().filter(|event| is_wanted(&event.body)).count() >= wanted.len()
        });
        let bodies = monitor.seen().iter().map(|event| event.body.clone());
        let mut bodies: Vec<Value> = bodies.filter(is_wanted).collect();
        // A cut makes repeats.
        bodies.dedup();
        assert_eq!(bodies, wanted.iter().map(|body| json!(body)).collect::<Vec<_>>());
    }
}

fn deploy(hub: &Hub, device: &Device, edge: &Edge, clock: &Clock) {
    let routes = json!({"up": "FROM /messages/modules/watcher/* INTO $upstream"});
    let mut manifest = edge.manifest(&[WATCHER], &routes);
    let modules = &mut manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"];
    for (name, value) in clock.env() {
        modules["watcher"]["env"][name] = json!({"value": value});
    }
    edge::deploy(hub, device, &manifest);
}

#[track_caller]
fn send(watcher: &mut Control, body: &str) {
    watcher.call(
        "send",
        json!({"output": "up", "body": body, "content_type": "application/json", "content_encoding": "utf-8"}),
    );
}

fn quoted(text: &str) -> String {
    json!(text).to_string()
}

#[test]
fn jumps_of_ninety_days_expire_no_message_and_lock_out_no_module() {
    if !Need::all(NEEDS) {
        return;
    }
    let scene = Scene::start();
    let mut watcher = scene.edge.accept();
    watcher.call("connect", json!({}));
    send(&mut watcher, &quoted("before"));
    scene.assert_delivered(&["before"]);

    // They may live two hours.
    scene.link.cut();
    send(&mut watcher, &quoted("waiting"));
    scene.clock.set(90 * DAY);
    scene.wait_for_move(1);
    let mut watcher = scene.restart_module();
    send(&mut watcher, &quoted("ahead"));
    scene.clock.set(-90 * DAY);
    scene.wait_for_move(2);
    drop(watcher);
    let mut watcher = scene.restart_module();
    send(&mut watcher, &quoted("behind"));
    scene.link.restore();
    // The hub takes no token that ended 90 days ago; it is told, and by `check` too.
    patience::wait("the refusal in the status", patience::long(), || {
        let refused = scene.edge.status()["refused"].clone();
        if refused.as_array().is_some_and(|refused| !refused.is_empty()) {
            Ok(())
        } else {
            Err(scene.edge.status()["link"].to_string())
        }
    });
    let told = scene.check_clock();
    scene.clock.set(0);
    scene.wait_for_move(3);
    scene.edge.wait_for_link();

    assert!(
        told["result"] == "error" && told.to_string().contains("behind the hub's"),
        "{told}"
    );
    scene.assert_delivered(&["before", "waiting", "ahead", "behind"]);
    let status = scene.edge.status();
    assert_eq!(status["counts"]["dropped_expired"], 0, "{status}");
    // Who was refused comes again after its wait.
    patience::wait("nobody refused", patience::long(), || {
        let refused = scene.edge.status()["refused"].clone();
        if refused == json!([]) {
            Ok(())
        } else {
            Err(refused.to_string())
        }
    });
}

#[test]
fn an_edge_that_starts_in_1970_serves_its_modules_and_finds_the_hub_when_the_clock_is_set() {
    if !Need::all(NEEDS) {
        return;
    }
    let mut scene = Scene::start();
    let mut watcher = scene.edge.accept();
    watcher.call("connect", json!({}));
    scene.link.cut();
    send(&mut watcher, &quoted("before"));

    scene.edge.crash();
    scene.clock.unset();
    scene.edge.restart();
    scene.link.restore();
    drop(watcher);
    let mut watcher = scene.restart_module();
    send(&mut watcher, &quoted("in 1970"));
    let link = scene.edge.status()["link"].clone();
    scene.clock.set(0);
    scene.wait_for_move(1);
    scene.edge.wait_for_link();

    assert_eq!(link["connected"], false, "{link}");
    scene.assert_delivered(&["before", "in 1970"]);
    send(&mut watcher, &quoted("now"));
    scene.assert_delivered(&["before", "in 1970", "now"]);
}
