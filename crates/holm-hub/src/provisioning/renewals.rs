//! How many certificates a device may ask its hub for.
//!
//! ```text
//! each device    [`AT_ONCE`] requests, and another one after every [`EVERY`]
//! ```
//!
//! A certificate lives for days, so a device that does what it should asks a few times a month. One that asks in a loop has a signature
//! verified and another one made each time, and a row written and recorded in the audit log; it may be worked on one at a time, but
//! as often as it likes. So requests are counted before anything of them is read, also those that are then refused.
//!
//! Source: `hub-device-protocols.md` §5.7: 429002.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_model::DeviceId;

/// How many requests may come at once: a device whose answers are lost asks again and again until one arrives.
pub(super) const AT_ONCE: u32 = 10;
/// After what time there is room for another one: ten in an hour, which no audit log or disk minds of a whole fleet.
const EVERY: Duration = Duration::from_secs(360);
/// Of how many devices this is known, at about 100 bytes each. When more ask within a few minutes all are forgotten and have all their
/// requests again: who gets so far is an enrolled device, and to refuse those of a large fleet that come last would be worse.
const MAX_KNOWN: usize = 64 * 1024;

/// When each device has all its requests left again; those that have are not among them for long.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<DeviceId, Instant>>);

impl Renewals {
    /// Counts a request.
    ///
    /// # Errors
    /// After what time the device may ask again.
    pub(super) fn ask(&self, device: &DeviceId, now: Instant) -> Result<(), Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.retain(|_, whole| *whole > now);
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        let whole = known.get(device).map_or(now, |whole| (*whole).max(now)) + EVERY;
        let too_soon = whole.saturating_duration_since(now).saturating_sub(EVERY * AT_ONCE);
        if !too_soon.is_zero() {
            return Err(too_soon);
        }
        known.insert(device.clone(), whole);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    #[test]
    fn a_device_that_asks_without_pause_is_sent_away_for_as_long_as_it_takes_and_no_other_is() {
        let (renewals, start) = (Renewals::default(), Instant::now());

        let first: Vec<_> = (0..AT_ONCE).map(|_| renewals.ask(&device("a"), start)).collect();
        let beyond = renewals.ask(&device("a"), start);
        let soon = renewals.ask(&device("a"), start + Duration::from_secs(60));
        let other = renewals.ask(&device("b"), start);
        let later = renewals.ask(&device("a"), start + EVERY);
        let and_again = renewals.ask(&device("a"), start + EVERY);

        assert!(first.iter().all(Result::is_ok) && other.is_ok() && later.is_ok());
        assert_eq!(
            (beyond, soon, and_again),
            (
                Err(EVERY),
                Err(EVERY.saturating_sub(Duration::from_secs(60))),
                Err(EVERY)
            )
        );
    }

    #[test]
    fn who_has_paused_has_all_again_and_no_more() {
        let (renewals, start) = (Renewals::default(), Instant::now());
        for _ in 0..AT_ONCE {
            renewals.ask(&device("a"), start).unwrap();
        }

        let later = start + EVERY * AT_ONCE * 5;
        let again = (0..AT_ONCE).all(|_| renewals.ask(&device("a"), later).is_ok());

        assert!(again && renewals.ask(&device("a"), later).is_err());
    }

    #[test]
    fn what_is_known_of_devices_is_bounded() {
        let (renewals, start) = (Renewals::default(), Instant::now());

        for number in 0..=MAX_KNOWN {
            renewals.ask(&device(&number.to_string()), start).unwrap();
        }

        assert!(renewals.0.lock().unwrap().len() <= MAX_KNOWN);
    }
}
