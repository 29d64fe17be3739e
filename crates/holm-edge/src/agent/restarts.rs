//! When a module that ended is started again, and when a command that failed is tried again.
//!
//! ```text
//! wait after the n-th restart: 10 s · 2^n, at most 300 s      10, 20, 40, 80, 160, 300, 300 …
//! ```
//!
//! The original gives up after 20 restarts, and a device that had a bad hour then has no modules until a person comes. Here
//! such a module is shown as `failed`, as published, and is still tried every 300 s. Commands that fail (a pull, a start)
//! wait in the same way; in the original their waits double without end.
//!
//! Source: `edge-agent.md` §2.3 and §2.4.

use std::collections::{BTreeMap, BTreeSet};

use holm_model::{ModuleId, Timestamp};
use serde::{Deserialize, Serialize};

/// The restarts after which a module is shown as `failed`.
pub const RESTARTS_UNTIL_FAILED: u32 = 20;
/// How long a module must run until its restarts are forgotten: ten minutes.
pub const INTENSIVE_CARE_MILLIS: i64 = 600_000;

const FIRST_WAIT_MILLIS: i64 = 10_000;
const LONGEST_WAIT_MILLIS: i64 = 300_000;

/// The wait after `count` restarts or failures, in milliseconds.
#[must_use]
pub fn wait_millis(count: u32) -> i64 {
    let factor = 1_i64.checked_shl(count.min(16)).unwrap_or(i64::MAX);
    FIRST_WAIT_MILLIS.saturating_mul(factor).min(LONGEST_WAIT_MILLIS)
}

/// When something that happened at `last` may happen again. A clock that was moved back means: now.
#[must_use]
pub fn due(last: Timestamp, count: u32, now: Timestamp) -> Option<Timestamp> {
    let at = last.plus_millis(wait_millis(count));
    (now >= last && now < at).then_some(at)
}

/// How often a module was started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Since it last ran well.
    pub count: u32,
    /// When it last was.
    pub last: Option<Timestamp>,
}

/// A command on a module that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the module should have been made of; another one is tried at once.
    pub digest: String,
    /// Failures in a row, less one.
    pub count: u32,
    /// The last one.
    pub at: Timestamp,
    /// What went wrong.
    pub reason: String,
    /// Whether the runtime could not be asked at all, so that nothing is said of the module.
    #[serde(default)]
    pub is_of_runtime: bool,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For people.
    pub reason: String,
    /// As [`Failure::is_of_runtime`].
    pub is_of_runtime: bool,
}

impl From<String> for Trouble {
    fn from(reason: String) -> Self {
        Self {
            reason,
            is_of_runtime: false,
        }
    }
}

impl From<holm_runtime::RuntimeError> for Trouble {
    fn from(error: holm_runtime::RuntimeError) -> Self {
        Self {
            reason: error.chain(),
            is_of_runtime: error.is_of_runtime(),
        }
    }
}

/// What is remembered of modules between two looks at them; kept over restarts of the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookkeeping {
    /// By module.
    pub restarts: BTreeMap<ModuleId, Restarts>,
    /// By module.
    pub failures: BTreeMap<ModuleId, Failure>,
}

impl Bookkeeping {
    /// How often a module was started again.
    #[must_use]
    pub fn restarts(&self, id: &ModuleId) -> Restarts {
        self.restarts.get(id).copied().unwrap_or_default()
    }

    /// Notes a restart.
    pub fn restarted(&mut self, id: &ModuleId, now: Timestamp) {
        let restarts = self.restarts.entry(id.clone()).or_default();
        restarts.count = restarts.count.saturating_add(1);
        restarts.last = Some(now);
    }

    /// Forgets that a module was in care: it has run long enough.
    pub fn recovered(&mut self, id: &ModuleId) {
        if let Some(restarts) = self.restarts.get_mut(id) {
            restarts.count = 0;
        }
    }

    /// Notes that a command on a module failed.
    pub fn failed(&mut self, id: &ModuleId, digest: &str, trouble: Trouble, now: Timestamp) {
        let before = self.failures.get(id).filter(|failure| failure.digest == digest);
        let failure = Failure {
            digest: digest.to_owned(),
            count: before.map_or(0, |failure| failure.count.saturating_add(1)),
            at: now,
            reason: trouble.reason,
            is_of_runtime: trouble.is_of_runtime,
        };
        self.failures.insert(id.clone(), failure);
    }

    /// Forgets a failure: what failed has succeeded.
    pub fn succeeded(&mut self, id: &ModuleId) {
        self.failures.remove(id);
    }

    /// A new deployment begins: everything may be tried at once.
    pub fn begin_deployment(&mut self, modules: &BTreeSet<ModuleId>) {
        self.failures.clear();
        self.restarts.retain(|id, _| modules.contains(id));
        self.restarts.values_mut().for_each(|restarts| restarts.count = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits: Vec<i64> = (0..8).map(|count| wait_millis(count) / 1000).collect();

        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(wait_millis(u32::MAX), LONGEST_WAIT_MILLIS);
    }

    #[test]
    fn a_clock_that_was_moved_back_delays_nothing() {
        let last = Timestamp::from_unix_seconds(1000);

        assert_eq!(
            due(last, 0, Timestamp::from_unix_seconds(1009)),
            Some(Timestamp::from_unix_seconds(1010))
        );
        assert_eq!(due(last, 0, Timestamp::from_unix_seconds(1010)), None);
        assert_eq!(due(last, 0, Timestamp::from_unix_seconds(500)), None);
    }

    #[test]
    fn failures_count_for_one_specification() {
        let (id, now) = (ModuleId::new("m").unwrap(), Timestamp::from_unix_seconds(1));
        let mut bookkeeping = Bookkeeping::default();

        bookkeeping.failed(&id, "a", "no".to_owned().into(), now);
        bookkeeping.failed(&id, "a", "no".to_owned().into(), now);
        assert_eq!(bookkeeping.failures[&id].count, 1);
        bookkeeping.failed(&id, "b", "no".to_owned().into(), now);
        assert_eq!(bookkeeping.failures[&id].count, 0);
    }
}
