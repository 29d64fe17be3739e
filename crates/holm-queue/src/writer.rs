//! The writer thread: commits, and between commits looks after space.
//!
//! ```text
//!  wait for work ─> commit ─> reserve (full disk only) ─> remove files ─> maintain ─> one step of moving ─┐
//!        ^                                                                                                │
//!        '────────────────────────────────────────────────────────────────────────────────────────────────'
//! ```
//!
//! A commit starts when the previous one returned, with all that has arrived since. There is a timer where a commit is put off:
//! while the disk is full or failing, which is tried again, and for acknowledgements that no append comes after.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::core::{Health, Mover};
use crate::error::CommitError;
use crate::queue::{Shared, State};
use crate::record::Visibility;
use crate::signal::{CommitSignal, Promise};

/// Runs until the queue is closed.
pub(crate) fn run(shared: &Shared) {
    let _closed = Closed(shared);
    let Some((retry_interval, maintain_interval)) = intervals(shared) else {
        return;
    };
    let now = Instant::now();
    let mut writer = Writer {
        shared,
        retry_interval,
        maintain_interval,
        retry_at: now,
        reserve_at: now,
        maintain_at: now + maintain_interval,
        mover: None,
        look_for_moves: true,
        newest: 0,
        looks_out: false,
    };
    while writer.turn() {}
}

fn intervals(shared: &Shared) -> Option<(Duration, Duration)> {
    let state = shared.lock();
    let options = state.log.as_ref()?.options();
    Some((options.retry_interval, options.maintain_interval))
}

/// Releases the directory and tells everybody who waits, also when the writer panics.
struct Closed<'s>(&'s Shared);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closing = true;
        let log = state.log.take();
        let promise = std::mem::replace(&mut state.next_commit, Promise(Arc::new(CommitSignal::default())));
        let mut wakers = std::mem::take(&mut state.waiting_for_close);
        wakers.append(&mut state.waiting_for_room);
        wakers.extend(
            std::mem::take(&mut state.readers)
                .into_values()
                .map(|reader| reader.waker),
        );
        state.waiting_for_appends = 0;
        // Those who come now get an answer at once.
        state.next_commit.0.complete(Err(CommitError::Closed));
        drop(state);
        drop(log);
        drop(promise);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// How long the writer looks out for the next work before it sleeps, if the last came that soon. A sender that waits for each
/// commit answers within this time, and waking a thread costs about a third of a sync on an idle machine.
const LOOK_OUT: Duration = Duration::from_micros(60);

struct Writer<'s> {
    shared: &'s Shared,
    retry_interval: Duration,
    maintain_interval: Duration,
    retry_at: Instant,
    reserve_at: Instant,
    maintain_at: Instant,
    mover: Option<Mover>,
    /// There may be records worth moving.
    look_for_moves: bool,
    /// The newest segment at the last maintenance.
    newest: u64,
    /// The last work came soon after the one before it.
    looks_out: bool,
}

/// What the writer has to do.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    commit: bool,
    reserve: bool,
    maintain: bool,
    close: bool,
}

impl<'s> Writer<'s> {
    /// Does what there is to do; `false` when that was all for ever.
    fn turn(&mut self) -> bool {
        let (state, work) = self.wait();
        let mut result = Ok(());
        if work.commit {
            result = self.commit(state);
        } else {
            drop(state);
        }
        self.tidy();
        if work.maintain {
            self.maintain();
        }
        if self.mover.is_some() || self.look_for_moves {
            self.step();
        }
        // At closing, what can't be committed now is left to its senders, who were not told that it is durable.
        !(work.close && (result.is_err() || !self.needs_commit()))
    }

    fn wait(&mut self) -> (MutexGuard<'s, State>, Work) {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        let mut now = begin;
        loop {
            self.shared.stirred.store(false, Ordering::Relaxed);
            let work = self.work(&state, now);
            if work.commit || work.reserve || work.maintain || work.close || self.mover.is_some() {
                self.looks_out = now.duration_since(begin) < LOOK_OUT * 2;
                return (state, work);
            }
            if self.looks_out {
                drop(state);
                self.looks_out = false;
                self.look_out(begin);
                state = self.shared.lock();
            } else {
                let timeout = self.next_work(&mut state, now).saturating_duration_since(now);
                state.is_idle = true;
                (state, _) = self
                    .shared
                    .work
                    .wait_timeout(state, timeout)
                    .unwrap_or_else(PoisonError::into_inner);
                state.is_idle = false;
            }
            now = Instant::now();
        }
    }

    /// Stays awake until something stirs, for a short time, and lets other threads run meanwhile.
    fn look_out(&self, begin: Instant) {
        while !self.shared.stirred.load(Ordering::Relaxed) && begin.elapsed() < LOOK_OUT {
            std::thread::yield_now();
        }
    }

    fn work(&self, state: &State, now: Instant) -> Work {
        let Some(log) = &state.log else {
            return Work {
                close: true,
                ..Work::default()
            };
        };
        let is_good = *log.health() == Health::Good;
        let is_due = state.is_closing || state.acknowledge_by.is_some_and(|by| now >= by);
        let wanted = state.flush || log.is_pressing() || (is_due && log.needs_commit());
        Work {
            commit: wanted && (is_good || now >= self.retry_at || state.is_closing || state.flush),
            reserve: log.wants_reserve() && now >= self.reserve_at,
            maintain: state.maintain || now >= self.maintain_at,
            close: state.is_closing,
        }
    }

    /// When there is work even if nobody calls, given that there is none now.
    fn next_work(&self, state: &mut State, now: Instant) -> Instant {
        let mut next = self.maintain_at;
        let Some(log) = &state.log else { return next };
        if log.is_pressing() {
            // The disk refused.
            next = next.min(self.retry_at);
        } else if log.needs_commit() {
            let by = now + self.shared.acknowledge_delay;
            next = next.min(*state.acknowledge_by.get_or_insert(by));
        }
        if log.wants_reserve() {
            next = next.min(self.reserve_at);
        }
        next
    }

    fn commit(&mut self, mut state: MutexGuard<'s, State>) -> Result<(), CommitError> {
        state.flush = false;
        state.acknowledge_by = None;
        let was_full = state.log.as_ref().is_some_and(|log| *log.health() == Health::Full);
        let next = Promise(Arc::new(CommitSignal::default()));
        let promise = std::mem::replace(&mut state.next_commit, next);
        let mut result = self.commit_once(state);
        if was_full && result.is_ok() {
            // Bytes that waited for space went first, as they stand; what came since needs a batch of its own.
            result = self.commit_once(self.shared.lock());
        }
        self.retry_at = Instant::now() + self.retry_interval;
        promise.0.complete(result.clone());
        result
    }

    fn commit_once(&self, mut state: MutexGuard<'s, State>) -> Result<(), CommitError> {
        let now = self.shared.clock.now();
        let Some(batch) = state.log.as_mut().and_then(|log| log.begin_commit(now)) else {
            return Ok(());
        };
        drop(state);
        let written = batch.write();
        let mut state = self.shared.lock();
        let result = state
            .log
            .as_mut()
            .map_or(Err(CommitError::Closed), |log| log.finish_commit(batch, written));
        let mut ready = state.take_ready_readers(Visibility::Durable, None);
        if state.log.as_ref().is_some_and(|log| log.has_room()) {
            ready.append(&mut state.waiting_for_room);
        }
        drop(state);
        ready.into_iter().for_each(Waker::wake);
        result
    }

    /// Does what follows from a commit, if anything does.
    fn tidy(&mut self) {
        let state = self.shared.lock();
        let Some(log) = &state.log else { return };
        let wants_reserve = log.wants_reserve() && Instant::now() >= self.reserve_at;
        // Files that are being copied stay, unless there is no space for anything else.
        let may_remove = state.holds == 0 || *log.health() == Health::Full;
        let has_garbage = may_remove && log.has_garbage();
        let has_new_segment = log.newest_segment() != self.newest;
        drop(state);
        if wants_reserve {
            self.save_to_reserve();
        }
        if has_garbage {
            self.remove_garbage();
        }
        if has_new_segment {
            self.maintain();
        }
    }

    fn save_to_reserve(&mut self) {
        let mut state = self.shared.lock();
        let write = state.log.as_mut().and_then(|log| log.begin_reserve());
        drop(state);
        let is_saved = write.is_some_and(|write| {
            let result = write.write();
            let mut state = self.shared.lock();
            state
                .log
                .as_mut()
                .is_some_and(|log| log.finish_reserve(write, result).is_ok())
        });
        if !is_saved {
            // Progress is in memory only, as what waits for the journal is; both are tried again.
            self.reserve_at = Instant::now() + self.retry_interval;
        }
    }

    fn remove_garbage(&self) {
        let mut state = self.shared.lock();
        let Some(log) = &mut state.log else { return };
        let (names, sync, files) = (log.take_garbage(), log.needs_directory_sync(), log.file_system());
        drop(state);
        let (left, synced) = crate::core::remove_files(files.as_ref(), names, sync);
        if let Some(log) = &mut self.shared.lock().log {
            log.garbage_removed(left, synced);
        }
    }

    fn maintain(&mut self) {
        self.maintain_at = Instant::now() + self.maintain_interval;
        let now = self.shared.clock.now();
        let mut state = self.shared.lock();
        state.maintain = false;
        if let Some(log) = &mut state.log {
            log.maintain(now);
            self.newest = log.newest_segment();
            self.look_for_moves = true;
        }
    }

    /// Goes on moving records, or looks whether there are some to be moved.
    fn step(&mut self) {
        let Some(mut mover) = self.mover.take().or_else(|| self.begin_move()) else {
            self.look_for_moves = false;
            return;
        };
        let result = mover.step();
        if matches!(result, Ok(false)) {
            self.mover = Some(mover);
            return;
        }
        if let Some(log) = &mut self.shared.lock().log {
            // After an error the records are where they were, and the next maintenance tries again.
            self.look_for_moves = log.finish_move(mover, result).is_ok();
        }
    }

    fn begin_move(&self) -> Option<Mover> {
        let now = self.shared.clock.now();
        self.shared.lock().log.as_mut()?.begin_move(now)
    }

    fn needs_commit(&self) -> bool {
        self.shared.lock().log.as_ref().is_some_and(|log| log.needs_commit())
    }
}

#[cfg(test)]
mod tests {
    use crate::lane::LaneKind;
    use crate::options::Options;
    use crate::queue::Queue;
    use crate::record::{NewRecord, Start};
    use crate::testing::MemoryFiles;

    use super::*;

    fn until(what: &str, state: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !state() {
            assert!(Instant::now() < deadline, "never {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_reader_passes_over_wakes_a_writer_that_sleeps() {
        let options = Options {
            acknowledge_delay: Duration::ZERO,
            // Both are read from the disk, at once.
            hot_bytes: 0,
            maintain_interval: Duration::from_secs(3600),
            ..Options::default()
        };
        let (queue, _) = Queue::open_on(Arc::new(MemoryFiles::new()), options).unwrap();
        let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let lanes = [[(lane, 1)], [(lane, 0)]];
        let record = |lanes, payload: &'static str| NewRecord {
            sender: "test",
            lanes,
            enqueued_at: 0,
            payload: payload.into(),
        };
        let (_, commit) = queue
            .append_all(&[record(&lanes[0], "x"), record(&lanes[1], "much more")])
            .unwrap();
        commit.wait().unwrap();
        until("asleep", || queue.shared().lock().is_idle);
        let commits = queue.stats().commits;

        let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
        let read = reader.try_read(2, 2).unwrap();

        assert_eq!((read.len(), reader.take_skipped().expired), (1, 1));
        until("committed", || queue.stats().commits > commits);
    }

    #[test]
    fn a_full_disk_is_left_alone_until_it_is_time_to_try_again() {
        let files = MemoryFiles::new();
        let (queue, _) = Queue::open_on(Arc::new(files.clone()), Options::default()).unwrap();
        let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let lanes = [(lane, 0)];
        let record = NewRecord {
            sender: "test",
            lanes: &lanes,
            enqueued_at: 0,
            payload: vec![0; 1000].into(),
        };
        queue.append(&record).unwrap().wait().unwrap();
        files.set_capacity(Some(files.used()));
        queue.append(&record).unwrap().wait().unwrap_err();
        let shared = queue.shared();
        until("saved to the reserve", || {
            !shared.lock().log.as_ref().unwrap().wants_reserve()
        });

        let now = Instant::now();
        let writer = Writer {
            shared,
            retry_interval: Duration::from_secs(1),
            maintain_interval: Duration::from_secs(30),
            retry_at: now + Duration::from_secs(1),
            reserve_at: now,
            maintain_at: now + Duration::from_secs(30),
            mover: None,
            look_for_moves: false,
            newest: 0,
            looks_out: false,
        };
        let next = writer.next_work(&mut shared.lock(), now);

        assert_eq!(next, now + Duration::from_secs(1));
    }
}
