//! What a node must be able to do so that back ends can talk to it over AMQP: messages to devices, notices of what became of
//! them, and the event log as an Event Hub. The hub has it; an edge does not, and the bodies here say so.
//!
//! ```text
//! token --permit_service--> may do it, until then; looked at again with each of policy_changes
//! C2D --send_to_device--> in the mailbox of its device
//! open_notices --> NoticeReader: receive --> notice on lease --settle--> gone or given out again
//! open_partition --> PartitionReader: try_read, poll_readable | poll_end (somebody of a higher owner level came)
//! ```
//!
//! Source: `hub-service-api.md` §1, §5, §6.

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::{Identity, Message, Timestamp};

use crate::backend::{Refusal, Settlement};

/// What a back end is told of: each kind has a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// What became of messages to devices.
    Feedback,
    /// Files that devices have uploaded.
    Files,
}

/// Something that a back end is told, on lease to one reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Names the lease in [`NoticeReader::settle`], and the delivery for its receiver: some take it for a UUID.
    pub lease: [u8; 16],
    /// When the node wrote it.
    pub enqueued: Timestamp,
    /// JSON, in the published form of its kind.
    pub body: Bytes,
}

/// Reads one kind of notices. What it holds goes back, uncounted, when it is dropped.
pub trait NoticeReader: Send + Sync + 'static {
    /// Leases the next notice; if there is none now, `waits` for one or gives none. Cancel-safe: when the future is dropped,
    /// nothing stays leased.
    ///
    /// # Errors
    /// [`Refusal`] when they can't be read.
    fn receive(&self, waits: bool) -> impl Future<Output = Result<Option<Notice>, Refusal>> + Send;

    /// Ends a lease. An unknown one (its time was over, settled before) is ignored. Must not block: what it changes may be
    /// written after it returns.
    fn settle(&self, lease: [u8; 16], settlement: Settlement);
}

/// The reader of a node that has no notices: there is none.
impl NoticeReader for Infallible {
    async fn receive(&self, _: bool) -> Result<Option<Notice>, Refusal> {
        match *self {}
    }

    fn settle(&self, _: [u8; 16], _: Settlement) {
        match *self {}
    }
}

/// The event log, as clients of Event Hubs see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHub {
    /// Its name, one path segment.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// How many partitions it has, counted from 0.
    pub partitions: u16,
    /// The host and port where it is.
    pub host: String,
    /// The port of AMQP over TLS at that host.
    pub port: u16,
}

/// What a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionBounds {
    /// The oldest sequence number that is kept.
    pub first: u64,
    /// The sequence number that the next event gets.
    pub next: u64,
    /// When the newest event was taken in, if there was one.
    pub last_enqueued: Option<Timestamp>,
}

/// Where a reader begins. An offset is the sequence number as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventPosition {
    /// At the oldest event that is kept.
    Earliest,
    /// Behind what is there now.
    Latest,
    /// At this sequence number, or the oldest kept if that is later.
    Sequence(Mark),
    /// At this offset, as [`EventPosition::Sequence`]: only what the reader is told of it differs.
    Offset(Mark),
    /// At the first event that was taken in after this time.
    After(Timestamp),
    /// At the first event that was taken in at this time or after it.
    Since(Timestamp),
}

/// An event, which need not be there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its sequence number.
    pub number: u64,
    /// Whether it is to be read, or only what comes after it.
    pub inclusive: bool,
}

impl Mark {
    /// The first sequence number to be read.
    #[must_use]
    pub const fn first(self) -> u64 {
        if self.inclusive {
            self.number
        } else {
            self.number.saturating_add(1)
        }
    }
}

/// A reader that wants to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRequest {
    /// The Event Hub's name, as the client has it.
    pub event_hub: String,
    /// The consumer group.
    pub group: String,
    /// The partition.
    pub partition: u16,
    /// Where to begin.
    pub position: EventPosition,
    /// The owner level (epoch): the reader wants to be the only one of its group.
    pub owner_level: Option<i64>,
    /// What the reader calls itself, for those whom it takes the partition from.
    pub reader: String,
}

/// Why a partition is not opened, or not read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefusal {
    /// There is no such Event Hub or consumer group.
    #[error("{0}")]
    NotFound(String),
    /// There is no such partition.
    #[error("{0}")]
    NoPartition(String),
    /// It is to begin behind the end: it would pass over what comes, in silence.
    #[error("{0}")]
    BehindEnd(String),
    /// A reader of a higher owner level has the partition, or has taken it.
    #[error("{0}")]
    Stolen(String),
    /// As many readers as allowed read it already.
    #[error("{0}")]
    TooManyReaders(String),
    /// It can't be read now.
    #[error("{0}")]
    Unavailable(String),
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence number within its partition.
    pub sequence: u64,
    /// When it was taken in.
    pub enqueued: Timestamp,
    /// The message, as [`Message::encode`] writes it.
    pub message: Bytes,
}

/// Reads one partition, in order, only what is on disk. It holds no lock between calls, so that no reader slows a writer. The
/// partition is free for others when it is dropped.
pub trait PartitionReader: Send + 'static {
    /// The next events that are there, at most a small batch; none: wait with [`PartitionReader::poll_readable`]. Where the
    /// log has let go of events before they were read, reading goes on at the oldest one kept.
    ///
    /// # Errors
    /// [`ReadRefusal`]; after [`ReadRefusal::Unavailable`] it may be tried again.
    fn try_read(&mut self) -> Result<Vec<StoredEvent>, ReadRefusal>;

    /// Ready when there may be something to read.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Ready when this reader has lost the partition.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<ReadRefusal>;

    /// What the partition holds now.
    fn bounds(&self) -> Option<PartitionBounds>;
}

/// The reader of a node that has no Event Hub: there is none.
impl PartitionReader for Infallible {
    fn try_read(&mut self) -> Result<Vec<StoredEvent>, ReadRefusal> {
        match *self {}
    }

    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match *self {}
    }

    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<ReadRefusal> {
        match *self {}
    }

    fn bounds(&self) -> Option<PartitionBounds> {
        match *self {}
    }
}

/// What a node can do for back ends. The bodies here are those of a node that can do nothing.
pub trait Service: Send + Sync + 'static {
    /// Reads a partition of the Event Hub.
    type Events: PartitionReader;
    /// Reads notices.
    type Notices: NoticeReader;

    /// Whether back ends connect here. Where they don't, every link of theirs is refused, and what would serve them is not even in the
    /// program: known when it is built, so that it costs a device nothing.
    const SERVES_BACK_ENDS: bool = true;

    /// Whether the token of a policy with the right `ServiceConnect` opens this path of the node (decoded, without the first
    /// slash, compared without case); gives when it ends.
    ///
    /// # Errors
    /// [`Refusal`].
    fn permit_service(&self, _token: &str, _path: &str) -> Result<Timestamp, Refusal> {
        Err(not_here())
    }

    /// Whether the token of a policy still lets a device or module in that it has let in: the policy is there, one of its keys has
    /// signed it, and it has the right `DeviceConnect`. Answers at once. What the token names is not looked at again.
    ///
    /// # Errors
    /// [`Refusal`].
    fn permit_session(&self, _token: &str) -> Result<(), Refusal> {
        Err(Refusal::NotAuthorized("there are no policies here".to_owned()))
    }

    /// Tells of each change of a policy from now on; several may be one. None where there are no policies.
    fn policy_changes(&self) -> Option<BoxStream<'static, ()>> {
        None
    }

    /// What the node is called in what it sends.
    fn name(&self) -> String {
        String::new()
    }

    /// Puts a message into the mailbox of a device or module; gives its sequence number.
    ///
    /// # Errors
    /// `DeviceNotFound`, `ModuleNotFound`, `DeviceMaximumQueueDepthExceeded`, `MessageTooLarge`, `ArgumentInvalid`.
    fn send_to_device(
        &self,
        _to: Identity,
        _message: Message,
    ) -> impl Future<Output = Result<u64, ServiceError>> + Send {
        std::future::ready(Err(ServiceError::new(
            ErrorCode::InvalidOperation,
            "messages to devices are sent at the hub",
        )))
    }

    /// Opens a queue of notices for reading.
    ///
    /// # Errors
    /// [`Refusal`].
    fn open_notices(&self, _kind: NoticeKind) -> Result<Self::Notices, Refusal> {
        Err(not_here())
    }

    /// The Event Hub, if the node has one.
    fn event_hub(&self) -> Option<EventHub> {
        None
    }

    /// What a partition holds; `None`: there is no such partition.
    fn partition_bounds(&self, _partition: u16) -> Option<PartitionBounds> {
        None
    }

    /// Opens a partition for reading.
    ///
    /// # Errors
    /// [`ReadRefusal`].
    fn open_partition(&self, _request: &PartitionRequest) -> Result<Self::Events, ReadRefusal> {
        Err(ReadRefusal::NotFound("this node has no Event Hub".to_owned()))
    }
}

pub(crate) fn not_here() -> Refusal {
    Refusal::NotAuthorized("back ends connect to the hub, not here".to_owned())
}
