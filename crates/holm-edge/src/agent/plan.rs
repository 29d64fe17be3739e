//! What to do next, as a value: from what shall be, what is, what is remembered, and the time.
//!
//! ```text
//! stage 0      stop and remove what is not deployed
//! stage 1      start again what ended and has waited long enough
//! stage 2, 3 … by startup order: prepare, take away what is made of something else, create, start; stop
//! ```
//!
//! A startup order is held back while a module of an earlier one runs and its health check has yet to pass for the first time,
//! for two minutes at most. After the device was restarted, modules start in this order too, as if for the first time.
//!
//! - Pure: the same input gives the same plan, and the plan leaves its executor no choice.
//! - Idempotent: once a plan has been carried out, the next one is empty.
//! - Nothing is done to a module that is as it shall be. Whether it is made of what was deployed is read from the runtime
//!   (the digest that it was created with), so a lost memory of ours recreates nothing.
//! - What a module is made of is prepared (pulled) before the old module is touched: when that fails, the old one goes on.
//!   A new edition of the deployment was prepared whole before it came here ([`super::rollout`]).
//! - Steps of one stage on different modules may be done at once; steps on one module are in order.
//!
//! Source: `edge-agent.md` §2.2 to §2.4.

use std::collections::BTreeMap;
use std::fmt;

use holm_model::manifest::{ModuleStatus, RestartPolicy};
use holm_model::{ModuleId, Timestamp};
use holm_runtime::{Health, ModuleState, RuntimeKind, RuntimeStatus};
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
    /// Whether its image is known to be there: it was prepared before its edition came into force.
    pub is_prepared: bool,
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
    /// When the device was started, where that is known.
    pub booted_at: Option<Timestamp>,
}

impl Actual {
    /// Whether a module has not been started since the device was: its end says nothing about it.
    #[must_use]
    pub fn is_from_before_boot(&self, state: &ModuleState) -> bool {
        let by_time = || {
            self.booted_at
                .is_some_and(|booted| state.started_at.is_some_and(|started| started < booted))
        };
        state.is_from_before_boot.unwrap_or_else(by_time)
    }
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
    /// The stage up to which the plan is carried out before everything is looked at anew: that of the first startup order
    /// that has anything to do.
    #[must_use]
    pub fn first_turn(&self) -> usize {
        let turns = self.steps.iter().map(|step| step.stage);
        turns
            .filter(|stage| *stage >= FIRST_ORDER_STAGE)
            .min()
            .unwrap_or(RESTART_STAGE)
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

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::Prepare => "prepare",
            Self::Create => "create",
            Self::Start => "start",
            Self::Restart => "restart",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            module,
            runtime,
            reason,
            ..
        } = self;
        write!(f, "{action} {module} ({runtime}): {reason}")
    }
}

/// Stage of modules that ended; those of the startup orders follow.
const RESTART_STAGE: usize = 1;
const FIRST_ORDER_STAGE: usize = 2;
/// How long a startup order waits for the health checks of those before it: until `StartPeriod` and a few intervals of most.
const LONGEST_HOLD_MILLIS: i64 = 120_000;
/// How soon to look again at a health check that holds others back.
const HOLD_LOOK_MILLIS: i64 = 500;

/// Makes the plan.
#[must_use]
pub fn plan(intents: &BTreeMap<ModuleId, Intent>, actual: &Actual, bookkeeping: &Bookkeeping, now: Timestamp) -> Plan {
    let mut planner = Planner {
        bookkeeping,
        actual,
        now,
        held: None,
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
    // By startup order, so that what holds the later ones back is known when their turn comes.
    let mut by_order: Vec<_> = intents.iter().collect();
    by_order.sort_by_key(|(_, intent)| order_of(intent));
    let mut before = None;
    let mut starting = None;
    for (id, intent) in by_order {
        let order = order_of(intent);
        if order != before {
            planner.held = planner.held.take().or_else(|| starting.take());
            before = order;
        }
        starting = starting.or_else(|| planner.not_ready(id, intent));
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
    actual: &'a Actual,
    now: Timestamp,
    /// The module of an earlier startup order that this one waits for.
    held: Option<ModuleId>,
    plan: Plan,
}

impl Planner<'_> {
    /// The module, when it runs and later ones should wait until its health check has passed.
    fn not_ready(&self, id: &ModuleId, intent: &Intent) -> Option<ModuleId> {
        let Intent::Run(wanted) = intent else { return None };
        let mut states = self.actual.modules.iter().filter(|state| state.id == *id);
        let state = states.find(|state| state.spec_digest.as_ref() == Some(&wanted.digest))?;
        let waits_since = state.started_at.filter(|started| *started <= self.now)?;
        let is_starting = state.status == RuntimeStatus::Running && state.health == Some(Health::Starting);
        let is_late = self.now.millis_since(waits_since) > LONGEST_HOLD_MILLIS;
        (is_starting && !is_late && wanted.status == ModuleStatus::Running).then(|| id.clone())
    }

    /// Whether a module may not be started yet; it is then said why.
    fn is_held(&mut self, id: &ModuleId, status: RuntimeStatus) -> bool {
        let Some(first) = &self.held else { return false };
        let text = format!("it is started when the health check of `{first}`, which starts before it, has passed");
        self.wake_at(self.now.plus_millis(HOLD_LOOK_MILLIS));
        self.verdict_unless_set(id, status, Some(text));
        true
    }

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
        let status = olds.first().map_or(RuntimeStatus::Unknown, |old| old.status);
        if self.is_held(id, status) {
            return;
        }
        if !wanted.is_prepared {
            self.step(stage, id, wanted.kind, Action::Prepare, reason);
        }
        for old in olds {
            self.take_away(stage, old, reason);
        }
        self.step(stage, id, wanted.kind, Action::Create, reason);
        if wanted.status == ModuleStatus::Running {
            self.step(stage, id, wanted.kind, Action::Start, reason);
        }
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
            let policy = wanted.restart_policy;
            if state.status == RuntimeStatus::Unhealthy
                && matches!(policy, RestartPolicy::OnUnhealthy | RestartPolicy::Always)
            {
                self.unhealthy(state, wanted);
            }
            return;
        }
        if state.status == RuntimeStatus::Unknown {
            self.verdict_unless_set(id, state.status, state.description.clone());
        } else if state.started_at.is_none() || (has_failed && wanted.restart_policy != RestartPolicy::Never) {
            self.begin(state, wanted, stage, "it shall run and was not started yet");
        } else if self.actual.is_from_before_boot(state) && is_restarted(state, wanted) {
            self.begin(state, wanted, stage, "the device was restarted");
        } else {
            self.ended(state, wanted);
        }
    }

    /// A start in the module's turn; it is not counted.
    fn begin(&mut self, state: &ModuleState, wanted: &Wanted, stage: usize, reason: &str) {
        if !self.is_held(&state.id, state.status) {
            self.step(stage, &state.id, wanted.kind, Action::Start, reason);
        }
        self.verdict_unless_set(&state.id, state.status, state.description.clone());
    }

    /// A module that runs and does not do its work. Restarts wait as after an end, from the last one on.
    fn unhealthy(&mut self, state: &ModuleState, wanted: &Wanted) {
        let restarts = self.bookkeeping.restarts(&state.id);
        let last = restarts.last.filter(|_| restarts.count > 0);
        match last.and_then(|last| due(last, restarts.count, self.now)) {
            Some(at) => self.wake_at(at),
            None => {
                let reason = format!("its health check fails; restart {}", restarts.count.saturating_add(1));
                self.step(RESTART_STAGE, &state.id, wanted.kind, Action::Stop, &reason);
                self.step(RESTART_STAGE, &state.id, wanted.kind, Action::Restart, &reason);
            }
        }
    }

    /// A module that shall run, ran, and ended.
    fn ended(&mut self, state: &ModuleState, wanted: &Wanted) {
        let id = &state.id;
        if !is_restarted(state, wanted) {
            self.verdict(id, state.status, state.description.clone(), None);
            return;
        }
        let code = state
            .exit_code
            .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        let ended = || format!("it ended with exit code {code}");
        let mut told = state.description.clone().unwrap_or_else(ended);
        let count = self.bookkeeping.restarts(id).count;
        let word = if count < RESTARTS_UNTIL_FAILED {
            RuntimeStatus::Backoff
        } else {
            RuntimeStatus::Failed
        };
        let last = state.exited_at.unwrap_or(Timestamp::NEVER);
        match due(last, count, self.now) {
            Some(at) => {
                told.push_str(&format!("; it is started again at {at}"));
                self.wake_at(at);
            }
            None => {
                let reason = format!("it ended with exit code {code}; restart {}", count.saturating_add(1));
                self.step(RESTART_STAGE, id, wanted.kind, Action::Restart, &reason);
            }
        }
        self.verdict(id, word, Some(told), None);
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

/// Whether a module that has ended is started again.
fn is_restarted(state: &ModuleState, wanted: &Wanted) -> bool {
    match wanted.restart_policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure | RestartPolicy::OnUnhealthy => state.status == RuntimeStatus::Failed,
        RestartPolicy::Never => false,
    }
}

#[cfg(test)]
mod tests;
