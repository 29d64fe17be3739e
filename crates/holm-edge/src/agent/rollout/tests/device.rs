//! A device in virtual time: a disk with the record, modules whose image says how they behave, and a power supply that fails
//! after so many steps. What decides is the real thing: rollout, plan and trial.

use std::collections::{BTreeMap, BTreeSet};

use holm_model::{ModuleId, Timestamp};
use holm_runtime::{Health, ModuleState, RuntimeKind, RuntimeStatus};
use serde_json::{Value, json};

use crate::agent::plan::{Action, Actual, Intent, Plan, Step, Wanted, plan};
use crate::agent::restarts::Bookkeeping;
use crate::agent::rollout::{Edition, Event, Phase, Rollout};
use crate::agent::trial::{Judgement, judge};

const GATE_MILLIS: i64 = 30_000;

/// Modules by name and image.
pub(super) fn edition(version: u64, modules: &[(&str, &str)]) -> Edition {
    let modules: serde_json::Map<String, Value> = modules
        .iter()
        .map(|(name, image)| {
            let policy = if *name == "job" { "never" } else { "always" };
            let module = json!({"type": "process", "status": "running", "restartPolicy": policy,
                "settings": {"image": image}});
            ((*name).to_owned(), module)
        })
        .collect();
    let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": modules});
    Edition::read(desired.as_object().unwrap().clone(), version).unwrap()
}

/// What must come of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    New,
    Old,
    /// The old one runs, and the new one is made ready for as long as it takes.
    Waiting,
}

/// The power is gone.
#[derive(Debug)]
struct Cut;

pub(super) struct Device {
    /// What outlives a power cut.
    record: Option<Value>,
    modules: Vec<ModuleState>,
    /// Starts of each module, as a program would count them in a file of its own.
    starts: BTreeMap<(ModuleId, String), u32>,
    now: Timestamp,
    /// What does not.
    booted_at: Timestamp,
    rollout: Rollout,
    bookkeeping: Bookkeeping,
    /// Steps until the power is cut.
    power: Option<u64>,
    steps: u64,
}

impl Device {
    /// A device that has a good edition, and keeps to it.
    pub(super) fn with_good() -> Self {
        let mut device = Self {
            now: Timestamp::from_unix_seconds(1_000_000),
            booted_at: Timestamp::from_unix_seconds(999_000),
            record: None,
            modules: Vec::new(),
            starts: BTreeMap::new(),
            rollout: Rollout::default(),
            bookkeeping: Bookkeeping::default(),
            power: None,
            steps: 0,
        };
        device.deploy(&old()).unwrap();
        device.settle().unwrap();
        assert_eq!(device.rollout.phase(), Phase::Committed);
        device.steps = 0;
        device
    }

    /// Deploys over the good edition with these power cuts, and checks what becomes of it. Gives the steps that it took.
    pub(super) fn roll_out(mut self, new: &Edition, outcome: Outcome, cuts: &[u64]) -> u64 {
        for cut in cuts {
            self.power = Some(*cut);
            let result = self.deploy(new).and_then(|()| self.settle());
            assert!(result.is_err() || self.power.is_some());
            self.check_never_between(new);
            self.reboot();
        }
        self.power = None;
        self.deploy(new).unwrap();
        self.settle().unwrap();
        let (edition, phase) = match outcome {
            Outcome::New => (new.clone(), Phase::Committed),
            Outcome::Old => (old(), Phase::TakenBack),
            Outcome::Waiting => (old(), Phase::Preparing),
        };
        assert_eq!(self.rollout.phase(), phase);
        let wanted: BTreeSet<_> = digests(&edition);
        let there: BTreeSet<_> = self.modules.iter().map(digest_of).collect();
        assert_eq!(there, wanted, "whole, and nothing else");
        for state in &self.modules {
            assert!(state.status.is_up() || state.exit_code == Some(0), "{state:?}");
        }
        self.steps
    }

    /// Until the record says otherwise, the old modules are as they were; and every module belongs to one of the two.
    fn check_never_between(&self, new: &Edition) {
        let record = Rollout::from_document(self.record.as_ref());
        let (old_digests, new_digests) = (digests(&old()), digests(new));
        let there: BTreeSet<_> = self.modules.iter().map(digest_of).collect();
        assert!(record.in_force().is_some() && record.good().is_some(), "{record:?}");
        assert!(
            there
                .iter()
                .all(|one| old_digests.contains(one) || new_digests.contains(one))
        );
        if record.phase() == Phase::Preparing {
            assert_eq!(there, old_digests, "nothing is touched before the switch");
        }
    }

    /// Everything is off, then on again.
    fn reboot(&mut self) {
        self.now = self.now.plus_millis(60_000);
        self.booted_at = self.now;
        for state in self.modules.iter_mut().filter(|state| state.status.is_up()) {
            state.status = RuntimeStatus::Failed;
            state.health = None;
            state.exit_code = Some(255);
            state.exited_at = Some(self.now);
        }
        self.power = None;
        self.bookkeeping = Bookkeeping::default();
        self.rollout = Rollout::from_document(self.record.as_ref());
        self.now = self.now.plus_millis(1000);
    }

    fn spend(&mut self) -> Result<(), Cut> {
        self.steps += 1;
        match &mut self.power {
            Some(0) => return Err(Cut),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn deploy(&mut self, edition: &Edition) -> Result<(), Cut> {
        let at = self.now;
        let edition = edition.clone();
        self.advance(Event::Deployed { edition, at })
    }

    fn advance(&mut self, event: Event) -> Result<(), Cut> {
        let Some(after) = self.rollout.after(event) else {
            return Ok(());
        };
        self.spend()?;
        self.record = after.to_document();
        if after.in_force() != self.rollout.in_force() {
            self.bookkeeping.begin_deployment(&after.modules().unwrap());
        }
        self.rollout = after;
        Ok(())
    }

    /// Half an hour.
    fn settle(&mut self) -> Result<(), Cut> {
        for _ in 0..360 {
            self.prepare()?;
            self.keep()?;
            self.now = self.now.plus_millis(5000);
            self.live();
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Cut> {
        let Some(next) = self.rollout.next().cloned() else {
            return Ok(());
        };
        for module in next.desired.modules.values() {
            if module.image == "no-image" {
                return Ok(());
            }
            self.spend()?;
        }
        self.advance(Event::Prepared {
            version: next.version,
            at: self.now,
            excused: BTreeSet::new(),
        })
    }

    /// What the agent's pass does.
    fn keep(&mut self) -> Result<(), Cut> {
        let Some(edition) = self.rollout.in_force().cloned() else {
            return Ok(());
        };
        let intents = intents(&edition);
        loop {
            let next = self.plan(&intents);
            let turn: Vec<Step> = next
                .steps
                .iter()
                .filter(|step| step.stage <= next.first_turn())
                .cloned()
                .collect();
            if turn.is_empty() {
                break;
            }
            for step in &turn {
                self.spend()?;
                if let Err(reason) = self.step(step, &intents) {
                    let digest = &digests(&edition)
                        .into_iter()
                        .find(|(id, _)| *id == step.module)
                        .unwrap()
                        .1;
                    self.bookkeeping.failed(&step.module, digest, reason.into(), self.now);
                } else {
                    self.bookkeeping.succeeded(&step.module);
                }
            }
        }
        let Some(trial) = self.rollout.trial().cloned() else {
            return Ok(());
        };
        let began = trial.since;
        match judge(
            &trial,
            &intents,
            &self.actual(),
            &self.bookkeeping,
            GATE_MILLIS,
            self.now,
        ) {
            Judgement::Open(_) => Ok(()),
            Judgement::Passed => self.advance(Event::Passed { began }),
            Judgement::Failed(reasons) => self.advance(Event::Failed { began, reasons }),
            Judgement::ClockMoved => panic!("nobody moved it"),
        }
    }

    fn actual(&self) -> Actual {
        Actual {
            modules: self.modules.clone(),
            booted_at: Some(self.booted_at),
            ..Actual::default()
        }
    }

    fn plan(&self, intents: &BTreeMap<ModuleId, Intent>) -> Plan {
        plan(intents, &self.actual(), &self.bookkeeping, self.now)
    }

    fn step(&mut self, step: &Step, intents: &BTreeMap<ModuleId, Intent>) -> Result<(), String> {
        let (id, now) = (step.module.clone(), self.now);
        let found = self.modules.iter_mut().find(|state| state.id == id);
        match (step.action, found) {
            (Action::Prepare, _) => {}
            (Action::Stop, Some(state)) => {
                state.status = RuntimeStatus::Stopped;
                state.exit_code = Some(0);
                state.exited_at = Some(now);
            }
            (Action::Remove, _) => self.modules.retain(|state| state.id != id),
            (Action::Create, None) => {
                let Some(Intent::Run(wanted)) = intents.get(&id) else {
                    panic!("{step}")
                };
                self.modules.push(created(id, &wanted.digest));
            }
            (Action::Start | Action::Restart, Some(state)) => {
                if state.image == "starts-never" {
                    return Err("it does not start".to_owned());
                }
                state.status = RuntimeStatus::Running;
                state.started_at = Some(now);
                state.exit_code = None;
                *self.starts.entry((id.clone(), state.image.clone())).or_default() += 1;
                if step.action == Action::Restart {
                    self.bookkeeping.restarted(&id, now);
                }
            }
            (action, found) => panic!("{action:?} on {found:?}"),
        }
        Ok(())
    }

    /// Modules do what their image says.
    fn live(&mut self) {
        for state in self.modules.iter_mut().filter(|state| state.status.is_up()) {
            let starts = self
                .starts
                .get(&(state.id.clone(), state.image.clone()))
                .copied()
                .unwrap_or(0);
            let ends = match state.image.as_str() {
                "crashes" => Some(1),
                "crashes-once" if starts == 1 => Some(1),
                "ends-well" => Some(0),
                "sick" => {
                    state.status = RuntimeStatus::Unhealthy;
                    state.health = Some(Health::Unhealthy);
                    None
                }
                _ => None,
            };
            if let Some(code) = ends {
                state.status = if code == 0 {
                    RuntimeStatus::Stopped
                } else {
                    RuntimeStatus::Failed
                };
                state.exit_code = Some(code);
                state.exited_at = Some(self.now);
            }
        }
    }
}

fn old() -> Edition {
    edition(1, &[("a", "good-1"), ("b", "good-1")])
}

/// A module is made of its image alone.
fn digests(edition: &Edition) -> BTreeSet<(ModuleId, String)> {
    let modules = edition.desired.modules.iter();
    modules.map(|(id, module)| (id.clone(), module.image.clone())).collect()
}

fn digest_of(state: &ModuleState) -> (ModuleId, String) {
    (state.id.clone(), state.spec_digest.clone().unwrap())
}

fn intents(edition: &Edition) -> BTreeMap<ModuleId, Intent> {
    let modules = edition.desired.modules.iter();
    modules
        .map(|(id, module)| {
            let wanted = Wanted {
                kind: RuntimeKind::Process,
                digest: module.image.clone(),
                status: module.status,
                restart_policy: module.restart_policy,
                startup_order: module.startup_order,
                is_prepared: true,
            };
            (id.clone(), Intent::Run(wanted))
        })
        .collect()
}

fn created(id: ModuleId, image: &str) -> ModuleState {
    ModuleState {
        id,
        kind: RuntimeKind::Process,
        status: RuntimeStatus::Stopped,
        health: None,
        description: None,
        exit_code: None,
        started_at: None,
        exited_at: None,
        image: image.to_owned(),
        image_hash: None,
        pid: None,
        spec_digest: Some(image.to_owned()),
        labels: BTreeMap::new(),
        is_from_before_boot: None,
    }
}
