//! From the queue upstream: each message as its own sender, in the order of its sender and priority, a window of them on
//! their way at a time.
//!
//! ```text
//!   upstream/p0 ─┐                                  ┌─ sensor:  window ──> its connection ──acknowledged──> lane
//!   upstream/p1 ─┼─ read, most urgent first ─ by ───┼─ watcher: window ──> …
//!   upstream/p… ─┘   (what is on disk)      sender  └─ gone:    set aside
//! ```
//!
//! - Only what is on disk is read, and a position is acknowledged when the node above has acknowledged the message. A crash in
//!   between makes a duplicate, never a loss.
//! - With the link down at most [`LOOK_AHEAD`] messages of a lane and [`MAX_HELD_BYTES`] in all are in memory, whatever the
//!   queue holds; less urgent lanes leave room for more urgent ones.
//! - With `newestFirst` what waits when the link comes up is a backlog: read and sent when nothing newer is there.
//! - Senders take turns of a few messages. One that can't be sent for is set aside before it holds up others.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use holm_client::SendError;
use holm_model::{Identity, Message};
use holm_query::Sink;
use holm_queue::{LaneId, ReadError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::aside::Aside;
use super::dead_letters::{Burial, Reason};
use super::feed::{Source, wait_any};
use super::figures::Way;
use super::links::Link;
use super::quota::Dropped;
use super::reading::{Room, limit};
use super::senders::{Held, Senders, TURN};
use super::{Broker, lock};

/// Messages of one lane that are read and not yet acknowledged above. Ten windows; and fewer than the separate ranges that a
/// lane may have acknowledged, so that everyone but the first may be done.
pub(super) const LOOK_AHEAD: usize = 1000;
/// Bytes of messages that are read and not yet acknowledged above, in all lanes together.
pub(super) const MAX_HELD_BYTES: usize = 8 << 20;
/// How long the forwarder waits after the queue could not be read.
const READ_RETRY: Duration = Duration::from_secs(1);

/// A message that was sent, and how that ended.
type Sent = (Identity, Held, (Instant, Way), Result<(), SendError>);

/// The task that forwards.
pub(super) struct Forwarder {
    broker: Weak<Broker>,
    pub(super) lanes: watch::Receiver<u64>,
    links: watch::Receiver<u64>,
    /// Most urgent first.
    pub(super) sources: Vec<Source>,
    pub(super) senders: Senders,
    in_flight: FuturesUnordered<BoxFuture<'static, Sent>>,
    pub(super) aside: Aside,
    /// On their way to lanes aside, in order.
    pub(super) to_move: VecDeque<(Identity, Held)>,
    /// When a move that failed is tried again.
    pub(super) move_again: Option<Instant>,
    /// Resolve when a message is on disk where it goes.
    pub(super) moving: FuturesUnordered<BoxFuture<'static, Held>>,
    /// Something was done with that nobody else tells of.
    again: bool,
    /// Whether the link was up at the last look.
    pub(super) was_up: bool,
}

/// What woke the forwarder.
enum News {
    Sent(Sent),
    Moved(Held),
    Other,
}

impl Forwarder {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        let mut lanes = broker.lanes.changes();
        lanes.mark_changed();
        Self {
            lanes,
            links: broker.links.changes(),
            broker: Arc::downgrade(broker),
            sources: Vec::new(),
            was_up: false,
            senders: Senders::default(),
            in_flight: FuturesUnordered::new(),
            aside: Aside::default(),
            to_move: VecDeque::new(),
            move_again: None,
            moving: FuturesUnordered::new(),
            again: false,
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
        self.forget_dropped(broker);
        self.order(broker)?;
        self.read(broker)?;
        self.read_aside(broker)?;
        self.drop_expired(broker);
        self.send_all(broker).await;
        self.set_aside(broker).await;
        self.move_on(broker).await;
        self.senders.tidy();
        self.publish_held(broker);
        let mut news = self.wait(broker.millis()).await?;
        loop {
            match news {
                News::Sent((sender, held, (began, way), outcome)) => {
                    if outcome.is_ok() {
                        way.arrived(began.into_std(), held.record.enqueued_at, broker.millis());
                    }
                    self.sent(broker, &sender, held, outcome);
                }
                News::Moved(held) => self.finish(broker, &held),
                News::Other => return Ok(()),
            }
            news = self.more();
        }
    }

    async fn wait(&mut self, now: u64) -> Result<News, ReadError> {
        if std::mem::take(&mut self.again) {
            return Ok(self.more());
        }
        let expiry = moment(self.senders.first_expiry(), now);
        let stall = self.next_stall(Instant::now());
        let look = [expiry, stall, self.move_again].into_iter().flatten().min();
        let Self {
            sources,
            senders,
            lanes,
            links,
            in_flight,
            moving,
            ..
        } = self;
        let count = sources.len();
        let mut readable = Vec::new();
        for (index, source) in sources.iter_mut().enumerate() {
            let room = Room::of(senders, source.live.lane, limit(index, count));
            if room.live > 0 {
                readable.extend(source.feeds(room.backlog > 0));
            }
        }
        Ok(tokio::select! {
            ready = wait_any(readable.into_iter()) => {
                ready?;
                News::Other
            }
            Some(sent) = in_flight.next(), if !in_flight.is_empty() => News::Sent(sent),
            Some(moved) = moving.next(), if !moving.is_empty() => News::Moved(moved),
            _ = lanes.changed() => {
                // Left as changed, for `open_lanes`.
                lanes.mark_changed();
                News::Other
            }
            _ = links.changed() => News::Other,
            () = until(look) => News::Other,
        })
    }

    /// What has come meanwhile.
    fn more(&mut self) -> News {
        let sent = self.in_flight.next().now_or_never().flatten().map(News::Sent);
        let moved = || self.moving.next().now_or_never().flatten().map(News::Moved);
        sent.or_else(moved).unwrap_or(News::Other)
    }

    /// Sends what waits, senders in turns.
    async fn send_all(&mut self, broker: &Broker) {
        // Whoever is set aside has something that waits, also when nothing of it is read.
        for identity in self.aside.senders().cloned().collect::<Vec<_>>() {
            self.link(broker, &identity).await;
        }
        let mut turns: VecDeque<_> = self.senders.waiting().into();
        while let Some(identity) = turns.pop_front() {
            if self.send_turn(broker, &identity).await {
                turns.push_back(identity);
            }
        }
    }

    /// The connection of a sender. What waits of one that is no identity any more is dropped.
    async fn link(&mut self, broker: &Broker, identity: &Identity) -> Option<Arc<Link>> {
        if self.senders.is_recalled(identity) {
            return None;
        }
        let link = broker.links.ensure(identity);
        if link.is_none() && broker.is_gone(identity) {
            self.drop_unknown(broker, identity).await;
        }
        link
    }

    /// Sends a few of the messages that wait of one sender, as far as its window goes. Says whether more could be sent.
    async fn send_turn(&mut self, broker: &Broker, identity: &Identity) -> bool {
        let Some(link) = self.link(broker, identity).await else {
            return false;
        };
        let window = broker.links.window();
        for _ in 0..TURN {
            // Without a connection nothing is handed over: what waits stays here, where it is bounded for all together.
            if !link.client().is_connected() {
                return false;
            }
            let Some(held) = self.senders.next(identity, link.source(), window, Instant::now()) else {
                return false;
            };
            let message = match Message::decode(held.record.payload()) {
                Ok(message) => message,
                Err(error) => {
                    broker.counters.dropped_unreadable.count();
                    tracing::error!(offset = %held.record.offset, %error, "a stored message can't be read and is a dead letter now");
                    self.senders.landed(identity);
                    self.bury(broker, held, Reason::Undecodable, error.to_string());
                    continue;
                }
            };
            let way = broker.way(
                &message,
                held.record.sender(),
                held.lane,
                &Sink::Upstream,
                held.priority,
            );
            let handed = (Instant::now(), way);
            match link.client().send(message).await {
                Ok(sent) => {
                    let identity = identity.clone();
                    self.in_flight
                        .push(async move { (identity, held, handed, sent.await) }.boxed());
                }
                Err(_) => {
                    self.senders.put_back(identity, held);
                    return false;
                }
            }
        }
        self.senders.has_waiting(identity)
    }

    /// Lets go of what has made room for newer messages since it was read.
    fn forget_dropped(&mut self, broker: &Broker) {
        let mut dropped = Dropped::now(broker);
        self.senders.forget_settled(|lane| dropped.first_open(lane));
    }

    /// Drops what has waited too long.
    fn drop_expired(&mut self, broker: &Broker) {
        for held in self.senders.take_expired(broker.millis()) {
            let position = held.record.position;
            broker.figures_of_expired(&held.record);
            broker.lanes.queue().expire(held.lane, position..position + 1);
            self.finish(broker, &held);
        }
    }

    /// Somebody deleted the identity at the hub. One that leaves with its deployment is deleted only when nothing of it waits.
    async fn drop_unknown(&mut self, broker: &Broker, identity: &Identity) {
        let waiting = self.senders.take_waiting(identity);
        if waiting.is_empty() {
            return;
        }
        tracing::error!(%identity, messages = waiting.len(), "messages are dead letters now: the hub has no such module any more, and nobody else may send them");
        for held in waiting {
            broker.counters.dropped_unknown_sender.count();
            broker.room_for_dead_letters().await;
            self.bury(
                broker,
                held,
                Reason::UnknownSender,
                format!("the hub has no `{identity}` any more"),
            );
        }
    }

    /// A message was acknowledged above, or never will be.
    fn sent(&mut self, broker: &Broker, identity: &Identity, held: Held, outcome: Result<(), SendError>) {
        match outcome {
            Ok(()) => {
                broker.counters.forwarded.count();
                self.senders.answered(identity, Instant::now());
                self.finish(broker, &held);
            }
            Err(SendError::Invalid(reason)) => {
                broker.counters.dropped_unsendable.count();
                tracing::warn!(%identity, reason, "a message has no form upstream and is a dead letter now");
                self.senders.answered(identity, Instant::now());
                self.bury(broker, held, Reason::Unsendable, reason.to_string());
            }
            // Its connection was closed; the next one sends it.
            Err(SendError::Stopped) => self.senders.put_back(identity, held),
        }
    }

    fn bury(&mut self, broker: &Broker, held: Held, reason: Reason, detail: String) {
        self.senders.done(&held);
        self.again |= self.aside.has(held.lane);
        broker.bury(Burial {
            record: held.record,
            lane: held.lane,
            endpoint: Sink::Upstream,
            priority: held.priority,
            reason,
            detail,
        });
    }

    fn finish(&mut self, broker: &Broker, held: &Held) {
        self.senders.done(held);
        self.again |= self.aside.has(held.lane);
        acknowledge(broker, held.lane, held.record.position);
    }

    /// Tells what is held, for the status.
    fn publish_held(&self, broker: &Broker) {
        let total = self.senders.total();
        *lock(&broker.held) = HeldUpstream {
            messages: total.messages,
            bytes: total.bytes,
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

fn moment(expiry: u64, now: u64) -> Option<Instant> {
    if expiry == u64::MAX {
        return None;
    }
    Instant::now().checked_add(Duration::from_millis(expiry.saturating_sub(now)))
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
