//! Notices that somebody has set the time of day: a time service at the first contact after a boot without a clock, or a person.
//!
//! ```text
//! time of day   |---------------|              |------     it went on by more than has passed: it was set
//! passed        |---------------|------
//! ```
//!
//! What was begun before and is measured by the time of day must then begin again.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use holm_model::Timestamp;

use crate::steady::JUMP_MILLIS;

/// Compares the time of day with the time that has passed.
#[derive(Debug, Default)]
pub(super) struct ClockWatch(Mutex<Option<(Timestamp, Instant)>>);

impl ClockWatch {
    /// Whether the time of day was set since this was asked last; it is `now`, and `instant` on a clock that nobody sets.
    pub(super) fn was_set(&self, now: Timestamp, instant: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((before, then)) = last.replace((now, instant)) else {
            return false;
        };
        let passed = i64::try_from(instant.saturating_duration_since(then).as_millis()).unwrap_or(i64::MAX);
        now.millis_since(before).saturating_sub(passed).saturating_abs() >= JUMP_MILLIS
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_change_of_the_time_of_day_is_told_and_once() {
        let (watch, start) = (ClockWatch::default(), Instant::now());
        let asked = |second: i64, passed: u64| {
            watch.was_set(
                Timestamp::from_unix_seconds(second),
                start + Duration::from_secs(passed),
            )
        };

        assert!(!asked(1000, 0), "nothing to compare with");
        assert!(!asked(4600, 3600), "an hour has passed");
        assert!(!asked(4609, 3600), "a correction");
        assert!(asked(9_000_000, 3601), "set forward");
        assert!(!asked(9_000_001, 3602), "told once");
        assert!(asked(1000, 3603), "set back");
    }
}
