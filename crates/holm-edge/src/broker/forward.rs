//! From the queue upstream: each message as its own sender, in the order of its sender and priority, a window of them on
//! their way at a time.
//!
//! ```text
//!   upstream/p0 ─┐                                  ┌─ sensor:  window ──> its connection ──acknowledged──> lane
//!   upstream/p1 ─┼─ read, most urgent first ─ by ───┼─ watcher: window ──> …
//!   upstream/p… ─┘   (what is on disk)      sender  └─ gone:    waits
//! ```
//!
//! - Only what is on disk is read, and a position is acknowledged when the node above has acknowledged the message. A crash in
//!   between makes a duplicate, never a loss.
//! - With the link down at most [`LOOK_AHEAD`] messages of a lane and [`MAX_HELD_BYTES`] in all are in memory, whatever the
//!   queue holds.
//! - A sender that can't be sent for holds up nobody, until it fills that look-ahead: then its lane waits for it, or for the
//!   time-to-live of its messages. What would lift that (a cursor a sender) comes with devices behind the edge.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use holm_client::SendError;
use holm_model::{Identity, Message};
use holm_query::Sink;
use holm_queue::{LaneId, ReadError, Record, Visibility};
use tokio::sync::watch;

use super::feed::{Feed, is_expired, wait_any};
use super::{Broker, lock};

/// Messages of one lane that are read and not yet acknowledged above. Ten windows; and fewer than the separate ranges that a
/// lane may have acknowledged, so that everyone but the first may be done.
pub(super) const LOOK_AHEAD: usize = 1000;
/// Bytes of messages that are read and not yet acknowledged above, in all lanes together.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;
/// How long the forwarder waits after the queue could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);

/// A message between its lane and the node above.
#[derive(Debug)]
struct Held {
    record: Record,
    lane: LaneId,
    priority: u32,
}

impl Held {
    const fn place(&self) -> (u32, u64) {
        (self.priority, self.record.position)
    }
}

#[derive(Debug, Default)]
struct Sender {
    /// By urgency, then in order.
    waiting: BTreeMap<(u32, u64), Held>,
    in_flight: usize,
}

/// A message that was sent, and how that ended.
type Sent = (Identity, Held, Result<(), SendError>);

/// The task that forwards.
pub(super) struct Forwarder {
    broker: Weak<Broker>,
    lanes: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
    /// Most urgent first.
    feeds: Vec<Feed>,
    senders: HashMap<Identity, Sender>,
    in_flight: FuturesUnordered<BoxFuture<'static, Sent>>,
    held: HashMap<LaneId, usize>,
    held_bytes: usize,
    /// No message that waits expires before this, in milliseconds since 1970; the maximum: none expires.
    first_expiry: u64,
}

impl Forwarder {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        let mut lanes = broker.lanes.changes();
        lanes.mark_changed();
        Self {
            lanes,
            links: broker.links.changes(),
            broker: Arc::downgrade(broker),
            feeds: Vec::new(),
            senders: HashMap::new(),
            in_flight: FuturesUnordered::new(),
            held: HashMap::new(),
            held_bytes: 0,
            first_expiry: u64::MAX,
        }
    }

    /// Forwards until the queue closes.
    pub(super) async fn run(mut self) {
        loop {
            let Some(broker) = self.broker.upgrade() else { return };
            match self.step(&broker).await {
                Ok(()) => {}
                Err(ReadError::Closed) => return,
                Err(error) => {
                    let error = holm_net::error_chain(&error);
                    tracing::error!(error, "messages for the hub can't be read; trying again");
                    tokio::time::sleep(READ_RETRY).await;
                }
            }
        }
    }

    /// Reads and sends what can be, and waits until something changes.
    async fn step(&mut self, broker: &Broker) -> Result<(), ReadError> {
        self.open_lanes(broker)?;
        self.read(broker)?;
        self.send_all(broker).await;
        self.publish_held(broker);
        let expiry = moment(self.first_expiry);
        let Self {
            feeds,
            held,
            lanes,
            links,
            in_flight,
            ..
        } = self;
        let is_full = self.held_bytes >= MAX_HELD_BYTES;
        let readable = feeds
            .iter_mut()
            .filter(|feed| !is_full && held.get(&feed.lane).is_none_or(|held| *held < LOOK_AHEAD));
        let done = tokio::select! {
            ready = wait_any(readable) => {
                ready?;
                None
            }
            done = in_flight.next(), if !in_flight.is_empty() => done,
            _ = lanes.changed() => {
                // Left as changed, for `open_lanes`.
                lanes.mark_changed();
                None
            }
            _ = links.changed() => None,
            () = until(expiry) => None,
        };
        let mut next = done;
        while let Some((sender, held, outcome)) = next {
            self.sent(broker, &sender, held, outcome);
            next = self.in_flight.next().now_or_never().flatten();
        }
        Ok(())
    }

    fn open_lanes(&mut self, broker: &Broker) -> Result<(), ReadError> {
        if !self.lanes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.lanes.borrow_and_update();
        for (name, lane) in broker.lanes.all() {
            if name.endpoint == Sink::Upstream && self.feeds.iter().all(|feed| feed.lane != lane) {
                let feed = Feed::open(broker.lanes.queue(), lane, name.priority, Visibility::Durable)?;
                self.feeds.push(feed);
            }
        }
        self.feeds.sort_by_key(|feed| feed.priority);
        Ok(())
    }

    /// Reads ahead, most urgent lanes first.
    fn read(&mut self, broker: &Broker) -> Result<(), ReadError> {
        for feed in &mut self.feeds {
            let held = self.held.entry(feed.lane).or_default();
            while *held < LOOK_AHEAD && self.held_bytes < MAX_HELD_BYTES {
                if feed.peek(LOOK_AHEAD - *held, &broker.counters)?.is_none() {
                    break;
                }
                let Some(record) = feed.pop() else { break };
                let Ok(sender) = record.sender().parse::<Identity>() else {
                    broker.counters.dropped_unknown_sender.count();
                    acknowledge(broker, feed.lane, record.position);
                    continue;
                };
                *held += 1;
                self.held_bytes += record.payload_len();
                self.first_expiry = self.first_expiry.min(expiry_of(&record));
                let held = Held {
                    record,
                    lane: feed.lane,
                    priority: feed.priority,
                };
                let sender = self.senders.entry(sender).or_default();
                sender.waiting.insert(held.place(), held);
            }
        }
        Ok(())
    }

    async fn send_all(&mut self, broker: &Broker) {
        let now = millis();
        if self.first_expiry <= now {
            self.drop_expired(broker, now);
        }
        let waiting = self.senders.iter().filter(|(_, sender)| !sender.waiting.is_empty());
        let waiting: Vec<_> = waiting.map(|(identity, _)| identity.clone()).collect();
        for identity in waiting {
            self.send_for(broker, &identity).await;
        }
        self.senders
            .retain(|_, sender| sender.in_flight > 0 || !sender.waiting.is_empty());
    }

    /// Sends what waits of one sender, as far as its window goes.
    async fn send_for(&mut self, broker: &Broker, identity: &Identity) {
        let Some(link) = broker.links.ensure(identity) else {
            if broker.is_gone(identity) {
                self.drop_unknown(broker, identity);
            }
            return;
        };
        let window = broker.links.window();
        // Without a connection nothing is handed over: what waits stays here, where it is bounded for all together.
        while link.client().is_connected() {
            let Some(sender) = self.senders.get_mut(identity) else {
                return;
            };
            if sender.in_flight >= window {
                return;
            }
            let Some((_, held)) = sender.waiting.pop_first() else {
                return;
            };
            let message = match Message::decode(held.record.payload()) {
                Ok(message) => message,
                Err(error) => {
                    broker.counters.dropped_unreadable.count();
                    tracing::error!(offset = %held.record.offset, %error, "a stored message can't be read and was dropped");
                    self.finish(broker, &held);
                    continue;
                }
            };
            match link.client().send(message).await {
                Ok(sent) => {
                    sender.in_flight += 1;
                    let identity = identity.clone();
                    self.in_flight.push(async move { (identity, held, sent.await) }.boxed());
                }
                Err(_) => {
                    sender.waiting.insert(held.place(), held);
                    return;
                }
            }
        }
    }

    /// Drops what has waited too long, and looks when the next will have.
    fn drop_expired(&mut self, broker: &Broker, now: u64) {
        let mut expired = Vec::new();
        self.first_expiry = u64::MAX;
        for sender in self.senders.values_mut() {
            let of_sender = sender.waiting.extract_if(.., |_, held| is_expired(&held.record, now));
            expired.extend(of_sender.map(|(_, held)| held));
            let next = sender.waiting.values().map(|held| expiry_of(&held.record)).min();
            self.first_expiry = self.first_expiry.min(next.unwrap_or(u64::MAX));
        }
        for held in expired {
            broker.counters.dropped_expired.count();
            self.finish(broker, &held);
        }
    }

    /// Somebody deleted the identity at the hub. One that leaves with its deployment is deleted only when nothing of it waits.
    fn drop_unknown(&mut self, broker: &Broker, identity: &Identity) {
        let Some(sender) = self.senders.get_mut(identity) else {
            return;
        };
        let waiting = std::mem::take(&mut sender.waiting);
        if waiting.is_empty() {
            return;
        }
        tracing::error!(%identity, messages = waiting.len(), "messages were dropped: the hub has no such module any more, and nobody else may send them");
        for held in waiting.into_values() {
            broker.counters.dropped_unknown_sender.count();
            self.finish(broker, &held);
        }
    }

    /// A message was acknowledged above, or never will be.
    fn sent(&mut self, broker: &Broker, identity: &Identity, held: Held, outcome: Result<(), SendError>) {
        let Some(sender) = self.senders.get_mut(identity) else {
            return;
        };
        sender.in_flight -= 1;
        match outcome {
            Ok(()) => {
                broker.counters.forwarded.count();
                self.finish(broker, &held);
            }
            Err(SendError::Invalid(reason)) => {
                broker.counters.dropped_unsendable.count();
                tracing::warn!(%identity, reason, "a message has no form upstream and was dropped");
                self.finish(broker, &held);
            }
            // Its connection was closed; the next one sends it.
            Err(SendError::Stopped) => {
                self.first_expiry = self.first_expiry.min(expiry_of(&held.record));
                sender.waiting.insert(held.place(), held);
            }
        }
    }

    fn finish(&mut self, broker: &Broker, held: &Held) {
        self.held_bytes -= held.record.payload_len();
        if let Some(count) = self.held.get_mut(&held.lane) {
            *count -= 1;
        }
        acknowledge(broker, held.lane, held.record.position);
    }

    /// Tells what is held, for the status.
    fn publish_held(&self, broker: &Broker) {
        *lock(&broker.held) = HeldUpstream {
            messages: self.held.values().sum(),
            bytes: self.held_bytes,
        };
    }
}

/// What the forwarder holds in memory.
#[derive(Debug, Default)]
pub(super) struct HeldUpstream {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

fn acknowledge(broker: &Broker, lane: LaneId, position: u64) {
    if let Err(error) = broker.lanes.queue().acknowledge(lane, position..position + 1) {
        tracing::warn!(%error, "a forwarded message could not be marked as done; it may be sent again after a restart");
    }
}

/// Now, as the queue counts.
fn millis() -> u64 {
    u64::try_from(super::now().unix_millis()).unwrap_or(0)
}

/// When a record expires; the maximum: never.
const fn expiry_of(record: &Record) -> u64 {
    match record.expires_at {
        0 => u64::MAX,
        at => at,
    }
}

fn moment(expiry: u64) -> Option<tokio::time::Instant> {
    if expiry == u64::MAX {
        return None;
    }
    tokio::time::Instant::now().checked_add(Duration::from_millis(expiry.saturating_sub(millis())))
}

async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
