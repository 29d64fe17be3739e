//! What can go wrong, an enum for each operation.

use std::io;
use std::path::PathBuf;

use crate::lane::LaneId;

/// Why a queue did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has the directory.
    #[error("the queue in `{path}` is in use by another process; end that process or give this one another directory", path = path.display())]
    Locked {
        /// The queue directory.
        path: PathBuf,
    },
    /// The data was written in a format that this release does not read. Nothing was touched.
    #[error(
        "the queue's data has format {found} and this release reads format {supported}; use a release that reads format {found}"
    )]
    Version {
        /// The version found on disk.
        found: u32,
        /// The version of this release.
        supported: u32,
    },
    /// The format file holds something else. Nothing was touched.
    #[error("the file `{name}` does not describe a queue: {reason}; give an empty directory or restore the file")]
    NotAQueue {
        /// The file, relative to the queue directory.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Segment numbers or epochs are used up.
    #[error("segment number {number} is the last one; move the queue's records to a new directory")]
    Exhausted {
        /// The number that could not be followed.
        number: u64,
    },
    /// An option has a value that cannot work.
    #[error("the option `{name}` is {value}; it must be {expected}")]
    Option {
        /// The field of [`crate::Options`].
        name: &'static str,
        /// The value given.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// The file system refused.
    #[error("cannot {operation} `{name}`")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file, relative to the queue directory.
        name: String,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(operation: &'static str, name: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let name = name.into();
        move |source| Self::Io {
            operation,
            name,
            source,
        }
    }
}

/// Why a record was not appended. Nothing of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is full. Appends recover by themselves when there is space again.
    #[error("the disk is full; free space on it, appends then go on by themselves")]
    DiskFull,
    /// The queue's byte quota is reached.
    #[error(
        "the queue holds {bytes} bytes and its quota `max_bytes` is {max_bytes}; let receivers catch up or raise the quota"
    )]
    QueueFull {
        /// Bytes on disk and on their way there.
        bytes: u64,
        /// The quota.
        max_bytes: u64,
    },
    /// Too much waits for the disk. See [`crate::Queue::room`].
    #[error(
        "{bytes} bytes wait for the disk and `max_uncommitted_bytes` is {max_bytes}; try again when some are committed"
    )]
    Busy {
        /// Bytes appended and not yet on disk.
        bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The disk failed. Appends recover by themselves when a commit succeeds again.
    #[error("the last commit failed ({reason}); appends go on by themselves when the disk works again")]
    Failing {
        /// The file system's answer.
        reason: String,
    },
    /// The record names no lane.
    #[error("the record names no lane; give at least one")]
    NoLane,
    /// The record names a lane that is not defined.
    #[error("lane {lane} is not defined; define it before appending to it")]
    UnknownLane {
        /// The lane.
        lane: LaneId,
    },
    /// The record names a lane twice.
    #[error("lane {lane} is named twice; name each lane once")]
    RepeatedLane {
        /// The lane.
        lane: LaneId,
    },
    /// The record is larger than allowed.
    #[error("the record has {bytes} bytes and `max_record_bytes` is {max_bytes}; send less or raise the limit")]
    TooLarge {
        /// Bytes of sender and payload.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// The sender's name is longer than 65,535 bytes.
    #[error("the sender's name has {bytes} bytes; at most 65535 are allowed")]
    SenderTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The queue is closed.
    #[error("the queue is closed; open it again")]
    Closed,
}

/// Why something that was appended or acknowledged is not known to be on disk. It is kept in memory and written as soon as
/// the disk allows, so a sender that tries again may cause a duplicate, never a loss.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The disk is full.
    #[error("the disk is full; free space on it and send again")]
    DiskFull,
    /// The write or the sync failed.
    #[error("the disk failed ({reason}); send again when it works")]
    Failed {
        /// The file system's answer.
        reason: String,
    },
    /// The queue closed before the commit.
    #[error("the queue closed before the commit; open it and send again")]
    Closed,
}

/// Why an acknowledgement was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// The lane is not defined.
    #[error("lane {lane} is not defined; define it before acknowledging in it")]
    UnknownLane {
        /// The lane.
        lane: LaneId,
    },
    /// The lane is trimmed by age and size.
    #[error("lane {lane} keeps its records by age and size; it takes no acknowledgements")]
    Retained {
        /// The lane.
        lane: LaneId,
    },
    /// A position that was never given out. Positions before it in the same call are acknowledged.
    #[error("position {position} of lane {lane} was never given out; the next one will be {next}")]
    BeyondEnd {
        /// The lane.
        lane: LaneId,
        /// The position.
        position: u64,
        /// The lane's next position.
        next: u64,
    },
    /// Too many separate ranges are acknowledged beyond the low-water mark. Positions before it in the same call are
    /// acknowledged; give the rest again when the lane's oldest records are acknowledged.
    #[error(
        "lane {lane} has {max_ranges} separate ranges acknowledged beyond position {low_water}, the most allowed; acknowledge its oldest records first"
    )]
    TooScattered {
        /// The lane.
        lane: LaneId,
        /// The lane's low-water mark.
        low_water: u64,
        /// The bound, `max_ranges`.
        max_ranges: usize,
    },
    /// The queue is closed.
    #[error("the queue is closed; open it again")]
    Closed,
}

/// Why a lane was not defined, found or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// There are as many lanes as allowed.
    #[error("there are {max_lanes} lanes, as many as `max_lanes` allows; remove one or raise the limit")]
    TooMany {
        /// The limit.
        max_lanes: usize,
    },
    /// The name is empty or longer than 1,024 bytes.
    #[error("the lane's name has {bytes} bytes; give 1 to 1024")]
    Name {
        /// Its length.
        bytes: usize,
    },
    /// The lane is not defined.
    #[error("lane {lane} is not defined")]
    Unknown {
        /// The lane.
        lane: LaneId,
    },
    /// The queue can't take the change now.
    #[error("the lane can't be changed now")]
    Append(#[source] AppendError),
    /// The queue is closed.
    #[error("the queue is closed; open it again")]
    Closed,
}

/// Why nothing could be read. Damaged records are not an error: they are skipped and counted.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The lane is not defined, or was removed.
    #[error("lane {lane} is not defined; it may have been removed")]
    UnknownLane {
        /// The lane.
        lane: LaneId,
    },
    /// The file system refused.
    #[error("cannot read `{name}`; the records are kept, try again when the disk works")]
    Io {
        /// The file, relative to the queue directory.
        name: String,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
    /// The queue is closed.
    #[error("the queue is closed; open it again")]
    Closed,
}
