//! What the handles, the readers and the writer of a queue share, behind one lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::core::Log;
use crate::lane::LaneId;
use crate::options::Clock;
use crate::pending::Commit;
use crate::record::Visibility;
use crate::signal::{CommitSignal, Promise, lock};

pub(crate) struct Shared {
    pub(super) state: Mutex<State>,
    /// Tells the writer that there is work.
    pub(crate) work: Condvar,
    /// Tells a writer that looks out for work that there may be some; only ever a hint.
    pub(crate) stirred: AtomicBool,
    pub(crate) clock: Clock,
    /// How long acknowledgements wait for an append.
    pub(crate) acknowledge_delay: Duration,
    /// What an append to a store that is not durable waits for.
    pub(super) safe_at_once: Option<Arc<CommitSignal>>,
}

pub(crate) struct State {
    /// `None` once closed.
    pub(crate) log: Option<Log>,
    /// Answers those whose work goes into the next commit.
    pub(crate) next_commit: Promise,
    /// The writer waits for work.
    pub(crate) is_idle: bool,
    pub(crate) is_closing: bool,
    /// A commit is asked for even if nothing seems to need it.
    pub(crate) flush: bool,
    /// When acknowledgements that wait for an append are committed without one; the writer sets it.
    pub(crate) acknowledge_by: Option<Instant>,
    /// How many copy the files now: none goes meanwhile.
    pub(crate) holds: usize,
    /// Maintenance is asked for.
    pub(crate) maintain: bool,
    pub(crate) readers: BTreeMap<(LaneId, u64), WaitingReader>,
    pub(crate) next_reader: u64,
    /// Readers waiting for what is appended; most appends need not look.
    pub(crate) waiting_for_appends: usize,
    pub(crate) waiting_for_room: Vec<Waker>,
    pub(crate) waiting_for_close: Vec<Waker>,
}

pub(crate) struct WaitingReader {
    pub(crate) visibility: Visibility,
    pub(crate) position: u64,
    pub(crate) waker: Waker,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What brings that which is appended now to where it is safe.
    pub(super) fn commit_of(&self, state: &State) -> Commit {
        Commit::new(Arc::clone(self.safe_at_once.as_ref().unwrap_or(&state.next_commit.0)))
    }

    /// Lets go of the lock after acknowledgements.
    pub(crate) fn acknowledged(&self, state: MutexGuard<'_, State>) {
        if state.must_tell_writer() {
            self.wake_writer(state);
        }
    }

    /// Lets go of the lock and tells the writer that there is work.
    pub(crate) fn wake_writer(&self, state: MutexGuard<'_, State>) {
        let is_idle = state.is_idle;
        drop(state);
        if is_idle {
            self.work.notify_one();
        } else {
            self.stirred.store(true, Ordering::Relaxed);
        }
    }
}

impl State {
    /// Takes the readers that may read on now.
    pub(crate) fn take_ready_readers(&mut self, visibility: Visibility, lane: Option<LaneId>) -> Vec<Waker> {
        let Some(log) = &self.log else { return Vec::new() };
        let range = lane.map_or((LaneId(0), 0)..=(LaneId(u32::MAX), u64::MAX), |lane| {
            (lane, 0)..=(lane, u64::MAX)
        });
        let ready = self.readers.range(range).filter(|((lane, _), reader)| {
            let bounds = log.lane_bounds(*lane);
            reader.visibility == visibility
                && bounds.is_none_or(|bounds| match visibility {
                    Visibility::Appended => bounds.next > reader.position,
                    Visibility::Durable => bounds.durable_next > reader.position,
                })
        });
        let ready: Vec<_> = ready.map(|(&key, _)| key).collect();
        ready.into_iter().filter_map(|key| self.remove_reader(key)).collect()
    }

    /// Whether there is something to be committed that the writer does not know of, or must not wait with.
    fn must_tell_writer(&self) -> bool {
        let is_known = self.acknowledge_by.is_some();
        let news = |log: &Log| log.is_pressing() || (log.needs_commit() && !is_known);
        self.log.as_ref().is_some_and(news)
    }

    pub(crate) fn remove_reader(&mut self, key: (LaneId, u64)) -> Option<Waker> {
        let reader = self.readers.remove(&key)?;
        self.waiting_for_appends -= usize::from(reader.visibility == Visibility::Appended);
        Some(reader.waker)
    }
}
