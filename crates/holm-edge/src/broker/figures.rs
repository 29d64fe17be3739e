//! The published figures of a broker, `edgehub_*` (`edge-broker.md` §9): what is counted and timed as it happens, and how it is
//! shown. What state there is (queues, connections) is asked when somebody reads.
//!
//! ```text
//!   ingest, inbox, forward, twins, presence ──count──> Figures ──write──> Exposition
//! ```
//!
//! - A message costs a look-up in two small tables and some additions to memory: no lock is held longer, none across a wait.
//! - Labels are names of modules and devices that were let in, inputs and outputs that routes spell out, and words from
//!   here. An output that no route spells out is `other`: what a peer says never becomes a label.
//! - Senders that have figures of their own are at most [`MAX_NAMES`]; those beyond share `other`.

mod shown;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use holm_gateway::metrics::{Counter, Series, Summary};
use holm_model::{Identity, Message};
use holm_query::Sink;
use holm_queue::{LaneId, Record};

use super::{Broker, lock};

/// Devices and modules with figures of their own: all modules of a device, and more devices below it than a page of
/// figures should have.
const MAX_NAMES: usize = 1000;
/// Combinations of labels of one figure.
const MAX_SERIES: usize = 4000;
/// Whatever has no room, or no name that may be shown.
pub(super) const OTHER: &str = "other";
/// The node above, as source of twins and receiver of messages.
pub(super) const UPSTREAM: &str = "upstream";
/// This node, as source of twins.
pub(super) const EDGE_HUB: &str = "edge_hub";
/// The node above, as an endpoint of the queue.
const UPSTREAM_ENDPOINT: &str = "iothub";

/// What a broker counts and times.
#[derive(Debug)]
pub(super) struct Figures {
    /// By identity, as it writes itself. Read for each message, written for each new sender; held for a look-up.
    senders: RwLock<HashMap<Box<str>, Arc<Sender>>>,
    received: Series<Counter>,
    sent: Series<Counter>,
    dropped: Series<Counter>,
    unacknowledged: Series<Counter>,
    sizes: Series<Summary>,
    send_times: Series<Summary>,
    process_times: Series<Summary>,
    pub(super) twins: Series<Timed>,
    pub(super) reports: Series<Timed>,
    pub(super) methods: Series<Timed>,
    pub(super) connected: Series<Counter>,
    pub(super) not_connected: Series<Counter>,
    pub(super) disconnected: Series<Counter>,
    pub(super) retries: Series<Counter>,
    outages: Counter,
    outage_times: Summary,
    /// When the link went down, while it is.
    down_since: Mutex<Option<Instant>>,
    /// Expired messages whose sender is told.
    expired: Counter,
}

/// How often something was done, and how long it took.
#[derive(Debug, Default)]
pub(super) struct Timed {
    count: Counter,
    time: Summary,
}

impl Timed {
    /// It was done once, and had begun then.
    pub(super) fn done(&self, began: Instant) {
        self.count.increment();
        self.time.observe_time(began.elapsed());
    }
}

/// The figures of one sender; kept here so that a message need not look for each by its labels.
#[derive(Debug)]
pub(super) struct Sender {
    name: Box<str>,
    sizes: Arc<Summary>,
    /// By output; as many as routes spell out, and two more.
    outputs: Mutex<Vec<(Box<str>, Arc<Taken>)>>,
    ways: Mutex<HashMap<LaneId, Ways>>,
}

impl Sender {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Messages of these sizes came in.
    pub(super) fn measure(&self, bytes: impl Iterator<Item = usize>) {
        let sizes = bytes.map(|bytes| f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)));
        self.sizes.observe_all(sizes);
    }
}

/// By output, to one lane.
type Ways = Vec<(Box<str>, Way)>;

/// What becomes of messages of one output when they come in.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) received: Arc<Counter>,
    no_route: Arc<Counter>,
    expired: Arc<Counter>,
    /// They could not be stored.
    pub(super) unacknowledged: Arc<Counter>,
}

/// What becomes of messages of one output on their way to one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Way(Arc<Endpoint>);

#[derive(Debug)]
struct Endpoint {
    sent: Arc<Counter>,
    send_times: Arc<Summary>,
    process_times: Arc<Summary>,
}

impl Way {
    /// A message has arrived. `began`: when it was handed over; `enqueued_at`: when it was taken in, `now`: both in
    /// milliseconds since 1970.
    pub(super) fn arrived(&self, began: Instant, enqueued_at: u64, now: u64) {
        let process_time = Duration::from_millis(now.saturating_sub(enqueued_at));
        self.arrived_all(&[(began.elapsed(), process_time)]);
    }

    /// Messages have arrived: for each, the time since it was handed over, and since it was taken in.
    pub(super) fn arrived_all(&self, times: &[(Duration, Duration)]) {
        let Endpoint {
            sent,
            send_times,
            process_times,
        } = self.0.as_ref();
        sent.add(times.len() as u64);
        send_times.observe_all(times.iter().map(|(send, _)| send.as_secs_f64()));
        process_times.observe_all(times.iter().map(|(_, process)| process.as_secs_f64()));
    }

    /// Whether this is the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            senders: RwLock::default(),
            received: Series::new(&["route_output", "id"], MAX_SERIES),
            sent: Series::new(
                &["from", "to", "from_route_output", "to_route_input", "priority"],
                MAX_SERIES,
            ),
            dropped: Series::new(&["reason", "from", "from_route_output"], MAX_SERIES),
            unacknowledged: Series::new(&["reason", "from", "from_route_output"], MAX_SERIES),
            sizes: Series::new(&["id"], MAX_NAMES),
            send_times: Series::new(&["from", "to", "from_route_output", "to_route_input"], MAX_SERIES),
            process_times: Series::new(&["from", "to", "priority"], MAX_SERIES),
            twins: Series::new(&["source", "id"], MAX_SERIES),
            reports: Series::new(&["target", "id"], MAX_SERIES),
            methods: Series::new(&["from", "to"], MAX_SERIES),
            connected: Series::new(&["id"], MAX_NAMES),
            not_connected: Series::new(&["id", "reason"], MAX_NAMES),
            disconnected: Series::new(&["id"], MAX_NAMES),
            retries: Series::new(&["id", "operation"], MAX_NAMES),
            outages: Counter::default(),
            outage_times: Summary::default(),
            down_since: Mutex::default(),
            expired: Counter::default(),
        }
    }
}

impl Figures {
    /// The figures of a sender, by its identity as it writes itself.
    pub(super) fn sender(&self, identity: &str) -> Arc<Sender> {
        let known = |name: &str| {
            let all = self.senders.read().unwrap_or_else(PoisonError::into_inner);
            all.get(name).map(Arc::clone)
        };
        if let Some(sender) = known(identity) {
            return sender;
        }
        let mut all = self.senders.write().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < MAX_NAMES { identity } else { OTHER };
        let sender = all.entry(name.into()).or_insert_with(|| {
            Arc::new(Sender {
                name: name.into(),
                sizes: self.sizes.of(&[name]),
                outputs: Mutex::default(),
                ways: Mutex::default(),
            })
        });
        Arc::clone(sender)
    }

    /// A message of a sender came in.
    pub(super) fn received(&self, sender: &Sender, output: &str, bytes: usize) -> Arc<Taken> {
        let taken = self.taken(sender, output);
        taken.received.increment();
        sender.measure([bytes].into_iter());
        taken
    }

    /// What becomes of messages of one output of a sender.
    pub(super) fn taken(&self, sender: &Sender, output: &str) -> Arc<Taken> {
        let mut outputs = lock(&sender.outputs);
        if let Some((_, taken)) = outputs.iter().find(|(known, _)| known.as_ref() == output) {
            return Arc::clone(taken);
        }
        let from = sender.name.as_ref();
        let taken = Arc::new(Taken {
            received: self.received.of(&[output, from]),
            no_route: self.dropped.of(&["no_route", from, output]),
            expired: self.dropped.of(&["ttl_expiry", from, output]),
            unacknowledged: self.unacknowledged.of(&["storage_failure", from, output]),
        });
        outputs.push((output.into(), Arc::clone(&taken)));
        taken
    }

    /// No route took a message.
    pub(super) fn no_route(&self, sender: &str, output: &str) {
        self.taken(&self.sender(sender), output).no_route.increment();
    }

    /// The time-to-live of deliveries of a message has ended.
    pub(super) fn expired(&self, sender: &str, output: &str, deliveries: u64) {
        if deliveries > 0 {
            self.taken(&self.sender(sender), output).expired.add(deliveries);
            self.expired.add(deliveries);
        }
    }

    /// The way of a message; `device` is this device.
    pub(super) fn way(
        &self,
        (sender, output): (&str, &str),
        lane: LaneId,
        sink: (&str, Option<(&str, &str)>),
        priority: u32,
    ) -> Way {
        let sender = self.sender(sender);
        let mut ways = lock(&sender.ways);
        let of_lane = ways.entry(lane).or_default();
        if let Some((_, way)) = of_lane.iter().find(|(known, _)| known.as_ref() == output) {
            return way.clone();
        }
        let (device, module) = sink;
        let (to, input) = match module {
            None => (UPSTREAM.to_owned(), ""),
            Some((module, input)) => (format!("{device}/{module}"), input),
        };
        let (from, priority) = (sender.name.as_ref(), priority.to_string());
        let way = Way(Arc::new(Endpoint {
            sent: self.sent.of(&[from, &to, output, input, &priority]),
            send_times: self.send_times.of(&[from, &to, output, input]),
            process_times: self.process_times.of(&[from, &to, &priority]),
        }));
        of_lane.push((output.into(), way.clone()));
        way
    }

    /// The link to the node above went up or down.
    pub(super) fn link(&self, is_up: bool) {
        let mut down_since = lock(&self.down_since);
        match (is_up, *down_since) {
            (true, Some(since)) => {
                self.outage_times.observe_time(since.elapsed());
                *down_since = None;
            }
            (false, None) => {
                self.outages.increment();
                *down_since = Some(Instant::now());
            }
            (true, None) | (false, Some(_)) => {}
        }
    }
}

impl Broker {
    /// How a message's output is told: by its name where a route spells it out.
    pub(super) fn output_label(&self, message: &Message) -> String {
        match self.routes.current() {
            Some(table) => table.output_label(message).to_owned(),
            None => OTHER.to_owned(),
        }
    }

    /// The way that a message is about to go.
    pub(super) fn way(&self, message: &Message, sender: &str, lane: LaneId, sink: &Sink, priority: u32) -> Way {
        let output = self.output_label(message);
        let device = self.keys.device().as_str();
        let sink = match sink {
            Sink::Upstream => (device, None),
            Sink::Module { module, input } => (device, Some((module.as_str(), input.as_str()))),
        };
        self.figures.way((sender, &output), lane, sink, priority)
    }

    /// A stored message expired before its receiver took it.
    pub(super) fn figures_of_expired(&self, record: &Record) {
        let message = Message::decode(record.payload());
        let output = message.map_or_else(|_| OTHER.to_owned(), |message| self.output_label(&message));
        self.figures.expired(record.sender(), &output, 1);
    }

    /// How an identity that somebody claims is told: by its name, if there is such a one.
    pub(super) fn claimed_name(&self, identity: &Identity) -> String {
        if self.grant(identity).is_some() {
            identity.to_string()
        } else {
            OTHER.to_owned()
        }
    }

    /// A module called a method of another through this edge, or somebody above did.
    pub fn method_called(&self, from: Option<&Identity>, to: &Identity, began: Instant) {
        let from = from.map_or_else(|| UPSTREAM.to_owned(), Identity::to_string);
        let to = self.claimed_name(to);
        self.figures.methods.of(&[&from, &to]).done(began);
    }
}
