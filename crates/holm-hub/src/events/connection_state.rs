//! Which connections are to be told of, without flooding: an identity at most once a minute, by what it is then.
//!
//! ```text
//! opened, closed --> Seen { connected, told } --due: told otherwise, and not within the last minute--> an event
//! ```
//!
//! A device that comes and goes several times in a minute is told of once, or not at all where it ends as it was told. What was
//! not told when a hub ends is not told any more: at a start nobody is connected. Source: `hub-service-api.md` §4.2.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_model::{Identity, Timestamp};

/// The least time between two events of one identity.
const LEAST_MILLIS: i64 = 60_000;

/// What is known of connections, for events. Clones are the same.
#[derive(Clone, Debug)]
pub struct ConnectionStates {
    /// Whether anybody wants to know.
    is_on: Arc<AtomicBool>,
    seen: Arc<Mutex<HashMap<Identity, Seen>>>,
}

#[derive(Clone, Debug)]
struct Seen {
    generation: String,
    connected: bool,
    since: Timestamp,
    /// What was told last, and when; nothing is the same as not connected.
    told: (bool, Timestamp),
}

/// A change that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub identity: Identity,
    /// Of which generation.
    pub generation: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when.
    pub since: Timestamp,
}

impl ConnectionStates {
    /// Nobody is connected. Without `is_on` nothing is kept, and nothing told.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        let (is_on, seen) = (Arc::new(AtomicBool::new(is_on)), Arc::default());
        Self { is_on, seen }
    }

    /// From now on somebody wants to know, or nobody.
    pub(crate) fn turn(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
        if !is_on {
            self.lock().clear();
        }
    }

    /// The first session of an identity opened, or its last closed.
    pub fn changed(&self, identity: &Identity, generation: &str, connected: bool, now: Timestamp) {
        if !self.is_on.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = self.lock();
        let told = seen.get(identity).map_or((false, Timestamp::NEVER), |seen| seen.told);
        seen.insert(
            identity.clone(),
            Seen {
                generation: generation.to_owned(),
                connected,
                since: now,
                told,
            },
        );
    }

    /// What is to be told now; it counts as told.
    #[must_use]
    pub fn take_due(&self, now: Timestamp) -> Vec<Change> {
        let mut due = Vec::new();
        self.lock().retain(|identity, seen| {
            let is_free = now.millis_since(seen.told.1) >= LEAST_MILLIS || now < seen.told.1;
            if is_free && seen.told.0 != seen.connected {
                seen.told = (seen.connected, now);
                due.push(Change {
                    identity: identity.clone(),
                    generation: seen.generation.clone(),
                    connected: seen.connected,
                    since: seen.since,
                });
                return true;
            }
            // What is gone and was told long ago is nothing new.
            seen.connected || !is_free
        });
        due
    }

    /// What was taken could not be told: it is due again.
    pub fn give_back(&self, changes: &[Change]) {
        let mut seen = self.lock();
        for change in changes {
            if let Some(seen) = seen.get_mut(&change.identity) {
                seen.told = (!change.connected, Timestamp::NEVER);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Seen>> {
        // Held for map operations only, never across an await.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn told(states: &ConnectionStates, seconds: i64) -> Vec<(String, bool)> {
        let due = states.take_due(at(seconds));
        due.into_iter()
            .map(|change| (change.identity.to_string(), change.connected))
            .collect()
    }

    #[test]
    fn a_device_that_comes_and_goes_is_told_of_once_a_minute_by_what_it_is_then() {
        let states = ConnectionStates::new(true);
        let device: Identity = "d1".parse().unwrap();
        let change = |connected, seconds| states.changed(&device, "1", connected, at(seconds));

        change(true, 0);
        assert_eq!(told(&states, 5), [("d1".to_owned(), true)]);
        for second in 10..30 {
            change(second % 2 == 0, second);
        }
        assert_eq!(told(&states, 30), []);
        assert_eq!(told(&states, 65), [("d1".to_owned(), false)]);
        change(true, 66);
        change(false, 67);
        assert_eq!(told(&states, 200), []);
        assert!(states.lock().is_empty());
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let states = ConnectionStates::new(true);
        let device: Identity = "d1".parse().unwrap();
        states.changed(&device, "1", true, at(0));

        let due = states.take_due(at(1));
        states.give_back(&due);

        assert_eq!(due.len(), 1);
        assert_eq!(states.take_due(at(2)), due);
    }

    #[test]
    fn nothing_is_kept_where_nobody_wants_to_know() {
        let states = ConnectionStates::new(false);

        states.changed(&"d1".parse().unwrap(), "1", true, at(0));

        assert!(states.lock().is_empty() && told(&states, 100).is_empty());
    }
}
