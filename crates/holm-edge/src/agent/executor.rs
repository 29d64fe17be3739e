//! Carries out a plan: stage by stage, modules of a stage at once, steps on one module in order. It decides nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::StreamExt as _;
use holm_model::ModuleId;
use holm_net::error_chain;
use holm_runtime::{ModuleRuntime, ModuleSpec, Reachability, RuntimeKind};

use super::figures::Figures;
use super::plan::{Action, Plan, Step};
use super::restarts::Trouble;
use super::sockets::ModuleSockets;
use crate::runtimes::Runtimes;

/// Modules that are worked on at once: pulls share a thin link, and more would only slow each other down.
const AT_ONCE: usize = 4;

/// What came of the steps on one module.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The module.
    pub module: ModuleId,
    /// The restarts that were carried out.
    pub restarts: u32,
    /// Why a step failed; those after it were left out.
    pub error: Option<Trouble>,
}

/// Carries out plans.
pub(super) struct Executor {
    runtimes: Runtimes,
    figures: Arc<Figures>,
    sockets: Arc<dyn ModuleSockets>,
    /// The edge's port for MQTT over TLS.
    mqtt_port: u16,
    /// What the operator should know of a module although it runs. Held for an insert, never over an `.await`.
    notes: Mutex<BTreeMap<ModuleId, Notes>>,
}

/// What an operator should know of a module although it runs, by what tells it.
#[derive(Debug, Default)]
struct Notes {
    /// Of its image, as it was made ready.
    image: Option<String>,
    /// Of its network, as it was at the last start.
    network: Option<String>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor")
            .field("runtimes", &self.runtimes)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor over these runtimes.
    #[must_use]
    pub(super) fn new(
        runtimes: Runtimes,
        figures: Arc<Figures>,
        sockets: Arc<dyn ModuleSockets>,
        mqtt_port: u16,
    ) -> Self {
        Self {
            runtimes,
            figures,
            sockets,
            mqtt_port,
            notes: Mutex::new(BTreeMap::new()),
        }
    }

    /// What should be known of a module besides its state.
    #[must_use]
    pub(super) fn note(&self, id: &ModuleId) -> Option<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let Notes { image, network } = notes.get(id)?;
        let told: Vec<&str> = [image, network].into_iter().flatten().map(String::as_str).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Carries out a plan up to and with its first startup order: whether the next one may begin is to be seen then. `specs`
    /// holds what modules are made of.
    pub(super) async fn execute(&self, plan: &Plan, specs: &BTreeMap<ModuleId, ModuleSpec>) -> Vec<Outcome> {
        let mut outcomes: BTreeMap<ModuleId, Outcome> = BTreeMap::new();
        for stage in 0..=plan.first_turn() {
            let mut chains: BTreeMap<&ModuleId, Vec<&Step>> = BTreeMap::new();
            for step in plan.steps.iter().filter(|step| step.stage == stage) {
                let has_failed = outcomes
                    .get(&step.module)
                    .is_some_and(|outcome| outcome.error.is_some());
                if !has_failed {
                    chains.entry(&step.module).or_default().push(step);
                }
            }
            // A list of futures, not a closure that makes them: the compiler could not see that those may be sent.
            let mut work = Vec::new();
            for (module, steps) in chains {
                work.push(self.chain(module, steps, specs));
            }
            let done: Vec<Outcome> = futures_util::stream::iter(work)
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for outcome in done {
                outcomes.insert(outcome.module.clone(), outcome);
            }
        }
        outcomes.into_values().collect()
    }

    async fn chain(&self, module: &ModuleId, steps: Vec<&Step>, specs: &BTreeMap<ModuleId, ModuleSpec>) -> Outcome {
        let mut outcome = Outcome {
            module: module.clone(),
            restarts: 0,
            error: None,
        };
        for step in steps {
            tracing::info!(module = %module, runtime = %step.runtime, action = %step.action, reason = step.reason, "module");
            let began = Instant::now();
            let done = self.step(step, specs.get(module)).await;
            self.figures.command(module, step.action, began.elapsed());
            match done {
                Ok(()) => outcome.restarts += u32::from(step.action == Action::Restart),
                Err(error) => {
                    let reason = &error.reason;
                    tracing::warn!(module = %module, action = %step.action, reason, "module: a command failed");
                    outcome.error = Some(error);
                    break;
                }
            }
        }
        outcome
    }

    async fn step(&self, step: &Step, spec: Option<&ModuleSpec>) -> Result<(), Trouble> {
        let id = &step.module;
        let missing = || format!("the runtime `{}` has gone", step.runtime);
        let runtime = self.runtimes.of_kind(step.runtime).ok_or_else(missing)?;
        match step.action {
            Action::Stop => runtime.stop(id, None).await.map_err(Trouble::from),
            Action::Remove => {
                runtime.remove(id).await?;
                if step.stage == 0 {
                    self.sockets.close(id);
                    self.forget_note(id);
                }
                Ok(())
            }
            Action::Prepare => {
                let spec = spec.ok_or_else(|| format!("nobody knows what `{id}` is made of"))?;
                self.prepare(runtime.as_ref(), spec).await
            }
            Action::Create => {
                let spec = spec.ok_or_else(|| format!("nobody knows what `{id}` is made of"))?;
                // Its directory is mounted when it is created, so it must be there before.
                self.sockets.ensure(id).map_err(|error| error_chain(&error))?;
                runtime.create(spec).await.map_err(Trouble::from)
            }
            Action::Start | Action::Restart => {
                self.sockets.ensure(id).map_err(|error| error_chain(&error))?;
                runtime.start(id).await?;
                self.probe(runtime.as_ref(), id, spec).await;
                Ok(())
            }
        }
    }

    /// Makes an image present, and notes what is to be said about it.
    pub(super) async fn prepare(&self, runtime: &dyn ModuleRuntime, spec: &ModuleSpec) -> Result<(), Trouble> {
        self.forget_note(&spec.id);
        let prepared = runtime.prepare(spec).await?;
        if let Some(note) = prepared.note {
            tracing::warn!(module = %spec.id, note, "module prepared");
            self.note_down(&spec.id, |notes| notes.image = Some(note));
        }
        Ok(())
    }

    /// A container on a network of its own may be unable to reach the edge, and its SDK would only say "timeout".
    async fn probe(&self, runtime: &dyn ModuleRuntime, id: &ModuleId, spec: Option<&ModuleSpec>) {
        let host = spec.and_then(|spec| spec.env.get("IOTEDGE_GATEWAYHOSTNAME"));
        let Some(host) = host.filter(|_| runtime.kind() == RuntimeKind::Docker) else {
            return;
        };
        let note = match runtime.probe_reachability(id, host, self.mqtt_port).await {
            Ok(Reachability::Reachable | Reachability::NotChecked { .. }) | Err(_) => None,
            Ok(Reachability::Unreachable { reason }) => Some(format!(
                "the module can't reach the edge at {host}:{}: {reason}",
                self.mqtt_port
            )),
        };
        if let Some(note) = &note {
            tracing::warn!(module = %id, note, "module network");
        }
        // What was true of an earlier start is not told of this one.
        self.note_down(id, |notes| notes.network = note);
    }

    fn note_down(&self, id: &ModuleId, write: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        write(notes.entry(id.clone()).or_default());
    }

    fn forget_note(&self, id: &ModuleId) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.remove(id);
    }
}
