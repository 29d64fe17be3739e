//! The size of the queue: what happens to a message when there is no room for it.
//!
//! ```text
//!   refuse (default)   the sender is not acknowledged and keeps it; told in log and status
//!   dropOldest         the oldest of the least urgent become dead letters, nothing more urgent than what comes
//! ```
//!
//! The queue gives space back by whole segments, so making room takes as many messages as a segment has.

use std::sync::atomic::{AtomicBool, Ordering};

use holm_model::manifest::WhenFull;
use holm_queue::{LaneId, ReadError, Reader, Record, Start, Visibility};
use serde::Serialize;

use super::Broker;
use super::dead_letters::{Burial, Reason};
use super::lanes::LaneName;

/// Messages that make room before it is looked whether there is some, at most.
const ROUND: usize = 250;
/// The part of the limit that they may have.
const ROUND_PART: u64 = 32;
/// Rounds before a message is refused after all.
const MAX_ROUNDS: usize = 1000;
/// Commits after a round before the next one: space that others' records hold back comes with the fourth or fifth.
const COMMITS: usize = 6;

/// The limit in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quota {
    /// The most bytes on disk; `None`: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// What happens at the limit.
    pub when_full: WhenFull,
}

/// Whether the limit is reached, and whose turn it is to make room.
#[derive(Debug, Default)]
pub(super) struct QuotaState {
    is_full: AtomicBool,
    turn: tokio::sync::Mutex<()>,
}

impl QuotaState {
    pub(super) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

impl Broker {
    pub(super) fn quota(&self) -> Quota {
        self.routes.current().map(|table| table.quota).unwrap_or_default()
    }

    /// The queue has taken a message in.
    pub(super) fn has_room(&self) {
        if self.quota_state.is_full() && self.quota_state.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("the message queue has room again");
        }
    }

    /// The queue is at its limit and takes nothing in. Says whether there is room now.
    pub(super) async fn make_room(&self, bytes: u64, most_urgent: u32) -> bool {
        let quota = self.quota();
        if !self.quota_state.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(max_bytes = quota.max_bytes, when_full = ?quota.when_full, "the message queue has reached its limit");
        }
        if quota.when_full == WhenFull::Refuse {
            return false;
        }
        let _turn = self.quota_state.turn.lock().await;
        for _ in 0..MAX_ROUNDS {
            if self.fits(bytes) {
                return true;
            }
            match self.drop_round(most_urgent) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "no room could be made in the message queue");
                    return false;
                }
            }
            self.space_comes_back(bytes).await;
        }
        false
    }

    fn fits(&self, bytes: u64) -> bool {
        let stats = self.lanes.queue().stats();
        let held = stats.disk_bytes + stats.uncommitted_bytes + bytes;
        self.quota().max_bytes.is_none_or(|max_bytes| held <= max_bytes)
    }

    /// Waits until what was dropped is off the disk, or nothing more comes of it: other lanes may need the same segments.
    async fn space_comes_back(&self, bytes: u64) {
        self.all_buried().await;
        for _ in 0..COMMITS {
            self.lanes.queue().maintain();
            if self.lanes.queue().flush().await.is_err() || self.fits(bytes) {
                return;
            }
        }
    }

    /// Drops the oldest of the least urgent, as many as a round has. Says how many.
    fn drop_round(&self, most_urgent: u32) -> Result<usize, ReadError> {
        let queue = self.lanes.queue();
        let mut lanes: Vec<_> = self.lanes.all();
        let has_some = |lane: LaneId| queue.depth(lane).is_some_and(|depth| depth.records > 0);
        lanes.retain(|(name, lane)| name.priority >= most_urgent && has_some(*lane));
        let Some(least_urgent) = lanes.iter().map(|(name, _)| name.priority).max() else {
            return Ok(0);
        };
        let mut victims = Vec::new();
        for (name, lane) in lanes.into_iter().filter(|(name, _)| name.priority == least_urgent) {
            let reader = queue.reader(lane, Start::LowWater, Visibility::Durable)?;
            victims.push(Victim::new(name, lane, reader)?);
        }
        let most_bytes = self.quota().max_bytes.map_or(u64::MAX, |limit| limit / ROUND_PART);
        let (mut dropped, mut bytes) = (0, 0);
        while dropped < ROUND && bytes < most_bytes {
            let oldest = victims
                .iter_mut()
                .filter_map(|victim| Some((victim.enqueued_at()?, victim)));
            let Some((_, oldest)) = oldest.min_by_key(|(at, _)| *at) else {
                break;
            };
            let Some(record) = oldest.take()? else { break };
            bytes += record.payload_len() as u64;
            self.counters.dropped_quota.count();
            self.bury(Burial {
                record,
                lane: oldest.lane,
                endpoint: oldest.name.endpoint.clone(),
                priority: oldest.name.priority,
                reason: Reason::Quota,
                detail: "the message queue was full, and this was the oldest of the least urgent".to_owned(),
            });
            dropped += 1;
        }
        Ok(dropped)
    }
}

/// What has made room for newer messages though somebody has read it: it was counted, is a dead letter, and goes nowhere else.
pub(super) struct Dropped<'b> {
    /// None where nothing makes room.
    broker: Option<&'b Broker>,
    /// The lane of the last question, and its first position that is not settled.
    last: Option<(LaneId, u64)>,
}

impl<'b> Dropped<'b> {
    /// For questions of now.
    pub(super) fn now(broker: &'b Broker) -> Self {
        let makes_room = broker.quota().when_full == WhenFull::DropOldest;
        Self {
            broker: makes_room.then_some(broker),
            last: None,
        }
    }

    /// The first position of a lane that is not settled; `None` where nothing makes room.
    pub(super) fn first_open(&mut self, lane: LaneId) -> Option<u64> {
        let broker = self.broker?;
        match self.last {
            Some((known, open)) if known == lane => Some(open),
            _ => {
                let open = broker.lanes.queue().low_water(lane)?;
                self.last = Some((lane, open));
                Some(open)
            }
        }
    }

    /// Whether this, which nobody has settled who read it, is settled.
    pub(super) fn has(&mut self, lane: LaneId, position: u64) -> bool {
        self.first_open(lane).is_some_and(|open| position < open)
    }
}

/// A lane that messages are dropped from.
struct Victim {
    name: LaneName,
    lane: LaneId,
    reader: Reader,
    next: Option<Record>,
}

impl Victim {
    fn new(name: LaneName, lane: LaneId, mut reader: Reader) -> Result<Self, ReadError> {
        let next = reader.try_read(1, 1)?.pop();
        Ok(Self {
            name,
            lane,
            reader,
            next,
        })
    }

    fn enqueued_at(&self) -> Option<u64> {
        self.next.as_ref().map(|record| record.enqueued_at)
    }

    fn take(&mut self) -> Result<Option<Record>, ReadError> {
        let next = self.reader.try_read(1, 1)?.pop();
        Ok(std::mem::replace(&mut self.next, next))
    }
}
