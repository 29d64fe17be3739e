//! The task that keeps targets and twins as configurations want them.
//!
//! ```text
//!        told of commits ─► step: who matches now? ─► those whose row says otherwise ─► a transaction each, 64 at a time
//!              ▲                                                                              │
//!              └──────────────────────── the commit of each ◄─────────────────────────────────┘
//! ```
//!
//! A reconciler: what is to be done follows from configurations, twins and rows, never from what has happened. So a start after a
//! crash is the same as any other wake, and what was half done is done.
//!
//! Each target is a transaction of its own: one that a twin refuses harms no other. The writer shares commits among the 64, and
//! gives everybody else's operations their turn between them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holm_model::{ErrorCode, ServiceError};
use tokio::time::Instant;

use super::apply;
use super::fleet::{self, Fleet, Unsettled};
use super::lane::Job;
use crate::storage::Repository;
use crate::{Clock, Signals};

/// Transactions on their way at a time.
const AT_A_TIME: usize = 64;
/// How long what a database in trouble has refused waits.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What is known of all targets. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedFleet(Arc<Mutex<Fleet>>);

impl SharedFleet {
    /// Held while a whole fleet is read: ask on a thread that may wait.
    pub(super) fn lock(&self) -> MutexGuard<'_, Fleet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        loop {
            tokio::select! {
                () = self.unsettled.woken() => {}
                Some(done) = running.next() => if done == Done::Later {
                    later.ask();
                },
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
            let jobs = self.fleet.lock().take(AT_A_TIME.saturating_sub(running.len()));
            for job in jobs {
                let evaluator = self.clone();
                running.push(async move { evaluator.carry_out(job).await });
            }
        }
    }

    async fn step(&self) -> Result<(), ServiceError> {
        let changes = fleet::take(&self.unsettled);
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

    async fn carry_out(&self, job: Job) -> Done {
        let (hub_name, now, signals) = (self.hub_name.clone(), self.clock.now(), self.signals.clone());
        let work = job.clone();
        let applying = self.repository.change_then(
            move |transaction| apply::apply(transaction, &work, &hub_name, now),
            move |changes| {
                for (identity, desired) in changes {
                    signals.desired_changed(identity, desired);
                }
                signals.outbox_filled();
            },
        );
        let done = job.actor().does(applying).await;
        let mut fleet = self.fleet.lock();
        fleet.done();
        let Err(error) = done else { return Done::Now };
        tracing::warn!(target_id = %job.identity, %error, "what configurations want can't be applied");
        let end = if is_passing(&error) { Done::Later } else { Done::Now };
        fleet.refuse(&job, error);
        end
    }
}

/// When what was refused by the database, and not by its twin, is tried again. A time and not a wait that is begun anew with each
/// turn: a busy hub always has something else to look at before a wait is over.
#[derive(Debug, Default)]
struct Later(Option<Instant>);

impl Later {
    /// Asks for another turn, if none is to come.
    fn ask(&mut self) {
        self.0.get_or_insert_with(|| Instant::now() + TRY_AGAIN);
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

/// Whether a thing is to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Now,
    Later,
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
