//! The loop: look, plan, carry out, judge, report.

use std::collections::BTreeMap;
use std::time::Duration;

use holm_client::{Client, TwinError};
use holm_model::manifest::{AgentDesired, DesiredStatus};
use holm_model::twin::patch;
use holm_model::{ModuleId, Timestamp};
use holm_net::error_chain;
use holm_runtime::{ModuleSpec, ModuleState, RuntimeError, RuntimeKind};
use serde_json::{Map, Value, json};

use super::advance::advance;
use super::plan::{Actual, Intent, Plan, Wanted, plan};
use super::report::{Facts, document};
use super::rollout::{Event, Trial};
use super::trial::{self, Judgement};
use super::{BOOKKEEPING, Inner, Memory};

/// What an edition asks for, and what each module is made of.
type Intents = (BTreeMap<ModuleId, Intent>, BTreeMap<ModuleId, ModuleSpec>);

pub(super) async fn run(agent: &Inner) {
    loop {
        let wait = pass(agent).await;
        agent.report_due.notify_one();
        tokio::select! {
            () = agent.wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Reports what has changed. Apart from the loop above, so that a slow link holds no module up.
pub(super) async fn run_reports(agent: &Inner, client: &Client) {
    loop {
        agent.report_due.notified().await;
        report(agent, client).await;
    }
}

/// How many times a pass looks and does in a row: once for each startup order, and for what comes of it.
const MOST_TURNS: usize = 64;

/// One look at everything, and what is to be done. Gives how long nothing will be to do.
async fn pass(agent: &Inner) -> Duration {
    let before = agent.memory().bookkeeping.clone();
    let Some(mut seen) = see(agent).await else {
        // Nothing was ever deployed: nothing is known to be right or wrong.
        agent.memory().last_pass = Some(agent.now());
        return agent.period;
    };
    // Modules that were running when the edge started find their sockets again.
    for id in seen.intents.keys() {
        if let Err(error) = agent.sockets.0.ensure(id) {
            tracing::error!(module = %id, error = %error_chain(&error), "the workload socket of a module can't be made");
        }
    }
    for _ in 0..MOST_TURNS {
        if seen.plan.steps.is_empty() && seen.plan.recovered.is_empty() {
            break;
        }
        tracing::debug!(plan = %seen.plan, "plan");
        carry_out(agent, &seen).await;
        let Some(next) = see(agent).await else { break };
        seen = next;
    }
    let judged = judge(agent, &seen).await;
    annotate(agent, &mut seen.plan);
    let at = agent.now();
    let due = [seen.plan.next_due, judged].into_iter().flatten().min();
    let wait = due.map_or(agent.period, |due| {
        let millis = u64::try_from(due.millis_since(at)).unwrap_or(0);
        Duration::from_millis(millis).min(agent.period)
    });
    keep(agent, &before).await;
    let mut memory = agent.memory();
    let has_errors = seen.plan.verdicts.values().any(|verdict| verdict.error.is_some());
    let is_done = seen.plan.steps.is_empty() && !has_errors && memory.deployment.rollout.next().is_none();
    if let Some(desired) = memory.deployment.in_force() {
        agent.figures.looked(desired, &seen.plan.verdicts, is_done);
    }
    memory.verdicts = seen.plan.verdicts.clone();
    memory.plan = seen.plan;
    memory.states = seen.actual.modules;
    memory.last_pass = Some(at);
    wait
}

/// What one look finds, and what follows from it.
struct Seen {
    /// The trial that went on at the look.
    trial: Option<Trial>,
    intents: BTreeMap<ModuleId, Intent>,
    specs: BTreeMap<ModuleId, ModuleSpec>,
    actual: Actual,
    plan: Plan,
}

/// Looks at everything; `None` when nothing was ever deployed.
async fn see(agent: &Inner) -> Option<Seen> {
    let (desired, trial) = {
        let memory = agent.memory();
        let rollout = &memory.deployment.rollout;
        (memory.deployment.in_force()?.clone(), rollout.trial().cloned())
    };
    agent.figures.know_versions(&desired);
    let (intents, specs) = intents_of(agent, &desired);
    let actual = look(agent).await;
    let bookkeeping = agent.memory().bookkeeping.clone();
    let plan = plan(&intents, &actual, &bookkeeping, agent.now());
    Some(Seen {
        trial,
        intents,
        specs,
        actual,
        plan,
    })
}

/// Judges the edition that is on trial, and does what follows. Gives when to look again.
async fn judge(agent: &Inner, seen: &Seen) -> Option<Timestamp> {
    let now = agent.now();
    let was_set = agent.clock_watch.was_set(now, holm_net::clock::instant());
    let trial = seen.trial.as_ref()?;
    let bookkeeping = agent.memory().bookkeeping.clone();
    let gate = i64::try_from(agent.trial.as_millis()).unwrap_or(i64::MAX);
    let judgement = if was_set {
        Judgement::ClockMoved
    } else {
        trial::judge(trial, &seen.intents, &seen.actual, &bookkeeping, gate, now)
    };
    let event = match judgement {
        Judgement::Open(until) => return Some(until),
        Judgement::Passed => Event::Passed { began: trial.since },
        Judgement::Failed(reasons) => Event::Failed {
            began: trial.since,
            reasons,
        },
        Judgement::ClockMoved => Event::ClockMoved { at: now },
    };
    advance(agent, event).await;
    None
}

/// What an edition asks for, and what each module is made of.
pub(super) fn intents_of(agent: &Inner, desired: &AgentDesired) -> Intents {
    let memory = agent.memory();
    let mut all: Intents = Default::default();
    for (id, module) in &desired.modules {
        let Some(generation) = agent.identities.0.generation(id) else {
            all.0.insert(id.clone(), without_identity(&memory, id));
            continue;
        };
        let credentials = &desired.runtime.registry_credentials;
        let spec = agent.surroundings.runtime_spec(id, module, &generation, credentials);
        let intent = match spec {
            Err(error) => blocked(error_chain(&error)),
            Ok(spec) => match agent.runtimes.of_kind(spec.kind).map(|runtime| runtime.validate(&spec)) {
                Some(Err(options)) => {
                    let id = id.clone();
                    blocked(RuntimeError::Unsupported { id, options }.chain())
                }
                _ => {
                    let digest = spec.digest();
                    let wanted = Wanted {
                        kind: spec.kind,
                        is_prepared: memory.prepared.get(id) == Some(&digest),
                        digest,
                        status: module.status,
                        restart_policy: module.restart_policy,
                        startup_order: module.startup_order,
                    };
                    all.1.insert(id.clone(), spec);
                    Intent::Run(wanted)
                }
            },
        };
        all.0.insert(id.clone(), intent);
    }
    all
}

const fn blocked(reason: String) -> Intent {
    Intent::Blocked { reason, is_error: true }
}

/// No error until the hub was asked for this very deployment: its identity may be on its way.
fn without_identity(memory: &Memory, id: &ModuleId) -> Intent {
    let tried = memory.identities_tried.as_ref();
    let tried = tried.filter(|(wanted, _)| wanted.as_ref().is_some_and(|wanted| wanted.contains(id)));
    match tried {
        Some((_, Some(error))) => blocked(format!(
            "the module has no identity yet, and the hub can't give it one: {error}"
        )),
        _ => Intent::Blocked {
            reason: "its identity is being made at the hub".to_owned(),
            is_error: false,
        },
    }
}

async fn look(agent: &Inner) -> Actual {
    let (modules, unavailable) = listed(agent).await;
    Actual {
        modules,
        unavailable,
        booted_at: Some(boot_time(agent.now())),
    }
}

/// Every module, and the runtimes that can't tell of theirs.
pub(super) async fn listed(agent: &Inner) -> (Vec<ModuleState>, BTreeMap<RuntimeKind, String>) {
    let (modules, silent) = agent.runtimes.list().await;
    let mut unavailable: BTreeMap<_, _> = silent.into_iter().map(|(kind, error)| (kind, error.chain())).collect();
    for kind in RuntimeKind::ALL {
        if agent.runtimes.of_kind(kind).is_none() {
            let reason = "this edge has none; see that its engine is installed and `moby_runtime.uri` names it";
            unavailable.entry(kind).or_insert_with(|| reason.to_owned());
        }
    }
    (modules, unavailable)
}

/// When the device was started, by its clock of now; a second too early rather than too late.
fn boot_time(now: Timestamp) -> Timestamp {
    let seconds = rustix::system::sysinfo().uptime;
    now.plus_millis(seconds.saturating_add(1).saturating_mul(-1000))
}

async fn carry_out(agent: &Inner, seen: &Seen) {
    let outcomes = agent.executor.execute(&seen.plan, &seen.specs).await;
    let mut memory = agent.memory();
    let at = agent.now();
    for id in &seen.plan.recovered {
        memory.bookkeeping.recovered(id);
    }
    for outcome in outcomes {
        let id = &outcome.module;
        for _ in 0..outcome.restarts {
            memory.bookkeeping.restarted(id, at);
        }
        match outcome.error {
            None => memory.bookkeeping.succeeded(id),
            Some(trouble) => {
                // What was prepared may have been taken away by somebody.
                memory.prepared.remove(id);
                let digest = match seen.intents.get(id) {
                    Some(Intent::Run(wanted)) => wanted.digest.as_str(),
                    _ => "",
                };
                memory.bookkeeping.failed(id, digest, trouble, at);
            }
        }
    }
}

/// Adds what the executor noted of modules that are otherwise well, and what was taken back.
fn annotate(agent: &Inner, plan: &mut Plan) {
    let refused = agent.memory().deployment.rollout.refused().cloned();
    for (id, verdict) in &mut plan.verdicts {
        if verdict.description.is_none() {
            verdict.description = agent.executor.note(id);
        }
        let reasons = refused.iter().flat_map(|refused| &refused.reasons);
        if let (Some((_, reason)), Some(refused), None) = (
            reasons.into_iter().find(|(module, _)| module == id),
            &refused,
            &verdict.description,
        ) {
            let version = refused.edition.version;
            verdict.description = Some(format!(
                "as it was before version {version} of the deployment: {reason}"
            ));
        }
    }
}

async fn keep(agent: &Inner, before: &super::Bookkeeping) {
    let document = {
        let memory = agent.memory();
        if memory.bookkeeping == *before {
            return;
        }
        json!(memory.bookkeeping)
    };
    if let Err(error) = agent.state.put_document(BOOKKEEPING, &document).await {
        tracing::warn!(%error, "restarts of modules are not kept over a restart of the edge");
    }
}

/// Sends what is new in the report. Does nothing while it is not known what the hub has.
async fn report(agent: &Inner, client: &Client) {
    let (changes, whole) = {
        let memory = agent.memory();
        let Some(known) = &memory.reported else { return };
        let whole = whole_report(agent, &memory);
        if memory.refused.as_ref() == Some(&whole) {
            return;
        }
        (patch::diff(known, &whole), whole)
    };
    if changes.is_empty() {
        return;
    }
    match client.patch_reported(Value::Object(changes.clone())).await {
        Ok(_) => {
            let mut memory = agent.memory();
            if let Some(known) = &mut memory.reported {
                patch::apply(known, &changes);
            }
        }
        Err(TwinError::Refused { status, reason }) => refused(agent, client, whole, status, &reason).await,
        Err(error) => {
            tracing::debug!(%error, "the report was not sent; it is built anew with the next connection");
            agent.memory().reported = None;
            agent.refresh.notify_one();
        }
    }
}

fn whole_report(agent: &Inner, memory: &Memory) -> Map<String, Value> {
    let states: &[ModuleState] = &memory.states;
    document(&Facts {
        version: &agent.version,
        started_at: agent.started_at,
        deployment: &memory.deployment,
        states,
        verdicts: &memory.verdicts,
        bookkeeping: &memory.bookkeeping,
        unprepared: &memory.unprepared,
    })
}

/// A report that the twin can't hold: the hub is told at least that, as the original does.
async fn refused(agent: &Inner, client: &Client, whole: Map<String, Value>, status: u16, reason: &str) {
    tracing::warn!(status, reason, "the hub refused the report of the modules");
    let version = {
        let mut memory = agent.memory();
        memory.refused = Some(whole);
        super::report::standing(&memory.deployment, &memory.verdicts, &memory.unprepared).0
    };
    let text = format!("the report of the modules was refused with status {status}: {reason}");
    let least = json!({"lastDesiredVersion": version, "lastDesiredStatus": DesiredStatus::failed(text)});
    if let Err(error) = client.patch_reported(least).await {
        tracing::warn!(%error, "the hub was not told that the report does not fit");
    }
}
