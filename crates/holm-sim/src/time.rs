//! Virtual time: a runtime whose clock jumps to the next timer as soon as nothing can happen before it.
//!
//! ```text
//!   tasks run ──none is ready──> other threads finish and sleep ──nobody was woken──> the clock jumps to the next timer
//!       ^                                  │ somebody was
//!       '──────────────────────────────────'
//! ```
//!
//! Everything of hub and edge that waits, waits on the runtime's clock: only the threads of the queue and of SQLite are real
//! threads. A jump while one of them works would make its work look endless, so the runtime waits for them first. A thread
//! that waits for work sleeps in the kernel, and is shown as running from the moment it is given some; so "all sleep" is
//! exact. What these threads do takes no virtual time.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holm_net::Clock;
use holm_queue::Clock as QueueClock;
use tokio::runtime::{Builder, Handle};
use tokio::time::Instant;

/// One simulation at a time: the threads of another one would be taken for its own.
static TURN: Mutex<()> = Mutex::new(());

/// How long the runtime waits between two looks at threads that work.
const LOOK: Duration = Duration::from_micros(20);

/// Runs a simulation to its end, in virtual time.
///
/// # Panics
/// When the system gives no runtime, or the simulation panics.
pub fn run<T>(simulation: impl Future<Output = T>) -> T {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = Mutex::new(Threads::default());
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || threads.lock().unwrap_or_else(PoisonError::into_inner).wait())
        .build()
        .expect("a runtime of one thread can be made");
    runtime.block_on(simulation)
}

/// The other threads of this process. Looked at before every wait, so each look is as few calls of the system as can be.
#[derive(Default)]
struct Threads {
    /// Their number when they were listed, with this one.
    count: u64,
    stats: Vec<File>,
}

impl Threads {
    /// Waits until every other thread sleeps.
    fn wait(&mut self) {
        while !self.all_sleep() {
            std::thread::sleep(LOOK);
        }
    }

    fn all_sleep(&mut self) -> bool {
        // A directory of directories has a link for each of them, and two of its own.
        let count = std::fs::metadata("/proc/self/task").map_or(0, |task| task.nlink());
        if count != self.count {
            self.list();
            self.count = count;
        }
        for stat in &self.stats {
            match state(stat) {
                Some(b'R' | b'D') => return false,
                Some(_) => {}
                // It has ended, and another may have begun.
                None => {
                    self.count = 0;
                    return false;
                }
            }
        }
        true
    }

    fn list(&mut self) {
        let own = std::fs::read_link("/proc/thread-self").expect("a Linux system has /proc");
        let entries = std::fs::read_dir("/proc/self/task").expect("a Linux system has /proc");
        let others = entries
            .filter_map(|entry| entry.ok())
            .filter(|entry| own.file_name() != Some(&entry.file_name()));
        // One that has ended in between does not work.
        self.stats = others
            .filter(|thread| !is_of_runtime(&thread.path()))
            .filter_map(|thread| File::open(thread.path().join("stat")).ok())
            .collect();
    }
}

/// proc_pid_stat(5): the state is the letter behind the name in parentheses. `None`: the thread has ended.
fn state(stat: &File) -> Option<u8> {
    let mut line = [0; 64];
    let read = stat.read_at(&mut line, 0).ok()?;
    let line = line.get(..read)?;
    let name = line.iter().rposition(|byte| *byte == b')')?;
    line.get(name + 2).copied()
}

/// The runtime's own threads for blocking work: it does not let the clock jump while one of them works.
fn is_of_runtime(thread: &Path) -> bool {
    std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("tokio-"))
}

/// A machine's time of day: the virtual time that has passed, and whatever its clock is wrong by. Clones are the same.
#[derive(Clone, Debug)]
pub struct WallClock(Arc<Wall>);

#[derive(Debug)]
struct Wall {
    began: Instant,
    /// At the beginning, in milliseconds since 1970.
    epoch: i64,
    /// Milliseconds by which the clock is ahead.
    ahead: AtomicI64,
    /// Virtual milliseconds at the last look from the runtime's thread, for the other threads.
    passed: AtomicU64,
}

impl WallClock {
    /// A clock that is right; the simulation begins now, at this moment in seconds since 1970.
    #[must_use]
    pub fn new(epoch_seconds: i64) -> Self {
        Self(Arc::new(Wall {
            began: Instant::now(),
            epoch: epoch_seconds * 1000,
            ahead: AtomicI64::new(0),
            passed: AtomicU64::new(0),
        }))
    }

    /// Another machine's clock, right too.
    #[must_use]
    pub fn of_another(&self) -> Self {
        Self(Arc::new(Wall {
            began: self.0.began,
            epoch: self.0.epoch,
            ahead: AtomicI64::new(0),
            passed: AtomicU64::new(0),
        }))
    }

    /// Since the beginning.
    #[must_use]
    pub fn passed(&self) -> Duration {
        // Other threads work only while the virtual time stands, and were given their work by the runtime's thread.
        if Handle::try_current().is_ok() {
            let passed = self.0.began.elapsed();
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            self.0.passed.store(millis, Ordering::SeqCst);
        }
        Duration::from_millis(self.0.passed.load(Ordering::SeqCst))
    }

    /// The time that it shows, in milliseconds since 1970.
    #[must_use]
    pub fn millis(&self) -> i64 {
        let passed = i64::try_from(self.passed().as_millis()).unwrap_or(i64::MAX);
        self.0.epoch + passed + self.0.ahead.load(Ordering::SeqCst)
    }

    /// Sets it ahead of the true time by so many milliseconds; negative: behind.
    pub fn set_ahead(&self, millis: i64) {
        self.0.ahead.store(millis, Ordering::SeqCst);
    }

    /// How far it is ahead, in milliseconds.
    #[must_use]
    pub fn ahead(&self) -> i64 {
        self.0.ahead.load(Ordering::SeqCst)
    }

    /// Starts it at 1970, as on a device without a battery for its clock.
    pub fn forget(&self) {
        let true_time = self.millis() - self.ahead();
        self.set_ahead(-true_time);
    }

    /// What goes on evenly, whatever it shows: by which messages live.
    #[must_use]
    pub fn lives(&self) -> QueueClock {
        let own = self.clone();
        QueueClock::new(move || u64::try_from(own.millis() - own.ahead()).unwrap_or(0))
    }

    /// As parts of Holm take it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let own = self.clone();
        Clock::new(move || {
            let millis = own.millis();
            let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            SystemTime::UNIX_EPOCH + since
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_passes_at_once_when_nothing_happens() {
        let began = std::time::Instant::now();

        let shown = run(async {
            let clock = WallClock::new(1_800_000_000);
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            clock.millis()
        });

        assert_eq!(shown, 1_800_086_400_000);
        assert!(began.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn the_clock_stands_while_another_thread_works() {
        run(async {
            let began = Instant::now();
            let (send, done) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                // Work, for as long as a slow sync takes.
                let end = std::time::Instant::now() + Duration::from_millis(50);
                while std::time::Instant::now() < end {}
                send.send(()).unwrap();
            });

            let outcome = tokio::time::timeout(Duration::from_secs(1), done).await;

            assert!(outcome.unwrap().is_ok());
            assert!(began.elapsed() < Duration::from_secs(1));
        });
    }

    #[test]
    fn a_clock_without_a_battery_begins_in_1970() {
        run(async {
            let clock = WallClock::new(1_800_000_000);
            clock.forget();

            tokio::time::sleep(Duration::from_secs(5)).await;

            assert_eq!(clock.millis(), 5000);
            clock.set_ahead(0);
            assert_eq!(clock.millis(), 1_800_000_005_000);
        });
    }
}
