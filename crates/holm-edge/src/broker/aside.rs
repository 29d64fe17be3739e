//! Senders that can't be sent for, and their lanes.
//!
//! ```text
//!   upstream/p3   w w w s w w s w …        the look-ahead fills with `watcher`, which the hub refuses
//!        │ copied, on disk, then acknowledged here
//!        v
//!   aside/box/watcher/p3   w w w w w       read again when it can be sent for, before anything newer of it
//! ```
//!
//! - Set aside is who could not be sent for during [`PATIENCE`] with the link up (a connection that is being made for the first
//!   time has half a minute), or had nothing acknowledged for [`STUCK`] while others had, and holds a [`SHARE`] of the look-ahead, or anything in a lane whose look-ahead is full. What is with
//!   its connection is called back first, so the order stays.
//! - As long as a sender has a lane aside for a priority, all its messages of that priority go there; the lane is removed when
//!   all of it is done.
//! - At most [`MAX_LANES`] lanes are aside. Who comes after that is not set aside: the common lane waits for it, or for the
//!   time-to-live of its messages, as an error in the log says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::FutureExt;
use holm_model::Identity;
use holm_query::Sink;
use holm_queue::{LaneId, Pending, ReadError, Visibility};
use tokio::time::Instant;

use super::Broker;
use super::feed::Feed;
use super::forward::{Forwarder, LOOK_AHEAD, MAX_HELD_BYTES};
use super::lanes::LaneName;
use super::rehome;
use super::senders::{Amount, Held, Stall};

/// How long a sender may be without a connection before its messages make room for others'.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection may acknowledge nothing while others do. Long: a large message on a slow link takes its time.
const STUCK: Duration = Duration::from_secs(60);
/// What a sender that can't be sent for may hold of the look-ahead.
const SHARE: Amount = Amount {
    messages: LOOK_AHEAD / 8,
    bytes: MAX_HELD_BYTES / 8,
};
/// Each costs memory in the queue and a place in each of its checkpoints.
const MAX_LANES: usize = 512;
/// Bytes that lanes aside may hold beyond what the common ones may, so that neither starves the other.
const MAX_ASIDE_BYTES: usize = MAX_HELD_BYTES / 4;

/// The lanes of senders that were set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// By sender and priority.
    senders: HashMap<Identity, BTreeMap<u32, AsideLane>>,
    /// Whether the log has told that no more can be set aside.
    is_exhausted: bool,
}

#[derive(Debug)]
struct AsideLane {
    lane: LaneId,
    /// While its sender can be sent for.
    feed: Option<Feed>,
}

impl Aside {
    fn lane_of(&self, sender: &Identity, priority: u32) -> Option<LaneId> {
        Some(self.senders.get(sender)?.get(&priority)?.lane)
    }

    fn lanes_of(&self, sender: &Identity) -> Vec<LaneId> {
        let lanes = self.senders.get(sender).into_iter().flat_map(BTreeMap::values);
        lanes.map(|aside| aside.lane).collect()
    }

    /// Whether a lane is one of these.
    pub(super) fn has(&self, lane: LaneId) -> bool {
        let mut all = self.senders.values().flat_map(BTreeMap::values);
        all.any(|aside| aside.lane == lane)
    }

    fn count(&self) -> usize {
        self.senders.values().map(BTreeMap::len).sum()
    }

    /// Takes note of a lane that is there.
    pub(super) fn know(&mut self, sender: Identity, priority: u32, lane: LaneId) {
        let lanes = self.senders.entry(sender).or_default();
        lanes.entry(priority).or_insert(AsideLane { lane, feed: None });
    }

    pub(super) fn senders(&self) -> impl Iterator<Item = &Identity> {
        self.senders.keys()
    }

    pub(super) fn is_aside(&self, sender: &Identity, priority: u32) -> bool {
        self.lane_of(sender, priority).is_some()
    }
}

impl Forwarder {
    /// Notes who can be sent for, and sets aside who must be.
    pub(super) async fn set_aside(&mut self, broker: &Broker) {
        let now = Instant::now();
        if !broker.links.is_up() {
            return self.senders.excuse_all();
        }
        for identity in self.senders.all() {
            if self.senders.is_recalled(&identity) {
                continue;
            }
            let link = broker.links.find(&identity);
            let is_connected = link.as_ref().is_some_and(|link| link.client().is_connected());
            let is_stuck = is_connected && self.senders.is_stuck(&identity, now, STUCK);
            let awaited = link.and_then(|link| link.is_awaited_until()).unwrap_or(now);
            let stalled = (!is_connected || is_stuck).then_some(awaited.max(now));
            self.senders.note(&identity, stalled);
        }
        let Some(since) = now.checked_sub(PATIENCE) else { return };
        let is_full = |lane| {
            let is_own = self.aside.has(lane);
            is_own || self.senders.held_of(lane) >= LOOK_AHEAD || self.senders.total().bytes >= MAX_HELD_BYTES
        };
        for (identity, stall) in self.senders.stalled(since, SHARE, is_full) {
            match stall {
                // What its connection has comes back when that is closed.
                Stall::InFlight => {
                    self.senders.recalled(&identity);
                    broker.links.close(&identity);
                }
                Stall::Recalled => {}
                Stall::Waiting => self.move_aside(broker, &identity).await,
            }
        }
    }

    /// Begins to move what waits of a sender into lanes of its own, and lets go of what comes from there.
    async fn move_aside(&mut self, broker: &Broker, identity: &Identity) {
        let own = self.aside.lanes_of(identity);
        self.senders.forget(identity, &own);
        let feeds = self.aside.senders.get_mut(identity).into_iter().flatten();
        feeds.for_each(|(_, aside)| aside.feed = None);
        for priority in self.senders.priorities(identity) {
            if self.aside_lane(broker, identity, priority).await.is_none() {
                return;
            }
        }
        let waiting = self.senders.take_waiting(identity);
        if waiting.is_empty() {
            return;
        }
        tracing::warn!(
            %identity,
            messages = waiting.len(),
            "messages can't be sent for their sender and are set aside, so that they hold up nobody"
        );
        self.to_move
            .extend(waiting.into_iter().map(|held| (identity.clone(), held)));
    }

    /// Copies messages to where they go, in order. They stay held until the copies are on disk.
    pub(super) async fn move_on(&mut self, broker: &Broker) {
        if self.move_again.is_some_and(|again| again > Instant::now()) {
            return;
        }
        self.move_again = None;
        while let Some((identity, held)) = self.to_move.pop_front() {
            match self.copy_aside(broker, &identity, &held).await {
                Some(pending) => {
                    broker.counters.set_aside.count();
                    let queue = broker.lanes.queue().clone();
                    let moved = async move {
                        rehome::durable(queue, pending).await;
                        held
                    };
                    self.moving.push(moved.boxed());
                }
                None => {
                    self.to_move.push_front((identity, held));
                    self.move_again = Some(Instant::now() + PATIENCE);
                    return;
                }
            }
        }
    }

    /// Copies one message; `None` when it can't be done now.
    async fn copy_aside(&mut self, broker: &Broker, identity: &Identity, held: &Held) -> Option<Pending> {
        let lane = self.aside_lane(broker, identity, held.priority).await?;
        let place = (lane, held.record.expires_at);
        let copied = rehome::append(broker.lanes.queue(), &held.record, place, held.record.payload()).await;
        copied
            .inspect_err(|error| tracing::debug!(%identity, %error, "a message can't be set aside now"))
            .ok()
    }

    async fn aside_lane(&mut self, broker: &Broker, identity: &Identity, priority: u32) -> Option<LaneId> {
        if let Some(lane) = self.aside.lane_of(identity, priority) {
            return Some(lane);
        }
        if self.aside.count() >= MAX_LANES {
            if !std::mem::replace(&mut self.aside.is_exhausted, true) {
                tracing::error!(%identity, lanes = MAX_LANES, "too many senders can't be sent for; the next ones hold up others until their messages expire");
            }
            return None;
        }
        match broker.lanes.ensure(&LaneName::aside(identity.clone(), priority)).await {
            Ok(lane) => {
                self.aside.know(identity.clone(), priority, lane);
                Some(lane)
            }
            Err(error) => {
                tracing::warn!(%identity, %error, "a sender could not be set aside");
                None
            }
        }
    }

    /// Reads the lanes aside of senders that can be sent for again, and removes those that are done.
    pub(super) fn read_aside(&mut self, broker: &Broker) -> Result<(), ReadError> {
        let window = broker.links.window();
        let mut done = Vec::new();
        for (identity, lanes) in &mut self.aside.senders {
            let is_sendable = match broker.links.find(identity) {
                Some(link) => link.client().is_connected() && !self.senders.is_recalled(identity),
                None => broker.is_gone(identity),
            };
            for (priority, aside) in lanes.iter_mut().filter(|_| is_sendable) {
                let feed = match &mut aside.feed {
                    Some(feed) => feed,
                    closed => {
                        let queue = broker.lanes.queue();
                        closed.insert(Feed::open(queue, aside.lane, *priority, Visibility::Durable)?)
                    }
                };
                loop {
                    let room = window.saturating_sub(self.senders.held_of(aside.lane));
                    if room == 0 || self.senders.total().bytes >= MAX_HELD_BYTES + MAX_ASIDE_BYTES {
                        break;
                    }
                    if feed.peek(room, &broker.counters)?.is_none() {
                        break;
                    }
                    let Some(record) = feed.pop() else { break };
                    let held = Held {
                        record,
                        lane: aside.lane,
                        priority: *priority,
                        is_backlog: false,
                    };
                    self.senders.put(identity.clone(), held);
                }
                let depth = broker.lanes.queue().depth(aside.lane);
                let is_empty = depth.is_none_or(|depth| depth.records == 0);
                let is_coming = |(sender, held): &(Identity, Held)| sender == identity && held.priority == *priority;
                let is_last = !self.to_move.iter().any(is_coming);
                if is_empty && is_last && self.senders.held_of(aside.lane) == 0 {
                    done.push(LaneName::aside(identity.clone(), *priority));
                }
            }
        }
        done.iter().for_each(|name| self.remove_aside(broker, name));
        Ok(())
    }

    fn remove_aside(&mut self, broker: &Broker, name: &LaneName) {
        let Some(identity) = &name.aside else { return };
        if let Err(error) = broker.lanes.remove(name) {
            tracing::debug!(lane = %name, %error, "a lane that is done could not be removed; tried again");
            return;
        }
        if let Some(lanes) = self.aside.senders.get_mut(identity) {
            lanes.remove(&name.priority);
            if lanes.is_empty() {
                self.aside.senders.remove(identity);
                tracing::info!(%identity, "all that was set aside is done");
            }
        }
        self.aside.is_exhausted = false;
    }

    /// When somebody may have to be set aside next.
    pub(super) fn next_stall(&self, now: Instant) -> Option<Instant> {
        self.senders.next_stall(now, PATIENCE)
    }

    /// Takes note of the lanes that are there.
    pub(super) fn know_aside(&mut self, name: LaneName, lane: LaneId) {
        if let (Sink::Upstream, Some(sender)) = (name.endpoint, name.aside) {
            self.aside.know(sender, name.priority, lane);
        }
    }
}
