//! How often devices may ask, where an operator has set a limit. Off by default.
//!
//! ```text
//! registrations   a bucket that fills with `per minute` / 60 a second and holds what comes in ten
//! challenges      of TPMs: another such bucket, of which one device takes a quarter, and from one source a second apart
//! questions       of one device a second apart, for how its registration is going
//! ```
//!
//! Who is beyond is told 429 and when to come again. Only who has proved itself counts, so nobody else can use it up. A TPM that is
//! given a challenge has proved nothing yet, and to make one is the dearest thing that is done for a stranger; so challenges have a
//! bucket of their own, from which only those take that show an enrolled endorsement key. That key is public: so it is the source
//! as well whose challenges are a second apart, and who asks in a device's name from one other place leaves it its turns; who does so
//! from very many takes that device's quarter, and the others keep theirs.
//!
//! Source: `hub-device-protocols.md` §5.8, row 84.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_model::{ProvisioningCode, ProvisioningError};

use super::source::Source;

/// How many seconds' worth may come at once.
const BURST_SECONDS: f64 = 10.0;
/// How far apart questions of one device must be: less than any SDK leaves, which wait 2 s and more.
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
/// After how many seconds one that asked too often, or too late, may ask again.
const AGAIN: f64 = BETWEEN_QUESTIONS.as_secs_f64() * 2.0;
/// Of how many devices the last question is known, and of how many devices and sources the last challenge; more in a second are told
/// to come again.
const MAX_KNOWN: usize = 16 * 1024;
/// Which part of all challenges one device may take, from wherever it asks.
const SHARE: f64 = 0.25;
/// The longest that a device is sent away for: what the C SDK takes.
const LONGEST: f64 = 300.0;

/// Lets devices ask, or tells them when to come again.
#[derive(Debug, Default)]
pub(super) struct Throttle(Option<Limit>);

#[derive(Debug)]
struct Limit {
    per_second: f64,
    /// Held for a few lines.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    registrations: Bucket,
    challenges: Bucket,
    asked: Spaced<String>,
    challenged: Spaced<(String, Source)>,
    /// What is left of the challenges of each device.
    shares: HashMap<String, Bucket>,
}

impl State {
    /// Counts a challenge of a device against its share.
    fn share(&mut self, id: &str, per_second: f64, now: Instant) -> Result<(), ProvisioningError> {
        if !self.shares.contains_key(id) && self.shares.len() >= MAX_KNOWN {
            self.shares.retain(|_, share| !share.is_full(per_second, now));
            if self.shares.len() >= MAX_KNOWN {
                return Err(too_many("too many devices ask", AGAIN));
            }
        }
        let share = self.shares.entry(id.to_owned());
        let taken = share.or_insert_with(|| Bucket::full(per_second)).take(per_second, now);
        // Not the wait behind all that were sent away: those were strangers, or there would not be so many.
        taken.map_err(|_| too_many("this device asks too often", AGAIN))
    }
}

/// What may happen once a second for each key, and when it last did.
#[derive(Debug)]
struct Spaced<K>(HashMap<K, Instant>);

impl<K: Eq + Hash> Spaced<K> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Whether it may happen now.
    fn check(&self, key: &K, now: Instant) -> Result<(), ProvisioningError> {
        if self.0.get(key).is_some_and(|last| is_recent(*last, now)) {
            return Err(too_many("this device asks too often", AGAIN));
        }
        Ok(())
    }

    /// Counts it once.
    fn take(&mut self, key: K, now: Instant) -> Result<(), ProvisioningError> {
        self.check(&key, now)?;
        if self.0.len() >= MAX_KNOWN {
            self.0.retain(|_, last| is_recent(*last, now));
        }
        if self.0.len() >= MAX_KNOWN {
            return Err(too_many("too many devices ask", AGAIN));
        }
        self.0.insert(key, now);
        Ok(())
    }
}

fn is_recent(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) < BETWEEN_QUESTIONS
}

#[derive(Debug)]
struct Bucket {
    /// What is left, and since when.
    left: f64,
    since: Option<Instant>,
    /// How many were sent away since the bucket was last empty: each is sent behind those before it.
    sent_away: f64,
}

impl Bucket {
    fn full(per_second: f64) -> Self {
        Self {
            left: burst(per_second),
            since: None,
            sent_away: 0.0,
        }
    }

    /// How many seconds it has been filling.
    fn passed(&self, now: Instant) -> f64 {
        self.since
            .map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64())
    }

    fn is_full(&self, per_second: f64, now: Instant) -> bool {
        self.left + self.passed(now) * per_second >= burst(per_second)
    }

    /// Takes one, or says in how many seconds there is one.
    fn take(&mut self, per_second: f64, now: Instant) -> Result<(), f64> {
        let passed = self.passed(now);
        let filled = self.left + passed * per_second;
        // Those who were sent away come back at what has come in meanwhile.
        self.sent_away = (self.sent_away - passed * per_second).max(0.0);
        (self.left, self.since) = (filled.min(burst(per_second)), Some(now));
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.left + self.sent_away) / per_second;
        self.sent_away += 1.0;
        Err(wait)
    }
}

impl Throttle {
    pub(super) fn new(per_minute: Option<NonZeroU32>) -> Self {
        Self(per_minute.map(|per_minute| {
            let per_second = f64::from(per_minute.get()) / 60.0;
            Limit {
                per_second,
                state: Mutex::new(State {
                    registrations: Bucket::full(per_second),
                    challenges: Bucket::full(per_second),
                    asked: Spaced::new(),
                    challenged: Spaced::new(),
                    shares: HashMap::new(),
                }),
            }
        }))
    }

    /// Counts a registration.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn register(&self, now: Instant) -> Result<(), ProvisioningError> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let mut state = limit.state.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = state.registrations.take(limit.per_second, now);
        taken.map_err(|wait| too_many("devices register faster than this service is to let them", wait))
    }

    /// Counts a challenge for the enrolled TPM of a device, whose registration id in lower case is `id`, that was asked for from there.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn challenge(&self, id: &str, from: Option<IpAddr>, now: Instant) -> Result<(), ProvisioningError> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let mut state = limit.state.lock().unwrap_or_else(PoisonError::into_inner);
        let asker = (id.to_owned(), Source::of(from));
        // A source that asks too often costs the device nothing, and a device beyond its share is no new source to remember.
        state.challenged.check(&asker, now)?;
        state.share(id, limit.per_second * SHARE, now)?;
        state.challenged.take(asker, now)?;
        let taken = state.challenges.take(limit.per_second, now);
        taken.map_err(|wait| too_many("TPMs ask for challenges faster than this service is to let them", wait))
    }

    /// Counts a question of a device, whose registration id in lower case is `id`.
    ///
    /// # Errors
    /// `TooManyRequests`.
    pub(super) fn ask(&self, id: &str, now: Instant) -> Result<(), ProvisioningError> {
        let Some(limit) = &self.0 else { return Ok(()) };
        let mut state = limit.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked.take(id.to_owned(), now)
    }
}

fn burst(per_second: f64) -> f64 {
    (per_second * BURST_SECONDS).max(1.0)
}

fn too_many(why: &str, seconds: f64) -> ProvisioningError {
    let seconds = seconds.ceil().clamp(1.0, LONGEST);
    let mut error = ProvisioningError::new(ProvisioningCode::TooManyRequests, format!("{why}; come again later"));
    error.retry_after = Some(Duration::from_secs_f64(seconds));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(refused: Result<(), ProvisioningError>) -> u64 {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code, ProvisioningCode::TooManyRequests);
        refused.retry_after.unwrap().as_secs()
    }

    #[test]
    fn what_is_beyond_the_limit_is_sent_away_one_behind_the_other_and_finds_room_then() {
        let throttle = Throttle::new(NonZeroU32::new(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);

        let first: Vec<_> = (0..10).map(|_| throttle.register(at(0))).collect();
        let waits: Vec<_> = (0..3).map(|_| wait(throttle.register(at(0)))).collect();
        let later: Vec<_> = (1..4).map(|second| throttle.register(at(second))).collect();

        assert!(first.iter().chain(&later).all(Result::is_ok));
        assert_eq!(waits, [1, 2, 3]);
        assert_eq!(wait(throttle.register(at(3))), 1, "who was sent away has come");
    }

    #[test]
    fn a_limit_of_less_than_one_a_second_lets_one_in_and_never_sends_away_for_long() {
        let throttle = Throttle::new(NonZeroU32::new(1));
        let start = Instant::now();

        throttle.register(start).unwrap();
        let waits: Vec<_> = (0..8).map(|_| wait(throttle.register(start))).collect();

        assert_eq!(waits, [60, 120, 180, 240, 300, 300, 300, 300]);
    }

    #[test]
    fn a_device_that_asks_without_pause_is_told_and_others_are_not() {
        let throttle = Throttle::new(NonZeroU32::new(60));
        let start = Instant::now();

        throttle.ask("a", start).unwrap();
        let again = throttle.ask("a", start + Duration::from_millis(900));
        throttle.ask("b", start).unwrap();
        throttle.ask("a", start + Duration::from_secs(1)).unwrap();
        let off = Throttle::default();

        assert_eq!(wait(again), 2);
        assert!((0..1000).all(|_| off.ask("a", start).is_ok() && off.register(start).is_ok()));
    }

    #[test]
    fn challenges_of_tpms_are_counted_and_use_up_nothing_of_what_others_register_by() {
        let throttle = Throttle::new(NonZeroU32::new(60));
        let start = Instant::now();

        throttle.challenge("a", None, start).unwrap();
        let at_once = throttle.challenge("a", None, start);
        throttle.ask("a", start).unwrap();
        let others: Vec<_> = (0..9)
            .map(|number| throttle.challenge(&format!("b{number}"), None, start))
            .collect();
        let beyond = throttle.challenge("c", None, start);
        let registers: Vec<_> = (0..10).map(|_| throttle.register(start)).collect();
        let later = throttle.challenge("a", None, start + Duration::from_secs(2));

        assert_eq!((wait(at_once), wait(beyond)), (2, 1));
        assert!(others.iter().chain(&registers).all(Result::is_ok) && later.is_ok());
    }

    #[test]
    fn who_asks_for_challenges_in_the_name_of_a_device_takes_no_turn_of_that_from_elsewhere() {
        let throttle = Throttle::new(NonZeroU32::new(6000));
        let start = Instant::now();
        let [stranger, own] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|address| Some(IpAddr::from(address)));

        let first = throttle.challenge("a", stranger, start);
        let again = throttle.challenge("a", stranger, start);
        let device = throttle.challenge("a", own, start);
        let other = throttle.challenge("b", stranger, start);

        assert!(first.is_ok() && device.is_ok() && other.is_ok());
        assert_eq!(wait(again), 2);
    }

    #[test]
    fn who_asks_for_challenges_from_very_many_places_takes_a_devices_share_and_no_more() {
        let throttle = Throttle::new(NonZeroU32::new(600));
        let start = Instant::now();
        let places = (0..200).map(|last| Some(IpAddr::from([10, 0, 0, last])));

        let taken = places.filter(|place| throttle.challenge("a", *place, start).is_ok());
        let taken = taken.count();
        let others = (0..75).filter(|number| throttle.challenge(&format!("b{number}"), None, start).is_ok());
        let others = others.count();

        // A hundred come at once, of all.
        assert_eq!((taken, others), (25, 75));
    }

    #[test]
    fn what_is_known_of_devices_is_bounded() {
        let throttle = Throttle::new(NonZeroU32::new(60));
        let start = Instant::now();
        for number in 0..MAX_KNOWN {
            throttle.ask(&number.to_string(), start).unwrap();
        }

        let beyond = throttle.ask("one more", start);
        let later = throttle.ask("one more", start + BETWEEN_QUESTIONS);

        assert_eq!((wait(beyond), later.is_ok()), (2, true));
    }
}
