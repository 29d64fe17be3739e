//! What stands for the deployment agent: it keeps the modules of this device as the hub asked, and says how they fare.
//!
//! ```text
//!   hub --desired--> link --> Deployment --wanted--> identities at the hub
//!                                |                         |
//!                                v                         v
//!        runtimes --actual--> plan (pure) --steps--> executor --> runtimes
//!                                |
//!                                '--verdicts--> report --diff--> hub
//! ```
//!
//! - It wakes on a signal and every five seconds, looks at everything anew, and remembers no hint of what changed.
//! - Without a hub it goes on with the last good deployment, also after a restart.
//! - A restart of the edge touches no module that is as it shall be; stopping the edge stops none.
//! - What fails is reported, and tried again with a wait that is bounded.
//! - A deployment is made ready whole, comes into force once, proves itself or is taken back whole ([`rollout`]).
//!
//! Source: `edge-agent.md` §2.

mod advance;
mod clock_watch;
mod deployment;
mod executor;
pub(crate) mod figures;
mod identity_keeper;
mod link;
mod logs;
mod methods;
pub mod overview;
pub mod plan;
mod prepare;
mod reconcile;
pub mod report;
pub mod restarts;
pub mod rollout;
mod sockets;
pub mod spec;
pub mod trial;
mod unheeded;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holm_client::{Client, Events};
use holm_gateway::metrics::Exposition;
use holm_model::manifest::DesiredStatus;
use holm_model::{ModuleId, Timestamp};
use holm_net::{Clock, Scope};
use holm_runtime::ModuleState;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};

pub use deployment::Deployment;
pub use identity_keeper::{IdentitySource, Outbox};
pub use plan::Plan;
pub use sockets::ModuleSockets;
pub use spec::Surroundings;

use crate::own_log::OwnLog;
use crate::runtimes::Runtimes;
use crate::state::{State, StateError};
use crate::uplink::Refusals;
use executor::Executor;
use figures::Figures;
use plan::Verdict;
use restarts::Bookkeeping;

/// How often everything is looked at when nothing signals a change; the published period.
pub const PERIOD: Duration = Duration::from_secs(5);
/// The name of the document with what is remembered of restarts.
const BOOKKEEPING: &str = "agent.bookkeeping";

/// What the agent works with.
pub struct AgentParts {
    /// What every module is told.
    pub surroundings: Surroundings,
    /// The release, for the report.
    pub version: String,
    /// How often everything is looked at; [`PERIOD`].
    pub period: Duration,
    /// How long every module of a new deployment must have been well until it counts as good.
    pub trial: Duration,
    /// Where deployment and restarts are kept.
    pub state: State,
    /// The identities of modules.
    pub identities: Arc<dyn IdentitySource>,
    /// Where modules run.
    pub runtimes: Runtimes,
    /// Their workload sockets.
    pub sockets: Arc<dyn ModuleSockets>,
    /// What is on its way upstream.
    pub outbox: Arc<dyn Outbox>,
    /// Who is refused there.
    pub refusals: Refusals,
    /// The log of this process, which is that of agent and broker.
    pub own_log: OwnLog,
    /// Whom to trust where logs are uploaded to.
    pub upload_tls: Arc<rustls::ClientConfig>,
    /// Tells the time of day.
    pub clock: Clock,
}

impl std::fmt::Debug for AgentParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentParts").finish_non_exhaustive()
    }
}

/// The agent. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Agent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    surroundings: Surroundings,
    version: String,
    period: Duration,
    trial: Duration,
    started_at: Timestamp,
    state: State,
    clock: Clock,
    clock_watch: clock_watch::ClockWatch,
    identities: Identities,
    runtimes: Runtimes,
    sockets: Sockets,
    outbox: Leftovers,
    refusals: Refusals,
    logs: logs::Logs,
    executor: Executor,
    figures: Arc<Figures>,
    started: Instant,
    /// The modules that need an identity; `None` until a deployment is known.
    wanted: watch::Sender<Option<BTreeSet<ModuleId>>>,
    /// There may be something to do.
    wake: Notify,
    /// There may be something to make ready.
    prepare_due: Notify,
    /// Another edition may be the next one.
    next_changed: Notify,
    /// Held while the rollout goes a step.
    turn: tokio::sync::Mutex<()>,
    /// A pass is over: what changed may be reported.
    report_due: Notify,
    /// The whole twin must be read.
    refresh: Notify,
    /// The hub can be reached: identities may be brought up to date.
    reachable: Notify,
    /// Held for a look or a change, never over an `.await`.
    memory: Mutex<Memory>,
}

/// What changes while the agent runs.
#[derive(Debug, Default)]
struct Memory {
    deployment: Deployment,
    bookkeeping: Bookkeeping,
    /// Why modules of the next edition are not ready.
    unprepared: BTreeMap<ModuleId, String>,
    /// The digests of what was made ready for the edition in force.
    prepared: BTreeMap<ModuleId, String>,
    /// The last attempt to bring identities up to date: for which modules, and what went wrong.
    identities_tried: Option<(Option<BTreeSet<ModuleId>>, Option<String>)>,
    /// What the hub has as reported; `None` while that is not known.
    reported: Option<Map<String, Value>>,
    /// A report that the hub refused, so that it is not sent again.
    refused: Option<Map<String, Value>>,
    plan: Plan,
    states: Vec<ModuleState>,
    verdicts: BTreeMap<ModuleId, Verdict>,
    last_pass: Option<Timestamp>,
}

/// A trait object without a form to show.
struct Identities(Arc<dyn IdentitySource>);
struct Sockets(Arc<dyn ModuleSockets>);
struct Leftovers(Arc<dyn Outbox>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities(…)")
    }
}

impl std::fmt::Debug for Leftovers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Leftovers(…)")
    }
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sockets(…)")
    }
}

impl Agent {
    /// An agent with the deployment of an earlier run, if there was one. Nothing is done yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn open(parts: AgentParts) -> Result<Self, StateError> {
        let deployment = Deployment::from_document(parts.state.document(deployment::DOCUMENT).await?.as_ref());
        let bookkeeping = parts.state.document(BOOKKEEPING).await?;
        // Restarts are counted anew when their memory can't be read; nothing else depends on it.
        let bookkeeping = bookkeeping.and_then(|document| serde_json::from_value(document).ok());
        let wanted = deployment.rollout.modules();
        let figures = Arc::new(Figures::default());
        let executor = Executor::new(
            parts.runtimes.clone(),
            Arc::clone(&figures),
            Arc::clone(&parts.sockets),
            parts.surroundings.mqtt_port,
        );
        let logs = logs::Logs {
            hub: parts.surroundings.hub_host.clone(),
            device: parts.surroundings.device.to_string(),
            runtimes: parts.runtimes.clone(),
            own_log: parts.own_log,
            tls: parts.upload_tls,
            clock: parts.clock.clone(),
            tasks: logs::Tasks::default(),
        };
        let inner = Inner {
            logs,
            surroundings: parts.surroundings,
            version: parts.version,
            period: parts.period,
            trial: parts.trial,
            started_at: parts.clock.now().into(),
            state: parts.state,
            clock: parts.clock,
            clock_watch: clock_watch::ClockWatch::default(),
            identities: Identities(parts.identities),
            runtimes: parts.runtimes,
            sockets: Sockets(parts.sockets),
            outbox: Leftovers(parts.outbox),
            refusals: parts.refusals,
            executor,
            figures,
            started: Instant::now(),
            wanted: watch::Sender::new(wanted),
            wake: Notify::new(),
            prepare_due: Notify::new(),
            next_changed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            report_due: Notify::new(),
            refresh: Notify::new(),
            reachable: Notify::new(),
            memory: Mutex::new(Memory {
                deployment,
                bookkeeping: bookkeeping.unwrap_or_default(),
                ..Memory::default()
            }),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Works until the scope stops. `client` and `events` are those of `$edgeAgent` at the hub, with methods and desired
    /// properties among their interests.
    pub async fn run(&self, scope: Scope, client: Client, events: Events) {
        let inner = &self.inner;
        let work = async {
            tokio::join!(
                identity_keeper::run(inner),
                link::run(inner, &scope, &client, events),
                reconcile::run(inner),
                prepare::run(inner),
                reconcile::run_reports(inner, &client),
            )
        };
        tokio::select! {
            _ = work => {}
            () = scope.stopping() => {}
        }
        link::say_goodbye(&client).await;
    }

    /// Makes the agent look at everything now.
    pub fn wake(&self) {
        self.inner.wake.notify_one();
    }

    /// How the deployment stands, as it is reported.
    #[must_use]
    pub fn desired_status(&self) -> DesiredStatus {
        let memory = self.inner.memory();
        report::standing(&memory.deployment, &memory.verdicts, &memory.unprepared).1
    }

    /// What is planned: for the edition in force, and for the one that is made ready, as things are now.
    #[must_use]
    pub fn plan(&self) -> Value {
        let (next, actual, status) = {
            let memory = self.inner.memory();
            let actual = plan::Actual {
                modules: memory.states.clone(),
                ..plan::Actual::default()
            };
            let next = memory.deployment.rollout.next().cloned();
            let status = json!({"rollout": rollout_status(&memory), "plan": memory.plan});
            (next, actual, status)
        };
        let next = next.map(|edition| {
            let (intents, _) = reconcile::intents_of(&self.inner, &edition.desired);
            plan::plan(&intents, &actual, &Bookkeeping::default(), self.inner.now())
        });
        let mut answer = status;
        answer["nextPlan"] = json!(next);
        answer
    }

    /// Tries the deployment that was taken back once more. `false`: none was.
    pub async fn retry(&self) -> bool {
        advance::advance(&self.inner, rollout::Event::Retry).await
    }

    /// Writes the published figures of the agent.
    pub fn write_figures(&self, out: &mut Exposition) {
        self.inner.figures.write(out, self.inner.started.elapsed());
    }

    /// Writes the one that has no labels but its own.
    pub fn write_method_figures(&self, out: &mut Exposition) {
        self.inner.figures.write_methods(out);
    }

    /// A support bundle, as it is made.
    pub(crate) fn bundle(
        &self,
        scope: &Scope,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        runtime_only: bool,
    ) -> logs::Pieces {
        let facts = self.bundle_facts();
        self.inner.logs.bundle(scope, since, until, (runtime_only, facts))
    }

    fn bundle_facts(&self) -> logs::Facts {
        vec![
            ("status.json".to_owned(), self.status()),
            ("plan.json".to_owned(), self.plan()),
            ("systeminfo.json".to_owned(), crate::management::system::info()),
        ]
    }

    /// How things stand, for `holm edge status` and `holm edge plan`: the deployment and how far it is carried out, each
    /// module, and what is planned next.
    #[must_use]
    pub fn status(&self) -> Value {
        let memory = self.inner.memory();
        let (version, status) = report::standing(&memory.deployment, &memory.verdicts, &memory.unprepared);
        let protocol = self.inner.surroundings.hub_protocol;
        let in_force = memory.deployment.in_force();
        let without_effect = in_force
            .map(|desired| unheeded::of(desired, protocol))
            .unwrap_or_default();
        let identities = memory.identities_tried.as_ref().and_then(|(_, error)| error.clone());
        json!({
            "lastDesiredVersion": version,
            "lastDesiredStatus": status,
            "hasDeployment": memory.deployment.in_force().is_some(),
            "rollout": rollout_status(&memory),
            "modules": memory.verdicts,
            "plan": memory.plan,
            "withoutEffect": without_effect,
            "lastPass": memory.last_pass,
            "identitiesError": identities,
        })
    }
}

fn rollout_status(memory: &Memory) -> Value {
    let rollout = &memory.deployment.rollout;
    let version = |edition: Option<&rollout::Edition>| edition.map(|edition| edition.version);
    json!({
        "phase": rollout.phase().as_str(),
        "good": version(rollout.good()),
        "inForce": version(rollout.in_force()),
        "next": version(rollout.next()),
        "notReady": memory.unprepared,
        "trialSince": rollout.trial().map(|trial| trial.since),
        "takenBack": rollout.refused().map(|refused| json!({
            "version": refused.edition.version,
            "reasons": refused.reasons.iter().cloned().collect::<BTreeMap<_, _>>(),
        })),
    })
}

impl Inner {
    /// The time of day.
    fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Whether the identity of a module that is not deployed any more may be deleted at the hub: it does not run, and what it
    /// sent has arrived.
    fn may_go(&self, module: &ModuleId) -> bool {
        let runs = self.memory().states.iter().any(|state| state.id == *module);
        !runs && self.outbox.0.has_left(module)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Each change leaves it whole, so a panic elsewhere does too.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
