//! What a run of the benchmarks found, as values: written as JSON as they are, and as a document by [`document`].

pub mod document;

use serde::Serialize;

use crate::disk::SyncRate;
use crate::figures::Figure;
use crate::load::Outcome;
use crate::machine::Machine;

/// Everything that a run found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// When it began, ISO 8601 in UTC.
    pub date: String,
    /// Whether it was the short run.
    pub quick: bool,
    /// On what.
    pub machine: Machine,
    /// Who was measured.
    pub brokers: Vec<BrokerNote>,
    /// How often a publisher may be unacknowledged, and for how long each load ran.
    pub window: u16,
    /// Seconds of each load.
    pub seconds: f64,
    /// Loads.
    pub rows: Vec<Row>,
    /// Memory of idle brokers.
    pub idle: Vec<Idle>,
    /// Starts.
    pub starts: Vec<Start>,
    /// Single figures of the edge.
    pub figures: Vec<Figure>,
    /// Single figures of the hub.
    pub hub: Vec<Figure>,
}

/// A broker and what is to be known of it.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerNote {
    /// Its name in the tables.
    pub name: String,
    /// What it says of its version.
    pub version: String,
    /// What is true of a message when its PUBACK comes.
    pub promise: String,
    /// How it was set up.
    pub settings: String,
}

/// How a load was paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As fast as the window allows.
    Closed,
    /// By schedule.
    Open,
}

/// One load on one broker.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The broker's name.
    pub broker: String,
    /// `TLS` or `TCP`.
    pub link: String,
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// Publishers.
    pub clients: usize,
    /// How it was paced.
    pub mode: Mode,
    /// What `write` and `fdatasync` of this payload cost in the same minute, one after the other.
    pub sync: SyncRate,
    /// Load averages when it began.
    pub load_average: String,
    /// Messages a second, to the last acknowledgement.
    pub acknowledged_per_second: f64,
    /// Messages a second, to the last delivery.
    pub received_per_second: f64,
    /// Due to PUBACK.
    pub puback: Latency,
    /// Due to delivery.
    pub end_to_end: Latency,
    /// Due to sent: what the generator added.
    pub lateness: Latency,
    /// Processor time of the broker for each message, in microseconds.
    pub server_us_per_message: f64,
    /// Processor time of the generator for each message, in microseconds.
    pub generator_us_per_message: f64,
    /// The counts.
    pub outcome: Outcome,
}

/// Two quantiles and the worst, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The worst.
    pub max_ms: f64,
}

impl Latency {
    /// Of a histogram in nanoseconds; zeros when it is empty.
    #[must_use]
    pub fn of(histogram: &crate::histogram::Histogram) -> Self {
        let ms = |ns: Option<u64>| std::time::Duration::from_nanos(ns.unwrap_or(0)).as_secs_f64() * 1e3;
        Self {
            p50_ms: ms(histogram.quantile(500)),
            p99_ms: ms(histogram.quantile(990)),
            max_ms: ms(Some(histogram.max())),
        }
    }
}

/// Memory of a broker that has clients and nothing to do.
#[derive(Clone, Debug, Serialize)]
pub struct Idle {
    /// The broker's name.
    pub broker: String,
    /// `TLS` or `TCP`.
    pub link: String,
    /// Clients that are connected.
    pub clients: usize,
    /// Resident memory in KiB.
    pub resident_kib: u64,
    /// Its own memory and its share of what others use too, in KiB.
    pub proportional_kib: u64,
}

impl Row {
    /// Messages a second that went all the way.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.received_per_second.min(self.acknowledged_per_second)
    }
}

/// From the start of a broker's process to the first message that it delivered, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    /// The broker's name.
    pub broker: String,
    /// `TLS` or `TCP`.
    pub link: String,
    /// Each start, in order of duration.
    pub milliseconds: Vec<f64>,
}

impl Start {
    /// The one in the middle.
    #[must_use]
    pub fn median_ms(&self) -> f64 {
        self.milliseconds
            .get(self.milliseconds.len() / 2)
            .copied()
            .unwrap_or(0.0)
    }
}
