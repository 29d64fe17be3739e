//! The synchronous core: a log that is told what to do and when, and decides everything.
//!
//! ```text
//!  append, acknowledge ──> Log ──begin_commit──> Batch ──write (no lock needed)──> finish_commit ──> durable
//!                           │
//!                           ├─plan_read──> ReadPlan ──fetch (no lock needed)──> settle_read ──> records
//!                           └─maintain, begin_move──> Mover ──step (no lock needed)──> finish_move
//! ```
//!
//! What waits for a disk is a value of its own that needs no access to the log, so a shell keeps its lock short. One batch
//! and one mover are out at a time; readers as many as there are.
//!
//! Invariants: bytes reach the journal in the order of the appends; what is durable is a prefix of what was appended; a
//! segment is removed only when what made it unneeded is durable itself; the next segment is written only after the one
//! before is synced.

mod append;
mod commit;
mod fetch;
mod format_file;
mod lane_segments;
mod moving;
mod read;
mod reclaim;
mod recovery;
mod replay;
mod report;
mod rescue;
mod reserve;
mod segment;
mod segment_reader;

pub use commit::{Batch, WriteError, Written};
pub use fetch::{Fetch, Fetched, ReadBuffer};
pub use moving::Mover;
pub use read::{Cursor, Passed, ReadPlan};
pub use report::{Lost, OpenReport, PulledBack, Stats};
pub use reserve::ReserveWrite;

pub(crate) use reclaim::remove_files;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;

use crate::error::AppendError;
use crate::file_system::{FileLock, FileSystem};
use crate::lane::{Lane, LaneBounds, LaneDepth, LaneId, LaneInfo};
use crate::options::Options;
use reserve::Reserve;
use segment::Segment;

/// Whether commits succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last commit succeeded.
    Good,
    /// The disk was full at the last commit. What waits is written again as it stands.
    Full,
    /// The last commit failed otherwise. What waits goes to a fresh segment.
    Failing(String),
}

/// How many segments a queue of limited size has, at least.
const SEGMENTS_OF_LIMIT: u64 = 16;
/// No segment is made smaller than this.
const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// Acknowledged positions that wait for an append, at most: the duplicates after a crash. A sync for so many costs each of them
/// four bytes of the device.
const MOST_UNLOGGED: u64 = 1024;

impl Health {
    /// Whether appends are taken.
    ///
    /// # Errors
    /// What an append is told: [`AppendError::DiskFull`] or [`AppendError::Failing`].
    pub fn check(&self) -> Result<(), AppendError> {
        match self {
            Self::Good => Ok(()),
            Self::Full => Err(AppendError::DiskFull),
            Self::Failing(reason) => Err(AppendError::Failing { reason: reason.clone() }),
        }
    }
}

/// A queue directory, opened.
pub struct Log {
    options: Options,
    /// What the options said at opening.
    segment_bytes: u64,
    files: Arc<dyn FileSystem>,
    salt: u64,
    health: Health,
    /// The high half of offsets; the number of a segment that was durable before the first of them was given out.
    epoch: u32,
    /// The low half of the next offset; one more than fits when the epoch is used up.
    sequence: u64,
    next_number: u64,
    lanes: BTreeMap<LaneId, Lane>,
    next_lane: u32,
    /// Oldest first; the last one takes the appends.
    journal: VecDeque<Segment>,
    /// Each lane's own segments, oldest first. Positions in them are below those that the lane still needs of the journal.
    moved: BTreeMap<LaneId, VecDeque<Segment>>,
    /// The newest bytes of the newest segment, not yet a chunk.
    buffer: BytesMut,
    /// Bytes appended and not durable.
    uncommitted: u64,
    /// Bytes in chunks.
    hot: u64,
    /// Bytes on disk.
    disk_bytes: u64,
    /// Counts changes of progress, so that the reserve knows whether it is up to date.
    progress_version: u64,
    /// Positions acknowledged that are in no entry yet.
    unlogged: u64,
    /// The last append was refused for the queue's size: space is wanted back at once.
    is_short: bool,
    /// Every segment is to be looked at, not only the oldest.
    look_for_dead: bool,
    /// Files that nothing needs any more.
    garbage: Vec<String>,
    /// A removed source of moved records may reappear after a crash until its directory is synced.
    removal_unsynced: bool,
    /// A mover is out and may be writing to the newest of a lane's own segments.
    moving: bool,
    reserve: Reserve,
    stats: Stats,
    _lock: Box<dyn FileLock>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("path", &self.files.path())
            .field("health", &self.health)
            .field("lanes", &self.lanes.len())
            .field("segments", &self.journal.len())
            .field("uncommitted", &self.uncommitted)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Whether commits succeed.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Whether a commit has something to do.
    #[must_use]
    pub fn needs_commit(&self) -> bool {
        self.is_pressing() || self.unlogged > 0
    }

    /// Whether that can't wait for the next append, as acknowledgements alone can: a crash that forgets them makes duplicates,
    /// and a sync for each wears out the flash. They can't when there are many, when the space that they give back is wanted,
    /// or when the disk has refused and the reserve is to know of them.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        let is_hurried = self.unlogged >= MOST_UNLOGGED || self.is_short || self.health != Health::Good;
        self.uncommitted > 0 || self.look_for_dead || (self.unlogged > 0 && is_hurried)
    }

    /// Whether an append of any allowed size is taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.uncommitted < self.options.max_uncommitted_bytes
    }

    /// All lanes, by id.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneInfo> {
        let info = |(&id, lane): (&LaneId, &Lane)| LaneInfo {
            id,
            name: lane.name.clone(),
            kind: lane.kind,
        };
        self.lanes.iter().map(info).collect()
    }

    /// The first position of the lane that is not acknowledged; `None` if the lane is not defined.
    #[must_use]
    pub fn low_water(&self, lane: LaneId) -> Option<u64> {
        self.lanes.get(&lane).map(|lane| lane.progress.low_water())
    }

    /// What a reader of the lane can ask for; `None` if the lane is not defined.
    #[must_use]
    pub fn lane_bounds(&self, lane: LaneId) -> Option<LaneBounds> {
        let lane = self.lanes.get(&lane)?;
        let (next, durable_next) = (lane.next, lane.durable_next);
        Some(LaneBounds {
            first: lane.progress.low_water(),
            next,
            durable_next,
            last_enqueued: lane.last_enqueued,
        })
    }

    /// What waits in the lane; `None` if it is not defined.
    #[must_use]
    pub fn depth(&self, lane: LaneId) -> Option<LaneDepth> {
        let state = self.lanes.get(&lane)?;
        let own = self.moved.get(&lane).into_iter().flatten();
        let journal = self.journal.iter().filter(|segment| !segment.moved);
        let needed = |segment: &Segment| {
            let mut needed = segment.needed(|id| (id == lane).then_some(&state.progress));
            needed.next().map_or(0, |(_, _, bytes)| bytes)
        };
        let bytes = own.map(needed).sum::<u64>() + journal.map(needed).sum::<u64>();
        Some(LaneDepth {
            records: state.progress.open_below(state.next),
            bytes,
        })
    }

    /// Counters since opening, and sizes now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let moved: usize = self.moved.values().map(VecDeque::len).sum();
        Stats {
            segments: (self.journal.len() + moved) as u64,
            disk_bytes: self.disk_bytes,
            uncommitted_bytes: self.uncommitted,
            hot_bytes: self.hot,
            ..self.stats
        }
    }

    /// Whether there are files to be removed, or the journal's directory to be synced.
    #[must_use]
    pub fn has_garbage(&self) -> bool {
        !self.garbage.is_empty() || self.removal_unsynced
    }

    /// Takes the list of files that nothing needs any more. The caller removes them, syncs `journal` if
    /// [`Self::needs_directory_sync`], and says so with [`Self::garbage_removed`].
    #[must_use]
    pub fn take_garbage(&mut self) -> Vec<String> {
        std::mem::take(&mut self.garbage)
    }

    /// Whether the journal's directory must be synced before more records are moved.
    #[must_use]
    pub fn needs_directory_sync(&self) -> bool {
        self.removal_unsynced
    }

    /// Says that garbage was removed, which files could not be, and whether the journal's directory was synced.
    pub fn garbage_removed(&mut self, left: Vec<String>, synced: bool) {
        let sources_left = left.iter().any(|name| name.starts_with("journal/"));
        self.garbage.extend(left);
        if synced && !sources_left {
            self.removal_unsynced = false;
        }
    }

    /// The number of the segment that takes the appends.
    #[must_use]
    pub fn newest_segment(&self) -> u64 {
        self.active().number
    }

    /// The file system that this log is kept on.
    #[must_use]
    pub fn file_system(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.files)
    }

    /// Changes the size at which appends are refused. Segments become smaller with it, so that space comes back in parts of
    /// it; they never become larger than they were told to be at opening.
    pub fn set_max_bytes(&mut self, max_bytes: Option<u64>) {
        let max_bytes = max_bytes.into_iter().chain(self.files.capacity()).min();
        self.options.max_bytes = max_bytes;
        let part = max_bytes.map_or(u64::MAX, |max_bytes| max_bytes / SEGMENTS_OF_LIMIT);
        self.options.segment_bytes = self.segment_bytes.min(part.max(MIN_SEGMENT_BYTES));
    }

    /// What the log was told at opening, and since then.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A lane's own segments, then the journal's, oldest first.
    fn segments_of(&self, lane: LaneId) -> impl Iterator<Item = &Segment> {
        self.moved.get(&lane).into_iter().flatten().chain(&self.journal)
    }

    fn segment(&self, stream: crate::format::Stream, number: u64) -> Option<&Segment> {
        let list = match stream {
            crate::format::Stream::Journal => &self.journal,
            crate::format::Stream::Lane(lane) => self.moved.get(&lane)?,
            crate::format::Stream::Reserve => return None,
        };
        let index = list.binary_search_by_key(&number, |segment| segment.number).ok()?;
        list.get(index)
    }
}
