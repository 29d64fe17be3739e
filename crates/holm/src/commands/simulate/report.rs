//! What came of a simulation: the figures at its end, and whether it went as it should.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use super::counts::{Counts, Milestone, number};
use super::registration::{Origin, Roll};
use crate::output;

/// How making the fleet went.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How long it took until all were registered.
    pub(super) registration: Duration,
    /// The memory that each member takes of this program, in bytes, measured when all were there.
    pub(super) member_bytes: Option<u64>,
    /// How many were deleted again.
    pub(super) deleted: usize,
    /// Whether all that was to come had come.
    pub(super) is_there: bool,
    /// Whether the user has ended it before that.
    pub(super) is_cut_short: bool,
}

impl Outcome {
    /// The figures by their names, in the order in which people read them; null are those that there are not.
    pub(super) fn figures(&self, roll: &Roll, counts: &Counts) -> Vec<(&'static str, Value)> {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e3).round() / 1e3;
        let after = |milestone: &Milestone| milestone.after(counts.begin).map(seconds);
        let per_second = |count: usize, time: Option<f64>| {
            let time = time.filter(|time| *time > 0.0)?;
            Some((count as f64 / time).round())
        };
        let registered = roll.registered();
        let all_connected = after(&counts.arrived);
        vec![
            ("registered", json!(registered)),
            ("made", json!(roll.count(Origin::Made))),
            ("found", json!(roll.count(Origin::Found))),
            ("foreign", json!(roll.count(Origin::Foreign))),
            ("registrationSeconds", json!(seconds(self.registration))),
            (
                "registeredPerSecond",
                json!(per_second(registered, Some(self.registration.as_secs_f64()))),
            ),
            ("mostConnected", json!(counts.most_connected())),
            ("allConnectedSeconds", json!(all_connected)),
            (
                "connectedPerSecond",
                json!(per_second(counts.arrived.reached(), all_connected)),
            ),
            ("neverConnected", json!(counts.arrived.missing())),
            ("brokenConnections", json!(number(&counts.disconnects))),
            ("reported", json!(counts.reported.reached())),
            ("allReportedSeconds", json!(after(&counts.reported))),
            ("deployed", json!(counts.deployed.reached())),
            ("allDeployedSeconds", json!(after(&counts.deployed))),
            ("lastTrouble", json!(counts.last_trouble())),
            ("sent", json!(number(&counts.sent))),
            ("acknowledged", json!(number(&counts.acknowledged))),
            ("failed", json!(number(&counts.failed))),
            ("acknowledgedAfterMs50", json!(counts.percentile(0.5))),
            ("acknowledgedAfterMs99", json!(counts.percentile(0.99))),
            ("reports", json!(number(&counts.reports))),
            ("desiredChanges", json!(number(&counts.changes))),
            ("deploymentsReported", json!(number(&counts.deployments))),
            ("methodsAnswered", json!(number(&counts.methods))),
            ("messagesReceived", json!(number(&counts.messages))),
            ("memoryBytesPerMember", json!(self.member_bytes)),
            ("deleted", json!(self.deleted)),
            ("left", json!(registered.saturating_sub(self.deleted))),
        ]
    }

    /// Whether all was done that was to be done.
    ///
    /// # Errors
    /// What was not, with the reason where there is one.
    pub(super) fn judge(&self, roll: &Roll, counts: &Counts) -> anyhow::Result<()> {
        let because = counts.last_trouble().map(|why| format!(": {why}")).unwrap_or_default();
        if self.is_cut_short {
            bail!(
                "interrupted: {} of {} were registered, {} of them connected, {} have reported",
                roll.registered(),
                roll.len(),
                counts.arrived.reached(),
                counts.reported.reached()
            );
        }
        for (milestone, what) in [
            (&counts.arrived, "were never connected"),
            (&counts.reported, "never reported"),
            (&counts.deployed, "never reported that the deployment is in force"),
        ] {
            if milestone.missing() > 0 {
                bail!("{} of {} {what}{because}", milestone.missing(), milestone.wanted());
            }
        }
        match number(&counts.failed) {
            0 => Ok(()),
            failed => bail!("{failed} of {} messages were not acknowledged", number(&counts.sent)),
        }
    }
}

/// Shows figures: as an object, or as lines.
pub(super) fn show(figures: Vec<(&'static str, Value)>, as_json: bool) {
    if as_json {
        let members = figures.into_iter().map(|(name, value)| (name.to_owned(), value));
        return output::json(&Value::Object(members.collect()));
    }
    for (name, value) in figures {
        match value {
            Value::Null => {}
            Value::String(text) => output::line(&format!("{name:<26} {text}")),
            value => output::line(&format!("{name:<26} {value}")),
        }
    }
}

/// The memory of this program that is in use, in bytes.
pub(super) fn memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Since when nothing has moved on.
#[derive(Debug)]
pub(super) struct Stall {
    seen: usize,
    since: Instant,
}

impl Stall {
    pub(super) fn new() -> Self {
        Self {
            seen: 0,
            since: Instant::now(),
        }
    }

    /// How long it is now.
    pub(super) fn lasts(&mut self, now: usize) -> Duration {
        if now != self.seen {
            (self.seen, self.since) = (now, Instant::now());
        }
        self.since.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_reason_and_nothing_where_all_is_done() {
        let options = crate::cli::Simulate::for_tests(2, 1);
        let (roll, counts) = (Roll::new(&options).unwrap(), Counts::new(3, 3, 1));
        let outcome = Outcome::default();
        counts.trouble("refused");

        let nobody = outcome.judge(&roll, &counts).unwrap_err().to_string();
        (0..3).for_each(|_| counts.arrived.reach());
        (0..3).for_each(|_| counts.reported.reach());
        let undeployed = outcome.judge(&roll, &counts).unwrap_err().to_string();
        counts.deployed.reach();

        assert_eq!(nobody, "3 of 3 were never connected: refused");
        assert_eq!(
            undeployed,
            "1 of 1 never reported that the deployment is in force: refused"
        );
        assert!(outcome.judge(&roll, &counts).is_ok());
        counts.sent.store(4, std::sync::atomic::Ordering::Relaxed);
        counts.failed.store(1, std::sync::atomic::Ordering::Relaxed);
        let lost = outcome.judge(&roll, &counts).unwrap_err().to_string();
        assert_eq!(lost, "1 of 4 messages were not acknowledged");
    }

    #[test]
    fn the_memory_of_this_program_is_known() {
        assert!(memory().unwrap() > 100 * 1024);
    }
}
