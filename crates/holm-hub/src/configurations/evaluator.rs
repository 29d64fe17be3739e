//! The task that keeps targets and twins as configurations want them.
//!
//! ```text
//!        told of commits ─► step: who matches now? ─► those whose row says otherwise ─► a transaction of many, two at a time
//!              ▲                                                                              │
//!              └──────────────────────────── the commit ◄─────────────────────────────────────┘
//! ```
//!
//! A reconciler: what is to be done follows from configurations, twins and rows, never from what has happened. So a start after a
//! crash is the same as any other wake, and what was half done is done.
//!
//! Each target is a part of its own of a transaction: one that a twin refuses harms no other, and what is written is written with the
//! row that says so. A transaction takes 10 ms or so, however much a target needs; everybody else's operations have their turn
//! between two, and whose twin has just changed comes before a fan-out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holm_model::configuration::ConfigurationId;
use holm_model::{ErrorCode, ServiceError};
use tokio::time::Instant;

use super::apply;
use super::fleet::Fleet;
use super::lane::{Counts, Job};
use super::unsettled::Unsettled;
use crate::deployment::Changes;
use crate::storage::{Repository, Transaction};
use crate::{Clock, Signals};

/// Targets that are taken for one transaction; those that it does not come to are taken back.
const BATCH: usize = 512;
/// How long a transaction begins with another target: so long does everybody else's operation wait for it, and longer than a commit
/// takes on a good disk.
const MAX_WORK: Duration = Duration::from_millis(10);
/// Transactions on their way at a time: while one is carried out, the targets of the other are looked at again.
const AT_A_TIME: usize = 2;
/// How long what a database in trouble has refused waits.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long somebody waits who looks at what is known of targets, and how long between two tries.
const MAX_LOOK_WAIT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What is known of all targets. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedFleet(Arc<SharedState>);

#[derive(Debug, Default)]
struct SharedState {
    fleet: Mutex<Fleet>,
    /// The figures as they were last counted; `None`: never yet.
    counts: Mutex<Option<AllCounts>>,
}

/// The figures of every configuration that is for somebody.
pub(super) type AllCounts = BTreeMap<ConfigurationId, Counts>;

impl SharedFleet {
    /// Held while a whole fleet is read, which takes seconds where it is large: for the evaluator, which reads it.
    fn lock(&self) -> MutexGuard<'_, Fleet> {
        unpoisoned(self.0.fleet.lock())
    }

    /// Looks at it; `None` where a whole fleet is being read and a moment is not enough.
    pub(super) async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Fleet) -> T + Send + 'static) -> Option<T> {
        let shared = Arc::clone(&self.0);
        let looking = tokio::task::spawn_blocking(move || {
            let until = std::time::Instant::now() + MAX_LOOK_WAIT;
            loop {
                match shared.fleet.try_lock() {
                    Ok(fleet) => return Some(look(&fleet)),
                    Err(TryLockError::Poisoned(poisoned)) => return Some(look(&poisoned.into_inner())),
                    Err(TryLockError::WouldBlock) if std::time::Instant::now() >= until => return None,
                    Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
                }
            }
        });
        looking.await.ok().flatten()
    }

    /// The figures of every configuration as they are, or were before what is being read now; `None`: they are not known yet.
    pub(super) async fn counts(&self) -> Option<AllCounts> {
        let counted = self.look(|fleet| (fleet.steps() > 0).then(|| fleet.counts())).await;
        let mut known = unpoisoned(self.0.counts.lock());
        if let Some(counted) = counted {
            *known = counted;
        }
        known.clone()
    }
}

/// What stands in the lock is read anew from the database whenever that is in doubt.
fn unpoisoned<'l, T>(locked: LockResult<MutexGuard<'l, T>>) -> MutexGuard<'l, T> {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// What the task works with.
#[derive(Clone, Debug)]
pub(super) struct Evaluator {
    pub(super) repository: Repository,
    pub(super) signals: Signals,
    pub(super) clock: Clock,
    pub(super) hub_name: String,
    pub(super) unsettled: Unsettled,
    pub(super) fleet: SharedFleet,
}

impl Evaluator {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut running = FuturesUnordered::new();
        let mut later = Later::default();
        let mut most = BATCH;
        loop {
            tokio::select! {
                // First, so that what was just taken is on its way before anything is looked at.
                biased;
                Some(done) = running.next() => match done {
                    Done::Now => most = BATCH.min(2 * most),
                    Done::Later => later.ask(),
                    Done::Nothing => {
                        later.ask();
                        // Should one of them be why, the others are not to fail with it for ever.
                        most = 1;
                    }
                },
                () = self.unsettled.woken() => {}
                () = later.come() => {}
            }
            if later.has_come() {
                self.fleet.lock().retry(is_passing);
            }
            if !self.unsettled.is_empty()
                && let Err(error) = self.step().await
            {
                tracing::warn!(%error, "whom configurations are for is not known now; it is looked at again");
                tokio::time::sleep(TRY_AGAIN).await;
                self.unsettled.wake();
                continue;
            }
            // Nothing is tried on a disk that refuses everything until there is a reason to think that it does not.
            while running.len() < AT_A_TIME && !(later.is_asked() && self.repository.health().is_err()) {
                let jobs = self.fleet.lock().take(most);
                if jobs.is_empty() {
                    break;
                }
                let evaluator = self.clone();
                running.push(async move { evaluator.carry_out(jobs).await });
            }
            if running.is_empty() && self.unsettled.is_empty() {
                self.fleet.lock().forget_idle(&self.unsettled);
            }
        }
    }

    async fn step(&self) -> Result<(), ServiceError> {
        let changes = self.unsettled.take();
        let (shared, unsettled) = (self.fleet.clone(), self.unsettled.clone());
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let stepped = self.repository.read_background(move |view| {
            let stepped = shared.lock().step(view, &unsettled, changes);
            done.store(true, Ordering::SeqCst);
            stepped
        });
        let stepped = stepped.await;
        if !is_done.load(Ordering::SeqCst) {
            // A defect has ended it, and what was taken is lost.
            self.unsettled.begin();
        }
        stepped
    }

    /// Applies as many as there is time for, and learns what came of each.
    async fn carry_out(&self, jobs: Vec<Job>) -> Done {
        let jobs: Arc<[Job]> = jobs.into();
        let (hub_name, now, signals) = (self.hub_name.clone(), self.clock.now(), self.signals.clone());
        let work = Arc::clone(&jobs);
        let applying = self.repository.change_then(
            move |transaction| {
                let begin = std::time::Instant::now();
                let mut outcomes: Vec<Applied> = Vec::with_capacity(work.len());
                for job in work.iter() {
                    if !outcomes.is_empty() && begin.elapsed() >= MAX_WORK {
                        break;
                    }
                    let part = |part: &Transaction<'_>| apply::apply(part, job, &hub_name, now);
                    outcomes.push(transaction.attempt_by(job.actor(), part)?);
                }
                Ok(outcomes)
            },
            move |outcomes| {
                for (identity, desired) in outcomes.iter().flatten().flatten() {
                    signals.desired_changed(identity, desired);
                }
                signals.outbox_filled();
            },
        );
        let applied = applying.await;
        let mut fleet = self.fleet.lock();
        let outcomes = match applied {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::warn!(targets = jobs.len(), %error, "what configurations want can't be written");
                fleet.done(jobs.len());
                jobs.iter().for_each(|job| fleet.refuse(job, error.clone()));
                return Done::Nothing;
            }
        };
        fleet.done(outcomes.len());
        let mut done = Done::Now;
        for (job, outcome) in jobs.iter().zip(&outcomes) {
            let Err(error) = outcome else { continue };
            tracing::warn!(target_id = %job.identity, %error, "what configurations want can't be applied");
            if is_passing(error) {
                done = Done::Later;
            }
            fleet.refuse(job, error.clone());
        }
        for job in jobs.iter().skip(outcomes.len()) {
            fleet.give_back(job);
        }
        done
    }
}

/// What came of one target.
type Applied = Result<Changes, ServiceError>;

/// When what was refused by the database, and not by its twin, is tried again. A time and not a wait that is begun anew with each
/// turn: a busy hub always has something else to look at before a wait is over.
#[derive(Debug, Default)]
struct Later(Option<Instant>);

impl Later {
    /// Asks for another turn, if none is to come.
    fn ask(&mut self) {
        self.0.get_or_insert_with(|| Instant::now() + TRY_AGAIN);
    }

    /// Whether a turn was asked for and has not come.
    const fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the turn that was asked for; for ever without one. Cancel-safe.
    async fn come(&self) {
        match self.0 {
            Some(time) => tokio::time::sleep_until(time).await,
            None => std::future::pending().await,
        }
    }

    /// Whether the turn has come; it is over then.
    fn has_come(&mut self) -> bool {
        self.0.take_if(|time| *time <= Instant::now()).is_some()
    }
}

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// What was begun is done, or refused by its twin.
    Now,
    /// Some of it is to be tried again.
    Later,
    /// Nothing of it was kept: all is to be tried again.
    Nothing,
}

fn is_passing(error: &ServiceError) -> bool {
    error.code == ErrorCode::ServiceUnavailable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_has_its_turn_however_much_else_there_is_to_do() {
        let mut later = Later::default();
        let begun = Instant::now();

        later.ask();
        let mut came = Vec::new();
        for _ in 0..15 {
            tokio::select! {
                () = tokio::time::sleep(TRY_AGAIN / 10) => {}
                () = later.come() => {}
            }
            if later.has_come() {
                came.push(begun.elapsed());
            } else if came.is_empty() {
                later.ask();
            }
        }

        assert_eq!(came, [TRY_AGAIN]);
    }
}
