//! The partitions of the event log, over one queue: a retained lane each, so that one sync commits the messages of all.

use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use holm_model::{DeviceId, Timestamp};
use holm_queue::{
    AppendError, Commit, CommitError, LaneError, LaneId, LaneKind, NewRecord, OpenError, Options, Queue, ReadError,
    Reader, Record, Start, Visibility,
};

use super::partition_of;
use crate::Clock;

/// Records that a reader takes in one go.
const READ_RECORDS: usize = 64;
/// Bytes that a reader takes in one go.
const READ_BYTES: usize = 256 * 1024;

/// What the event log could not do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It did not open.
    #[error("the event log in `{path}` can't be opened", path = path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: OpenError,
    },
    /// A partition could not be made.
    #[error("a partition of the event log can't be made")]
    Lane(#[source] LaneError),
    /// An event was not appended.
    #[error("an event can't be appended")]
    Append(#[source] AppendError),
    /// An event is not known to be on disk.
    #[error("an event is not on disk")]
    Commit(#[source] CommitError),
    /// Nothing could be read.
    #[error("events can't be read")]
    Read(#[source] ReadError),
    /// Where an event goes depends on its sender's twin, and that can't be read.
    #[error("the twin of the sender can't be read, and routes look at it")]
    Twin(#[source] holm_model::ServiceError),
    /// There is no such partition.
    #[error("there is no partition {partition}; there are {partitions}, counted from 0")]
    NoPartition {
        /// The partition that was asked for.
        partition: u16,
        /// How many there are.
        partitions: u16,
    },
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this sequence number, or the oldest one kept if that is later.
    Sequence(u64),
    /// At the first event of this time or later.
    Time(Timestamp),
    /// Behind what is there now.
    Latest,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest sequence number that is kept.
    pub start: u64,
    /// The first sequence number that is not yet on disk.
    pub end: u64,
    /// When the newest event was taken in.
    pub last_enqueued: Option<Timestamp>,
}

/// An event as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence number within its partition.
    pub sequence: u64,
    /// When it was taken in.
    pub enqueued: Timestamp,
    /// The message, encoded as in `docs/formats/message.md`.
    pub payload: Bytes,
}

/// The event log of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct EventLog {
    queue: Queue,
    lanes: Arc<[LaneId]>,
}

/// Resolves when an event is on disk; at once for one that goes nowhere.
#[derive(Debug)]
pub struct Receipt(Option<Commit>);

impl Receipt {
    /// Of an event that goes nowhere.
    pub(crate) const NOTHING: Self = Self(None);
}

/// A record of the log, and where it is filed.
#[derive(Clone, Debug)]
pub(crate) struct Filing {
    /// Lanes with the time when it is given up there, in milliseconds since 1970; 0: never.
    pub(crate) lanes: Vec<(LaneId, u64)>,
    /// The message, encoded.
    pub(crate) payload: Bytes,
}

impl Filing {
    fn record<'a>(&'a self, sender: &'a str, at: Timestamp) -> NewRecord<'a> {
        NewRecord {
            sender,
            lanes: &self.lanes,
            enqueued_at: unix_millis(at),
            payload: self.payload.clone(),
        }
    }
}

impl Future for Receipt {
    type Output = Result<(), LogError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(commit) = &mut self.0 else {
            return Poll::Ready(Ok(()));
        };
        Poll::Ready(ready!(Pin::new(commit).poll(context)).map_err(LogError::Commit))
    }
}

impl EventLog {
    /// Opens the log in a directory, or makes it with `partitions`; a log that is there keeps the number that it has.
    ///
    /// # Errors
    /// [`LogError::Open`], [`LogError::Lane`].
    pub fn open(
        directory: &Path,
        partitions: u16,
        retention: Duration,
        retention_bytes: u64,
        clock: &Clock,
    ) -> Result<Self, LogError> {
        let clock = clock.clone();
        let options = Options {
            clock: holm_queue::Clock::new(move || unix_millis(clock.now())),
            ..Options::default()
        };
        let (queue, report) = Queue::open(directory, options).map_err(|source| LogError::Open {
            path: directory.to_owned(),
            source,
        })?;
        tracing::info!(
            segments = report.segments,
            records = report.records_scanned,
            disk_bytes = queue.stats().disk_bytes,
            irregular = report.irregularities(),
            "the event log is open"
        );
        // The number is part of every lane's name: a crash while the first lanes are made leaves no doubt about it.
        let lanes = queue.lanes();
        let found = lanes.iter().find_map(|lane| lane.name.rsplit_once('/')?.1.parse().ok());
        let count: u16 = found.unwrap_or(partitions);
        if count != partitions {
            tracing::warn!(
                configured = partitions,
                in_force = count,
                "the number of partitions is fixed when the event log is made"
            );
        }
        let kind = LaneKind::Retained {
            max_age: Some(retention),
            max_bytes: Some(retention_bytes),
        };
        let lanes = (0..count)
            .map(|number| queue.lane(&format!("{number}/{count}"), kind))
            .collect::<Result<_, _>>()
            .map_err(LogError::Lane)?;
        Ok(Self { queue, lanes })
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    /// Appends an event to the partition of its device, at once; the receipt resolves when it is on disk.
    ///
    /// # Errors
    /// [`LogError::Append`]; nothing was appended.
    pub fn append(&self, device: &DeviceId, at: Timestamp, payload: Bytes) -> Result<Receipt, LogError> {
        let lane = self.lane(partition_of(device, self.partitions()))?;
        let record = NewRecord {
            sender: device.as_str(),
            lanes: &[(lane, 0)],
            enqueued_at: unix_millis(at),
            payload,
        };
        let pending = self.queue.append(&record).map_err(LogError::Append)?;
        Ok(Receipt(Some(pending.into())))
    }

    /// As [`EventLog::append`], but waits where too much waits for the disk. Cancel-safe: nothing is appended if it is
    /// dropped.
    ///
    /// # Errors
    /// [`LogError::Append`].
    pub async fn append_when_room(
        &self,
        device: &DeviceId,
        at: Timestamp,
        payload: Bytes,
    ) -> Result<Receipt, LogError> {
        loop {
            match self.append(device, at, payload.clone()) {
                Err(LogError::Append(AppendError::Busy { .. })) => self.queue.room().await,
                result => return result,
            }
        }
    }

    /// Files records of one sender, one behind the other, and waits where too much waits for the disk. The receipt is that of all.
    /// Dropping it may leave the first of several behind.
    ///
    /// # Errors
    /// [`LogError::Append`]; `UnknownLane` when one of the lanes was removed meanwhile.
    pub(crate) async fn file_when_room(
        &self,
        sender: &str,
        at: Timestamp,
        filings: &[Filing],
    ) -> Result<Receipt, LogError> {
        let (mut left, mut receipt) = (filings, Receipt::NOTHING);
        while !left.is_empty() {
            let records: Vec<_> = left.iter().map(|filing| filing.record(sender, at)).collect();
            match self.queue.append_all(&records) {
                // What is on disk is always a prefix of what was appended, so the last commit speaks for those before it.
                Ok((count, commit)) => {
                    receipt = Receipt(Some(commit));
                    left = left.get(count..).unwrap_or_default();
                }
                Err(AppendError::Busy { .. }) => self.queue.room().await,
                Err(error) => return Err(LogError::Append(error)),
            }
        }
        Ok(receipt)
    }

    /// The lane of a device's partition.
    pub(crate) fn lane_of(&self, device: &DeviceId) -> Result<LaneId, LogError> {
        self.lane(partition_of(device, self.partitions()))
    }

    /// The queue below, for lanes that are no partitions. Their names must not end in `/` and a number.
    pub(crate) const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Looks at once at what is kept no longer, and not only in the next half minute. What it lets go is gone with the next commit.
    pub fn maintain(&self) {
        self.queue.maintain();
    }

    /// Waits until everything that was appended so far is on disk.
    ///
    /// # Errors
    /// [`LogError::Commit`]: not yet.
    pub async fn flush(&self) -> Result<(), LogError> {
        self.queue.flush().await.map_err(LogError::Commit)
    }

    /// Keeps all files of the log for a copy, until what is given is dropped. Everything appended so far is on disk then.
    ///
    /// # Errors
    /// [`LogError::Commit`]: it is not.
    pub async fn hold_files(&self) -> Result<holm_queue::FilesHeld, LogError> {
        self.queue.hold_files().await.map_err(LogError::Commit)
    }

    /// A reader of a partition; it sees only what is on disk.
    ///
    /// # Errors
    /// [`LogError::NoPartition`], [`LogError::Read`].
    pub fn reader(&self, partition: u16, from: From) -> Result<EventReader, LogError> {
        let start = match from {
            From::Sequence(sequence) => Start::Position(sequence),
            From::Time(time) => Start::Time(unix_millis(time)),
            From::Latest => Start::End,
        };
        let reader = self.queue.reader(self.lane(partition)?, start, Visibility::Durable);
        Ok(EventReader {
            reader: reader.map_err(LogError::Read)?,
            ahead: VecDeque::new(),
        })
    }

    /// What a partition holds.
    ///
    /// # Errors
    /// [`LogError::NoPartition`].
    pub fn bounds(&self, partition: u16) -> Result<Bounds, LogError> {
        let bounds = self.queue.lane_bounds(self.lane(partition)?);
        let bounds = bounds.ok_or(LogError::Read(ReadError::Closed))?;
        Ok(Bounds {
            start: bounds.first,
            end: bounds.durable_next,
            last_enqueued: bounds.last_enqueued.map(timestamp),
        })
    }

    /// Bytes of the log on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.queue.stats().disk_bytes
    }

    /// Whether events are taken in.
    ///
    /// # Errors
    /// [`LogError::Append`], with what an event would be refused for.
    pub fn health(&self) -> Result<(), LogError> {
        let health = self.queue.health();
        let checked = health.map_or(Err(AppendError::Closed), |health| health.check());
        checked.map_err(LogError::Append)
    }

    /// Commits what waits and releases the directory.
    pub async fn close(self) {
        self.queue.close().await;
    }

    fn lane(&self, partition: u16) -> Result<LaneId, LogError> {
        let lane = self.lanes.get(usize::from(partition)).copied();
        lane.ok_or_else(|| LogError::NoPartition {
            partition,
            partitions: self.partitions(),
        })
    }
}

/// Reads a partition in order.
#[derive(Debug)]
pub struct EventReader {
    reader: Reader,
    ahead: VecDeque<Record>,
}

impl EventReader {
    /// The next event; waits for one. Cancel-safe.
    ///
    /// # Errors
    /// [`LogError::Read`]. Reading can go on after it.
    pub async fn next(&mut self) -> Result<Stored, LogError> {
        loop {
            if let Some(stored) = self.try_next()? {
                return Ok(stored);
            }
            self.wait().await?;
        }
    }

    /// The next event, if one is on disk. May read the disk, a small piece at a time.
    ///
    /// # Errors
    /// [`LogError::Read`]. Reading can go on after it.
    pub fn try_next(&mut self) -> Result<Option<Stored>, LogError> {
        self.read_ahead()?;
        Ok(self.ahead.pop_front().map(stored))
    }

    /// The next events that are on disk, at most a small batch; none when there are none. May read the disk.
    ///
    /// # Errors
    /// [`LogError::Read`]. Reading can go on after it.
    pub fn try_batch(&mut self) -> Result<Vec<Stored>, LogError> {
        self.read_ahead()?;
        Ok(self.ahead.drain(..).map(stored).collect())
    }

    /// Waits until there may be something to read. Cancel-safe.
    ///
    /// # Errors
    /// [`LogError::Read`].
    pub async fn wait(&mut self) -> Result<(), LogError> {
        self.reader.wait().await.map_err(LogError::Read)
    }

    fn read_ahead(&mut self) -> Result<(), LogError> {
        if self.ahead.is_empty() {
            let records = self.reader.try_read(READ_RECORDS, READ_BYTES).map_err(LogError::Read)?;
            let skipped = self.reader.take_skipped();
            if skipped.corrupt > 0 {
                tracing::error!(count = skipped.corrupt, "damaged events were passed over");
            }
            self.ahead = records.into();
        }
        Ok(())
    }
}

fn stored(record: Record) -> Stored {
    Stored {
        sequence: record.position,
        enqueued: timestamp(record.enqueued_at),
        payload: record.payload(),
    }
}

pub(crate) fn unix_millis(at: Timestamp) -> u64 {
    u64::try_from(at.unix_millis()).unwrap_or(0)
}

pub(crate) fn timestamp(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
