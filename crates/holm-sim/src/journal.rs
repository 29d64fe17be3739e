//! What happened in a simulation, for whoever looks at a failure: its seed and the last events.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::time::WallClock;

/// Events that are kept.
const KEPT: usize = 80;

/// The events of one simulation. Clones are the same. When the first is dropped by a panic, seed and events are printed.
#[derive(Clone, Debug)]
pub struct Journal {
    clock: WallClock,
    events: Arc<Mutex<VecDeque<String>>>,
}

/// Prints the journal if the simulation fails.
#[derive(Debug)]
pub struct Witness {
    journal: Journal,
    seed: u64,
}

impl Journal {
    /// An empty journal, and who prints it.
    #[must_use]
    pub fn new(clock: &WallClock, seed: u64) -> (Self, Witness) {
        let journal = Self {
            clock: clock.of_another(),
            events: Arc::default(),
        };
        let witness = Witness {
            journal: journal.clone(),
            seed,
        };
        (journal, witness)
    }

    /// Notes an event.
    pub fn note(&self, what: impl std::fmt::Display) {
        let line = format!("{} {what}", self.now());
        tracing::debug!("{line}");
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == KEPT {
            events.pop_front();
        }
        events.push_back(line);
    }

    /// The virtual time, as days, hours, minutes and seconds.
    #[must_use]
    pub fn now(&self) -> String {
        let millis = self.clock.passed().as_millis();
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        format!("day {days} {hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
    }
}

impl Drop for Witness {
    #[allow(clippy::print_stderr, reason = "a failure is told on the terminal")]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let events = self.journal.events.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("--- seed {}; it failed at {}, after", self.seed, self.journal.now());
        for event in events.iter() {
            eprintln!("    {event}");
        }
        eprintln!("---");
    }
}
