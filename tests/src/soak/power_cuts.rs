//! A device whose power is cut at seeded moments of its deployments, with the loss of everything that was not synced.
//!
//! ```text
//!   deploy ──0 to 3.5 s──> power cut ──> power on ──> all old or all new ──(perhaps cut again)──> what it must come to:
//!                                                                 the new one if it is good, the old one if it is not
//! ```
//!
//! Each deployment marks every module with its number, in the environment of its process, and has other modules than the one
//! before it; so a set of processes tells which deployments it is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Chance, Plan};
use crate::edge::{self, Edge};
use crate::hub::{Device, Hub};
use crate::patience;
use crate::processes;

/// The time of a run that one cut stands for.
const PER_CUT: Duration = Duration::from_secs(6);
/// Devices at a time, each with a hub of its own: most of the time of each is waiting.
const DEVICES: u64 = 3;
/// The deployment that a process belongs to.
const MARK: &str = "HOLM_E2E_DEPLOYMENT";
/// The modules that a deployment may have.
const NAMES: [&str; 4] = ["pump", "valve", "lamp", "siren"];

/// Which modules run, each of which deployment.
type Running = BTreeMap<String, u64>;

/// One deployment.
#[derive(Clone, Debug)]
struct Edition {
    number: u64,
    modules: Vec<&'static str>,
    /// The module that ends as soon as it is started.
    broken: Option<&'static str>,
}

impl Edition {
    /// Two to four modules, and in one of three deployments a broken one among them.
    fn draw(number: u64, chance: &mut Chance, may_be_broken: bool) -> Self {
        let mut modules = NAMES.to_vec();
        for _ in 0..chance.below(3) {
            let index = chance.below(modules.len() as u64);
            modules.remove(usize::try_from(index).expect("below four"));
        }
        let is_broken = chance.below(3) == 0 && may_be_broken;
        let broken =
            is_broken.then(|| modules[usize::try_from(chance.below(modules.len() as u64)).expect("below four")]);
        Self {
            number,
            modules,
            broken,
        }
    }

    /// All of it.
    fn whole(&self) -> Running {
        let mark = |name: &&str| ((*name).to_owned(), self.number);
        self.modules.iter().map(mark).collect()
    }

    fn manifest(&self) -> Value {
        let module = |name: &&'static str| {
            let line = if self.broken == Some(*name) {
                "echo broken; exit 3"
            } else {
                "echo runs; exec sleep 1000000"
            };
            let options = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [line]});
            let module = json!({
                "type": "process", "status": "running", "restartPolicy": "always", "version": "1.0",
                "settings": {"image": "holm/sensor", "createOptions": options.to_string()},
                "env": {MARK: {"value": self.number.to_string()}},
            });
            ((*name).to_owned(), module)
        };
        edge::manifest(&Value::Object(self.modules.iter().map(module).collect()), &json!({}))
    }
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    deployments: u64,
    taken_back: u64,
    came_back_old: u64,
    came_back_new: u64,
}

struct Story {
    hub: Hub,
    device: Device,
    edge: Edge,
    seen: Seen,
    chance: Chance,
    /// The deployment that is good.
    old: Edition,
}

pub(super) fn run(plan: Plan) -> Vec<String> {
    let wanted = u64::try_from(plan.time.as_millis() / PER_CUT.as_millis()).unwrap_or(u64::MAX);
    let each = wanted.div_ceil(DEVICES).max(1);
    let mut chance = Chance(plan.seed);
    let seen = std::thread::scope(|scope| {
        let devices: Vec<_> = (0..DEVICES)
            .map(|_| {
                let own = Chance(chance.next());
                scope.spawn(move || Story::start(own).cuts(each))
            })
            .collect();
        let all = devices.into_iter().map(|device| match device.join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        all.fold(Seen::default(), Seen::with)
    });
    vec![
        format!(
            "power cuts {} of {DEVICES} devices during {} deployments, of which {} were bad and were taken back",
            seen.cuts, seen.deployments, seen.taken_back
        ),
        format!(
            "came back as the old deployment {} times, as the new one {}, as anything else 0; ended in the wrong one 0",
            seen.came_back_old, seen.came_back_new
        ),
    ]
}

impl Seen {
    const fn with(self, other: Self) -> Self {
        Self {
            cuts: self.cuts + other.cuts,
            deployments: self.deployments + other.deployments,
            taken_back: self.taken_back + other.taken_back,
            came_back_old: self.came_back_old + other.came_back_old,
            came_back_new: self.came_back_new + other.came_back_new,
        }
    }
}

impl Story {
    /// A device with a good deployment.
    fn start(mut chance: Chance) -> Self {
        let hub = Hub::start();
        let device = hub.create_edge_device("pump-7");
        let edge = Edge::start_on_power_disk(&hub, &device);
        let old = Edition::draw(0, &mut chance, false);
        edge::deploy(&hub, &device, &old.manifest());
        let story = Self {
            hub,
            device,
            edge,
            seen: Seen::default(),
            chance,
            old,
        };
        story.wait_for("the first deployment", |running, rollout| {
            *running == story.old.whole() && rollout["phase"] == "committed"
        });
        story
    }

    /// Deploys and cuts until there were so many cuts.
    fn cuts(mut self, wanted: u64) -> Seen {
        while self.seen.cuts < wanted {
            let number = self.seen.deployments + 1;
            let new = Edition::draw(number, &mut self.chance, true);
            self.roll_out(&new);
        }
        self.seen
    }

    /// Deploys, cuts the power once or more, and sees what it comes to.
    fn roll_out(&mut self, new: &Edition) {
        let before = self.rollout()["takenBack"]["version"].clone();
        self.seen.deployments += 1;
        edge::deploy(&self.hub, &self.device, &new.manifest());
        loop {
            // Most steps of a deployment are in its first half second, its trial lasts two more.
            let longest = [600, 3500][usize::try_from(self.chance.below(2)).expect("0 or 1")];
            std::thread::sleep(self.chance.millis(0, longest));
            self.cut(new);
            if self.chance.below(3) > 0 {
                break;
            }
        }
        if new.broken.is_none() {
            self.wait_for("the new deployment", |running, rollout| {
                *running == new.whole() && rollout["phase"] == "committed"
            });
            self.old = new.clone();
        } else {
            self.wait_for("the old deployment, with the new one taken back", |running, rollout| {
                *running == self.old.whole()
                    && rollout["phase"] == "taken back"
                    && rollout["takenBack"]["version"] != before
            });
            self.seen.taken_back += 1;
        }
    }

    /// Cuts the power, and waits until the device has all of one deployment.
    fn cut(&mut self, new: &Edition) {
        self.edge.power_cut();
        self.seen.cuts += 1;
        std::thread::sleep(self.chance.millis(0, 100));
        self.edge.restart();
        let (old, new) = (self.old.whole(), new.whole());
        let is_new = patience::wait(
            "all of the old deployment, or all of the new one",
            patience::long(),
            || match self.running() {
                running if running == old => Ok(false),
                running if running == new => Ok(true),
                running => Err(format!("{running:?}, of {old:?} or {new:?}; {:?}", self.seen)),
            },
        );
        if is_new {
            self.seen.came_back_new += 1;
        } else {
            self.seen.came_back_old += 1;
        }
    }

    fn running(&self) -> Running {
        let all = processes::modules(&self.edge.data());
        let mark = |(name, process): (String, processes::Process)| {
            Some((name, processes::variable(process.id, MARK)?.parse().ok()?))
        };
        all.into_iter().filter_map(mark).collect()
    }

    fn rollout(&self) -> Value {
        self.edge.status()["agent"]["rollout"].clone()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, is_it: impl Fn(&Running, &Value) -> bool) {
        patience::wait(what, patience::long(), || {
            let (running, rollout) = (self.running(), self.rollout());
            let done = is_it(&running, &rollout);
            done.then_some(())
                .ok_or_else(|| format!("{running:?}, {rollout}; {:?}", self.seen))
        });
    }
}
