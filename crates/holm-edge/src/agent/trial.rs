//! Whether an edition that is in force has proved itself.
//!
//! A module is *well* when it does what the manifest says: it runs and its health check, if it has one, passes; or it is
//! stopped and shall be; or it has ended with exit code 0 and its restart policy leaves it so. The trial is passed when every
//! module has been well for the trial's time. It is failed as soon as one module
//!
//! - ended with an error and is not started again (`never`),
//! - ended a second time although it shall run: once may be because something that it needs was not there yet,
//! - is reported unhealthy by its health check, or is not found healthy for ten minutes after it and the trial began,
//! - could not be made or started, twice in a row.
//!
//! What is no fault of the edition fails no trial: a runtime that can't be asked, a module that it did not change and that
//! was not well before.

use std::collections::BTreeMap;

use holm_model::manifest::{ModuleStatus, RestartPolicy};
use holm_model::{ModuleId, Timestamp};
use holm_runtime::{Health, ModuleState, RuntimeStatus};

use super::plan::{Actual, Intent, Wanted};
use super::restarts::Bookkeeping;
use super::rollout::Trial;

/// How long a health check may take until it passes for the first time. Docker's own start periods are shorter than this.
const LONGEST_START_MILLIS: i64 = 600_000;
/// How soon to look again at least, where the trial has no length.
const SHORTEST_LOOK_MILLIS: i64 = 500;
/// How often a module may end during a trial, less one.
const ENDS_TOLERATED: u32 = 1;

/// What a look says of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Not yet decided; look again then at the latest.
    Open(Timestamp),
    /// Every module has been well for long enough.
    Passed,
    /// These modules were not, for these reasons.
    Failed(Vec<(ModuleId, String)>),
    /// The clock was set since the trial's beginning.
    ClockMoved,
}

/// How one module stands.
enum Standing {
    /// It is well since then.
    Well(Timestamp),
    /// It may still become so.
    Open,
    /// It will not.
    Bad(String),
}

/// Judges. `gate_millis` is how long every module must have been well.
#[must_use]
pub fn judge(
    trial: &Trial,
    intents: &BTreeMap<ModuleId, Intent>,
    actual: &Actual,
    bookkeeping: &Bookkeeping,
    gate_millis: i64,
    now: Timestamp,
) -> Judgement {
    if now < trial.since {
        return Judgement::ClockMoved;
    }
    let (mut since, mut is_open, mut bad) = (trial.since, false, Vec::new());
    for (id, intent) in intents.iter().filter(|(id, _)| !trial.excused.contains(*id)) {
        match standing(id, intent, actual, bookkeeping, trial.since, now) {
            Standing::Well(well) => since = since.max(well),
            Standing::Open => is_open = true,
            Standing::Bad(reason) => bad.push((id.clone(), reason)),
        }
    }
    // What is not deployed any more is still to go.
    is_open |= actual.modules.iter().any(|state| !intents.contains_key(&state.id));
    let end = since.plus_millis(gate_millis);
    if !bad.is_empty() {
        Judgement::Failed(bad)
    } else if is_open {
        Judgement::Open(now.plus_millis(gate_millis.max(SHORTEST_LOOK_MILLIS)))
    } else if now >= end {
        Judgement::Passed
    } else {
        Judgement::Open(end)
    }
}

/// Whether a module does now what it shall; for [`Trial::excused`].
#[must_use]
pub fn is_well(wanted: &Wanted, state: &ModuleState) -> bool {
    match wanted.status {
        ModuleStatus::Stopped => !state.status.is_up(),
        ModuleStatus::Running => state.status == RuntimeStatus::Running || has_ended_well(wanted, state),
    }
}

fn has_ended_well(wanted: &Wanted, state: &ModuleState) -> bool {
    wanted.restart_policy != RestartPolicy::Always
        && state.started_at.is_some()
        && state.status == RuntimeStatus::Stopped
        && state.exit_code == Some(0)
}

fn standing(
    id: &ModuleId,
    intent: &Intent,
    actual: &Actual,
    bookkeeping: &Bookkeeping,
    since: Timestamp,
    now: Timestamp,
) -> Standing {
    let wanted = match intent {
        Intent::Run(wanted) if !actual.unavailable.contains_key(&wanted.kind) => wanted,
        // It was prepared, so what blocks it now has come from outside.
        _ => return Standing::Open,
    };
    if let Some(failure) = bookkeeping
        .failures
        .get(id)
        .filter(|failure| failure.digest == wanted.digest)
    {
        let is_bad = failure.count >= ENDS_TOLERATED && !failure.is_of_runtime;
        return if is_bad {
            Standing::Bad(failure.reason.clone())
        } else {
            Standing::Open
        };
    }
    let mut states = actual.modules.iter().filter(|state| state.id == *id);
    let Some(state) = states.find(|state| state.spec_digest.as_ref() == Some(&wanted.digest)) else {
        return Standing::Open;
    };
    if wanted.status == ModuleStatus::Stopped || has_ended_well(wanted, state) {
        return if state.status.is_up() {
            Standing::Open
        } else {
            Standing::Well(Timestamp::NEVER)
        };
    }
    match state.status {
        RuntimeStatus::Running => running(state, since, now),
        RuntimeStatus::Unhealthy => Standing::Bad(described(state, "its health check fails")),
        _ if state.started_at.is_none() => Standing::Open,
        RuntimeStatus::Failed | RuntimeStatus::Stopped => ended(wanted, state, bookkeeping.restarts(id).count, actual),
        _ => Standing::Open,
    }
}

fn running(state: &ModuleState, since: Timestamp, now: Timestamp) -> Standing {
    // A start in the future is one before the clock was moved back: long ago.
    let started = state
        .started_at
        .filter(|started| *started <= now)
        .unwrap_or(Timestamp::NEVER);
    if state.health != Some(Health::Starting) {
        return Standing::Well(started);
    }
    // A start long before the trial may be one before the clock was set forward.
    if now.millis_since(started.max(since)) > LONGEST_START_MILLIS {
        let minutes = LONGEST_START_MILLIS / 60_000;
        return Standing::Bad(format!(
            "its health check has not passed for {minutes} minutes since it started"
        ));
    }
    Standing::Open
}

fn ended(wanted: &Wanted, state: &ModuleState, restarts: u32, actual: &Actual) -> Standing {
    if actual.is_from_before_boot(state) {
        return Standing::Open;
    }
    let code = state
        .exit_code
        .map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    let reason = described(state, &format!("it ended with exit code {code}"));
    if wanted.restart_policy == RestartPolicy::Never {
        return Standing::Bad(reason);
    }
    if restarts >= ENDS_TOLERATED {
        return Standing::Bad(format!("{reason}, after it had been started again"));
    }
    Standing::Open
}

fn described(state: &ModuleState, what: &str) -> String {
    match &state.description {
        Some(more) if more.contains(what) => more.clone(),
        Some(more) => format!("{what} ({more})"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holm_runtime::RuntimeKind;
    use serde_json::json;

    use super::super::restarts::{Restarts, Trouble};
    use super::super::rollout::{Event, Rollout};
    use super::*;

    const GATE: i64 = 30_000;

    fn id() -> ModuleId {
        ModuleId::new("m").unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    /// A module of an edition that came into force at 1000 s.
    struct Scene {
        trial: Trial,
        wanted: Wanted,
        actual: Actual,
        bookkeeping: Bookkeeping,
    }

    impl Scene {
        /// Started at 1000 s, and now so.
        fn of(status: RuntimeStatus, exit_code: Option<i32>, policy: RestartPolicy) -> Self {
            let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}});
            let edition = super::super::rollout::Edition::read(desired.as_object().unwrap().clone(), 1).unwrap();
            let rollout = Rollout::default()
                .after(Event::Deployed { edition, at: at(1000) })
                .unwrap();
            let state = ModuleState {
                id: id(),
                kind: RuntimeKind::Process,
                status,
                health: None,
                description: None,
                exit_code,
                started_at: Some(at(1000)),
                exited_at: exit_code.map(|_| at(1001)),
                image: "image".to_owned(),
                image_hash: None,
                pid: None,
                spec_digest: Some("d".to_owned()),
                labels: BTreeMap::new(),
                is_from_before_boot: None,
            };
            Self {
                trial: rollout.trial().unwrap().clone(),
                wanted: Wanted {
                    kind: RuntimeKind::Process,
                    digest: "d".to_owned(),
                    status: ModuleStatus::Running,
                    restart_policy: policy,
                    startup_order: 1,
                    is_prepared: true,
                },
                actual: Actual {
                    modules: vec![state],
                    ..Actual::default()
                },
                bookkeeping: Bookkeeping::default(),
            }
        }

        fn running() -> Self {
            Self::of(RuntimeStatus::Running, None, RestartPolicy::Always)
        }

        fn at(&self, seconds: i64) -> Judgement {
            judge_with_gate(self, GATE, seconds)
        }

        fn fails(&self) -> bool {
            matches!(self.at(1002), Judgement::Failed(_))
        }
    }

    fn judge_with_gate(scene: &Scene, gate: i64, seconds: i64) -> Judgement {
        let intents = BTreeMap::from([(id(), Intent::Run(scene.wanted.clone()))]);
        judge(
            &scene.trial,
            &intents,
            &scene.actual,
            &scene.bookkeeping,
            gate,
            at(seconds),
        )
    }

    #[test]
    fn a_trial_is_passed_when_every_module_has_been_well_for_its_time() {
        let mut scene = Scene::running();
        assert_eq!(scene.at(1029), Judgement::Open(at(1030)));
        assert_eq!(scene.at(1030), Judgement::Passed);

        assert_eq!(
            judge_with_gate(&scene, 0, 1000),
            Judgement::Passed,
            "as soon as all run"
        );
        scene.actual.modules[0].status = RuntimeStatus::Unknown;
        let open = judge_with_gate(&scene, 0, 1000);
        assert!(
            matches!(open, Judgement::Open(until) if until > at(1000)),
            "{open:?} is a busy loop"
        );
        scene.actual.modules[0].status = RuntimeStatus::Running;
        scene.actual.modules[0].started_at = Some(at(1020));
        assert_eq!(
            scene.at(1030),
            Judgement::Open(at(1050)),
            "a restart begins its time again"
        );
        scene.actual.modules[0].started_at = Some(at(9000));
        assert_eq!(
            scene.at(1030),
            Judgement::Passed,
            "the clock was moved back after its start"
        );
        assert_eq!(scene.at(999), Judgement::ClockMoved);
    }

    #[test]
    fn a_module_that_ends_is_judged_by_what_its_policy_makes_of_it() {
        use RestartPolicy::{Always, Never, OnFailure, OnUnhealthy};
        let of = |policy, code, restarts| {
            let status = if code == 0 {
                RuntimeStatus::Stopped
            } else {
                RuntimeStatus::Failed
            };
            let mut scene = Scene::of(status, Some(code), policy);
            let restarts = Restarts {
                count: restarts,
                last: None,
            };
            scene.bookkeeping.restarts.insert(id(), restarts);
            scene
        };

        for policy in [Never, OnFailure, OnUnhealthy] {
            assert_eq!(
                of(policy, 0, 0).at(1030),
                Judgement::Passed,
                "{policy:?}: it was meant to end"
            );
        }
        assert!(of(Never, 1, 0).fails());
        for policy in [Always, OnFailure, OnUnhealthy] {
            assert!(!of(policy, 1, 0).fails(), "{policy:?}: once is forgiven");
            assert!(of(policy, 1, 1).fails(), "{policy:?}");
        }
        assert!(of(Always, 0, 1).fails());
        let mut rebooted = of(Always, 255, 1);
        rebooted.actual.booted_at = Some(at(1001));
        assert!(!rebooted.fails(), "the device's restart is not its fault");
    }

    #[test]
    fn health_checks_decide_where_there_are_any() {
        let mut scene = Scene::running();
        scene.actual.modules[0].health = Some(Health::Starting);
        assert!(matches!(scene.at(1500), Judgement::Open(_)));
        assert!(matches!(scene.at(1601), Judgement::Failed(_)));
        scene.actual.modules[0].health = Some(Health::Healthy);
        assert_eq!(scene.at(1500), Judgement::Passed);
        assert!(Scene::of(RuntimeStatus::Unhealthy, None, RestartPolicy::Never).fails());
    }

    #[test]
    fn what_is_no_fault_of_the_edition_fails_nothing() {
        let mut excused = Scene::of(RuntimeStatus::Failed, Some(1), RestartPolicy::Never);
        excused.trial.excused = BTreeSet::from([id()]);
        assert_eq!(excused.at(1030), Judgement::Passed);

        let mut silent = Scene::running();
        silent.actual.modules.clear();
        silent
            .actual
            .unavailable
            .insert(RuntimeKind::Process, "it is gone".to_owned());
        assert!(matches!(silent.at(5000), Judgement::Open(_)));

        let trouble = |is_of_runtime| {
            let mut scene = Scene::running();
            for _ in 0..2 {
                let trouble = Trouble {
                    reason: "no".to_owned(),
                    is_of_runtime,
                };
                scene.bookkeeping.failed(&id(), "d", trouble, at(1001));
            }
            scene
        };
        assert!(!trouble(true).fails());
        assert!(trouble(false).fails());
    }

    #[test]
    fn what_is_not_deployed_any_more_must_be_gone_first() {
        let mut scene = Scene::running();
        let mut other = scene.actual.modules[0].clone();
        other.id = ModuleId::new("other").unwrap();
        scene.actual.modules.push(other);

        assert!(matches!(scene.at(1500), Judgement::Open(_)));
    }
}
