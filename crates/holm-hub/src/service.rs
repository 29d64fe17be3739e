//! What back ends ask of a hub over AMQP, answered by its parts; and the event log as an Event Hub.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use holm_gateway::service::{
    EventHub, EventPosition, Mark, Notice, NoticeKind, NoticeReader, PartitionBounds, PartitionReader,
    PartitionRequest, ReadRefusal, StoredEvent,
};
use holm_gateway::{Refusal, Settlement};
use holm_model::{ErrorCode, Identity, Message, ServiceError, Timestamp};
use holm_net::Scope;

use crate::HubBackend;
use crate::events::{EventLog, EventReader, From, LogError, Seat};
use crate::metrics::Metrics;
use crate::notices::{self, LockToken, Notices, ReaderId};
use crate::storage::Rights;

/// The name of the Event Hub of the hub with that host name: one path segment, the same for ever.
///
/// ```text
/// iothub-ehub-{first label}-1-{ten hexadecimal digits of the FNV-1a hash of the host name in lower case}
/// ```
#[must_use]
pub fn event_hub_name(hostname: &str) -> String {
    let hostname = hostname.to_ascii_lowercase();
    let label = hostname.split('.').next().unwrap_or_default();
    let hash = hostname.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("iothub-ehub-{label}-1-{:010x}", hash >> 24)
}

/// Reads a partition for a client of the Event Hub.
#[derive(Debug)]
pub struct HubReader {
    reader: EventReader,
    log: EventLog,
    partition: u16,
    group: String,
    seat: Seat,
    /// The sequence number that should come next, once one came.
    expected: Option<u64>,
    metrics: Metrics,
}

impl PartitionReader for HubReader {
    fn try_read(&mut self) -> Result<Vec<StoredEvent>, ReadRefusal> {
        if let Some(lost) = self.seat.lost() {
            return Err(lost);
        }
        let batch = self.reader.try_batch().map_err(|error| unreadable(&error))?;
        if let (Some(expected), Some(first)) = (self.expected, batch.first())
            && first.sequence > expected
        {
            let missed = first.sequence - expected;
            self.metrics.events_missed.add(missed);
            tracing::warn!(
                partition = self.partition,
                group = self.group,
                missed,
                "a reader was slower than the retention of the event log; it goes on at the oldest event that is kept"
            );
        }
        if let Some(last) = batch.last() {
            self.expected = Some(last.sequence + 1);
        }
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        self.metrics.events_read.add(count);
        let events = batch.into_iter().map(|stored| StoredEvent {
            sequence: stored.sequence,
            enqueued: stored.enqueued,
            message: stored.payload,
        });
        Ok(events.collect())
    }

    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // What went wrong is met again when it is read.
        pin!(self.reader.wait()).poll(context).map(drop)
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<ReadRefusal> {
        self.seat.poll_lost(context)
    }

    fn bounds(&self) -> Option<PartitionBounds> {
        bounds(&self.log, self.partition)
    }
}

fn bounds(log: &EventLog, partition: u16) -> Option<PartitionBounds> {
    let bounds = log.bounds(partition).ok()?;
    Some(PartitionBounds {
        first: bounds.start,
        next: bounds.end,
        last_enqueued: bounds.last_enqueued,
    })
}

fn not_opened(error: &LogError) -> ReadRefusal {
    match error {
        LogError::NoPartition { .. } => ReadRefusal::NoPartition(error.to_string()),
        other => unreadable(other),
    }
}

fn unreadable(error: &LogError) -> ReadRefusal {
    tracing::error!(error = %holm_net::error_chain(error), "the event log can't be read");
    ReadRefusal::Unavailable("the event log can't be read now; try again".to_owned())
}

/// Reads notices for a client.
#[derive(Debug)]
pub struct HubNotices {
    notices: Notices,
    kind: notices::NoticeKind,
    reader: ReaderId,
    scope: Scope,
}

impl NoticeReader for HubNotices {
    async fn receive(&self, waits: bool) -> Result<Option<Notice>, Refusal> {
        let received = if waits {
            self.notices.receive(self.kind, self.reader).await.map(Some)
        } else {
            self.notices.try_receive(self.kind, self.reader).await
        };
        let received = received.map_err(|error| Refusal::Unavailable(error.message))?;
        Ok(received.map(|notice| Notice {
            lease: notice.lease.bytes(),
            enqueued: notice.enqueued,
            body: notice.body,
        }))
    }

    fn settle(&self, lease: [u8; 16], settlement: Settlement) {
        let lease = LockToken::of_bytes(lease);
        // Before a reader that is dropped behind it gives back what it holds.
        let settling = self.notices.settle(self.kind, lease, settlement);
        self.scope.spawn(async move {
            match settling.await {
                Ok(()) => {}
                Err(error) if error.code == ErrorCode::DeviceMessageLockLost => {
                    tracing::debug!(%lease, "a notice was settled when its lock was over; it is given out again");
                }
                Err(error) => {
                    tracing::warn!(%error, "a notice was settled and that is not written; it is given out again")
                }
            }
        });
    }
}

impl Drop for HubNotices {
    fn drop(&mut self) {
        self.notices.release(self.reader);
    }
}

impl holm_gateway::Service for HubBackend {
    type Events = HubReader;
    type Notices = HubNotices;

    fn permit_service(&self, token: &str, path: &str) -> Result<Timestamp, Refusal> {
        self.authority.permit_link(token, path, Rights::SERVICE_CONNECT)
    }

    fn permit_session(&self, token: &str) -> Result<(), Refusal> {
        self.authority.permit_session(token)
    }

    fn policy_changes(&self) -> Option<BoxStream<'static, ()>> {
        Some(self.authority.policy_changes().boxed())
    }

    fn name(&self) -> String {
        self.endpoint.hub_name.clone()
    }

    async fn send_to_device(&self, to: Identity, message: Message) -> Result<u64, ServiceError> {
        if to.is_module() {
            return Err(ServiceError::new(
                ErrorCode::InvalidOperation,
                format!(
                    "`{to}` is a module, and modules have no mailbox; send to its device, or call a method of the module"
                ),
            ));
        }
        let sequence = self.mailboxes.send(to.device, message).await?;
        self.metrics.c2d_sent.increment();
        Ok(sequence)
    }

    fn open_notices(&self, kind: NoticeKind) -> Result<HubNotices, Refusal> {
        Ok(HubNotices {
            notices: self.notices.clone(),
            kind: match kind {
                NoticeKind::Feedback => notices::NoticeKind::Feedback,
                NoticeKind::Files => notices::NoticeKind::FileNotification,
            },
            reader: ReaderId::next(),
            scope: self.endpoint.scope.clone(),
        })
    }

    fn event_hub(&self) -> Option<EventHub> {
        Some(EventHub {
            name: self.endpoint.event_hub.clone(),
            created: self.groups.created(),
            partitions: self.log.partitions(),
            host: self.endpoint.host.clone(),
            port: self.endpoint.port,
        })
    }

    fn partition_bounds(&self, partition: u16) -> Option<PartitionBounds> {
        bounds(&self.log, partition)
    }

    fn open_partition(&self, request: &PartitionRequest) -> Result<HubReader, ReadRefusal> {
        let PartitionRequest {
            event_hub,
            group,
            partition,
            position,
            owner_level,
            reader: name,
        } = request;
        if !event_hub.eq_ignore_ascii_case(&self.endpoint.event_hub) {
            let text = format!("the messaging entity `{event_hub}` could not be found");
            return Err(ReadRefusal::NotFound(text));
        }
        self.check_group(group)?;
        let from = match *position {
            EventPosition::Earliest => From::Sequence(0),
            EventPosition::Latest => From::Latest,
            EventPosition::Sequence(mark) => self.begin(*partition, mark, "sequence number")?,
            EventPosition::Offset(mark) => self.begin(*partition, mark, "offset")?,
            EventPosition::After(time) => From::Time(time.plus_millis(1)),
            EventPosition::Since(time) => From::Time(time),
        };
        let reader = self.log.reader(*partition, from);
        let reader = reader.map_err(|error| not_opened(&error))?;
        // Last: it takes the partition from others.
        let seat = self.readers.sit(*partition, group, *owner_level, name)?;
        // A group is taken off the list, then its seats are cleared: who sat down in between sees it here.
        self.check_group(group)?;
        Ok(HubReader {
            reader,
            log: self.log.clone(),
            partition: *partition,
            group: group.clone(),
            seat,
            expected: None,
            metrics: self.metrics.clone(),
        })
    }
}

impl HubBackend {
    /// Where a mark is in a partition. It must not be behind the next event: the reader would pass over those that come until
    /// there are as many. `what` the client calls it by; the first sentence is Event Hubs' (Azure/azure-event-hubs-spark#315).
    fn begin(&self, partition: u16, mark: Mark, what: &str) -> Result<From, ReadRefusal> {
        // Who has read everything begins here, also where nothing is left. It never goes back while the log is open.
        let next = self.log.bounds(partition).map_err(|error| not_opened(&error))?.end;
        if mark.first() <= next {
            return Ok(From::Sequence(mark.first()));
        }
        let supplied = mark.number;
        let last = next
            .checked_sub(1)
            .map_or_else(|| "-1".to_owned(), |last| last.to_string());
        let way = if mark.inclusive { "at" } else { "after" };
        Err(ReadRefusal::BehindEnd(format!(
            "The supplied {what} '{supplied}' is invalid. The last {what} in the system is '{last}'; a reader of partition {partition} \
             can't begin {way} an event that has not come. After the restore of a backup, or with positions of another hub, delete \
             the reader's checkpoints or begin at a time"
        )))
    }

    fn check_group(&self, group: &str) -> Result<(), ReadRefusal> {
        if self.groups.contains(group) {
            return Ok(());
        }
        let text = format!("there is no consumer group `{group}`; make it with `holm hub consumer-group add`");
        Err(ReadRefusal::NotFound(text))
    }
}

/// What the hub is called, and where. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint(Arc<Named>);

#[derive(Debug)]
pub(crate) struct Named {
    /// The first label of the host name.
    pub(crate) hub_name: String,
    /// The Event Hub's name.
    pub(crate) event_hub: String,
    /// The host name.
    pub(crate) host: String,
    /// The port of AMQP.
    pub(crate) port: u16,
    /// For what is written after it was settled.
    pub(crate) scope: Scope,
}

impl Endpoint {
    pub(crate) fn new(config: &crate::HubConfig, scope: Scope) -> Self {
        Self(Arc::new(Named {
            hub_name: config.hub_name(),
            event_hub: event_hub_name(&config.hostname),
            host: config.hostname.clone(),
            port: match config.amqp_port {
                // The system chose; who is sent on would not find it anyway.
                0 => AMQP_PORT,
                port => port,
            },
            scope,
        }))
    }
}

impl std::ops::Deref for Endpoint {
    type Target = Named;
    fn deref(&self) -> &Named {
        &self.0
    }
}

/// The published port of AMQP over TLS.
const AMQP_PORT: u16 = 5671;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_hub_of_a_hub_never_changes_its_name() {
        assert_eq!(event_hub_name("hub.test"), event_hub_name("HUB.test"));
        let name = event_hub_name("hub.test");
        let suffix = name.strip_prefix("iothub-ehub-hub-1-").unwrap();
        assert_eq!(suffix.len(), 10);
        assert!(suffix.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        assert_ne!(event_hub_name("hub.other"), name);
    }
}
