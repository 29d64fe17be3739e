//! How many groups a source may have tried for nothing.
//!
//! A token does not say by which group's key it was signed, so who is not known yet has all groups by keys tried, at the cost of a few
//! microseconds for each: with a thousand groups a stranger would have the service work for milliseconds with each word. So what a
//! source (an IPv4 address, or 64 bits of IPv6) has tried for nothing is counted, before the work is done; what led to a group is given
//! back. A device whose last registration names its group needs no search, and is let in whatever others do at its address.
//!
//! ```text
//! each source    [`AT_ONCE`] tries of groups, and [`A_SECOND`] more with every second
//! ```
//!
//! With a handful of groups nobody ever gets there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_model::{ProvisioningCode, ProvisioningError};

use super::source::Source;

/// How many groups may be tried at once: thirty searches among the most groups that can be.
const AT_ONCE: f64 = 30_000.0;
/// How many come in a second: one such search, a few milliseconds of one core.
const A_SECOND: f64 = 1000.0;
/// Of how many sources this is known; those beyond share what one has.
const MAX_SOURCES: usize = 8192;

/// What sources have left.
#[derive(Debug, Default)]
pub(super) struct Searches(Mutex<HashMap<Source, Left>>);

#[derive(Clone, Copy, Debug)]
struct Left {
    tries: f64,
    since: Instant,
}

impl Left {
    fn at(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        (self.tries + passed * A_SECOND).min(AT_ONCE)
    }
}

impl Searches {
    /// Counts `groups` that are to be tried.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn begin(&self, from: Option<IpAddr>, groups: usize, now: Instant) -> Result<(), ProvisioningError> {
        let wanted = count(groups);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = place(&mut known, Source::of(from), now);
        let left = known.get(&source).map_or(AT_ONCE, |left| left.at(now));
        if left < wanted {
            let seconds = ((wanted - left) / A_SECOND).ceil().max(1.0);
            let text = "too many proofs from this address belong to no enrollment; come again later";
            let mut refused = ProvisioningError::new(ProvisioningCode::TooManyRequests, text);
            refused.retry_after = Some(Duration::from_secs_f64(seconds));
            return Err(refused);
        }
        let tries = left - wanted;
        known.insert(source, Left { tries, since: now });
        Ok(())
    }

    /// Gives back what led to a group.
    pub(super) fn found(&self, from: Option<IpAddr>, groups: usize, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = place(&mut known, Source::of(from), now);
        if let Some(left) = known.get_mut(&source) {
            let tries = (left.at(now) + count(groups)).min(AT_ONCE);
            *left = Left { tries, since: now };
        }
    }
}

fn count(groups: usize) -> f64 {
    // No more than [`super::MAX_GROUPS`], which an `f64` holds.
    u32::try_from(groups).map_or(AT_ONCE, f64::from).min(AT_ONCE)
}

/// Under what a source is kept: who has all left again is forgotten first.
fn place(known: &mut HashMap<Source, Left>, source: Source, now: Instant) -> Source {
    if known.contains_key(&source) || known.len() < MAX_SOURCES {
        return source;
    }
    known.retain(|_, left| left.at(now) < AT_ONCE);
    if known.len() < MAX_SOURCES {
        source
    } else {
        Source::Other
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn a_source_that_finds_nothing_is_sent_away_and_no_other_is() {
        let (searches, start) = (Searches::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);

        let first: Vec<_> = (0..30).map(|_| searches.begin(v4(1), 1000, start)).collect();
        let refused = searches.begin(v4(1), 1000, start).unwrap_err();
        let other = searches.begin(v4(2), 1000, start);
        let later = (searches.begin(v4(1), 1000, at(1)), searches.begin(v4(1), 1000, at(1)));

        assert!(first.iter().all(Result::is_ok) && other.is_ok());
        assert_eq!(
            (refused.code, refused.retry_after),
            (ProvisioningCode::TooManyRequests, Some(Duration::from_secs(1)))
        );
        assert!(later.0.is_ok() && later.1.is_err(), "{later:?}");
    }

    #[test]
    fn what_leads_to_a_group_costs_nothing_and_few_groups_next_to_nothing() {
        let (searches, start) = (Searches::default(), Instant::now());

        for _ in 0..1000 {
            searches.begin(v4(1), 1000, start).unwrap();
            searches.found(v4(1), 1000, start);
        }
        let wrong = (0..10_000).all(|_| searches.begin(v4(2), 3, start).is_ok());

        assert!(wrong);
    }

    #[test]
    fn what_is_known_of_sources_is_bounded_and_those_beyond_share() {
        let (searches, start) = (Searches::default(), Instant::now());
        let many = u32::try_from(MAX_SOURCES).unwrap() + 100;
        for number in 0..many {
            searches.begin(v4(number), 100, start).unwrap();
        }

        let held = searches.0.lock().unwrap().len();
        let beyond = (0..1000).any(|_| searches.begin(v4(many), 1000, start).is_err());
        let after = searches.begin(v4(many + 1), 1000, start + Duration::from_secs(60));

        assert!(held <= MAX_SOURCES + 1, "{held}");
        assert!(beyond && after.is_ok());
    }
}
