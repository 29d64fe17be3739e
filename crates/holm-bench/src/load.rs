//! A run of load against one broker: publishers at QoS 1, listeners that must each get every message, and what came of it.
//!
//! ```text
//!   listen --> connect all  --> start: publishers keep their pace for `duration`
//!                                 end:   the last acknowledgements, at most `patience`
//!                                        the last deliveries, until all are there or none came for `patience`
//! ```
//!
//! Invariants of the numbers:
//! - open loop: latencies count from the time at which a message was *due*. A message that the window held up is late, and
//!   its lateness is in the latency; one that was never sent because time ran out is in `unsent`;
//! - `lost` are messages that the broker acknowledged and a listener did not get;
//! - one thread: the generator leaves the other processors to the broker, and tells how busy it was itself.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{self, Login, Target};
use crate::clock::{SECOND, now_ns};
use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::listener::{Listener, Received, Source};
use crate::process::{Usage, usage_of};
use crate::publisher::{Published, Publisher};
use crate::schedule::{Pace, Schedule};
use crate::service::Service;

/// A client that publishes.
#[derive(Clone, Debug)]
pub struct PublisherPlan {
    /// Who it is.
    pub login: Login,
    /// Where its messages go.
    pub topic: String,
}

/// Someone who listens; every message of every publisher has to reach it.
#[derive(Clone, Debug)]
pub enum ListenerPlan {
    /// A client that subscribes at QoS 1.
    Subscriber {
        /// Where it connects.
        target: Target,
        /// Who it is.
        login: Login,
        /// What it asks for.
        filter: String,
    },
    /// A reader of a Holm hub's event log.
    HubEvents(Service),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the publishers connect.
    pub target: Target,
    /// Who publishes.
    pub publishers: Vec<PublisherPlan>,
    /// Who listens; may be none.
    pub listeners: Vec<ListenerPlan>,
    /// Bytes of a payload, at least [`Stamp::BYTES`](crate::stamp::Stamp::BYTES).
    pub payload_bytes: usize,
    /// How many publishes of each publisher may wait for their acknowledgement, 1 to 8192.
    pub window: u16,
    /// How fast.
    pub pace: Pace,
    /// How long publishers publish.
    pub duration: Duration,
    /// Messages due in this first part are sent and counted, but not in the latencies.
    pub warm_up: Duration,
    /// How long to wait for acknowledgements after the end, and for a next delivery.
    pub patience: Duration,
    /// Processes whose time and memory are the broker's.
    pub servers: Vec<u32>,
}

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Messages sent.
    pub sent: u64,
    /// Open loop: messages that were due and could not be sent in time, because the window was full.
    pub unsent: u64,
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Different messages that arrived, summed over the listeners.
    pub received: u64,
    /// Messages that arrived again.
    pub duplicates: u64,
    /// Messages that arrived after a later one of the same publisher.
    pub out_of_order: u64,
    /// Messages acknowledged to their sender that a listener did not get, summed over the listeners.
    pub lost: u64,
    /// From the start to the last acknowledgement, in seconds.
    pub acknowledged_seconds: f64,
    /// From the start to the last delivery, in seconds.
    pub received_seconds: f64,
    /// Due to PUBACK (closed loop: sent to PUBACK), in nanoseconds.
    #[serde(skip)]
    pub puback: Histogram,
    /// Due to delivery (closed loop: sent to delivery), in nanoseconds.
    #[serde(skip)]
    pub end_to_end: Histogram,
    /// Due to sent, in nanoseconds: what the generator or a full window added.
    #[serde(skip)]
    pub lateness: Histogram,
    /// Processor time of the broker, and its memory at the end.
    pub server: Usage,
    /// Processor time of the generator.
    pub generator: Usage,
}

impl Outcome {
    /// Messages a second, from the start to the last acknowledgement.
    #[must_use]
    pub fn acknowledged_per_second(&self) -> f64 {
        rate(self.acknowledged, self.acknowledged_seconds)
    }

    /// Messages a second, from the start to the last delivery.
    #[must_use]
    pub fn received_per_second(&self) -> f64 {
        rate(self.received, self.received_seconds)
    }

    /// Processor time of the broker for each message that was acknowledged, in microseconds.
    #[must_use]
    pub fn server_us_per_message(&self) -> f64 {
        self.server.cpu_seconds * 1e6 / per(self.acknowledged)
    }

    /// Processor time of the generator for each message, in microseconds.
    #[must_use]
    pub fn generator_us_per_message(&self) -> f64 {
        self.generator.cpu_seconds * 1e6 / per(self.acknowledged)
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { per(count) / seconds } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
fn per(count: u64) -> f64 {
    count as f64
}

/// What every client of a run knows.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) number: u32,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Latencies count from messages due at this time on.
    pub(crate) count_from_ns: u64,
    pub(crate) patience: Duration,
}

/// Carries out a plan, on the runtime of the caller: use one of a single thread.
///
/// # Errors
/// A client can't connect or subscribe, or loses its connection, or the broker's process is gone.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let (goal, goals) = watch::channel(None);
    let mut listening = Vec::new();
    for listener in &plan.listeners {
        listening.push(Source::open(listener).await?);
    }
    let mut publishing = Vec::new();
    for publisher in &plan.publishers {
        publishing.push(client::connect(&plan.target, &publisher.login, plan.window).await?);
    }

    let before = (usage_of(&plan.servers)?, usage_of(&[std::process::id()])?);
    let run = begin(plan);
    let mut listeners = JoinSet::new();
    for source in listening {
        let listener = Listener::new(source, run.clone(), plan.publishers.len());
        listeners.spawn(listener.listen(goals.clone()));
    }
    let mut publishers = JoinSet::new();
    for (number, (link, planned)) in (0..).zip(publishing.into_iter().zip(&plan.publishers)) {
        let schedule = Schedule {
            pace: plan.pace,
            start_ns: run.start_ns,
            end_ns: run.end_ns,
            publisher: number,
            publishers: u32::try_from(plan.publishers.len()).context("too many publishers")?,
        };
        let publisher = Publisher::new(link, run.clone(), schedule, &planned.topic, plan.payload_bytes)?;
        publishers.spawn(publisher.publish());
    }
    drop(goals);

    let mut published: Vec<Published> = Vec::new();
    while let Some(done) = publishers.join_next().await {
        published.push(done.context("a publisher panicked")??);
    }
    // Nobody hears it when no listener is left; that shows in what they return.
    goal.send_replace(Some(published.iter().map(|it| it.sent).sum()));
    let mut received: Vec<Received> = Vec::new();
    while let Some(done) = listeners.join_next().await {
        received.push(done.context("a listener panicked")??);
    }

    let after = (usage_of(&plan.servers)?, usage_of(&[std::process::id()])?);
    let mut outcome = sum(&run, &published, &received);
    outcome.server = after.0.since(before.0);
    outcome.generator = after.1.since(before.1);
    Ok(outcome)
}

fn begin(plan: &Plan) -> Run {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let now = now_ns();
    // A moment ahead, so that no publisher starts late.
    let start_ns = now + SECOND / 50;
    Run {
        // The low half of the clock differs between any two runs that a broker could confuse.
        number: u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0),
        start_ns,
        end_ns: start_ns.saturating_add(nanoseconds(plan.duration)),
        count_from_ns: start_ns.saturating_add(nanoseconds(plan.warm_up)),
        patience: plan.patience,
    }
}

fn sum(run: &Run, published: &[Published], received: &[Received]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut last_acknowledged = run.start_ns;
    let mut last_received = run.start_ns;
    for publisher in published {
        outcome.sent += publisher.sent;
        outcome.unsent += publisher.unsent;
        outcome.acknowledged += publisher.acknowledged.len();
        outcome.puback.merge(&publisher.puback);
        outcome.lateness.merge(&publisher.lateness);
        last_acknowledged = last_acknowledged.max(publisher.last_ns);
    }
    for listener in received {
        outcome.received += listener.ledgers.iter().map(Ledger::len).sum::<u64>();
        outcome.duplicates += listener.duplicates;
        outcome.out_of_order += listener.out_of_order;
        outcome.end_to_end.merge(&listener.end_to_end);
        last_received = last_received.max(listener.last_ns);
        for publisher in published {
            let got = listener.ledgers.get(publisher.number);
            outcome.lost += got.map_or(publisher.acknowledged.len(), |got| {
                publisher.acknowledged.missing_in(got)
            });
        }
    }
    outcome.acknowledged_seconds = seconds(last_acknowledged - run.start_ns);
    outcome.received_seconds = seconds(last_received - run.start_ns);
    outcome
}

fn seconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64()
}
