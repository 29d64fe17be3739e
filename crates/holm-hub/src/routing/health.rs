//! How an endpoint is, for operators: what was delivered, what was not, and why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_model::Timestamp;
use serde_json::{Value, json};

/// The longest error text that is kept, in characters: servers answer with whole pages.
const LONGEST_ERROR: usize = 500;

/// How an endpoint is. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Mutex<Counts>>);

/// What is known; counted since the hub was started.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Messages that the endpoint has taken.
    pub delivered: u64,
    /// Messages that waited too long, or were too many, and those that were damaged.
    pub dropped: u64,
    /// Messages that the endpoint can never take: dropped, or gone to the dead letters.
    pub rejected: u64,
    /// Those of them that went to the dead letters.
    pub dead_lettered: u64,
    /// Batches that were not taken.
    pub failures: u64,
    /// Why it can't be used at all.
    pub unusable: Option<String>,
    /// When it last took something.
    pub last_delivery: Option<Timestamp>,
    /// How long the newest message that it took was on its way, in milliseconds.
    pub latency_millis: Option<u64>,
    /// Since when it takes nothing.
    pub failing_since: Option<Timestamp>,
    /// What happened last, and when.
    pub last_error: Option<(Timestamp, String)>,
    /// What was wrong with the last message that it can never take, and when.
    pub last_rejection: Option<(Timestamp, String)>,
}

/// How it is, in a word; the published ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing was sent yet.
    Unknown,
    /// It took what it was given last.
    Healthy,
    /// It did not, and is tried again.
    Unhealthy,
    /// It can't be used as it is defined, or takes nothing for longer than messages wait for it: they are being lost.
    Dead,
}

impl Status {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Dead => "dead",
        }
    }
}

impl Health {
    /// What is known now.
    #[must_use]
    pub(super) fn read(&self) -> Counts {
        self.lock().clone()
    }

    pub(super) fn unusable(&self, why: Option<String>) {
        self.lock().unusable = why;
    }

    /// It took messages, the newest of which was taken in at `enqueued`. Says whether it had taken nothing before.
    pub(super) fn delivered(&self, count: usize, enqueued: Timestamp, now: Timestamp) -> bool {
        let mut counts = self.lock();
        counts.delivered += u64::try_from(count).unwrap_or(u64::MAX);
        counts.last_delivery = Some(now);
        counts.latency_millis = Some(u64::try_from(now.millis_since(enqueued)).unwrap_or(0));
        counts.failing_since.take().is_some()
    }

    /// It did not take a batch. Says whether it did before.
    pub(super) fn failed(&self, why: &str, now: Timestamp) -> bool {
        let mut counts = self.lock();
        counts.failures += 1;
        counts.last_error = Some((now, shortened(why)));
        let is_first = counts.failing_since.is_none();
        counts.failing_since.get_or_insert(now);
        is_first
    }

    pub(super) fn rejected(&self, why: &str, to_dead_letters: bool, now: Timestamp) {
        let mut counts = self.lock();
        counts.rejected += 1;
        counts.dead_lettered += u64::from(to_dead_letters);
        counts.last_rejection = Some((now, shortened(why)));
    }

    /// So many were dropped until now; says how many of them are news.
    pub(super) fn dropped(&self, until_now: u64) -> u64 {
        let mut counts = self.lock();
        let news = until_now.saturating_sub(counts.dropped);
        counts.dropped = counts.dropped.max(until_now);
        news
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Held for a few assignments, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// How it is, where messages wait `max_waiting` for it.
    #[must_use]
    pub fn status(&self, max_waiting: Duration, now: Timestamp) -> Status {
        let longest = i64::try_from(max_waiting.as_millis()).unwrap_or(i64::MAX);
        match (&self.unusable, self.failing_since, self.last_delivery) {
            (Some(_), ..) => Status::Dead,
            (None, Some(since), _) if now.millis_since(since) >= longest => Status::Dead,
            (None, Some(_), _) => Status::Unhealthy,
            (None, None, Some(_)) => Status::Healthy,
            (None, None, None) => Status::Unknown,
        }
    }

    /// As documents tell it. `waiting` are messages and bytes.
    #[must_use]
    pub fn to_json(&self, status: Status, waiting: (u64, u64)) -> Value {
        let told = |what: &Option<(Timestamp, String)>| {
            let what = what.as_ref();
            what.map(|(at, text)| json!({ "time": at.to_string(), "message": text }))
        };
        json!({
            "status": status.word(),
            "waiting": waiting.0,
            "waitingBytes": waiting.1,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "rejected": self.rejected,
            "deadLettered": self.dead_lettered,
            "failures": self.failures,
            "unusable": self.unusable,
            "lastDelivery": self.last_delivery.map(|at| at.to_string()),
            "latencyMilliseconds": self.latency_millis,
            "failingSince": self.failing_since.map(|at| at.to_string()),
            "lastError": told(&self.last_error),
            "lastRejection": told(&self.last_rejection),
        })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_ERROR).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn an_endpoint_is_unhealthy_while_it_takes_nothing_and_dead_when_messages_are_lost_by_it() {
        let (health, waits) = (Health::default(), Duration::from_secs(60));
        let status = |seconds| health.read().status(waits, at(seconds));

        assert_eq!(status(0), Status::Unknown);
        assert!(health.failed("no connection", at(1)));
        assert!(!health.failed("no connection", at(2)));
        assert_eq!((status(60), status(61)), (Status::Unhealthy, Status::Dead));
        assert!(health.delivered(3, at(60), at(62)));
        assert_eq!(status(63), Status::Healthy);
        assert_eq!(health.read().latency_millis, Some(2000));
        health.unusable(Some("no such kind".to_owned()));
        assert_eq!(status(63), Status::Dead);
    }
}
