//! What a simulated fleet has done: counted by all its members, read by the one who reports.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Boundaries of times, in microseconds: each a quarter more than the one before, from 0.1 ms to two minutes.
const STEPS: usize = 64;

/// How many members have come so far, and when the last of them did.
#[derive(Debug)]
pub(super) struct Milestone {
    wanted: usize,
    reached: AtomicUsize,
    complete: OnceLock<Instant>,
}

impl Milestone {
    const fn new(wanted: usize) -> Self {
        Self {
            wanted,
            reached: AtomicUsize::new(0),
            complete: OnceLock::new(),
        }
    }

    /// One more; each member comes once.
    pub(super) fn reach(&self) {
        if self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.complete.get_or_init(Instant::now);
        }
    }

    /// How many there are to be.
    pub(super) const fn wanted(&self) -> usize {
        self.wanted
    }

    /// How many have come.
    pub(super) fn reached(&self) -> usize {
        self.reached.load(Ordering::Relaxed)
    }

    /// How many have not.
    pub(super) fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.reached())
    }

    /// How long after `begin` the last of them came; `None` as long as one is missing, or if nobody is to come.
    pub(super) fn after(&self, begin: Instant) -> Option<Duration> {
        self.complete.get().map(|at| at.duration_since(begin))
    }
}

/// The figures.
#[derive(Debug)]
pub(super) struct Counts {
    /// When connecting began.
    pub(super) begin: Instant,
    connected: AtomicUsize,
    most_connected: AtomicUsize,
    /// Members that were connected once.
    pub(super) arrived: Milestone,
    /// Members that have told once what they are or run, of those that have something to tell.
    pub(super) reported: Milestone,
    /// Edges that have told once that the fleet's deployment is in force.
    pub(super) deployed: Milestone,
    /// Why the last of those that could not connect or report could not.
    trouble: Mutex<Option<String>>,
    pub(super) disconnects: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) reports: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) deployments: AtomicU64,
    pub(super) methods: AtomicU64,
    pub(super) messages: AtomicU64,
    times: [AtomicU64; STEPS],
    is_ending: AtomicBool,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What was counted.
pub(super) fn number(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn boundary(step: usize) -> f64 {
    100.0 * 1.25_f64.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

impl Counts {
    /// For so many members, of which so many report and so many are given the fleet's deployment.
    pub(super) fn new(members: usize, reporting: usize, targeted: usize) -> Self {
        Self {
            begin: Instant::now(),
            connected: AtomicUsize::default(),
            most_connected: AtomicUsize::default(),
            arrived: Milestone::new(members),
            reported: Milestone::new(reporting),
            deployed: Milestone::new(targeted),
            trouble: Mutex::default(),
            disconnects: AtomicU64::default(),
            sent: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            failed: AtomicU64::default(),
            reports: AtomicU64::default(),
            changes: AtomicU64::default(),
            deployments: AtomicU64::default(),
            methods: AtomicU64::default(),
            messages: AtomicU64::default(),
            times: std::array::from_fn(|_| AtomicU64::default()),
            is_ending: AtomicBool::default(),
        }
    }

    pub(super) fn is_connected(&self) {
        let now = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_connected.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn is_disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
        // What ends because the simulation does is no break.
        if !self.is_ending.load(Ordering::Relaxed) {
            count(&self.disconnects);
        }
    }

    /// How many are connected now.
    pub(super) fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// The most that were connected at a time.
    pub(super) fn most_connected(&self) -> usize {
        self.most_connected.load(Ordering::Relaxed)
    }

    /// A member could not connect or report.
    pub(super) fn trouble(&self, reason: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        *trouble = Some(reason.to_owned());
    }

    /// Why one could not, if one could not.
    pub(super) fn last_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on nothing is sent, and nothing that breaks is counted.
    pub(super) fn ended(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether nothing new shall be begun.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Whether every message that was sent has ended.
    pub(super) fn is_quiet(&self) -> bool {
        number(&self.acknowledged) + number(&self.failed) >= number(&self.sent)
    }

    pub(super) fn took(&self, time: Duration) {
        let micros = time.as_secs_f64() * 1e6;
        let step = (0..STEPS - 1)
            .find(|step| micros <= boundary(*step))
            .unwrap_or(STEPS - 1);
        if let Some(counter) = self.times.get(step) {
            count(counter);
        }
    }

    /// How many steps the fleet has made towards being there.
    pub(super) fn settled(&self) -> usize {
        self.arrived.reached() + self.reported.reached() + self.deployed.reached()
    }

    /// Whether all have connected once, and told what there is to tell.
    pub(super) fn is_settled(&self) -> bool {
        [&self.arrived, &self.reported, &self.deployed]
            .iter()
            .all(|milestone| milestone.missing() == 0)
    }

    /// The time, in milliseconds, within which this part of the messages was acknowledged, at most a quarter too high.
    pub(super) fn percentile(&self, part: f64) -> Option<f64> {
        let counts: Vec<u64> = self.times.iter().map(number).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * part;
        let mut seen = 0;
        for (step, number) in counts.iter().enumerate() {
            seen += number;
            if *number > 0 && seen as f64 >= wanted {
                return Some((boundary(step) / 10.0).round() / 100.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_quarter_of_the_truth() {
        let counts = Counts::new(0, 0, 0);
        for millis in 1..=100 {
            counts.took(Duration::from_millis(millis));
        }

        let (median, high) = (counts.percentile(0.5).unwrap(), counts.percentile(0.99).unwrap());

        assert!((50.0..=63.0).contains(&median), "{median}");
        assert!((99.0..=125.0).contains(&high), "{high}");
        assert_eq!(Counts::new(0, 0, 0).percentile(0.5), None);
    }

    #[test]
    fn a_milestone_has_a_time_once_all_have_come_and_a_fleet_is_there_when_all_of_them_do() {
        let counts = Counts::new(2, 1, 0);
        counts.arrived.reach();
        let (early, before) = (counts.arrived.after(counts.begin), counts.is_settled());

        counts.arrived.reach();
        counts.reported.reach();

        assert_eq!((early, before), (None, false));
        assert!(counts.arrived.after(counts.begin).is_some());
        assert_eq!((counts.is_settled(), counts.settled()), (true, 3));
        assert_eq!(counts.deployed.after(counts.begin), None);
    }
}
