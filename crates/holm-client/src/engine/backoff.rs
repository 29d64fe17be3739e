//! How long to wait before the next attempt: doubling, capped, and spread at random, so that a fleet that lost its hub
//! together does not come back together.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);

/// The waits of one client.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(longest: Duration) -> Self {
        Self {
            longest: longest.max(FIRST),
            next: FIRST,
        }
    }

    pub(super) const fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait: between half of the current step and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        // Without random numbers the whole step is waited: later, never sooner.
        let spread = getrandom::u32().map_or(1.0, |bits| f64::from(bits) / f64::from(u32::MAX));
        step.mul_f64(0.5 + spread / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1));

        let waits: Vec<_> = (0..8).map(|_| backoff.next()).collect();
        backoff.reset();

        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits[7] <= Duration::from_secs(1) && waits[7] >= Duration::from_millis(500));
        assert!(backoff.next() <= FIRST);
    }
}
