//! How many clients a node lets in each second, when it has a limit: those above it wait their turn, and what would wait too
//! long is refused at once, so that a fleet that comes back all at once is let in evenly and its rest knows to come again.
//!
//! ```text
//!   a login --> its turn is now, or within [`PATIENCE`]: let in then, and the next turn is later by one interval
//!           '-> later than that: refused as throttled (CONNACK 3, `device-container-throttled`); SDKs try again
//! ```
//!
//! A burst of one second's logins needs no waiting. Source: `hub-device-protocols.md` §2.8, `hub-service-api.md` §9.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backend::Refusal;

/// How long a login may wait for its turn; the most impatient SDK gives a connection 30 s.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a quiet time is saved up.
const BURST: Duration = Duration::from_secs(1);

/// The turns of logins.
#[derive(Debug)]
pub(crate) struct Logins {
    interval: Duration,
    /// When the next turn is, were there no burst. Held for a few steps, never across an await.
    next: Mutex<Option<Instant>>,
}

impl Logins {
    /// Lets in so many a second.
    pub(crate) fn per_second(limit: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(1) / limit.get(),
            next: Mutex::new(None),
        }
    }

    /// Takes the next turn: how long until it is.
    ///
    /// # Errors
    /// [`Refusal::Throttled`], and no turn is taken.
    pub(crate) fn turn(&self, now: Instant) -> Result<Duration, Refusal> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = now.checked_sub(BURST).unwrap_or(now);
        let turn = next.map_or(saved, |next| next.max(saved));
        let wait = turn.saturating_duration_since(now);
        if wait > PATIENCE {
            return Err(Refusal::Throttled(format!(
                "more clients log in than the node lets in; {} s of logins are waiting",
                wait.as_secs()
            )));
        }
        *next = Some(turn + self.interval);
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_that_comes_back_at_once_is_let_in_evenly_and_its_rest_comes_again() {
        let (logins, now) = (Logins::per_second(NonZeroU32::new(100).unwrap()), Instant::now());

        let turns: Vec<_> = (0..2000).map(|_| logins.turn(now)).collect();
        let later = logins.turn(now + Duration::from_secs(5));

        let let_in: Vec<_> = turns.iter().flatten().collect();
        // A second's burst, those who wait, and the one whose turn is just in time.
        assert_eq!(let_in.len(), 100 + 1000 + 1);
        assert!(let_in.iter().take(101).all(|wait| wait.is_zero()));
        assert!(let_in.is_sorted());
        assert_eq!(let_in.last(), Some(&&PATIENCE));
        assert!(matches!(turns[1999], Err(Refusal::Throttled(_))));
        assert_eq!(later, Ok(Duration::from_millis(5010)));
    }

    #[test]
    fn quiet_time_is_saved_up_for_a_second_at_most() {
        let (logins, now) = (Logins::per_second(NonZeroU32::new(100).unwrap()), Instant::now());
        assert_eq!(logins.turn(now), Ok(Duration::ZERO));

        let hour_later = now + Duration::from_secs(3600);
        let at_once = (0..1000).map_while(|_| logins.turn(hour_later).ok().filter(Duration::is_zero));

        assert_eq!(at_once.count(), 101);
    }
}
