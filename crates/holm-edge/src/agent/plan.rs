//! What to do next, as a value: from what shall be, what is, what is remembered, and the time.
//!
//! ```text
//! stage 0      stop and remove what is not deployed
//! stage 1      start again what ended and has waited long enough
//! stage 2, 3 … by startup order: prepare, take away what is made of something else, create, start; stop
//! ```
//!
//! - Pure: the same input gives the same plan, and the plan leaves its executor no choice.
//! - Idempotent: once a plan has been carried out, the next one is empty.
//! - Nothing is done to a module that is as it shall be. Whether it is made of what was deployed is read from the runtime
//!   (the digest that it was created with), so a lost memory of ours recreates nothing.
//! - What a module is made of is prepared (pulled) before the old module is touched: when that fails, the old one goes on.
//! - Steps of one stage on different modules may be done at once; steps on one module are in order.
//!
//! Source: `edge-agent.md` §2.2 to §2.4.

use std::collections::BTreeMap;
use std::fmt;

use holm_model::manifest::{ModuleStatus, RestartPolicy};
use holm_model::{ModuleId, Timestamp};
use holm_runtime::{ModuleState, RuntimeKind, RuntimeStatus};
use serde::Serialize;

use super::restarts::{Bookkeeping, INTENSIVE_CARE_MILLIS, RESTARTS_UNTIL_FAILED, due};

/// A module as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How it is run.
    pub kind: RuntimeKind,
    /// The digest of what it is made of.
    pub digest: String,
    /// Whether it shall run.
    pub status: ModuleStatus,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// Lower ones first.
    pub startup_order: u32,
}

/// A module that shall be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// As said.
    Run(Wanted),
    /// It can't be, for now: it has no identity yet, or its specification can't be honoured. What is there of it stays.
    Blocked {
        /// Why.
        reason: String,
        /// Whether that is an error to report, or just has not been settled yet.
        is_error: bool,
    },
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// Every module of every runtime that could tell.
    pub modules: Vec<ModuleState>,
    /// The runtimes that could not, and why. Nothing is decided about their modules.
    pub unavailable: BTreeMap<RuntimeKind, String>,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// End it.
    Stop,
    /// Take it away.
    Remove,
    /// Make its image present.
    Prepare,
    /// Create it from a prepared image.
    Create,
    /// Start it.
    Start,
    /// Start it again; this is counted.
    Restart,
}

/// One thing to do to one module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Lower ones first, whole.
    pub stage: usize,
    /// The module.
    pub module: ModuleId,
    /// Where.
    pub runtime: RuntimeKind,
    /// What.
    pub action: Action,
    /// Why, for people.
    pub reason: String,
}

/// How a module fares, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The published word.
    pub status: RuntimeStatus,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Why the deployment is not in force for this module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Modules that ran long enough for their restarts to be forgotten.
    pub recovered: Vec<ModuleId>,
    /// How each wanted module fares before the steps.
    pub verdicts: BTreeMap<ModuleId, Verdict>,
    /// When there may be something to do although nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_due: Option<Timestamp>,
}

impl Plan {
    /// The number of stages.
    #[must_use]
    pub fn stages(&self) -> usize {
        self.steps.iter().map(|step| step.stage + 1).max().unwrap_or(0)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("nothing to do");
        }
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            Action::Stop => "stop",
            Action::Remove => "remove",
            Action::Prepare => "prepare",
            Action::Create => "create",
            Action::Start => "start",
            Action::Restart => "restart",
        };
        write!(f, "{verb} {} ({}): {}", self.module, self.runtime, self.reason)
    }
}

/// Stage of modules that ended; those of the startup orders follow.
const RESTART_STAGE: usize = 1;
const FIRST_ORDER_STAGE: usize = 2;

/// Makes the plan.
#[must_use]
pub fn plan(intents: &BTreeMap<ModuleId, Intent>, actual: &Actual, bookkeeping: &Bookkeeping, now: Timestamp) -> Plan {
    let mut planner = Planner {
        bookkeeping,
        now,
        plan: Plan::default(),
    };
    for state in &actual.modules {
        if !intents.contains_key(&state.id) {
            planner.not_deployed(state);
        }
    }
    let mut orders: Vec<u32> = intents.values().filter_map(order_of).collect();
    orders.sort_unstable();
    orders.dedup();
    for (id, intent) in intents {
        let states: Vec<&ModuleState> = actual.modules.iter().filter(|state| state.id == *id).collect();
        match intent {
            Intent::Blocked { reason, is_error } => planner.blocked(id, &states, reason, *is_error),
            Intent::Run(wanted) => {
                let index = orders.iter().position(|order| *order == wanted.startup_order);
                let stage = FIRST_ORDER_STAGE + index.unwrap_or(0);
                match actual.unavailable.get(&wanted.kind) {
                    Some(reason) => planner.unavailable(id, wanted.kind, reason),
                    None => planner.module(id, wanted, &states, stage),
                }
            }
        }
    }
    // Stable: steps on one module stay in order.
    planner.plan.steps.sort_by_key(|step| step.stage);
    planner.plan
}

const fn order_of(intent: &Intent) -> Option<u32> {
    match intent {
        Intent::Run(wanted) => Some(wanted.startup_order),
        Intent::Blocked { .. } => None,
    }
}

struct Planner<'a> {
    bookkeeping: &'a Bookkeeping,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn module(&mut self, id: &ModuleId, wanted: &Wanted, states: &[&ModuleState], stage: usize) {
        let state = states.iter().find(|state| state.kind == wanted.kind);
        let failure = self.bookkeeping.failures.get(id);
        let failure = failure.filter(|failure| failure.digest == wanted.digest);
        if let Some(failure) = failure {
            let status = states.first().map_or(RuntimeStatus::Failed, |state| state.status);
            self.verdict(id, status, Some(failure.reason.clone()), Some(failure.reason.clone()));
            if let Some(at) = due(failure.at, failure.count, self.now) {
                self.wake_at(at);
                return;
            }
        }
        let is_as_wanted = state.is_some_and(|state| {
            state.spec_digest.as_ref() == Some(&wanted.digest) && state.status != RuntimeStatus::Dead
        });
        match state {
            Some(state) if is_as_wanted => {
                for other in states.iter().filter(|other| other.kind != wanted.kind) {
                    self.take_away(0, other, "its type has changed");
                }
                self.existing(state, wanted, stage, failure.is_some());
            }
            _ => self.make(id, wanted, states, stage),
        }
    }

    /// Makes a module that is not there or is made of something else.
    fn make(&mut self, id: &ModuleId, wanted: &Wanted, olds: &[&ModuleState], stage: usize) {
        let reason = match olds {
            [] => "it is deployed and not there",
            [old, ..] if old.kind != wanted.kind => "its type has changed",
            [old, ..] if old.status == RuntimeStatus::Dead => "the runtime gave it up",
            _ => "its specification has changed",
        };
        self.step(stage, id, wanted.kind, Action::Prepare, reason);
        for old in olds {
            self.take_away(stage, old, reason);
        }
        self.step(stage, id, wanted.kind, Action::Create, reason);
        if wanted.status == ModuleStatus::Running {
            self.step(stage, id, wanted.kind, Action::Start, reason);
        }
        let status = olds.first().map_or(RuntimeStatus::Unknown, |old| old.status);
        self.verdict_unless_set(id, status, None);
    }

    /// A module that is made of what was deployed.
    fn existing(&mut self, state: &ModuleState, wanted: &Wanted, stage: usize, has_failed: bool) {
        let id = &state.id;
        if wanted.status == ModuleStatus::Stopped {
            if state.status.is_up() {
                self.step(stage, id, wanted.kind, Action::Stop, "it shall be stopped");
            }
            self.verdict_unless_set(id, state.status, state.description.clone());
            return;
        }
        if state.status.is_up() {
            let runs_since = state.started_at.unwrap_or(self.now);
            if self.bookkeeping.restarts(id).count > 0 && self.now.millis_since(runs_since) > INTENSIVE_CARE_MILLIS {
                self.plan.recovered.push(id.clone());
            }
            // A failure that is remembered of a module that runs is over.
            self.verdict(id, state.status, state.description.clone(), None);
            return;
        }
        if state.status == RuntimeStatus::Unknown {
            self.verdict_unless_set(id, state.status, state.description.clone());
        } else if state.started_at.is_none() || (has_failed && wanted.restart_policy != RestartPolicy::Never) {
            self.step(
                stage,
                id,
                wanted.kind,
                Action::Start,
                "it shall run and was not started yet",
            );
            self.verdict_unless_set(id, state.status, state.description.clone());
        } else {
            self.ended(state, wanted);
        }
    }

    /// A module that shall run, ran, and ended.
    fn ended(&mut self, state: &ModuleState, wanted: &Wanted) {
        let id = &state.id;
        let is_restarted = match wanted.restart_policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure | RestartPolicy::OnUnhealthy => state.status == RuntimeStatus::Failed,
            RestartPolicy::Never => false,
        };
        if !is_restarted {
            self.verdict(id, state.status, state.description.clone(), None);
            return;
        }
        let count = self.bookkeeping.restarts(id).count;
        let word = if count < RESTARTS_UNTIL_FAILED {
            RuntimeStatus::Backoff
        } else {
            RuntimeStatus::Failed
        };
        self.verdict(id, word, state.description.clone(), None);
        let last = state.exited_at.unwrap_or(Timestamp::NEVER);
        match due(last, count, self.now) {
            Some(at) => self.wake_at(at),
            None => {
                let code = state
                    .exit_code
                    .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
                let reason = format!("it ended with exit code {code}; restart {}", count.saturating_add(1));
                self.step(RESTART_STAGE, id, wanted.kind, Action::Restart, &reason);
            }
        }
    }

    fn blocked(&mut self, id: &ModuleId, states: &[&ModuleState], reason: &str, is_error: bool) {
        let status = states.first().map_or(RuntimeStatus::Unknown, |state| state.status);
        let error = is_error.then(|| reason.to_owned());
        self.verdict(id, status, Some(reason.to_owned()), error);
    }

    fn unavailable(&mut self, id: &ModuleId, kind: RuntimeKind, reason: &str) {
        let text = format!("module `{id}` needs the runtime `{kind}`, which is not available: {reason}");
        self.verdict(id, RuntimeStatus::Unknown, Some(text.clone()), Some(text));
    }

    fn not_deployed(&mut self, state: &ModuleState) {
        let failure = self.bookkeeping.failures.get(&state.id);
        match failure.and_then(|failure| due(failure.at, failure.count, self.now)) {
            Some(at) => self.wake_at(at),
            None => self.take_away(0, state, "it is not deployed any more"),
        }
    }

    fn take_away(&mut self, stage: usize, state: &ModuleState, reason: &str) {
        if state.status.is_up() {
            self.step(stage, &state.id, state.kind, Action::Stop, reason);
        }
        self.step(stage, &state.id, state.kind, Action::Remove, reason);
    }

    fn step(&mut self, stage: usize, module: &ModuleId, runtime: RuntimeKind, action: Action, reason: &str) {
        self.plan.steps.push(Step {
            stage,
            module: module.clone(),
            runtime,
            action,
            reason: reason.to_owned(),
        });
    }

    fn verdict(&mut self, id: &ModuleId, status: RuntimeStatus, description: Option<String>, error: Option<String>) {
        let verdict = Verdict {
            status,
            description,
            error,
        };
        self.plan.verdicts.insert(id.clone(), verdict);
    }

    fn verdict_unless_set(&mut self, id: &ModuleId, status: RuntimeStatus, description: Option<String>) {
        if !self.plan.verdicts.contains_key(id) {
            self.verdict(id, status, description, None);
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.plan.next_due = Some(self.plan.next_due.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests;
