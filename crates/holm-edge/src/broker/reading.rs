//! What the forwarder reads, in which order, and how far ahead.
//!
//! ```text
//!   lanes, most urgent first ─ live, then backlog ─ as there is room ─> senders, or aside
//! ```
//!
//! Invariant: a lane never waits for room that a less urgent one has taken, nor what is live for what is a backlog.

use holm_model::Identity;
use holm_model::manifest::ForwardOrder;
use holm_query::Sink;
use holm_queue::{LaneId, ReadError, Record};

use super::Broker;
use super::dead_letters::{Burial, Reason};
use super::feed::Source;
use super::forward::{Forwarder, LOOK_AHEAD, MAX_HELD_BYTES};
use super::senders::{Held, Senders};

impl Forwarder {
    /// Takes note of lanes that were made.
    pub(super) fn open_lanes(&mut self, broker: &Broker) -> Result<(), ReadError> {
        if !self.lanes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.lanes.borrow_and_update();
        for (name, lane) in broker.lanes.all() {
            if name.endpoint != Sink::Upstream {
                continue;
            }
            if name.aside.is_some() {
                self.know_aside(name, lane);
            } else if self.sources.iter().all(|source| source.live.lane != lane) {
                let source = Source::open(broker.lanes.queue(), lane, name.priority)?;
                self.sources.push(source);
            }
        }
        self.sources.sort_by_key(|source| source.live.priority);
        Ok(())
    }

    /// When the link comes up and what is new shall go first, all that waits is a backlog from then on.
    pub(super) fn order(&mut self, broker: &Broker) -> Result<(), ReadError> {
        let is_up = broker.links.is_up();
        let came_up = is_up && !std::mem::replace(&mut self.was_up, is_up);
        let order = broker.routes.current().map(|table| table.order).unwrap_or_default();
        if !came_up || order == ForwardOrder::OldestFirst {
            return Ok(());
        }
        for source in &mut self.sources {
            let lane = source.live.lane;
            self.senders.make_backlog(lane);
            source.split(broker.lanes.queue(), self.senders.positions(lane))?;
        }
        Ok(())
    }

    /// Reads ahead, most urgent lanes first.
    pub(super) fn read(&mut self, broker: &Broker) -> Result<(), ReadError> {
        let count = self.sources.len();
        for index in 0..count {
            while let Some((record, is_backlog)) = self.next_of(index, broker)? {
                self.take(broker, index, record, is_backlog);
            }
        }
        Ok(())
    }

    fn next_of(&mut self, index: usize, broker: &Broker) -> Result<Option<(Record, bool)>, ReadError> {
        let limit = limit(index, self.sources.len());
        let Some(source) = self.sources.get_mut(index) else {
            return Ok(None);
        };
        let room = Room::of(&self.senders, source.live.lane, limit);
        if room.live > 0
            && source.live.peek(room.live, &broker.counters)?.is_some()
            && let Some(record) = source.live.pop()
        {
            return Ok(Some((record, false)));
        }
        if room.backlog == 0 {
            return Ok(None);
        }
        let record = source.next_of_backlog(room.backlog, &broker.counters)?;
        Ok(record.map(|record| (record, true)))
    }

    fn take(&mut self, broker: &Broker, index: usize, record: Record, is_backlog: bool) {
        let Some(source) = self.sources.get(index) else { return };
        let (lane, priority) = (source.live.lane, source.live.priority);
        let Ok(sender) = record.sender().parse::<Identity>() else {
            broker.counters.dropped_unknown_sender.count();
            return broker.bury(Burial {
                record,
                lane,
                endpoint: Sink::Upstream,
                priority,
                reason: Reason::UnknownSender,
                detail: "its sender is no identity".to_owned(),
            });
        };
        let held = Held {
            record,
            lane,
            priority,
            is_backlog,
        };
        if self.aside.is_aside(&sender, priority) {
            self.senders.hold(&held);
            self.to_move.push_back((sender, held));
        } else {
            self.senders.put(sender, held);
        }
    }
}

/// How many messages may be read of a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) live: usize,
    /// Half as many, so that what is new never waits for what is old.
    pub(super) backlog: usize,
}

impl Room {
    pub(super) fn of(senders: &Senders, lane: LaneId, limit: usize) -> Self {
        let (held, bytes) = (senders.held_of(lane), senders.total().bytes);
        let room = |most: usize, limit: usize| if bytes < limit { most.saturating_sub(held) } else { 0 };
        Self {
            live: room(LOOK_AHEAD, limit),
            backlog: room(LOOK_AHEAD / 2, limit / 2),
        }
    }
}

/// Bytes that may be held when a lane is read on; the most urgent of `count` is the first. The others leave it room, so that
/// it never waits for them.
pub(super) fn limit(index: usize, count: usize) -> usize {
    let half = MAX_HELD_BYTES / 2;
    half + half.checked_div(count).unwrap_or(0) * (count - index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_urgent_lanes_always_have_room_that_less_urgent_ones_leave() {
        for count in 1..=11 {
            let limits: Vec<_> = (0..count).map(|index| limit(index, count)).collect();

            assert!(limits[0] <= MAX_HELD_BYTES);
            assert!(limits.windows(2).all(|pair| pair[0] > pair[1]), "{limits:?}");
        }
        assert_eq!(limit(0, 1), MAX_HELD_BYTES);
    }
}
