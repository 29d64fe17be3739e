//! What a simulated fleet has done: counted by all its members, read by the one who reports.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::output;

/// Boundaries of times, in microseconds: each a quarter more than the one before, from 0.1 ms to two minutes.
const STEPS: usize = 64;

/// The figures.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) connected: AtomicUsize,
    most_connected: AtomicUsize,
    /// Members that were connected at least once.
    pub(super) tried: AtomicUsize,
    pub(super) disconnects: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) reports: AtomicU64,
    pub(super) changes: AtomicU64,
    pub(super) deployments: AtomicU64,
    pub(super) methods: AtomicU64,
    pub(super) messages: AtomicU64,
    all_connected_millis: AtomicU64,
    times: [AtomicU64; STEPS],
    is_ending: AtomicBool,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            connected: AtomicUsize::default(),
            most_connected: AtomicUsize::default(),
            tried: AtomicUsize::default(),
            disconnects: AtomicU64::default(),
            sent: AtomicU64::default(),
            acknowledged: AtomicU64::default(),
            failed: AtomicU64::default(),
            reports: AtomicU64::default(),
            changes: AtomicU64::default(),
            deployments: AtomicU64::default(),
            methods: AtomicU64::default(),
            messages: AtomicU64::default(),
            all_connected_millis: AtomicU64::default(),
            times: std::array::from_fn(|_| AtomicU64::default()),
            is_ending: AtomicBool::default(),
        }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn boundary(step: usize) -> f64 {
    100.0 * 1.25_f64.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

impl Counts {
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
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
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

    pub(super) fn all_tried(&self, members: usize) -> bool {
        self.tried.load(Ordering::Relaxed) >= members
    }

    pub(super) fn everybody_was_connected(&self, after: Duration) {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.all_connected_millis.store(millis.max(1), Ordering::Relaxed);
    }

    /// Shows how it goes: a line that is written over on a terminal, nothing elsewhere.
    pub(super) fn progress(&self, members: usize, elapsed: Duration) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        const WIDTH: usize = 20;
        let connected = self.connected.load(Ordering::Relaxed);
        let full = (connected * WIDTH).checked_div(members).unwrap_or(0).min(WIDTH);
        output::over(&format!(
            "{}{} {connected}/{members} connected, {} acknowledged, {} reports, {} methods, {} s",
            "#".repeat(full),
            "-".repeat(WIDTH - full),
            self.acknowledged.load(Ordering::Relaxed),
            self.reports.load(Ordering::Relaxed),
            self.methods.load(Ordering::Relaxed),
            elapsed.as_secs(),
        ));
    }

    /// Ends the line of the progress.
    pub(super) fn close_line(&self) {
        if std::io::stderr().is_terminal() {
            output::note("");
        }
    }

    /// What came of it. Times are those from sending to acknowledgement, a quarter more than they were at most.
    pub(super) fn report(&self, members: usize, registered: Duration) -> Value {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all_connected = Some(number(&self.all_connected_millis)).filter(|millis| *millis > 0);
        json!({
            "registered": members,
            "registrationSeconds": (registered.as_secs_f64() * 10.0).round() / 10.0,
            "mostConnected": self.most_connected.load(Ordering::Relaxed),
            "allConnectedSeconds": all_connected.map(|millis| millis as f64 / 1e3),
            "brokenConnections": number(&self.disconnects),
            "sent": number(&self.sent),
            "acknowledged": number(&self.acknowledged),
            "failed": number(&self.failed),
            "acknowledgedAfterMs50": self.percentile(0.5),
            "acknowledgedAfterMs99": self.percentile(0.99),
            "reports": number(&self.reports),
            "desiredChanges": number(&self.changes),
            "deploymentsReported": number(&self.deployments),
            "methodsAnswered": number(&self.methods),
            "messagesReceived": number(&self.messages),
        })
    }

    fn percentile(&self, part: f64) -> Option<f64> {
        let counts: Vec<u64> = self
            .times
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
            .collect();
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
        let counts = Counts::default();
        for millis in 1..=100 {
            counts.took(Duration::from_millis(millis));
        }

        let (median, high) = (counts.percentile(0.5).unwrap(), counts.percentile(0.99).unwrap());

        assert!((50.0..=63.0).contains(&median), "{median}");
        assert!((99.0..=125.0).contains(&high), "{high}");
        assert_eq!(Counts::default().percentile(0.5), None);
    }
}
