//! The figures of configurations. Those that every configuration has are counted in memory; its own are queries over the fleet, which
//! may read a million twins.
//!
//! ```text
//! asked for ──old, or not known──> wanted (each query once) ──one after the other──> figures, good for a while
//!     └───────────── waits a moment for them, then answers with what is known ◄─────────┘
//! ```
//!
//! So nobody waits for a fleet to be read, and however many ask, it is read once, by one of the connections for queries.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holm_model::configuration::{Configuration, ConfigurationKind};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::lane::Counts;
use crate::queries::Queries;

/// How old a count may be. The original counts every five minutes.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long is waited for counts before what is known is told: those of a small fleet are there by then.
const WAIT: Duration = Duration::from_secs(1);
/// Counts that are kept, and counts that are wanted. Beyond it those that are kept are forgotten, and others are not counted now.
const MAX_KEPT: usize = 4096;

/// The figures that every configuration of a kind has.
pub(super) fn system(kind: ConfigurationKind, counts: Counts) -> BTreeMap<&'static str, u64> {
    let mut system = BTreeMap::from([("targetedCount", counts.targeted), ("appliedCount", counts.applied)]);
    if kind == ConfigurationKind::Edge {
        system.insert("reportedSuccessfulCount", counts.successful);
        system.insert("reportedFailedCount", counts.failed);
    }
    system
}

/// Counts the rows of queries. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct CustomMetrics {
    queries: Queries,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    figures: Mutex<Figures>,
    /// Something is wanted.
    wanted: Notify,
    /// Grows with each count.
    counted: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Figures {
    /// By query. `None`: it can't be counted.
    known: HashMap<String, (Instant, Option<u64>)>,
    /// The one in front is counted now.
    wanted: VecDeque<String>,
    /// What stands in `wanted`.
    asked: HashSet<String>,
}

impl CustomMetrics {
    /// Nothing is counted before [`CustomMetrics::run`].
    pub(super) fn new(queries: Queries) -> Self {
        let shared = Arc::new(Shared {
            figures: Mutex::default(),
            wanted: Notify::new(),
            counted: watch::Sender::new(0),
        });
        Self { queries, shared }
    }

    /// Counts what is wanted; runs until it is dropped.
    pub(super) async fn run(self) {
        loop {
            let next = self.lock().wanted.front().cloned();
            let Some(query) = next else {
                self.shared.wanted.notified().await;
                continue;
            };
            let count = self.count_rows(&query).await;
            let mut figures = self.lock();
            figures.wanted.pop_front();
            figures.asked.remove(&query);
            if figures.known.len() >= MAX_KEPT {
                figures.known.clear();
            }
            figures.known.insert(query, (Instant::now(), count));
            drop(figures);
            self.shared.counted.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// The figures of the own metrics of each configuration, as far as they are known after a moment.
    pub(super) async fn results(&self, all: &[Configuration]) -> Vec<BTreeMap<String, u64>> {
        let queries: Vec<&String> = all.iter().flat_map(|it| it.metrics().values()).collect();
        if !queries.is_empty() {
            let mut counted = self.shared.counted.subscribe();
            let waiting = async {
                while self.want(&queries) {
                    counted.changed().await.ok();
                }
            };
            // Then by what is known.
            tokio::time::timeout(WAIT, waiting).await.ok();
        }
        let figures = self.lock();
        let results = all.iter().map(|it| {
            let own = it.metrics().iter();
            let known = own.filter_map(|(name, query)| Some((name.clone(), figures.known.get(query)?.1?)));
            known.collect()
        });
        results.collect()
    }

    /// Asks for the counts that are not known, or old; whether there are such.
    fn want(&self, queries: &[&String]) -> bool {
        let mut figures = self.lock();
        let mut is_wanting = false;
        for query in queries {
            let known = figures.known.get(*query);
            if known.is_some_and(|(at, _)| at.elapsed() < GOOD_FOR) {
                continue;
            }
            is_wanting = true;
            if figures.wanted.len() < MAX_KEPT && figures.asked.insert((*query).clone()) {
                figures.wanted.push_back((*query).clone());
            }
        }
        drop(figures);
        if is_wanting {
            self.shared.wanted.notify_one();
        }
        is_wanting
    }

    /// `None` where it can't be counted: nothing is better than a wrong figure.
    async fn count_rows(&self, query: &str) -> Option<u64> {
        let counted = self.queries.count(query).await;
        counted
            .inspect_err(|error| tracing::debug!(%error, query, "a metric is not counted"))
            .ok()
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        // Held for operations on maps only, never across an await.
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;
    use holm_model::configuration::{ConfigurationId, ConfigurationWish};
    use serde_json::json;

    use super::*;
    use crate::presence::Presence;
    use crate::storage::Repository;

    #[tokio::test]
    async fn nobody_waits_for_a_count_that_takes_long_and_it_is_told_when_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let metrics = CustomMetrics::new(Queries::new(repository, Presence::default()));
        let body = json!({"id": "c", "schemaVersion": "1.0", "priority": 1, "targetCondition": "",
            "content": {"deviceContent": {"properties.desired.a": 1}},
            "metrics": {"queries": {"all": "SELECT deviceId FROM devices"}}});
        let id = ConfigurationId::new("c").unwrap();
        let wish = ConfigurationWish::from_json(&id, body.to_string().as_bytes()).unwrap();
        let all = [Configuration::create(id, wish, Timestamp::NEVER, 1).unwrap()];

        // Nothing is counted yet, as when another count takes its time; both ask for the same.
        let (first, second) = tokio::join!(metrics.results(&all), metrics.results(&all));
        let wanted = metrics.lock().wanted.len();
        let counting = tokio::spawn(metrics.clone().run());
        let counted = async {
            loop {
                let results = metrics.results(&all).await;
                if results[0].contains_key("all") {
                    return results;
                }
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(60), counted).await.unwrap();
        counting.abort();

        assert_eq!((first, second), (vec![BTreeMap::new()], vec![BTreeMap::new()]));
        assert_eq!(wanted, 1);
        assert_eq!(counted, [BTreeMap::from([("all".to_owned(), 0)])]);
    }
}
