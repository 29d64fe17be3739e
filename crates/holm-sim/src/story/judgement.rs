//! What must hold: at any time, and when everything has come to rest.

use std::sync::atomic::Ordering;
use std::time::Duration;

use holm_model::Timestamp;
use serde_json::{Map, Value};

use super::{BEGIN, BRIEF, DEVICE, HOUR, MINUTE, REPORTERS, Story};
use crate::ledger::{Fate, Summary};
use crate::programs::arrived;

/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(2 * 86_400);
/// How long the link must have been good for a message to have had time to arrive.
const TIME_TO_ARRIVE: Duration = Duration::from_secs(1800);

impl Story {
    /// Everything comes to rest: checks what must hold then.
    pub(super) async fn settle(mut self) -> Vec<String> {
        self.surroundings.rests.store(true, Ordering::SeqCst);
        self.journal.note("sensors rest");
        self.work_for(HOUR).await;
        self.until("everything has left the edge", PATIENCE, |story| {
            let edge = story.device.edge().expect("it runs");
            let status = edge.broker().status();
            status.upstream.messages == 0 && status.endpoints.iter().all(|endpoint| endpoint.depth.messages == 0)
        })
        .await;
        self.check();
        let reachable = self.reachable.clone();
        let was_reachable = |from: Duration, to: Duration| {
            let inside = |&(begin, end): &(Duration, Duration)| end.min(to).saturating_sub(begin.max(from));
            reachable.iter().any(|window| inside(window) > TIME_TO_ARRIVE)
        };
        let summary = self.surroundings.ledger.settle(fate, was_reachable);
        self.twins_agree().await;
        self.deploy(2).await;
        self.until("the new deployment runs", HOUR, |story| {
            let running = story.device.modules.running();
            running.len() == 4 && running.values().all(|image| image.ends_with(":2"))
        })
        .await;
        let verdict = self.verdict(&summary);
        self.child = None;
        self.device.stop_edge().await;
        self.hub.end().await;
        verdict
    }

    async fn twins_agree(&mut self) {
        for program in REPORTERS {
            let mut last = String::new();
            let began = self.clock.passed();
            loop {
                let twin = self.hub.twin(program).await;
                let memory = self.surroundings.memory(program);
                let (desired, reported) = (plain(&twin, "desired"), plain(&twin, "reported"));
                if desired == memory.told && reported == memory.said && !memory.unsure {
                    break;
                }
                let now = format!("{program}: the hub has {desired:?} and {reported:?}, the program {memory:?}");
                assert!(
                    self.clock.passed() - began < HOUR,
                    "twins differ for an hour: {last}\n{now}"
                );
                last = now;
                tokio::time::sleep(MINUTE).await;
            }
        }
    }

    fn verdict(&self, summary: &Summary) -> Vec<String> {
        let counts: Vec<String> = self
            .faults
            .iter()
            .map(|(fault, count)| format!("{fault:?} {count}"))
            .collect();
        let methods = self.surroundings.memory(&format!("{DEVICE}/caller")).methods;
        vec![
            format!(
                "{:?} for {} h, {} changes of the link; faults: {}",
                self.plan.trouble,
                self.plan.time.as_secs() / 3600,
                self.links,
                counts.join(", ")
            ),
            format!(
                "messages acknowledged {}, arrived {}, expired {}, made room {}; lost 0, in order, duplicates {}",
                summary.stored, summary.arrived, summary.expired, summary.made_room, summary.duplicates
            ),
            format!(
                "twins equal 3 of 3; methods called by a module {methods}; the store took at most {} of {} KiB",
                self.most_disk_bytes >> 10,
                self.limit() >> 10
            ),
        ]
    }

    /// What must hold at any time.
    pub(super) fn check(&mut self) {
        for (message, at) in self.hub.take_events() {
            let property = message.properties.get("to").flatten().unwrap_or_default().to_owned();
            let now = Duration::from_millis(u64::try_from(at.millis_since(begin())).unwrap_or(0));
            arrived(&self.surroundings.ledger, &message, fate(&property), now);
        }
        if let Some(edge) = self.device.edge() {
            let status = edge.broker().status();
            self.most_disk_bytes = self.most_disk_bytes.max(status.disk_bytes);
            assert!(
                status.disk_bytes <= self.limit() + (1 << 20),
                "the store has {} bytes of {}",
                status.disk_bytes,
                self.limit()
            );
        }
    }
}

fn begin() -> Timestamp {
    Timestamp::from_unix_seconds(BEGIN)
}

fn fate(output: &str) -> Fate {
    match output {
        "brief" => Fate::Expires(BRIEF),
        "bulk" => Fate::MakesRoom,
        _ => Fate::Arrives,
    }
}

/// A section of a twin as the service has it, without what the hub adds.
fn plain(twin: &Value, section: &str) -> Map<String, Value> {
    let mut properties = twin["properties"][section].as_object().cloned().unwrap_or_default();
    properties.retain(|name, _| !name.starts_with('$'));
    properties
}
