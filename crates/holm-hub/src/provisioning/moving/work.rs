//! Which devices are on their way, and when what did not go well is tried again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use holm_model::ServiceError;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::record::{MAX_MOVES, Move};
use crate::provisioning::{Provisioning, Shared};
use crate::storage::{Leftover, MoveRow};

/// How many are done at once.
const AT_ONCE: usize = 32;
/// How many left-over devices of a hub are looked at at once.
const LEFTOVERS: u32 = 50;
/// The longest pause before something is tried again: a move, and a left-over device.
const LONGEST_PAUSE: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(60));
/// How long the database is left alone when it can't be read.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// What is to be done at a hub.
pub(super) enum Job {
    Move(MoveRow, Box<Move>),
    Clear(Leftover),
}

impl Job {
    /// Whose: of one device one thing is done at a time.
    fn device(&self) -> &str {
        match self {
            Self::Move(_, moving) => &moving.to.device,
            Self::Clear(leftover) => &leftover.device,
        }
    }

    /// What it is, for the pause before it is tried again.
    fn name(&self) -> String {
        match self {
            Self::Move(row, _) => format!("move {} {}", row.id, row.revision),
            Self::Clear(leftover) => format!("clear {} {}", leftover.hub, leftover.device),
        }
    }

    const fn longest_pause(&self) -> Duration {
        match self {
            Self::Move(..) => LONGEST_PAUSE.0,
            Self::Clear(_) => LONGEST_PAUSE.1,
        }
    }
}

/// What runs, and what waits to be tried again.
#[derive(Default)]
struct Work {
    running: JoinSet<(String, String, Option<Duration>)>,
    busy: HashSet<String>,
    /// When, and how often it was tried.
    later: HashMap<String, (Instant, u32)>,
}

impl Work {
    fn begin(&mut self, shared: &Arc<Shared>, jobs: Vec<Job>) {
        let (now, names) = (Instant::now(), jobs.iter().map(Job::name).collect::<HashSet<_>>());
        // What is no longer wanted is no longer waited for.
        self.later.retain(|name, _| names.contains(name));
        for job in jobs {
            let name = job.name();
            let waits = self.later.get(&name).is_some_and(|(at, _)| *at > now);
            if waits || self.running.len() >= AT_ONCE || !self.busy.insert(job.device().to_owned()) {
                continue;
            }
            let shared = Arc::clone(shared);
            self.running.spawn(async move {
                let (device, longest) = (job.device().to_owned(), job.longest_pause());
                let is_done = shared.carry_out(job).await;
                (name, device, (!is_done).then_some(longest))
            });
        }
    }

    fn ended(&mut self, name: String, device: &str, again: Option<Duration>) {
        self.busy.remove(device);
        let Some(longest) = again else {
            self.later.remove(&name);
            return;
        };
        let tried = self.later.get(&name).map_or(0, |(_, tried)| tried + 1);
        let pause = Duration::from_secs(1 << tried.min(6)).min(longest);
        self.later.insert(name, (Instant::now() + pause, tried));
    }

    fn next(&self) -> Option<Instant> {
        self.later.values().map(|(at, _)| *at).min()
    }
}

impl Provisioning {
    /// Brings devices to their hubs; never ends.
    pub(crate) async fn run(self) {
        let shared = self.0;
        let mut work = Work::default();
        loop {
            match shared.jobs().await {
                Ok(jobs) => work.begin(&shared, jobs),
                Err(error) => {
                    tracing::warn!(%error, "devices on their way to their hubs wait");
                    tokio::time::sleep(DATABASE_PAUSE).await;
                    continue;
                }
            }
            let next = work.next();
            let pause = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.moving.notified() => {}
                Some(ended) = work.running.join_next(), if !work.running.is_empty() => match ended {
                    Ok((name, device, again)) => work.ended(name, &device, again),
                    Err(error) => tracing::error!(%error, "a device on its way to its hub was left where it was; the next start goes on"),
                },
                () = pause => {}
            }
        }
    }
}

impl Shared {
    async fn jobs(&self) -> Result<Vec<Job>, ServiceError> {
        let hubs: Vec<String> = self.hubs.all().iter().map(|hub| hub.host.clone()).collect();
        self.repository
            .read(move |view| {
                let rows = view.pending_moves(MAX_MOVES)?;
                let read = |row: MoveRow| Move::read(&row).map(|moving| Job::Move(row, Box::new(moving)));
                let mut jobs: Vec<Job> = rows.into_iter().filter_map(read).collect();
                for hub in hubs {
                    jobs.extend(view.leftovers(&hub, LEFTOVERS)?.into_iter().map(Job::Clear));
                }
                Ok(jobs)
            })
            .await
    }
}
