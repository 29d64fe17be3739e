//! What is read for the node above and not yet acknowledged there, by sender: whose turn it is, what is held, and who can't
//! be sent for.
//!
//! ```text
//!   put ──> waiting ──next──> in flight ──done──> gone
//!             ^                   │
//!             '─────put back──────'
//! ```
//!
//! Invariants: a sender's messages leave in the order of [`Held::place`], and over another connection only when what the one
//! before had has come back; what is held of a lane and in all is what `put` brought and neither `done` nor `forget` took.
//! Nothing here knows a queue, a link or a clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use holm_model::Identity;
use holm_queue::{LaneId, Record};
use tokio::time::Instant;

use super::links::Source;

/// Handed over for one sender before the next one's turn, so that none waits for another's whole window.
pub(super) const TURN: usize = 8;

/// A message between its lane and the node above.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) lane: LaneId,
    pub(super) priority: u32,
    /// From before an outage, while what is new goes first.
    pub(super) is_backlog: bool,
}

impl Held {
    /// By urgency, then in order.
    const fn place(&self) -> Place {
        (self.priority, self.is_backlog, self.record.position)
    }
}

type Place = (u32, bool, u64);

#[derive(Debug, Default)]
struct Sender {
    waiting: BTreeMap<Place, Held>,
    in_flight: usize,
    /// The connection that has what is in flight.
    over: Option<Source>,
    /// Since when it can't be sent for, though there is something to send.
    stalled: Option<Instant>,
    /// Its connection was closed to get back what is in flight.
    is_recalled: bool,
    /// When it last began to have something in flight, or something of it was acknowledged.
    progressed: Option<Instant>,
}

impl Sender {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }
}

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// All senders of which something is held.
#[derive(Debug)]
pub(super) struct Senders {
    all: HashMap<Identity, Sender>,
    /// The positions that are held of each lane.
    held: HashMap<LaneId, BTreeSet<u64>>,
    total: Amount,
    /// No message that waits expires before this, in milliseconds since 1970; the maximum: none expires.
    first_expiry: u64,
    /// When anything was last acknowledged.
    progressed: Option<Instant>,
}

impl Default for Senders {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            held: HashMap::new(),
            total: Amount::default(),
            first_expiry: u64::MAX,
            progressed: None,
        }
    }
}

/// When a record expires; the maximum: never.
const fn expiry_of(record: &Record) -> u64 {
    match record.expires_at {
        0 => u64::MAX,
        at => at,
    }
}

impl Senders {
    /// Takes what was read.
    pub(super) fn put(&mut self, of: Identity, held: Held) {
        self.hold(&held);
        self.first_expiry = self.first_expiry.min(expiry_of(&held.record));
        self.all.entry(of).or_default().waiting.insert(held.place(), held);
    }

    /// Counts a message that is held outside of any sender's turn.
    pub(super) fn hold(&mut self, held: &Held) {
        self.held.entry(held.lane).or_default().insert(held.record.position);
        self.total.messages += 1;
        self.total.bytes += held.record.payload_len();
    }

    /// The most urgent message of a sender, unless so many are in flight, or some over another connection: they come back
    /// first. It is in flight from now on.
    pub(super) fn next(&mut self, of: &Identity, over: Source, window: usize, now: Instant) -> Option<Held> {
        let is_free = |sender: &&mut Sender| sender.in_flight == 0 || sender.over == Some(over);
        let sender = self.all.get_mut(of).filter(|sender| sender.in_flight < window);
        let sender = sender.filter(is_free)?;
        let (_, held) = sender.waiting.pop_first()?;
        if sender.in_flight == 0 {
            sender.progressed = Some(now);
            sender.over = Some(over);
        }
        sender.in_flight += 1;
        Some(held)
    }

    /// A message in flight was not acknowledged: it waits again, in its place.
    pub(super) fn put_back(&mut self, of: &Identity, held: Held) {
        self.landed(of);
        self.first_expiry = self.first_expiry.min(expiry_of(&held.record));
        let sender = self.all.entry(of.clone()).or_default();
        sender.waiting.insert(held.place(), held);
    }

    /// A message is not in flight any more.
    pub(super) fn landed(&mut self, of: &Identity) {
        if let Some(sender) = self.all.get_mut(of) {
            sender.in_flight = sender.in_flight.saturating_sub(1);
        }
    }

    /// A message is not held any more.
    pub(super) fn done(&mut self, held: &Held) {
        let Some(of_lane) = self.held.get_mut(&held.lane) else {
            return;
        };
        if of_lane.remove(&held.record.position) {
            self.total.messages -= 1;
            self.total.bytes -= held.record.payload_len();
        }
        if of_lane.is_empty() {
            self.held.remove(&held.lane);
        }
    }

    /// Takes everything that waits of a sender; it stays held.
    pub(super) fn take_waiting(&mut self, of: &Identity) -> Vec<Held> {
        let waiting = self.all.get_mut(of).map(|sender| std::mem::take(&mut sender.waiting));
        waiting.into_iter().flatten().map(|(_, held)| held).collect()
    }

    /// Lets go of what waits of a sender from these lanes, which have it still.
    pub(super) fn forget(&mut self, of: &Identity, lanes: &[LaneId]) {
        let Some(sender) = self.all.get_mut(of) else { return };
        let forgotten = sender.waiting.extract_if(.., |_, held| lanes.contains(&held.lane));
        let forgotten: Vec<_> = forgotten.map(|(_, held)| held).collect();
        forgotten.iter().for_each(|held| self.done(held));
    }

    /// Lets go of what waits and is settled in its lane by somebody else: what comes before the lane's first position that is
    /// not settled.
    pub(super) fn forget_settled(&mut self, mut first_open: impl FnMut(LaneId) -> Option<u64>) {
        let lanes = self.held.iter().filter_map(|(lane, held)| {
            let open = first_open(*lane)?;
            held.first().is_some_and(|first| *first < open).then_some((*lane, open))
        });
        let lanes: HashMap<_, _> = lanes.collect();
        if lanes.is_empty() {
            return;
        }
        let mut settled = Vec::new();
        for sender in self.all.values_mut() {
            let is_settled = |held: &Held| lanes.get(&held.lane).is_some_and(|open| held.record.position < *open);
            let of_sender = sender.waiting.extract_if(.., |_, held| is_settled(held));
            settled.extend(of_sender.map(|(_, held)| held));
        }
        settled.iter().for_each(|held| self.done(held));
    }

    /// Takes what has expired.
    pub(super) fn take_expired(&mut self, now: u64) -> Vec<Held> {
        if self.first_expiry > now {
            return Vec::new();
        }
        let mut expired = Vec::new();
        self.first_expiry = u64::MAX;
        for sender in self.all.values_mut() {
            let is_over = |held: &Held| super::feed::is_expired(&held.record, now);
            let of_sender = sender.waiting.extract_if(.., |_, held| is_over(held));
            expired.extend(of_sender.map(|(_, held)| held));
            let next = sender.waiting.values().map(|held| expiry_of(&held.record)).min();
            self.first_expiry = self.first_expiry.min(next.unwrap_or(u64::MAX));
        }
        expired
    }

    /// Senders of which anything is held.
    pub(super) fn all(&self) -> Vec<Identity> {
        self.all.keys().cloned().collect()
    }

    /// The priorities of what waits of a sender.
    pub(super) fn priorities(&self, of: &Identity) -> BTreeSet<u32> {
        let waiting = self.all.get(of).into_iter().flat_map(|sender| sender.waiting.keys());
        waiting.map(|(priority, _, _)| *priority).collect()
    }

    /// Senders of which something waits.
    pub(super) fn waiting(&self) -> Vec<Identity> {
        let waiting = self.all.iter().filter(|(_, sender)| !sender.waiting.is_empty());
        waiting.map(|(identity, _)| identity.clone()).collect()
    }

    /// Whether anything of a sender waits.
    pub(super) fn has_waiting(&self, of: &Identity) -> bool {
        self.all.get(of).is_some_and(|sender| !sender.waiting.is_empty())
    }

    /// Forgets senders of which nothing is held.
    pub(super) fn tidy(&mut self) {
        self.all.retain(|_, sender| !sender.is_empty());
    }

    pub(super) fn first_expiry(&self) -> u64 {
        self.first_expiry
    }

    pub(super) fn held_of(&self, lane: LaneId) -> usize {
        self.held.get(&lane).map_or(0, BTreeSet::len)
    }

    /// The positions that are held of a lane.
    pub(super) fn positions(&self, lane: LaneId) -> BTreeSet<u64> {
        self.held.get(&lane).cloned().unwrap_or_default()
    }

    /// What waits of a lane comes after what will be put from now on.
    pub(super) fn make_backlog(&mut self, lane: LaneId) {
        for sender in self.all.values_mut() {
            let late = sender.waiting.extract_if(.., |_, held| held.lane == lane);
            let late: Vec<_> = late.map(|(_, held)| held).collect();
            for held in late {
                let held = Held {
                    is_backlog: true,
                    ..held
                };
                sender.waiting.insert(held.place(), held);
            }
        }
    }

    pub(super) const fn total(&self) -> Amount {
        self.total
    }

    /// A message was acknowledged above, or refused for good.
    pub(super) fn answered(&mut self, of: &Identity, now: Instant) {
        self.landed(of);
        self.progressed = Some(now);
        if let Some(sender) = self.all.get_mut(of) {
            sender.progressed = Some(now);
        }
    }

    /// Whether nothing of a sender was acknowledged for so long, while others' messages were.
    pub(super) fn is_stuck(&self, of: &Identity, now: Instant, patience: Duration) -> bool {
        let sender = self.all.get(of).filter(|sender| sender.in_flight > 0);
        let since = sender.and_then(|sender| sender.progressed);
        since.is_some_and(|since| {
            let is_long = now.saturating_duration_since(since) >= patience;
            is_long && self.progressed.is_some_and(|others| others > since + patience / 2)
        })
    }

    /// Notes since when a sender can't be sent for, now or soon; `None`: it can. Of two moments the earlier one counts.
    pub(super) fn note(&mut self, of: &Identity, stalled: Option<Instant>) {
        if let Some(sender) = self.all.get_mut(of) {
            sender.stalled = match (sender.stalled, stalled) {
                (Some(before), Some(stalled)) => Some(before.min(stalled)),
                (_, stalled) => stalled,
            };
            sender.is_recalled &= stalled.is_some();
        }
    }

    /// Nobody can be sent for now: that is nobody's own fault.
    pub(super) fn excuse_all(&mut self) {
        self.all.values_mut().for_each(|sender| sender.stalled = None);
    }

    /// Senders that could not be sent for so long, and hold so many messages or bytes; any number, if `is_full` says so of a
    /// lane that they hold something of.
    pub(super) fn stalled(
        &self,
        since: Instant,
        share: Amount,
        is_full: impl Fn(LaneId) -> bool,
    ) -> Vec<(Identity, Stall)> {
        let stalled = self.all.iter().filter(|(_, sender)| {
            let long = sender.stalled.is_some_and(|stalled| stalled <= since);
            let bytes = || {
                sender
                    .waiting
                    .values()
                    .map(|held| held.record.payload_len())
                    .sum::<usize>()
            };
            let holds = || {
                sender.waiting.len() + sender.in_flight >= share.messages
                    || bytes() >= share.bytes
                    || sender.waiting.values().any(|held| is_full(held.lane))
                    || (sender.waiting.is_empty() && self.held.keys().any(|lane| is_full(*lane)))
            };
            long && holds()
        });
        let stall = |sender: &Sender| match (sender.in_flight, sender.is_recalled) {
            (0, _) => Stall::Waiting,
            (_, false) => Stall::InFlight,
            (_, true) => Stall::Recalled,
        };
        stalled
            .map(|(identity, sender)| (identity.clone(), stall(sender)))
            .collect()
    }

    /// Notes that what is in flight of a sender comes back.
    pub(super) fn recalled(&mut self, of: &Identity) {
        if let Some(sender) = self.all.get_mut(of) {
            sender.is_recalled = true;
        }
    }

    /// Whether what is in flight of a sender is still to come back.
    pub(super) fn is_recalled(&self, of: &Identity) -> bool {
        let sender = self.all.get(of);
        sender.is_some_and(|sender| sender.is_recalled && sender.in_flight > 0)
    }

    /// When the next sender has been stalled for so long; only those that have not.
    pub(super) fn next_stall(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let ends = self.all.values().filter_map(|sender| Some(sender.stalled? + patience));
        ends.filter(|end| *end > now).min()
    }
}

/// Where the messages of a stalled sender are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// All wait.
    Waiting,
    /// Some are with its connection.
    InFlight,
    /// Some are on their way back.
    Recalled,
}

#[cfg(test)]
mod tests;
