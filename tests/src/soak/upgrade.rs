//! The edge's program replaced, again and again, under a crowd of devices and modules of every kind.
//!
//! ```text
//!   crowd (raw clients), devices on the SDK ──► edge ──► hub        next build ──hand-over──► this build ──restart──► next …
//!        some messages also to the inputs of     │
//!        modules on the SDK ◄────────────────────┘   process and container; a sensor; containers that only sleep
//! ```
//!
//! What must hold: no module is restarted (process ids, start times, container ids), every acknowledged message arrives, each
//! sender's first arrivals at the hub in order, every client is back in time with its session, and where the process is kept nobody is
//! refused a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crowd::{Crowd, Interruptions};
use super::tally::Tally;
use super::{Chance, Plan};
use crate::edge::{self, Edge, IMAGE, Runtime, SdkModule};
use crate::engine::docker;
use crate::hub::{Device, Hub};
use crate::monitor::read_log;
use crate::processes::{self, Process};
use crate::sdk::{Language, Running, Transport};
use crate::{Control, Sdk, need, patience};

/// The device that the edge is.
const GATEWAY: &str = "gateway-1";
/// A message of each client in this time.
const PERIOD: Duration = Duration::from_secs(1);
/// One client in so many also writes to the modules.
const WRITERS: usize = 20;
/// Containers that only sleep; as many as a small run has, and a large one.
const SLEEPERS: [&str; 4] = ["sleeper1", "sleeper2", "sleeper3", "sleeper4"];
/// Devices on the original SDK.
const ON_SDK: usize = 3;
/// Longer than any run: a sensor with this pause rests.
const REST_MS: u64 = 86_400_000;
/// From here on a run is a large one.
const LARGE: usize = 1000;

/// How a build takes over from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// `holm edge upgrade`: the process stays.
    HandOver,
    /// SIGTERM, and a start.
    Restart,
    /// SIGKILL, and a start.
    Crash,
}

pub(super) fn run(plan: Plan) -> Vec<String> {
    let size = usize::try_from(plan.rate).unwrap_or(usize::MAX);
    let mut chance = Chance(plan.seed);
    let mut site = Site::start(size);
    let began = site.modules();
    let mut done: BTreeMap<Way, Vec<Interruptions>> = BTreeMap::new();
    let until = Instant::now() + plan.time;
    // The first four: over and back, in both ways that an operator has.
    let first = [Way::HandOver, Way::HandOver, Way::Restart, Way::Restart];
    let mut number = 0;
    while number < first.len() || Instant::now() < until {
        let others = [Way::HandOver, Way::Restart, Way::Crash];
        let any = usize::try_from(chance.below(3)).unwrap_or_default();
        let way = first.get(number).copied().unwrap_or(others[any]);
        std::thread::sleep(chance.millis(0, 2000));
        site.change(way);
        let what = site.crowd.interruptions();
        assert!(
            what.count >= size,
            "only {} of {size} clients came back: {what:?}",
            what.count
        );
        if way == Way::HandOver {
            assert_eq!(what.refused, 0, "connections were refused while the process went over");
        }
        assert_eq!(
            site.modules(),
            began,
            "modules were restarted by change {number}, {way:?}"
        );
        done.entry(way).or_default().push(what);
        number += 1;
    }

    let mut verdict = vec![format!(
        "{size} clients and {ON_SDK} devices on the SDK, {} containers and {} processes; the program was replaced {number} times",
        began.containers.len(),
        began.processes.len()
    )];
    verdict.extend(done.iter().map(|(way, all)| line(*way, all)));
    verdict.extend(site.settle());
    verdict.push("modules restarted 0".to_owned());
    verdict
}

fn line(way: Way, all: &[Interruptions]) -> String {
    let longest = all.iter().map(|what| what.longest).max().unwrap_or_default();
    let middle = all.iter().map(|what| what.middle).max().unwrap_or_default();
    let refused: u64 = all.iter().map(|what| what.refused).sum();
    format!(
        "{way:?} {} times: clients were away for {:.2} s at the median and {:.2} s at most, {refused} attempts refused",
        all.len(),
        middle.as_secs_f64(),
        longest.as_secs_f64()
    )
}

/// What must stay what it is.
#[derive(Debug, PartialEq, Eq)]
struct Modules {
    processes: BTreeMap<String, Process>,
    containers: BTreeMap<String, String>,
    restarts: BTreeMap<String, Value>,
}

struct Site {
    crowd: Crowd,
    on_sdk: Vec<Running>,
    sent_on_sdk: u64,
    takers: [Control; 2],
    containers: Vec<&'static str>,
    /// The build that is not installed now.
    other: bool,
    device: Device,
    edge: Edge,
    hub: Hub,
}

impl Site {
    #[track_caller]
    fn start(size: usize) -> Self {
        let hub = Hub::start();
        let device = hub.create_edge_device(GATEWAY);
        let mut edge = Edge::start_beside_containers(&hub, &device);
        edge.stop();
        edge.install(&need::holm());
        edge.restart();
        let sleepers = if size < LARGE { &SLEEPERS[..1] } else { &SLEEPERS[..] };
        edge::deploy(&hub, &device, &deployment(&edge, sleepers));
        let mut takers = edge.accept_all(["taker", "contained"]);
        for taker in &mut takers {
            taker.call("connect", json!({}));
            taker.call("listen", json!({"what": "messages"}));
        }
        let containers: Vec<_> = ["contained"].into_iter().chain(sleepers.iter().copied()).collect();
        edge::wait_until_reported(&hub, &device, "every container", |report| {
            let runs = |name: &&str| report["modules"][*name]["runtimeStatus"] == "running";
            containers.iter().all(runs) && report["modules"]["sensor"]["runtimeStatus"] == "running"
        });
        let child = |id: String| hub.create_child(&id, GATEWAY);
        let devices: Vec<Device> = (0..size).map(|number| child(format!("crowd-{number}"))).collect();
        let on_sdk = (0..ON_SDK).map(|number| child(format!("sdk-{number}")));
        let on_sdk = on_sdk.map(|device| {
            let sdk = Sdk::device(Language::Python, Transport::Mqtt, &hub, &device);
            let mut running = sdk.through(&edge, &device).start();
            running.call("connect", json!({}));
            running.call("listen", json!({"what": "methods"}));
            running
        });
        let on_sdk = on_sdk.collect();
        let property = |number: usize| number.is_multiple_of(WRITERS).then_some("to=modules");
        let crowd = Crowd::gather(&hub, &edge, &devices, PERIOD, property);
        crowd.wait_until_at_work();
        Self {
            crowd,
            on_sdk,
            sent_on_sdk: 0,
            takers,
            containers,
            other: false,
            device,
            edge,
            hub,
        }
    }

    /// Replaces the program by the other build and waits until everybody is back at work.
    #[track_caller]
    fn change(&mut self, way: Way) {
        let process = self.edge.daemon().id();
        let before = self.edge.build();
        self.other = !self.other;
        let program = if self.other { need::next_holm() } else { need::holm() };
        self.edge.install(&program);
        match way {
            Way::HandOver => {
                let said = self.edge.holm(&["upgrade"]);
                assert!(said.contains("goes on as"), "{said}");
            }
            Way::Restart => {
                let status = self.edge.stop();
                assert!(status.success(), "the edge ended with {status} after SIGTERM");
                self.edge.restart();
            }
            Way::Crash => {
                self.edge.crash();
                self.edge.restart();
            }
        }
        let after = self.edge.build();
        assert_ne!(before, after, "the other build runs");
        assert_eq!(process == self.edge.daemon().id(), way == Way::HandOver);
        self.crowd.wait_until_at_work();
        self.send_on_sdk();
    }

    /// A message of each device on the SDK, acknowledged.
    #[track_caller]
    fn send_on_sdk(&mut self) {
        let message = json!({"body": format!("{{\"n\":{}}}", self.sent_on_sdk)});
        for device in &mut self.on_sdk {
            patience::wait("a message of a device on the SDK", patience::long(), || {
                device
                    .try_call("send", message.clone())
                    .map_err(|failure| failure.message)
            });
        }
        self.sent_on_sdk += 1;
    }

    #[track_caller]
    fn modules(&self) -> Modules {
        let containers = self.containers.iter().map(|name| {
            let what = "{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}";
            ((*name).to_owned(), docker(&["inspect", "--format", what, name]))
        });
        let report = edge::reported(&self.hub, &self.device);
        let reported = report["modules"].as_object().cloned().unwrap_or_default();
        Modules {
            containers: containers.collect(),
            processes: processes::modules(&self.edge.data()),
            restarts: reported
                .into_iter()
                .map(|(name, it)| (name, it["restartCount"].clone()))
                .collect(),
        }
    }

    /// Lets everything arrive, and compares.
    #[track_caller]
    fn settle(mut self) -> Vec<String> {
        assert_eq!(self.crowd.forgotten(), 0, "sessions were forgotten");
        let sent: BTreeMap<String, u64> = self.crowd.dismiss().into_iter().collect();
        let all: u64 = sent.values().sum();
        let rest = json!({"properties": {"desired": {"intervalMs": REST_MS}}});
        self.hub
            .service()
            .call("PATCH", &format!("/twins/{GATEWAY}/modules/sensor"), Some(&rest));
        patience::wait("nothing that waits for the hub", 2 * patience::long(), || {
            let waiting = self.edge.status()["upstream"]["depth"].clone();
            if waiting == 0 { Ok(()) } else { Err(waiting.to_string()) }
        });

        let tally = read(&self.hub);
        tally.assert_in_order();
        for (name, sent) in &sent {
            assert_eq!(
                tally.of(name).next,
                *sent,
                "`{name}`: arrived, and sent and acknowledged"
            );
        }
        for number in 0..ON_SDK {
            assert_eq!(
                tally.of(&format!("sdk-{number}")).next,
                self.sent_on_sdk,
                "device {number} on the SDK"
            );
        }
        let writers: Vec<String> = (0..sent.len())
            .step_by(WRITERS)
            .map(|number| format!("crowd-{number}"))
            .collect();
        let mut taken = 0;
        for taker in &mut self.takers {
            taken += take(taker, &writers, &sent);
        }
        vec![
            format!(
                "messages of clients {all}, all at the hub; lost 0, in order, duplicates {}; {taken} taken by modules",
                tally.duplicates()
            ),
            format!(
                "readings of the sensor at the hub {}, in order",
                tally.of("sensor").next
            ),
        ]
    }
}

fn deployment(edge: &Edge, sleepers: &[&'static str]) -> Value {
    let taker = |name, runtime| SdkModule {
        name,
        language: Language::Python,
        transport: Transport::Mqtt,
        runtime,
    };
    let (taker, contained) = (taker("taker", Runtime::Process), taker("contained", Runtime::Docker));
    let mut modules = json!({
        "taker": edge.module(&taker),
        "contained": on_the_hosts_network(edge.module(&contained)),
        "sensor": {
            "type": "process", "version": "1.0", "status": "running", "restartPolicy": "always",
            "settings": {"image": "holm/sensor", "createOptions": "{}"},
            "env": {"INTERVAL_MS": {"value": "100"}},
        },
    });
    for name in sleepers {
        edge.owns_container(name);
        let options =
            json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["trap 'exit 0' TERM; while :; do sleep 1; done"]});
        modules[*name] = json!({
            "type": "docker", "version": "1.0", "status": "running", "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {"image": IMAGE, "createOptions": options.to_string()},
        });
    }
    let into = |module: &str| {
        format!("FROM /messages/* WHERE to = 'modules' INTO BrokeredEndpoint(\"/modules/{module}/inputs/in\")")
    };
    let routes = json!({
        "up": "FROM /messages/* INTO $upstream",
        "toTaker": into("taker"),
        "toContained": into("contained"),
    });
    edge::manifest(&modules, &routes)
}

/// A container that reaches the edge by the address that it has for everybody else here, which is one of loopback.
fn on_the_hosts_network(mut module: Value) -> Value {
    let options = module["settings"]["createOptions"].as_str().unwrap_or_default();
    let mut options: Value = serde_json::from_str(options).unwrap_or_default();
    options["HostConfig"]["NetworkMode"] = "host".into();
    module["settings"]["createOptions"] = options.to_string().into();
    module
}

/// Counts the hub's log. A sensor numbers its readings in the message id, the others in the body.
#[track_caller]
fn read(hub: &Hub) -> Tally {
    let mut tally = Tally::default();
    let mut run = None;
    read_log(hub, |event| {
        if event.module.as_deref() == Some("sensor") {
            let id = event.system["messageId"].as_str().unwrap_or_default();
            let (of, number) = id
                .rsplit_once('-')
                .unwrap_or_else(|| panic!("not the sensor's: {}", event.line));
            let run = run.get_or_insert_with(|| of.to_owned());
            assert_eq!(run, of, "the sensor was restarted");
            tally.add(
                "sensor",
                number
                    .parse()
                    .unwrap_or_else(|_| panic!("not numbered: {}", event.line)),
            );
        } else {
            let number = event.body["n"].as_u64();
            tally.add(
                &event.device,
                number.unwrap_or_else(|| panic!("not ours: {}", event.line)),
            );
        }
    });
    tally
}

/// Takes what a module was sent until it has everything of these senders; how many messages that were. Their order says
/// nothing: the SDK hands messages to its handler in four threads.
#[track_caller]
fn take(taker: &mut Control, writers: &[String], sent: &BTreeMap<String, u64>) -> u64 {
    let numbers = |name: &String| 0..sent.get(name).copied().unwrap_or_default();
    let mut missing: BTreeSet<(String, u64)> = BTreeSet::new();
    for name in writers {
        missing.extend(numbers(name).map(|number| (name.clone(), number)));
    }
    let all = missing.len() as u64;
    while !missing.is_empty() {
        let event = taker.event("message", |_| true);
        let body = event["body"]
            .as_str()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        let body = body.unwrap_or_default();
        match (body["of"].as_str(), body["n"].as_u64()) {
            (Some(sender), Some(number)) => missing.remove(&(sender.to_owned(), number)),
            _ => panic!("not ours: {event}"),
        };
    }
    all
}
