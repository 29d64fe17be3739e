//! The story of one device: some time online, long trouble, and the hub's return, when all must be reconciled.
//!
//! ```text
//!   online: a deployment, a child, one synchronisation
//!   trouble, with a fault every few hours:
//!     offline   no link at all
//!     storms    the link changes every few minutes: good, flapping every second, 600 ms and 9,600 bit/s, half open, cut
//!   the link flaps, is half open, slow, good
//!   everything arrives, twins are equal, a new deployment comes into force
//! ```
//!
//! Faults: the edge killed or stopped; a power cut with torn writes, perhaps with no clock after it; a module or the child
//! dies; a full disk; the clock ahead or behind by 90 days; the hub restarted; desired properties changed at the hub. Ninety
//! days cross the life of the edge's certificates (30 days) and of tokens (an hour) many times.

mod deployment;
mod faults;
mod judgement;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use holm_client::Transport;
use holm_identity::SymmetricKey;
use hyper::Method;
use serde_json::json;

use crate::chance::Chance;
use crate::device::Device;
use crate::hub::Hub;
use crate::journal::Journal;
use crate::network::{Line, Network};
use crate::programs::{Kind, Program, Surroundings};
use crate::time::{self, WallClock};
use faults::Fault;

/// 2027-01-15T08:00:00Z.
const BEGIN: i64 = 1_800_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The life of what may expire.
const BRIEF: Duration = HOUR;
/// The store's limit for each minute of trouble: what sensors with a pause of ten minutes send in two thirds of it.
const BYTES_A_MINUTE: u64 = 200;
/// As over a satellite: 600 ms, 9,600 bit/s.
const SLOW: Line = Line::Slow {
    delay: Duration::from_millis(600),
    bits_per_second: 9600,
};
const DEVICE: &str = "pump";
const CHILD: &str = "leaf";
/// What has a twin that is compared.
const REPORTERS: [&str; 3] = ["pump/sensor-a", "pump/sensor-b", CHILD];

/// What the trouble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No link.
    Offline,
    /// A link that changes all the time.
    Storms,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Chooses faults, moments, and loads.
    pub seed: u64,
    /// What goes wrong.
    pub trouble: Trouble,
    /// For how long.
    pub time: Duration,
    /// The mean time between two faults.
    pub between: Duration,
    /// How often a sensor sends.
    pub interval: Duration,
    /// How long the link is good before and after.
    pub online: Duration,
    /// What the edge speaks with the hub.
    pub uplink: Transport,
}

impl Plan {
    /// Trouble for so many days, with a fault every eight hours.
    #[must_use]
    pub fn days(trouble: Trouble, seed: u64, days: u32) -> Self {
        Self {
            seed,
            trouble,
            time: DAY * days,
            between: 8 * HOUR,
            interval: 10 * MINUTE,
            online: 3 * HOUR,
            uplink: Transport::Mqtt,
        }
    }

    /// The same in short: so many hours, with a fault every hour.
    #[must_use]
    pub fn hours(trouble: Trouble, seed: u64, hours: u32) -> Self {
        Self {
            seed,
            trouble,
            time: HOUR * hours,
            between: HOUR,
            interval: 3 * MINUTE,
            online: HOUR,
            uplink: Transport::Mqtt,
        }
    }

    /// The same with another protocol between edge and hub: MQTT or AMQP, over TCP.
    #[must_use]
    pub const fn over(mut self, uplink: Transport) -> Self {
        self.uplink = uplink;
        self
    }
}

/// Runs it and returns what was measured, one line each.
///
/// # Panics
/// When something that must hold does not; with the seed and the last events on standard error.
#[must_use]
pub fn run(plan: Plan) -> Vec<String> {
    time::run(async {
        let mut story = Story::begin(plan).await;
        story.online().await;
        match plan.trouble {
            Trouble::Offline => story.offline().await,
            Trouble::Storms => story.storms().await,
        }
        story.back().await;
        story.settle().await
    })
}

struct Story {
    plan: Plan,
    clock: WallClock,
    journal: Journal,
    hub: Hub,
    device: Device,
    surroundings: Surroundings,
    child: Option<Program>,
    chance: Chance,
    faults: BTreeMap<Fault, u64>,
    /// How often the link changed.
    links: u64,
    /// While the link was good and both ends ran, in virtual time.
    reachable: Vec<(Duration, Duration)>,
    most_disk_bytes: u64,
    _directory: tempfile::TempDir,
    _witness: crate::journal::Witness,
}

impl Story {
    /// A hub that knows the device and its child; the edge runs.
    async fn begin(plan: Plan) -> Self {
        let clock = WallClock::new(BEGIN);
        let (journal, witness) = Journal::new(&clock, plan.seed);
        let mut chance = Chance::new(plan.seed);
        let directory = directory();
        let network = Network::default();
        let hub = Hub::start(&directory.path().join("hub"), &clock, &network).await;
        let edge = json!({"deviceId": DEVICE, "capabilities": {"iotEdge": true}});
        let edge = hub.call(Method::PUT, &format!("/devices/{DEVICE}"), &edge).await;
        let child = json!({"deviceId": CHILD, "deviceScope": edge["deviceScope"]});
        hub.call(Method::PUT, &format!("/devices/{CHILD}"), &child).await;
        let key = hub.key(DEVICE).await.expect("the device is registered");

        let data = directory.path().join("device");
        std::fs::create_dir_all(&data).expect("a directory can be made");
        let surroundings = Surroundings::new(
            &clock.of_another(),
            network.site(),
            &journal,
            Device::edge_ca(&data),
            plan.interval,
            chance.fork(),
        );
        let mut device = Device::new(DEVICE, &key, &data, &hub.ca(), &network, &surroundings, plan.uplink);
        device.start().await;
        Self {
            plan,
            clock,
            journal,
            hub,
            device,
            surroundings,
            child: None,
            chance,
            faults: BTreeMap::new(),
            links: 0,
            reachable: Vec::new(),
            most_disk_bytes: 0,
            _directory: directory,
            _witness: witness,
        }
    }

    fn limit(&self) -> u64 {
        let minutes = self.plan.time.as_secs() / 60;
        (minutes * BYTES_A_MINUTE).max(2 << 20)
    }

    /// A deployment, one synchronisation, and a while of work.
    async fn online(&mut self) {
        self.deploy(1).await;
        self.until("the modules run", HOUR, |story| {
            story.device.modules.running().len() == 4
        })
        .await;
        for module in ["sensor-a", "sensor-b", "watcher", "caller"] {
            self.give_key(&format!("{DEVICE}/{module}")).await;
        }
        self.give_key(CHILD).await;
        self.child = Some(Program::start(&self.surroundings, CHILD, Kind::Sensor));
        let began = self.clock.passed();
        self.work_for(self.plan.online).await;
        self.reachable.push((began, self.clock.passed()));
        for program in REPORTERS {
            let count = self.surroundings.memory(program).said.get("count").cloned();
            self.journal.note(format_args!("{program} has reported {count:?}"));
        }
    }

    /// Faults, one after the other, without the hub.
    async fn offline(&mut self) {
        self.journal.note("the link is cut");
        self.device.uplink.set_line(Line::Cut);
        let end = self.clock.passed() + self.plan.time;
        while self.clock.passed() < end {
            let pause = self.pause();
            self.work_for(pause).await;
            let fault = self.draw();
            self.inflict(fault).await;
        }
    }

    /// A link that changes every few minutes, and faults. The clock stays right, so that lives can be judged.
    async fn storms(&mut self) {
        let end = self.clock.passed() + self.plan.time;
        let mut next_fault = self.clock.passed() + self.pause();
        while self.clock.passed() < end {
            self.change_link().await;
            if self.clock.passed() < next_fault {
                continue;
            }
            next_fault = self.clock.passed() + self.pause();
            let fault = loop {
                let fault = self.draw();
                if !matches!(
                    fault,
                    Fault::ClockAhead | Fault::ClockBehind | Fault::PowerCutWithoutClock
                ) {
                    break fault;
                }
            };
            self.inflict(fault).await;
        }
    }

    fn pause(&mut self) -> Duration {
        self.chance.between(self.plan.between / 4, self.plan.between * 7 / 4)
    }

    /// A while at most this long.
    async fn away(&mut self, longest: Duration) {
        let time = self.chance.between(Duration::ZERO, longest);
        self.work_for(time).await;
    }

    /// The hub returns: first badly, then well.
    async fn back(&mut self) {
        self.device.start().await;
        self.flap(600).await;
        self.journal_line(Line::HalfOpen);
        self.work_for(5 * MINUTE).await;
        self.journal_line(SLOW);
        self.work_for(30 * MINUTE).await;
        self.journal_line(Line::Up);
        let began = self.clock.passed();
        self.work_for(self.plan.online).await;
        self.reachable.push((began, self.clock.passed()));
    }

    /// Lets everybody work, and looks at everything once an hour.
    async fn work_for(&mut self, time: Duration) {
        let end = self.clock.passed() + time;
        while self.clock.passed() < end {
            tokio::time::sleep(HOUR.min(end.saturating_sub(self.clock.passed()))).await;
            self.check();
        }
    }

    async fn until(&mut self, what: &str, patience: Duration, holds: impl Fn(&Self) -> bool) {
        let began = self.clock.passed();
        while !holds(self) {
            let waited = self.clock.passed() - began;
            let status = self.device.edge().map(|edge| (edge.status())().to_string());
            assert!(waited < patience, "waited for {waited:?} until {what}; {status:?}");
            tokio::time::sleep(Duration::from_secs(10)).await;
            self.check();
        }
        self.journal.note(what);
    }

    async fn give_key(&self, identity: &str) {
        let key: SymmetricKey = self.hub.key(identity).await.expect("it is registered by now");
        self.surroundings.give_key(identity, key);
    }
}

/// In memory where there is room for it: databases sync there for nothing.
fn directory() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix("holm-sim-")
        .tempdir_in(parent)
        .expect("a temporary directory can be made")
}
