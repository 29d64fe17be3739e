//! Makes the next edition of a deployment ready while the one in force runs on: every identity known, every create option
//! checked by its runtime, every image there. When all of it is, the edition comes into force, once and whole.
//!
//! What fails is tried again with the waits of [`super::restarts`], never given up, and told to the hub meanwhile. It works
//! beside the loop that keeps modules, so that a long pull holds no restart up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use holm_model::{ModuleId, Timestamp};
use holm_runtime::{ModuleSpec, ModuleState, RuntimeKind};

use super::advance::advance;
use super::plan::{Intent, Wanted};
use super::restarts::{Trouble, due};
use super::rollout::{Edition, Event};
use super::{Inner, reconcile, trial};

/// Images that are fetched at once: pulls share a thin link, and more would only slow each other down.
const AT_ONCE: usize = 4;
/// How long to wait at most when nothing is due: an identity or a runtime may have come by itself.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What became of one module's image.
#[derive(Debug)]
struct Attempt {
    digest: String,
    outcome: Result<(), Trouble>,
    /// Failures in a row, less one.
    count: u32,
    at: Timestamp,
}

/// How far an edition is.
#[derive(Debug, Default)]
struct Preparation {
    attempts: BTreeMap<ModuleId, Attempt>,
}

/// What a round of attempts came to.
enum Round {
    /// Everything is there; this is to be told.
    Ready(Event),
    /// Something is not; try again then.
    Wait(Duration),
}

/// What there is to make ready for.
struct Site {
    intents: BTreeMap<ModuleId, Intent>,
    specs: BTreeMap<ModuleId, ModuleSpec>,
    modules: Vec<ModuleState>,
    unavailable: BTreeMap<RuntimeKind, String>,
}

pub(super) async fn run(agent: &Inner) {
    let mut preparation = Preparation::default();
    let mut of = None;
    loop {
        let next = agent.memory().deployment.rollout.next().cloned();
        let Some(edition) = next else {
            agent.prepare_due.notified().await;
            continue;
        };
        if of.as_ref() != Some(&edition) {
            preparation = Preparation::default();
            agent.memory().unprepared.clear();
            of = Some(edition.clone());
        }
        // Another edition that is deployed meanwhile ends this one's pulls.
        let round = tokio::select! {
            round = preparation.round(agent, &edition) => round,
            () = replaced(agent, &edition) => continue,
        };
        let wait = match round {
            Round::Wait(wait) => wait,
            Round::Ready(event) => {
                agent.memory().prepared = preparation.digests();
                if advance(agent, event).await {
                    continue;
                }
                // A record that can't be written is tried again, like a pull.
                LONGEST_WAIT
            }
        };
        tokio::select! {
            () = agent.prepare_due.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Waits until another edition is the next one.
async fn replaced(agent: &Inner, edition: &Edition) {
    loop {
        agent.next_changed.notified().await;
        if agent.memory().deployment.rollout.next() != Some(edition) {
            return;
        }
    }
}

impl Preparation {
    /// Tries what is missing and due.
    async fn round(&mut self, agent: &Inner, edition: &Edition) -> Round {
        let (modules, unavailable) = reconcile::listed(agent).await;
        let (intents, specs) = reconcile::intents_of(agent, &edition.desired);
        let site = Site {
            intents,
            specs,
            modules,
            unavailable,
        };
        let mut work = Vec::new();
        for spec in self.due(&site, agent.now()) {
            work.push(fetch(agent, spec));
        }
        let fetched: Vec<_> = futures_util::stream::iter(work)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (id, digest, outcome) in fetched {
            self.note(id, digest, outcome, agent.now());
        }
        let missing = self.missing(&site);
        {
            let mut memory = agent.memory();
            if memory.unprepared != missing {
                memory.unprepared = missing;
                agent.report_due.notify_one();
            }
        }
        if site.intents.iter().all(|(id, intent)| self.is_ready(&site, id, intent)) {
            return Round::Ready(Event::Prepared {
                version: edition.version,
                at: agent.now(),
                excused: site.excused(),
            });
        }
        Round::Wait(self.wait(agent.now()))
    }

    /// What is to be fetched now.
    fn due<'a>(&self, site: &'a Site, now: Timestamp) -> Vec<&'a ModuleSpec> {
        let is_due = |id: &ModuleId, wanted: &Wanted| match self.of(id, wanted) {
            Some(Attempt { outcome: Ok(()), .. }) => false,
            Some(failed) => due(failed.at, failed.count, now).is_none(),
            None => site.module(id, wanted).is_none(),
        };
        let due = site.intents.iter().filter_map(|(id, intent)| match intent {
            Intent::Run(wanted) if !site.unavailable.contains_key(&wanted.kind) && is_due(id, wanted) => {
                site.specs.get(id)
            }
            _ => None,
        });
        due.collect()
    }

    fn note(&mut self, id: ModuleId, digest: String, outcome: Result<(), Trouble>, now: Timestamp) {
        let before = self.attempts.remove(&id).filter(|attempt| attempt.digest == digest);
        let count = before.map_or(0, |attempt| attempt.count.saturating_add(1));
        if let Err(trouble) = &outcome {
            tracing::warn!(module = %id, reason = trouble.reason, "the next deployment is not ready");
        }
        let attempt = Attempt {
            digest,
            outcome,
            count,
            at: now,
        };
        self.attempts.insert(id, attempt);
    }

    /// Why modules are not ready, as far as that is an error and not only unsettled.
    fn missing(&self, site: &Site) -> BTreeMap<ModuleId, String> {
        let why = |id: &ModuleId, intent: &Intent| match intent {
            Intent::Blocked { reason, is_error } => is_error.then(|| reason.clone()),
            Intent::Run(wanted) => match (site.unavailable.get(&wanted.kind), self.of(id, wanted)) {
                (Some(reason), _) => Some(format!(
                    "it needs the runtime `{}`, which is not available: {reason}",
                    wanted.kind
                )),
                (
                    None,
                    Some(Attempt {
                        outcome: Err(trouble), ..
                    }),
                ) => Some(trouble.reason.clone()),
                _ => None,
            },
        };
        let missing = site.intents.iter();
        missing
            .filter_map(|(id, intent)| Some((id.clone(), why(id, intent)?)))
            .collect()
    }

    fn is_ready(&self, site: &Site, id: &ModuleId, intent: &Intent) -> bool {
        let Intent::Run(wanted) = intent else { return false };
        let is_there = self
            .of(id, wanted)
            .map_or_else(|| site.module(id, wanted).is_some(), |attempt| attempt.outcome.is_ok());
        is_there && !site.unavailable.contains_key(&wanted.kind)
    }

    fn of(&self, id: &ModuleId, wanted: &Wanted) -> Option<&Attempt> {
        self.attempts.get(id).filter(|attempt| attempt.digest == wanted.digest)
    }

    /// How long nothing is due.
    fn wait(&self, now: Timestamp) -> Duration {
        let failed = self.attempts.values().filter(|attempt| attempt.outcome.is_err());
        let waits = failed.map(|attempt| {
            let left = due(attempt.at, attempt.count, now).map_or(0, |due| due.millis_since(now));
            Duration::from_millis(u64::try_from(left).unwrap_or(0))
        });
        waits.min().unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
    }

    fn digests(&self) -> BTreeMap<ModuleId, String> {
        let all = self.attempts.iter();
        all.map(|(id, attempt)| (id.clone(), attempt.digest.clone())).collect()
    }
}

impl Site {
    /// A module that is already made of what the edition says.
    fn module(&self, id: &ModuleId, wanted: &Wanted) -> Option<&ModuleState> {
        let is_it = |state: &&ModuleState| state.id == *id && state.spec_digest.as_ref() == Some(&wanted.digest);
        self.modules.iter().find(is_it)
    }

    /// Modules that the edition leaves as they are, and that are not well now.
    fn excused(&self) -> BTreeSet<ModuleId> {
        let unwell = self.intents.iter().filter_map(|(id, intent)| match intent {
            Intent::Run(wanted) => self.module(id, wanted).filter(|state| !trial::is_well(wanted, state)),
            Intent::Blocked { .. } => None,
        });
        unwell.map(|state| state.id.clone()).collect()
    }
}

async fn fetch(agent: &Inner, spec: &ModuleSpec) -> (ModuleId, String, Result<(), Trouble>) {
    let outcome = match agent.runtimes.of_kind(spec.kind) {
        None => Err(Trouble::from(format!("this edge has no runtime `{}`", spec.kind))),
        Some(runtime) => {
            tracing::info!(module = %spec.id, image = spec.image, "the next deployment: an image is made ready");
            agent.executor.prepare(runtime.as_ref(), spec).await
        }
    };
    (spec.id.clone(), spec.digest(), outcome)
}
