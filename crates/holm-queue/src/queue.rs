//! The handle: what callers share. Every call holds the one lock for as long as it takes to copy a record, never for the
//! disk.

mod shared;

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::{Health, Log, OpenReport, Stats};
use crate::error::{AcknowledgeError, AppendError, CommitError, LaneError, OpenError, ReadError};
use crate::file_system::{Directory, FileSystem};
use crate::lane::{LaneBounds, LaneDepth, LaneId, LaneInfo, LaneKind};
use crate::options::Options;
use crate::pending::{Commit, Pending};
use crate::reader::Reader;
use crate::record::{Appended, NewRecord, Start, Visibility};
use crate::signal::{CommitSignal, Promise, lock};
use crate::writer;

pub(crate) use shared::{Shared, State, WaitingReader};

/// An open queue directory. Clones share it; when the last one goes, the writer commits what waits and the directory is
/// released. Readers do not keep it open.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// use holm_queue::{LaneKind, NewRecord, Options, Queue, Start, Visibility};
///
/// let (queue, _report) = Queue::open(directory.path(), Options::default())?;
/// let lane = queue.lane("upstream", LaneKind::UntilAcknowledged)?;
/// let lanes = [(lane, 0)];
/// let record = NewRecord { sender: "pump", lanes: &lanes, enqueued_at: 1_700_000_000_000, payload: "42".into() };
/// queue.append(&record)?.wait()?;
///
/// let mut reader = queue.reader(lane, Start::LowWater, Visibility::Durable)?;
/// for record in reader.try_read(100, 1 << 20)? {
///     assert_eq!(record.payload(), "42");
///     queue.acknowledge(lane, record.position..record.position + 1)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queue {
    owner: Arc<Owner>,
}

/// Ends the writer when the last handle goes.
struct Owner {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Queue {
    /// Opens the queue in a directory, or makes one, with the directory, if there is none.
    ///
    /// # Errors
    /// The directory is in use, of another version, or not a queue; an option is out of range; the file system refused.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<(Self, OpenReport), OpenError> {
        let directory = directory.as_ref();
        let files = Directory::new(directory).map_err(OpenError::io("create", directory.display().to_string()))?;
        Self::open_on(Arc::new(files), options)
    }

    /// Opens the queue on a file system of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(files: Arc<dyn FileSystem>, options: Options) -> Result<(Self, OpenReport), OpenError> {
        let (clock, max_bytes) = (options.clock.clone(), options.max_bytes);
        let safe_at_once = files.capacity().map(|_| Arc::new(CommitSignal::completed(Ok(()))));
        // What is spared on a device costs nothing in memory, and the space is wanted back.
        let acknowledge_delay = match safe_at_once {
            Some(_) => Duration::ZERO,
            None => options.acknowledge_delay,
        };
        let (mut log, report) = Log::open(files, options, clock.now())?;
        if safe_at_once.is_some() {
            log.set_max_bytes(max_bytes);
        }
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                log: Some(log),
                next_commit: Promise(Arc::new(CommitSignal::default())),
                is_idle: false,
                is_closing: false,
                flush: false,
                acknowledge_by: None,
                holds: 0,
                maintain: false,
                readers: BTreeMap::new(),
                next_reader: 0,
                waiting_for_appends: 0,
                waiting_for_room: Vec::new(),
                waiting_for_close: Vec::new(),
            }),
            work: Condvar::new(),
            stirred: AtomicBool::new(false),
            clock,
            acknowledge_delay,
            safe_at_once,
        });
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer::run(&for_writer));
        let writer = writer.map_err(OpenError::io("start the writer of", "."))?;
        Ok((
            Self {
                owner: Arc::new(Owner {
                    shared,
                    writer: Mutex::new(Some(writer)),
                }),
            },
            report,
        ))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }

    /// Finds the lane of this name, or defines it. A different kind replaces the one that it had. Durable with the next
    /// commit, as is what is appended to it.
    ///
    /// # Errors
    /// The name breaks a limit, there are too many lanes, or the definition can't be appended now.
    pub fn lane(&self, name: &str, kind: LaneKind) -> Result<LaneId, LaneError> {
        let mut state = self.shared().lock();
        let lane = state.log.as_mut().ok_or(LaneError::Closed)?.lane(name, kind)?;
        self.shared().wake_writer(state);
        Ok(lane)
    }

    /// Removes a lane with all that it holds. Its id is not used again.
    ///
    /// # Errors
    /// The lane is unknown, or the removal can't be appended now.
    pub fn remove_lane(&self, lane: LaneId) -> Result<(), LaneError> {
        let mut state = self.shared().lock();
        state.log.as_mut().ok_or(LaneError::Closed)?.remove_lane(lane)?;
        let appended = state.take_ready_readers(Visibility::Appended, Some(lane));
        let durable = state.take_ready_readers(Visibility::Durable, Some(lane));
        self.shared().wake_writer(state);
        appended.into_iter().chain(durable).for_each(Waker::wake);
        Ok(())
    }

    /// All lanes, by id; none once closed.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneInfo> {
        self.shared().lock().log.as_ref().map(Log::lanes).unwrap_or_default()
    }

    /// Appends a record to each of its lanes, at once. The order of calls is the order of positions.
    ///
    /// The record is readable with [`Visibility::Appended`] when this returns; when the returned [`Pending`] resolves, it is
    /// on disk.
    ///
    /// # Errors
    /// Nothing is appended: see [`AppendError`]. After `Busy`, [`Self::room`] tells when to try again.
    pub fn append(&self, record: &NewRecord<'_>) -> Result<Pending, AppendError> {
        self.append_with(record, Log::append)
    }

    /// Appends records one after the other, as [`Self::append`] would, up to the first that is refused. Gives how many were
    /// appended, at least one, and the commit that brings all of them to the disk. Readers that wait are woken once.
    ///
    /// # Errors
    /// Nothing is appended: the first record is refused, or there is none. Why a later one was refused tells an append of it.
    pub fn append_all(&self, records: &[NewRecord<'_>]) -> Result<(usize, Commit), AppendError> {
        let mut state = self.shared().lock();
        if state.is_closing {
            return Err(AppendError::Closed);
        }
        let log = state.log.as_mut().ok_or(AppendError::Closed)?;
        let mut count = 0;
        for record in records {
            match log.append(record) {
                Ok(_) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if count == 0 {
            return Err(AppendError::NoLane);
        }
        let commit = self.shared().commit_of(&state);
        let mut ready = Vec::new();
        if state.waiting_for_appends > 0 {
            let mut lanes: Vec<LaneId> = records
                .iter()
                .take(count)
                .flat_map(|record| record.lanes)
                .map(|lane| lane.0)
                .collect();
            lanes.sort_unstable();
            lanes.dedup();
            for lane in lanes {
                ready.extend(state.take_ready_readers(Visibility::Appended, Some(lane)));
            }
        }
        self.shared().wake_writer(state);
        ready.into_iter().for_each(Waker::wake);
        Ok((count, commit))
    }

    /// [`Self::append`] that [`Options::max_bytes`] does not refuse: for a record that takes the place of one that is there
    /// and is acknowledged as soon as this one is on disk.
    ///
    /// # Errors
    /// As [`Self::append`], `QueueFull` aside.
    pub fn append_in_place(&self, record: &NewRecord<'_>) -> Result<Pending, AppendError> {
        self.append_with(record, Log::append_in_place)
    }

    fn append_with(
        &self,
        record: &NewRecord<'_>,
        append: impl FnOnce(&mut Log, &NewRecord<'_>) -> Result<Appended, AppendError>,
    ) -> Result<Pending, AppendError> {
        let mut state = self.shared().lock();
        if state.is_closing {
            return Err(AppendError::Closed);
        }
        let appended = append(state.log.as_mut().ok_or(AppendError::Closed)?, record)?;
        let pending = Pending::new(appended, self.shared().commit_of(&state));
        if state.waiting_for_appends == 0 {
            self.shared().wake_writer(state);
            return Ok(pending);
        }
        let mut ready = Vec::new();
        for &(lane, _) in record.lanes {
            ready.extend(state.take_ready_readers(Visibility::Appended, Some(lane)));
        }
        self.shared().wake_writer(state);
        ready.into_iter().for_each(Waker::wake);
        Ok(pending)
    }

    /// Waits until an append is not refused for what waits for the disk. Another caller may be quicker: try again.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.shared().lock();
            if state.log.as_ref().is_none_or(Log::has_room) {
                return Poll::Ready(());
            }
            if !state
                .waiting_for_room
                .iter()
                .any(|known| known.will_wake(context.waker()))
            {
                state.waiting_for_room.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Makes a reader of a lane.
    ///
    /// # Errors
    /// The lane is not defined, or the queue is closed.
    pub fn reader(&self, lane: LaneId, from: Start, visibility: Visibility) -> Result<Reader, ReadError> {
        Reader::new(Arc::clone(self.shared()), lane, from, visibility)
    }

    /// Acknowledges positions of a lane: they are not read again. Cheap. Durable with the next commit of an append, or after
    /// [`Options::acknowledge_delay`]; a crash before that delivers them again. [`Self::flush`] asks for a commit, and waits.
    ///
    /// # Errors
    /// See [`AcknowledgeError`].
    pub fn acknowledge(&self, lane: LaneId, positions: Range<u64>) -> Result<(), AcknowledgeError> {
        let mut state = self.shared().lock();
        state
            .log
            .as_mut()
            .ok_or(AcknowledgeError::Closed)?
            .acknowledge(lane, positions)?;
        self.shared().acknowledged(state);
        Ok(())
    }

    /// Acknowledges positions because the time of their records is over: counted as expired, if they were not acknowledged.
    /// Says how many were not. Durable as [`Self::acknowledge`] is.
    pub fn expire(&self, lane: LaneId, positions: Range<u64>) -> u64 {
        let mut state = self.shared().lock();
        let expired = state.log.as_mut().map_or(0, |log| log.expire(lane, positions));
        self.shared().acknowledged(state);
        expired
    }

    /// Changes [`Options::max_bytes`]. Segments get smaller with it, so that space comes back in parts of it.
    pub fn set_max_bytes(&self, max_bytes: Option<u64>) {
        if let Some(log) = &mut self.shared().lock().log {
            log.set_max_bytes(max_bytes);
        }
    }

    /// Waits until everything appended and acknowledged so far is on disk.
    ///
    /// Cancel safety: may be dropped at any time.
    ///
    /// # Errors
    /// The commit failed; see [`CommitError`].
    pub async fn flush(&self) -> Result<(), CommitError> {
        let signal = self.begin_flush()?;
        let mut place = None;
        poll_fn(|context| signal.poll(context.waker(), &mut place)).await
    }

    fn begin_flush(&self) -> Result<Arc<CommitSignal>, CommitError> {
        let mut state = self.shared().lock();
        if state.log.is_none() {
            return Err(CommitError::Closed);
        }
        state.flush = true;
        let signal = Arc::clone(&state.next_commit.0);
        self.shared().wake_writer(state);
        Ok(signal)
    }

    /// The first position of the lane that is not acknowledged; `None` if the lane is not defined.
    #[must_use]
    pub fn low_water(&self, lane: LaneId) -> Option<u64> {
        self.shared().lock().log.as_ref()?.low_water(lane)
    }

    /// What waits in the lane; `None` if it is not defined.
    #[must_use]
    pub fn depth(&self, lane: LaneId) -> Option<LaneDepth> {
        self.shared().lock().log.as_ref()?.depth(lane)
    }

    /// What a reader of the lane can ask for; `None` if it is not defined.
    #[must_use]
    pub fn lane_bounds(&self, lane: LaneId) -> Option<LaneBounds> {
        self.shared().lock().log.as_ref()?.lane_bounds(lane)
    }

    /// Counters since opening, and sizes now; all zero once closed.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().lock().log.as_ref().map(Log::stats).unwrap_or_default()
    }

    /// Whether commits succeed; `None` once closed.
    #[must_use]
    pub fn health(&self) -> Option<Health> {
        self.shared().lock().log.as_ref().map(|log| log.health().clone())
    }

    /// Asks the writer to look after expiry, retention and space now, not at its next interval.
    pub fn maintain(&self) {
        let mut state = self.shared().lock();
        state.maintain = true;
        self.shared().wake_writer(state);
    }

    /// Takes no more appends, commits what waits, and releases the directory. The other handles find the queue closed.
    ///
    /// Cancel safety: the queue closes even if this is dropped.
    pub async fn close(self) {
        self.begin_close();
        poll_fn(|context| {
            let mut state = self.shared().lock();
            if state.log.is_none() {
                return Poll::Ready(());
            }
            state.waiting_for_close.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn begin_close(&self) {
        self.owner.begin_close();
    }
}

impl Owner {
    fn begin_close(&self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        self.shared.wake_writer(state);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.begin_close();
        let writer = lock(&self.writer).take();
        // A waker may drop the last handle on the writer's own thread, which then ends by itself.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            // A writer that panicked has said so on stderr, and its guard has told everybody who waited.
            drop(writer.join());
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("log", &self.shared().lock().log).finish()
    }
}
