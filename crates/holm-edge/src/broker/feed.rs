//! One lane as it is read: a few records ahead, and what was passed over on the way.

use holm_queue::{LaneId, Queue, ReadError, Reader, Record, Start, Visibility};
use std::collections::VecDeque;

use super::counters::Counters;

/// Bytes read at a time. Small: what is read ahead is memory.
const READ_BYTES: usize = 256 << 10;

/// A lane that is being read.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) lane: LaneId,
    pub(super) priority: u32,
    reader: Reader,
    ahead: VecDeque<Record>,
}

impl Feed {
    /// Begins at the first record that is not acknowledged.
    pub(super) fn open(queue: &Queue, lane: LaneId, priority: u32, sees: Visibility) -> Result<Self, ReadError> {
        Ok(Self {
            lane,
            priority,
            reader: queue.reader(lane, Start::LowWater, sees)?,
            ahead: VecDeque::new(),
        })
    }

    /// The next record, without taking it; reads at most `most` records if none is at hand.
    pub(super) fn peek(&mut self, most: usize, counters: &Counters) -> Result<Option<&Record>, ReadError> {
        if self.ahead.is_empty() {
            self.ahead.extend(self.reader.try_read(most.max(1), READ_BYTES)?);
            let skipped = self.reader.take_skipped();
            counters.dropped_unreadable.add(skipped.corrupt);
        }
        Ok(self.ahead.front())
    }

    /// Takes what [`Feed::peek`] showed.
    pub(super) fn pop(&mut self) -> Option<Record> {
        self.ahead.pop_front()
    }

    /// Waits until there is something to take. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<(), ReadError> {
        if self.ahead.is_empty() {
            self.reader.wait().await
        } else {
            Ok(())
        }
    }
}

/// Waits until one of the feeds has something to take; for ever when there are none. Cancel-safe.
pub(super) async fn wait_any(feeds: impl Iterator<Item = &mut Feed>) -> Result<(), ReadError> {
    let waiting: Vec<_> = feeds.map(|feed| Box::pin(feed.wait())).collect();
    if waiting.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(waiting).await.0
}

/// Whether a record's time in its lane is over.
pub(super) const fn is_expired(record: &Record, now: u64) -> bool {
    record.expires_at != 0 && record.expires_at <= now
}
