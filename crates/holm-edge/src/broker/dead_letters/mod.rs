//! Messages that can't reach their destination, kept with the reason until somebody looks.
//!
//! ```text
//!   forwarder, inbox, quota ──bury──> waiting ──> lane `dead-letters`, on disk ──> acknowledged in the lane it was in
//!                                                   │ list, show, purge
//!                                                   '── resend ──> the endpoint that it was for
//! ```
//!
//! - A dead letter is on disk before the message is acknowledged where it was: a crash makes a second letter, never none.
//! - Kept is everything that was stored and ends anywhere but at its destination, but for what has expired (that is what its
//!   time-to-live is for) and records whose bytes are damaged (there is nothing to keep); those are counted only.
//! - Bounded: [`MAX_BYTES`], or an eighth of the queue's quota, and [`MAX_AGE`]; the oldest go, and are counted. At most
//!   [`MAX_WAITING`] wait for a disk that refuses; those beyond are gone, counted and told.

mod letter;
mod store;

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use holm_query::Sink;
use holm_queue::{AppendError, LaneError, LaneId, LaneKind, NewRecord, Queue, ReadError, Record, Start, Visibility};
use tokio::sync::Notify;

use super::{Broker, Depth, lock, rehome};
use letter::Heading;
pub use letter::{DeadLetter, Reason};
pub use store::DeadLetterError;

/// The name of the lane.
pub(super) const LANE: &str = "dead-letters";
/// The most bytes that are kept.
const MAX_BYTES: u64 = 16 << 20;
/// How long one is kept.
const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Letters that are not on disk yet.
const MAX_WAITING: usize = 1000;
/// Letters appended before it is waited for the disk.
const BATCH: usize = 256;
/// How often a disk that refuses is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A message to be kept.
#[derive(Debug)]
pub(super) struct Burial {
    pub(super) record: Record,
    pub(super) lane: LaneId,
    pub(super) endpoint: Sink,
    pub(super) priority: u32,
    pub(super) reason: Reason,
    /// What exactly went wrong.
    pub(super) detail: String,
}

/// The store.
#[derive(Debug, Default)]
pub(super) struct DeadLetters {
    lane: OnceLock<LaneId>,
    /// Held for list operations.
    waiting: Mutex<VecDeque<Burial>>,
    wake: Notify,
    written: Notify,
}

impl DeadLetters {
    /// The store of a queue, which may have none yet.
    pub(super) fn open(queue: &Queue) -> Self {
        let known = queue.lanes().into_iter().find(|lane| lane.name == LANE);
        Self {
            lane: known.map_or_else(OnceLock::new, |lane| lane.id.into()),
            ..Self::default()
        }
    }

    fn lane(&self) -> Option<LaneId> {
        self.lane.get().copied()
    }

    async fn ensure(&self, queue: &Queue) -> Result<LaneId, LaneError> {
        loop {
            if let Some(lane) = self.lane() {
                return Ok(lane);
            }
            match queue.lane(LANE, LaneKind::UntilAcknowledged) {
                Ok(lane) => return Ok(*self.lane.get_or_init(|| lane)),
                Err(LaneError::Append(AppendError::Busy { .. })) => queue.room().await,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Broker {
    /// Keeps a message that has come to its end, and acknowledges it where it was when that is on disk.
    pub(super) fn bury(&self, burial: Burial) {
        self.counters.dead_letters.count();
        let mut waiting = lock(&self.dead_letters.waiting);
        if waiting.len() < MAX_WAITING {
            waiting.push_back(burial);
            drop(waiting);
            self.dead_letters.wake.notify_one();
            return;
        }
        drop(waiting);
        self.counters.dead_letters_lost.count();
        tracing::error!(offset = %burial.record.offset, reason = %burial.reason, "a dead letter could not be kept: the disk refuses, and too many wait");
        self.settle(&burial);
    }

    /// What the store holds.
    pub(super) fn dead_letter_depth(&self) -> Depth {
        let depth = self.dead_letters.lane().and_then(|lane| self.lanes.queue().depth(lane));
        let depth = depth.unwrap_or_default();
        Depth {
            messages: depth.records,
            bytes: depth.bytes,
        }
    }

    /// How many are not on disk yet.
    pub(super) fn burials(&self) -> usize {
        lock(&self.dead_letters.waiting).len()
    }

    /// Waits until all are on disk, but not for a disk that refuses.
    pub(super) async fn all_buried(&self) {
        self.fewer_wait(1).await;
    }

    /// Waits until a dead letter more can wait for the disk, but not for a disk that refuses.
    pub(super) async fn room_for_dead_letters(&self) {
        self.fewer_wait(MAX_WAITING).await;
    }

    async fn fewer_wait(&self, than: usize) {
        let fewer = async {
            loop {
                let mut written = std::pin::pin!(self.dead_letters.written.notified());
                written.as_mut().enable();
                if self.burials() < than {
                    return;
                }
                written.await;
            }
        };
        if tokio::time::timeout(RETRY, fewer).await.is_err() {
            tracing::debug!("dead letters wait for the disk");
        }
    }

    fn settle(&self, burial: &Burial) {
        let position = burial.record.position;
        if let Err(error) = self.lanes.queue().acknowledge(burial.lane, position..position + 1) {
            tracing::warn!(%error, "a dead letter could not be marked as done where it was; it may be kept twice");
        }
    }

    /// Writes dead letters as they come, and lets go of old ones.
    pub(super) async fn keep_dead_letters(&self) {
        loop {
            while let Err(error) = self.write_dead_letters().await {
                tracing::warn!(%error, "dead letters can't be written; trying again");
                tokio::time::sleep(RETRY).await;
            }
            self.dead_letters.wake.notified().await;
        }
    }

    /// Writes what waits. One leaves the list only when it is on disk.
    async fn write_dead_letters(&self) -> Result<(), LaneError> {
        let queue = self.lanes.queue();
        while self.burials() > 0 {
            let lane = self.dead_letters.ensure(queue).await?;
            let mut pending = Vec::new();
            while pending.len() < BATCH {
                let Some((sender, payload)) = self.nth_letter(pending.len()) else {
                    break;
                };
                let lanes = [(lane, 0)];
                let letter = NewRecord {
                    sender: &sender,
                    lanes: &lanes,
                    enqueued_at: self.millis(),
                    payload,
                };
                match queue.append_in_place(&letter) {
                    Ok(appended) => pending.push(appended),
                    Err(AppendError::Busy { .. }) if pending.is_empty() => queue.room().await,
                    Err(AppendError::Busy { .. }) => break,
                    Err(error) if pending.is_empty() => return Err(LaneError::Append(error)),
                    Err(_) => break,
                }
            }
            for appended in pending {
                rehome::durable(queue.clone(), appended).await;
                let written = lock(&self.dead_letters.waiting).pop_front();
                if let Some(burial) = written {
                    self.settle(&burial);
                }
                self.dead_letters.written.notify_waiters();
            }
            self.trim_dead_letters();
        }
        Ok(())
    }

    fn nth_letter(&self, index: usize) -> Option<(String, bytes::Bytes)> {
        let waiting = lock(&self.dead_letters.waiting);
        let burial = waiting.get(index)?;
        Some((
            burial.record.sender().to_owned(),
            Heading::of(burial).join(&burial.record.payload()),
        ))
    }

    /// Lets go of the oldest while there are too many bytes, or they are too old.
    pub(super) fn trim_dead_letters(&self) {
        let Some(lane) = self.dead_letters.lane() else { return };
        if let Err(error) = self.trim_lane(lane) {
            tracing::warn!(%error, "old dead letters stay for now");
        }
    }

    fn trim_lane(&self, lane: LaneId) -> Result<(), ReadError> {
        let queue = self.lanes.queue();
        let quota = self.routes.current().and_then(|table| table.quota.max_bytes);
        let most = quota.map_or(MAX_BYTES, |quota| MAX_BYTES.min(quota / 8));
        let eldest = self
            .millis()
            .saturating_sub(u64::try_from(MAX_AGE.as_millis()).unwrap_or(u64::MAX));
        let mut reader = queue.reader(lane, Start::LowWater, Visibility::Appended)?;
        loop {
            let is_too_much = queue.depth(lane).is_some_and(|depth| depth.bytes > most);
            let oldest = reader.try_read(1, 1)?;
            let Some(oldest) = oldest
                .first()
                .filter(|oldest| is_too_much || oldest.enqueued_at < eldest)
            else {
                return Ok(());
            };
            self.counters.dead_letters_dropped.count();
            if queue.acknowledge(lane, oldest.position..oldest.position + 1).is_err() {
                return Ok(());
            }
        }
    }
}
