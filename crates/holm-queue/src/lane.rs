//! Lanes: what a record is filed under. A lane is an endpoint and priority at the edge, a partition at the hub.
//!
//! Invariants: positions of a lane are dense, start at 0 and are given out once; a lane's id is never given to another
//! lane; `low water ≤ durable end ≤ next`.

use std::fmt;
use std::time::Duration;

use crate::ranges::{Progress, Ranges};

/// Names a lane within its queue directory. Given out by [`crate::Queue::lane`]; never used again for another lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub(crate) u32);

impl LaneId {
    /// The number as it stands on disk.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How long a lane keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneKind {
    /// Until each is acknowledged or its time-to-live ends.
    UntilAcknowledged,
    /// For a time and up to a size, however often they are read. Trimmed a segment at a time, so up to one segment more
    /// is kept than asked for; at least one of the two should be given, else the lane only grows.
    Retained {
        /// Records older than this go, by their time of enqueueing. `None`: no limit.
        max_age: Option<Duration>,
        /// The oldest records go when the lane holds more bytes than this. `None`: no limit.
        max_bytes: Option<u64>,
    },
}

/// What a lane is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneInfo {
    /// The id to append and read with.
    pub id: LaneId,
    /// The name that it was defined under.
    pub name: String,
    /// How long it keeps its records.
    pub kind: LaneKind,
}

/// What a reader of a lane can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneBounds {
    /// The lowest position that is not acknowledged or trimmed; equal to `next` when the lane is empty.
    pub first: u64,
    /// The position that the next record will get.
    pub next: u64,
    /// The first position that is not yet known to be on disk.
    pub durable_next: u64,
    /// When the newest record was enqueued, in milliseconds since 1970; `None` before the first.
    pub last_enqueued: Option<u64>,
}

/// What waits in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneDepth {
    /// Records not acknowledged. Records lost to damage that no reader has met yet are counted too.
    pub records: u64,
    /// Their bytes on disk: an estimate from the average record of each segment.
    pub bytes: u64,
}

/// A lane's whole state, as a checkpoint carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) kind: LaneKind,
    pub(crate) next: u64,
    pub(crate) durable_next: u64,
    pub(crate) last_enqueued: Option<u64>,
    pub(crate) progress: Progress,
    /// Acknowledged since the last acknowledgement entry was encoded.
    pub(crate) unlogged: Ranges,
}

impl Lane {
    pub(crate) fn new(name: String, kind: LaneKind) -> Self {
        Self {
            name,
            kind,
            next: 0,
            durable_next: 0,
            last_enqueued: None,
            progress: Progress::default(),
            unlogged: Ranges::default(),
        }
    }

    /// Acknowledges `range`, to be logged by the next commit; returns how many positions are new.
    pub(crate) fn acknowledge(&mut self, range: std::ops::Range<u64>) -> u64 {
        let range = range.start.max(self.progress.low_water())..range.end.min(self.next);
        let new = self.progress.acknowledge(range.clone());
        if new > 0 {
            self.unlogged.insert(range);
        }
        new
    }
}
