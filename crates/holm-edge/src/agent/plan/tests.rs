use proptest::prelude::*;

use super::*;
use crate::agent::restarts::{Failure, Restarts};

fn id(text: &str) -> ModuleId {
    ModuleId::new(text).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_000_000)
}

fn ago(seconds: i64) -> Timestamp {
    now().plus_millis(-seconds * 1000)
}

fn wanted() -> Wanted {
    Wanted {
        kind: RuntimeKind::Process,
        digest: "new".to_owned(),
        status: ModuleStatus::Running,
        restart_policy: RestartPolicy::Always,
        startup_order: u32::MAX,
        is_prepared: false,
    }
}

/// A module that was started 100 s ago and is now so.
fn state(status: RuntimeStatus) -> ModuleState {
    ModuleState {
        id: id("m"),
        kind: RuntimeKind::Process,
        status,
        health: None,
        description: None,
        exit_code: (!status.is_up()).then_some(i32::from(status == RuntimeStatus::Failed)),
        started_at: Some(ago(100)),
        exited_at: (!status.is_up()).then(|| ago(5)),
        image: "image".to_owned(),
        image_hash: None,
        pid: None,
        spec_digest: Some("new".to_owned()),
        labels: BTreeMap::new(),
        is_from_before_boot: None,
    }
}

/// A system to plan for, changed by each test.
#[derive(Default)]
struct System {
    intents: BTreeMap<ModuleId, Intent>,
    actual: Actual,
    bookkeeping: Bookkeeping,
}

impl System {
    fn of(wanted: Wanted, states: &[ModuleState]) -> Self {
        let mut system = Self::default();
        system.intents.insert(id("m"), Intent::Run(wanted));
        system.actual.modules = states.to_vec();
        system
    }

    fn restarted(mut self, count: u32) -> Self {
        let restarts = Restarts {
            count,
            last: Some(ago(100)),
        };
        self.bookkeeping.restarts.insert(id("m"), restarts);
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.intents, &self.actual, &self.bookkeeping, now())
    }

    fn actions(&self) -> Vec<Action> {
        self.plan().steps.iter().map(|step| step.action).collect()
    }

    fn word(&self) -> RuntimeStatus {
        self.plan().verdicts[&id("m")].status
    }
}

use Action::{Create, Prepare, Remove, Restart, Start, Stop};

#[test]
fn what_is_as_it_shall_be_is_left_alone() {
    let on_failure = Wanted {
        restart_policy: RestartPolicy::OnFailure,
        ..wanted()
    };
    for (wanted, status) in [
        (wanted(), RuntimeStatus::Running),
        (on_failure, RuntimeStatus::Unhealthy),
    ] {
        let system = System::of(wanted, &[state(status)]);

        assert_eq!(system.actions(), []);
        assert_eq!(system.word(), status);
    }
    let stopped = Wanted {
        status: ModuleStatus::Stopped,
        ..wanted()
    };
    assert_eq!(System::of(stopped, &[state(RuntimeStatus::Failed)]).actions(), []);
}

#[test]
fn what_differs_is_changed_with_as_little_as_possible() {
    let stopped = Wanted {
        status: ModuleStatus::Stopped,
        ..wanted()
    };
    let old = |status| ModuleState {
        spec_digest: Some("old".to_owned()),
        ..state(status)
    };
    let docker = Wanted {
        kind: RuntimeKind::Docker,
        ..wanted()
    };
    let never_started = ModuleState {
        started_at: None,
        exited_at: None,
        exit_code: None,
        ..state(RuntimeStatus::Stopped)
    };
    let rows: [(&str, Wanted, Vec<ModuleState>, &[Action]); 9] = [
        ("missing", wanted(), vec![], &[Prepare, Create, Start]),
        ("missing, to be stopped", stopped.clone(), vec![], &[Prepare, Create]),
        (
            "runs, to be stopped",
            stopped.clone(),
            vec![state(RuntimeStatus::Running)],
            &[Stop],
        ),
        ("never started", wanted(), vec![never_started], &[Start]),
        (
            "changed and running",
            wanted(),
            vec![old(RuntimeStatus::Running)],
            &[Prepare, Stop, Remove, Create, Start],
        ),
        (
            "changed and ended",
            wanted(),
            vec![old(RuntimeStatus::Failed)],
            &[Prepare, Remove, Create, Start],
        ),
        (
            "changed, to be stopped",
            stopped,
            vec![old(RuntimeStatus::Running)],
            &[Prepare, Stop, Remove, Create],
        ),
        (
            "dead",
            wanted(),
            vec![state(RuntimeStatus::Dead)],
            &[Prepare, Remove, Create, Start],
        ),
        (
            "of another type",
            docker,
            vec![state(RuntimeStatus::Running)],
            &[Prepare, Stop, Remove, Create, Start],
        ),
    ];
    for (name, wanted, states, expected) in rows {
        assert_eq!(System::of(wanted, &states).actions(), expected, "{name}");
    }
}

#[test]
fn what_is_not_deployed_is_stopped_and_removed_first() {
    let mut system = System::of(wanted(), &[]);
    system.actual.modules.push(ModuleState {
        id: id("a-new-name-is-no-reason"),
        ..state(RuntimeStatus::Running)
    });

    let plan = system.plan();

    let actions: Vec<Action> = plan.steps.iter().map(|step| step.action).collect();
    assert_eq!(actions, [Stop, Remove, Prepare, Create, Start]);
    assert_eq!(plan.steps[0].stage, 0);
}

#[test]
fn lower_startup_orders_come_first_and_crashed_modules_wait_for_no_pull() {
    let mut system = System::default();
    for (name, startup_order) in [("late", u32::MAX), ("early", 0), ("middle", 7), ("crashed", 9)] {
        let wanted = Wanted {
            startup_order,
            ..wanted()
        };
        system.intents.insert(id(name), Intent::Run(wanted));
    }
    system.actual.modules.push(ModuleState {
        id: id("crashed"),
        exited_at: Some(ago(60)),
        ..state(RuntimeStatus::Failed)
    });

    let plan = system.plan();

    let order: Vec<&str> = plan.steps.iter().map(|step| step.module.as_str()).collect();
    assert_eq!(
        order,
        [
            "crashed", "early", "early", "early", "middle", "middle", "middle", "late", "late", "late"
        ]
    );
}

#[test]
fn restart_policies_decide_what_an_end_means() {
    use RestartPolicy::{Always, Never, OnFailure, OnUnhealthy};
    let ended = |status| ModuleState {
        exited_at: Some(ago(60)),
        ..state(status)
    };
    for (policy, after_success, after_failure) in [
        (Always, vec![Restart], vec![Restart]),
        (OnFailure, vec![], vec![Restart]),
        (OnUnhealthy, vec![], vec![Restart]),
        (Never, vec![], vec![]),
    ] {
        let wanted = Wanted {
            restart_policy: policy,
            ..wanted()
        };
        let after = |status| System::of(wanted.clone(), &[ended(status)]).actions();
        assert_eq!(after(RuntimeStatus::Stopped), after_success, "{policy:?}");
        assert_eq!(after(RuntimeStatus::Failed), after_failure, "{policy:?}");
    }
}

#[test]
fn restarts_wait_longer_each_time_and_are_never_given_up() {
    for (count, wait) in [(0, 10), (1, 20), (4, 160), (5, 300), (19, 300), (40, 300)] {
        let ended = |seconds| ModuleState {
            exited_at: Some(ago(seconds)),
            ..state(RuntimeStatus::Failed)
        };

        let early = System::of(wanted(), &[ended(wait - 1)]).restarted(count);
        let due = System::of(wanted(), &[ended(wait)]).restarted(count);

        assert_eq!(early.actions(), [], "{count}");
        assert_eq!(early.plan().next_due, Some(now().plus_millis(1000)), "{count}");
        let word = if count < 20 {
            RuntimeStatus::Backoff
        } else {
            RuntimeStatus::Failed
        };
        assert_eq!(early.word(), word, "{count}");
        assert_eq!(due.actions(), [Restart], "{count}");
    }
}

#[test]
fn ten_good_minutes_let_restarts_be_forgotten() {
    let runs_since = |seconds| ModuleState {
        started_at: Some(ago(seconds)),
        ..state(RuntimeStatus::Running)
    };

    assert_eq!(
        System::of(wanted(), &[runs_since(600)]).restarted(3).plan().recovered,
        []
    );
    assert_eq!(
        System::of(wanted(), &[runs_since(601)]).restarted(3).plan().recovered,
        [id("m")]
    );
    assert_eq!(System::of(wanted(), &[runs_since(601)]).plan().recovered, []);
}

#[test]
fn a_failed_command_is_reported_and_tried_again_after_its_wait() {
    let failed = |seconds, count, digest: &str| {
        let mut system = System::of(wanted(), &[]);
        let failure = Failure {
            is_of_runtime: false,
            digest: digest.to_owned(),
            count,
            at: ago(seconds),
            reason: "no such image".to_owned(),
        };
        system.bookkeeping.failures.insert(id("m"), failure);
        system
    };

    assert_eq!(failed(9, 0, "new").actions(), []);
    assert_eq!(failed(10, 0, "new").actions(), [Prepare, Create, Start]);
    assert_eq!(failed(299, 9, "new").actions(), []);
    assert_eq!(failed(300, 9, "new").actions(), [Prepare, Create, Start]);
    assert_eq!(
        failed(1, 9, "another specification").actions(),
        [Prepare, Create, Start]
    );
    let verdict = &failed(9, 0, "new").plan().verdicts[&id("m")];
    assert_eq!(verdict.error.as_deref(), Some("no such image"));
}

#[test]
fn a_runtime_that_is_not_there_stops_no_other() {
    let mut system = System::of(
        Wanted {
            kind: RuntimeKind::Docker,
            ..wanted()
        },
        &[],
    );
    system.intents.insert(id("p"), Intent::Run(wanted()));
    system
        .actual
        .unavailable
        .insert(RuntimeKind::Docker, "no engine".to_owned());

    let plan = system.plan();

    assert!(plan.steps.iter().all(|step| step.module == id("p")), "{plan}");
    let error = plan.verdicts[&id("m")].error.as_deref().unwrap();
    assert!(error.contains("`docker`") && error.contains("no engine"), "{error}");
    assert_eq!(plan.verdicts[&id("p")].error, None);
}

#[test]
fn a_module_that_cannot_be_made_now_keeps_what_is_there() {
    let mut system = System::of(wanted(), &[state(RuntimeStatus::Running)]);
    for is_error in [false, true] {
        let reason = "no identity".to_owned();
        system.intents.insert(id("m"), Intent::Blocked { reason, is_error });

        let plan = system.plan();

        assert_eq!(plan.steps, []);
        assert_eq!(plan.verdicts[&id("m")].error.is_some(), is_error);
        assert_eq!(system.word(), RuntimeStatus::Running);
    }
}

#[test]
fn an_unhealthy_module_is_restarted_where_its_policy_says_so_and_waits_between_restarts() {
    let unhealthy = |policy| {
        let wanted = Wanted {
            restart_policy: policy,
            ..wanted()
        };
        System::of(wanted, &[state(RuntimeStatus::Unhealthy)])
    };

    for policy in [RestartPolicy::OnUnhealthy, RestartPolicy::Always] {
        assert_eq!(unhealthy(policy).actions(), [Stop, Restart]);
        assert_eq!(unhealthy(policy).word(), RuntimeStatus::Unhealthy);
    }
    for policy in [RestartPolicy::OnFailure, RestartPolicy::Never] {
        assert_eq!(unhealthy(policy).actions(), []);
    }
    // The last restart was 100 s ago: the wait after three is 80 s, after four 160 s.
    let again = |count| unhealthy(RestartPolicy::OnUnhealthy).restarted(count);
    assert_eq!(again(3).actions(), [Stop, Restart]);
    assert_eq!(again(4).actions(), []);
    assert_eq!(again(4).plan().next_due, Some(ago(100).plus_millis(160_000)));
}

/// `first` of order 1 with this health since so many seconds, and `m` after it, not there.
fn in_order(health: Option<Health>, seconds: i64) -> System {
    let mut system = System::of(wanted(), &[]);
    let first = Wanted {
        startup_order: 1,
        ..wanted()
    };
    system.intents.insert(id("z"), Intent::Run(first));
    system.actual.modules.push(ModuleState {
        id: id("z"),
        health,
        started_at: Some(ago(seconds)),
        ..state(RuntimeStatus::Running)
    });
    system
}

#[test]
fn a_startup_order_waits_for_the_health_checks_of_those_before_it_but_not_for_ever() {
    for (health, seconds, is_held) in [
        (None, 1, false),
        (Some(Health::Healthy), 1, false),
        (Some(Health::Starting), 1, true),
        (Some(Health::Starting), 120, true),
        (Some(Health::Starting), 121, false),
    ] {
        let plan = in_order(health, seconds).plan();

        assert_eq!(plan.steps.is_empty(), is_held, "{health:?} since {seconds} s: {plan}");
        let description = plan.verdicts[&id("m")].description.as_deref().unwrap_or_default();
        assert_eq!(description.contains("`z`"), is_held, "{description}");
        assert_eq!(plan.next_due.is_some(), is_held);
    }
}

#[test]
fn after_a_restart_of_the_device_modules_start_in_order_at_once_and_uncounted() {
    let mut system = in_order(None, 500);
    let ended = |name: &str, status| ModuleState {
        id: id(name),
        started_at: Some(ago(500)),
        exit_code: Some(255),
        ..state(status)
    };
    system.actual.modules = vec![ended("m", RuntimeStatus::Failed), ended("z", RuntimeStatus::Failed)];
    system.actual.booted_at = Some(ago(3));
    system = system.restarted(15);

    let plan = system.plan();

    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.module.as_str(), step.action))
        .collect();
    assert_eq!(steps, [("z", Start), ("m", Start)]);
    assert!(plan.steps[0].stage < plan.steps[1].stage);
    assert_eq!(plan.first_turn(), plan.steps[0].stage);
}

#[test]
fn a_reboot_is_known_by_the_runtime_whatever_the_clock_says() {
    let mut ended = state(RuntimeStatus::Failed);
    ended.is_from_before_boot = Some(true);
    let mut system = System::of(wanted(), &[ended.clone()]);
    // The device has no battery for its clock: by its time it was started long before the module.
    system.actual.booted_at = Some(ago(1_000_000));
    system = system.restarted(15);

    let after_reboot = system.plan();
    system.actual.modules[0].is_from_before_boot = Some(false);
    system.actual.booted_at = Some(ago(3));
    let without_one = system.plan();

    let actions = |plan: &Plan| plan.steps.iter().map(|step| step.action).collect::<Vec<_>>();
    assert_eq!(actions(&after_reboot), [Start]);
    assert_eq!(actions(&without_one), [], "it waits, as after any end");
}

#[test]
fn a_plan_reads_as_sentences_and_as_json() {
    let system = System::of(wanted(), &[]);

    let plan = system.plan();

    assert_eq!(
        plan.to_string(),
        "prepare m (process): it is deployed and not there; create m (process): it is deployed and not there; \
         start m (process): it is deployed and not there"
    );
    assert_eq!(Plan::default().to_string(), "nothing to do");
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["steps"][0]["action"], "prepare");
    assert_eq!(json["verdicts"]["m"]["status"], "unknown");
}

/// What a runtime would make of a plan.
fn carry_out(plan: &Plan, intents: &BTreeMap<ModuleId, Intent>, actual: &mut Actual, bookkeeping: &mut Bookkeeping) {
    for step in &plan.steps {
        let is_it = |state: &ModuleState| state.id == step.module && state.kind == step.runtime;
        let found = actual.modules.iter().position(is_it);
        match (step.action, found) {
            (Prepare, _) => {}
            (Stop, Some(at)) => {
                actual.modules[at].status = RuntimeStatus::Stopped;
                actual.modules[at].exited_at = Some(now());
            }
            (Remove, Some(at)) => drop(actual.modules.remove(at)),
            (Create, None) => {
                let Some(Intent::Run(wanted)) = intents.get(&step.module) else {
                    panic!("{step} makes what nobody wants");
                };
                actual.modules.push(ModuleState {
                    id: step.module.clone(),
                    kind: step.runtime,
                    started_at: None,
                    exited_at: None,
                    spec_digest: Some(wanted.digest.clone()),
                    ..state(RuntimeStatus::Stopped)
                });
            }
            (Start | Restart, Some(at)) => {
                actual.modules[at].status = RuntimeStatus::Running;
                actual.modules[at].started_at = Some(now());
                if step.action == Restart {
                    bookkeeping.restarted(&step.module, now());
                }
            }
            (action, found) => panic!("{action:?} on {found:?}: {step}"),
        }
    }
}

fn names() -> impl Strategy<Value = ModuleId> {
    prop::sample::select(vec![id("a"), id("b"), id("c"), id("d")])
}

fn kinds() -> impl Strategy<Value = RuntimeKind> {
    prop::sample::select(RuntimeKind::ALL.to_vec())
}

fn digests() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["new".to_owned(), "old".to_owned()])
}

prop_compose! {
    fn intents()(kind in kinds(), digest in digests(), is_running in any::<bool>(), order in 0_u32..3,
        policy in prop::sample::select(vec![RestartPolicy::Always, RestartPolicy::OnFailure, RestartPolicy::Never])) -> Intent
    {
        let status = if is_running { ModuleStatus::Running } else { ModuleStatus::Stopped };
        Intent::Run(Wanted { kind, digest, status, restart_policy: policy, startup_order: order, is_prepared: false })
    }
}

prop_compose! {
    /// Ended long ago, so that nothing waits.
    fn states()(name in names(), kind in kinds(), digest in digests(), was_started in any::<bool>(),
        status in prop::sample::select(vec![RuntimeStatus::Running, RuntimeStatus::Stopped, RuntimeStatus::Failed,
            RuntimeStatus::Dead])) -> ModuleState
    {
        ModuleState {
            id: name,
            kind,
            started_at: (was_started || status.is_up()).then(|| ago(10_000)),
            exited_at: (!status.is_up()).then(|| ago(5_000)),
            spec_digest: Some(digest),
            ..state(status)
        }
    }
}

proptest! {
    #[test]
    fn one_plan_converges_from_any_start_and_the_next_is_empty(
        intents in prop::collection::btree_map(names(), intents(), 0..4),
        mut modules in prop::collection::vec(states(), 0..6),
    ) {
        modules.sort_by(|a, b| (&a.id, a.kind).cmp(&(&b.id, b.kind)));
        modules.dedup_by(|a, b| a.id == b.id && a.kind == b.kind);
        let untouched: Vec<ModuleState> = modules.clone();
        let mut actual = Actual { modules, ..Actual::default() };
        let mut bookkeeping = Bookkeeping::default();

        let first = plan(&intents, &actual, &bookkeeping, now());
        carry_out(&first, &intents, &mut actual, &mut bookkeeping);
        let second = plan(&intents, &actual, &bookkeeping, now());

        prop_assert_eq!(&second.steps, &vec![], "after {}", first);
        prop_assert_eq!(actual.modules.len(), intents.len());
        for state in &actual.modules {
            let Some(Intent::Run(wanted)) = intents.get(&state.id) else { panic!("{state:?}") };
            prop_assert_eq!(state.kind, wanted.kind);
            prop_assert_eq!(state.spec_digest.as_ref(), Some(&wanted.digest));
            prop_assert!(wanted.status == ModuleStatus::Running || !state.status.is_up());
        }
        for before in untouched.iter().filter(|state| state.status.is_up()) {
            let as_wanted = matches!(intents.get(&before.id), Some(Intent::Run(wanted)) if wanted.kind == before.kind
                && Some(&wanted.digest) == before.spec_digest.as_ref() && wanted.status == ModuleStatus::Running);
            prop_assert!(!as_wanted || actual.modules.contains(before), "a healthy module was touched: {}", first);
        }
    }
}
