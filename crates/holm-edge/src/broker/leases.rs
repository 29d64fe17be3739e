//! Which deliveries are in whose hands, and which came back.
//!
//! ```text
//!   lane --take--> leased --complete, reject--> gone
//!                    |--released, session closed--> returned --taken first, in their order--> leased
//!                    '--abandon--> abandoned --taken after a pause that grows--> leased
//!                             '--too often--> rejected
//! ```
//!
//! Invariant: what came back keeps its place: by urgency, then in the order of arrival. So the order per sender and priority
//! is that of first arrivals, and nothing is lost by a connection that breaks.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use holm_gateway::SessionId;
use holm_queue::{LaneId, Offset, Record};

use super::abandoned;
use super::figures::Way;

/// Deliveries of one module that may wait for their pause to be over: they are in memory.
const MAX_ABANDONED: usize = 256;

/// A delivery that is not settled.
#[derive(Clone, Debug)]
pub(super) struct Leased {
    pub(super) record: Record,
    pub(super) lane: LaneId,
    pub(super) priority: u32,
    pub(super) input: Arc<str>,
    /// Whether it was in somebody's hands before.
    pub(super) redelivered: bool,
    /// How often it was abandoned.
    pub(super) abandoned: u32,
    /// Since when it is in somebody's hands, and where that is counted.
    pub(super) handed: Option<(Instant, Way)>,
}

impl Leased {
    pub(super) const fn place(&self) -> (u32, Offset) {
        (self.priority, self.record.offset)
    }
}

/// The deliveries of one module that are not settled.
#[derive(Debug, Default)]
pub(super) struct Leases {
    last: u64,
    /// By lease, which are given in order and mostly end so.
    out: BTreeMap<u64, (SessionId, Leased)>,
    returned: BTreeMap<((u32, Offset), LaneId), Leased>,
    /// By when they are due.
    abandoned: BTreeMap<(tokio::time::Instant, u64), Leased>,
}

impl Leases {
    /// Gives a delivery to a session under a new lease.
    pub(super) fn lease(&mut self, session: SessionId, delivery: Leased) -> u64 {
        self.last += 1;
        self.out.insert(self.last, (session, delivery));
        self.last
    }

    /// Ends a lease.
    pub(super) fn end(&mut self, session: SessionId, lease: u64) -> Option<Leased> {
        match self.out.entry(lease) {
            Entry::Occupied(held) if held.get().0 == session => Some(held.remove().1),
            _ => None,
        }
    }

    /// Keeps a delivery for later. Gives back one that was abandoned too often.
    pub(super) fn abandon(&mut self, mut delivery: Leased) -> Option<Leased> {
        delivery.redelivered = true;
        delivery.abandoned += 1;
        let Some(pause) = abandoned::pause(delivery.abandoned) else {
            return Some(delivery);
        };
        self.last += 1;
        self.abandoned
            .insert((tokio::time::Instant::now() + pause, self.last), delivery);
        None
    }

    /// Puts a delivery back into its place.
    pub(super) fn give_back(&mut self, mut delivery: Leased) {
        delivery.redelivered = true;
        self.returned.insert((delivery.place(), delivery.lane), delivery);
    }

    /// Takes back what a session holds. Says whether that was anything.
    pub(super) fn close(&mut self, session: SessionId) -> bool {
        let (held, others) = std::mem::take(&mut self.out)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, (holder, _))| *holder == session);
        self.out = others;
        let any = !held.is_empty() || !self.abandoned.is_empty();
        let held = held.into_values().map(|(_, delivery)| delivery);
        for delivery in held.chain(std::mem::take(&mut self.abandoned).into_values()) {
            self.give_back(delivery);
        }
        any
    }

    /// Where the first of those that came back stands.
    pub(super) fn first_returned(&self) -> Option<(u32, Offset)> {
        self.returned.keys().next().map(|(place, _)| *place)
    }

    /// Takes the first of those that came back.
    pub(super) fn take_returned(&mut self) -> Option<Leased> {
        self.returned.pop_first().map(|(_, delivery)| delivery)
    }

    /// Takes one that was abandoned and is due.
    pub(super) fn take_abandoned(&mut self) -> Option<Leased> {
        let first = self.abandoned.first_entry()?;
        (first.key().0 <= tokio::time::Instant::now()).then(|| first.remove())
    }

    /// When the next of those is due that were abandoned.
    pub(super) fn next_due(&self) -> Option<tokio::time::Instant> {
        self.abandoned.keys().next().map(|(due, _)| *due)
    }

    /// Whether as many are abandoned as may be: no others are given out until one of them is due.
    pub(super) fn has_too_many(&self) -> bool {
        self.abandoned.len() >= MAX_ABANDONED
    }

    /// How many deliveries are in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.out.len() + self.returned.len() + self.abandoned.len()
    }
}
