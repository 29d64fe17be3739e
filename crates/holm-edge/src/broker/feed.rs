//! One lane as it is read: a few records ahead, and what was passed over on the way.

use holm_queue::{LaneId, Queue, ReadError, Reader, Record, Start, Visibility};
use std::collections::{BTreeSet, VecDeque};

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
        Self::open_at(queue, lane, priority, (Start::LowWater, sees))
    }

    fn open_at(
        queue: &Queue,
        lane: LaneId,
        priority: u32,
        (start, sees): (Start, Visibility),
    ) -> Result<Self, ReadError> {
        Ok(Self {
            lane,
            priority,
            reader: queue.reader(lane, start, sees)?,
            ahead: VecDeque::new(),
        })
    }

    /// The next record, without taking it; reads at most `most` records if none is at hand.
    pub(super) fn peek(&mut self, most: usize, counters: &Counters) -> Result<Option<&Record>, ReadError> {
        if self.ahead.is_empty() {
            self.ahead.extend(self.reader.try_read(most.max(1), READ_BYTES)?);
            let skipped = self.reader.take_skipped();
            counters.dropped_unreadable.add(skipped.corrupt);
            if skipped.corrupt > 0 {
                tracing::error!(lane = %self.lane, messages = skipped.corrupt, "stored messages are damaged and lost");
            }
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

/// A lane that is forwarded: what is new, and, when that goes first, what waited before it.
///
/// ```text
///   low water ····· acknowledged or held ····· split ········· end
///       └────────── backlog ──────────────────┘ └──── live ────┘
/// ```
#[derive(Debug)]
pub(super) struct Source {
    pub(super) live: Feed,
    backlog: Option<Backlog>,
}

#[derive(Debug)]
struct Backlog {
    feed: Feed,
    /// Where what is live began.
    until: u64,
    /// What was held when it began.
    skip: BTreeSet<u64>,
}

impl Source {
    /// All of a lane, in order.
    pub(super) fn open(queue: &Queue, lane: LaneId, priority: u32) -> Result<Self, ReadError> {
        Ok(Self {
            live: Feed::open(queue, lane, priority, Visibility::Durable)?,
            backlog: None,
        })
    }

    /// Makes all that is there now a backlog, of which `held` was read before.
    pub(super) fn split(&mut self, queue: &Queue, held: BTreeSet<u64>) -> Result<(), ReadError> {
        let (lane, priority) = (self.live.lane, self.live.priority);
        let Some(bounds) = queue.lane_bounds(lane) else {
            return Ok(());
        };
        let until = bounds.durable_next;
        let start = (Start::Position(until), Visibility::Durable);
        let backlog = Feed::open(queue, lane, priority, Visibility::Durable)?;
        self.live = Feed::open_at(queue, lane, priority, start)?;
        self.backlog = Some(Backlog {
            feed: backlog,
            until,
            skip: held,
        });
        Ok(())
    }

    /// The next record of the backlog.
    pub(super) fn next_of_backlog(&mut self, most: usize, counters: &Counters) -> Result<Option<Record>, ReadError> {
        let Some(backlog) = &mut self.backlog else {
            return Ok(None);
        };
        while let Some(record) = backlog.feed.peek(most, counters)? {
            if record.position >= backlog.until {
                break;
            }
            let record = backlog.feed.pop();
            let is_held = record
                .as_ref()
                .is_some_and(|record| backlog.skip.remove(&record.position));
            if !is_held {
                return Ok(record);
            }
        }
        self.backlog = None;
        Ok(None)
    }

    /// What there is to wait for.
    pub(super) fn feeds(&mut self, with_backlog: bool) -> impl Iterator<Item = &mut Feed> {
        let backlog = self.backlog.as_mut().filter(|_| with_backlog);
        backlog
            .map(|backlog| &mut backlog.feed)
            .into_iter()
            .chain([&mut self.live])
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
