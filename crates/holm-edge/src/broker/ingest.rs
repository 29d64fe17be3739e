//! From a module to the queue: stamp, route, append once for all endpoints. The sender is told when the append is on disk.
//!
//! Messages that were published together take this way together (`together`), as far as none of them has to wait or is
//! refused.
//!
//! ```text
//!   message -> size -> stamps -> routes -> lanes with expiry -> one append -> receipt (resolves with the commit)
//!                                   '- none: acknowledged and counted
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use holm_gateway::{Admission, Ingest, IngestError};
use holm_model::message::MAX_DEVICE_TO_CLOUD_BYTES;
use holm_model::wire::bag;
use holm_model::{Identity, Message, SystemProperty};
use holm_query::{MessageSource, Priority, Sink};
use holm_queue::{AppendError, Commit, LaneId, NewRecord};

use super::Broker;
use super::receipt::Receipt;
use super::routes::Table;

/// A delivery whose lane is still to be found.
struct Planned<'t> {
    sink_index: usize,
    sink: &'t Sink,
    priority: Priority,
    expires_at: u64,
}

impl Ingest for Broker {
    type Receipt = Receipt;

    fn ingest_ready(&self, from: &Admission, messages: &mut VecDeque<Message>) -> Option<Receipt> {
        self.ingest_together(from, messages)
    }

    fn check(&self, _from: &Admission, message: &Message) -> Result<(), IngestError> {
        counted_bytes(message).map(drop)
    }

    async fn ingest(&self, from: &Admission, mut message: Message) -> Result<Receipt, IngestError> {
        let size = match counted_bytes(&message) {
            Ok(size) => size,
            Err(error) => {
                self.counters.refused_too_large.count();
                return Err(error);
            }
        };
        let now = self.now();
        let mut stamps = self.stamps(&from.identity, from.announced.model_id.as_deref(), now, 1);
        self.stamp(&mut message, &mut stamps);
        let sender = self.figures.sender(&from.identity.to_string());
        let figures = self.figures.received(&sender, &self.output_label(&message), size);
        let taken = self.take_in(&from.identity, &message, None).await;
        match taken {
            Ok(commit) => {
                self.counters.received.count();
                Ok(Receipt::new(commit, vec![(figures, 1)]))
            }
            Err(error) => {
                self.counters.refused_unavailable.count();
                figures.unacknowledged.increment();
                Err(error)
            }
        }
    }
}

impl Broker {
    /// Tells routes and receivers of a change that a module reported (`edge-broker.md` §2.2). Nobody waits for it.
    pub(super) async fn tell_twin_change(&self, of: &Identity, patch: &serde_json::Value) {
        let now = self.now();
        let mut message = Message::new(patch.to_string());
        self.stamp(&mut message, &mut self.stamps(of, None, now, 1));
        for (property, value) in [
            (SystemProperty::MessageType, "twinChangeNotification"),
            (SystemProperty::MessageSchema, "twinChangeNotification"),
            (SystemProperty::ContentType, "application/json"),
            (SystemProperty::ContentEncoding, "utf-8"),
        ] {
            message.system.set(property, value);
        }
        let source = Some(MessageSource::TwinChange);
        if let Err(error) = self.take_in(&self.edge_hub, &message, source).await {
            self.counters.dropped_twin_changes.count();
            tracing::warn!(identity = %of, %error, "a message about a twin change was not stored");
        }
    }

    /// Routes and appends. `source` is what routes see as the origin, where that is not the sender.
    async fn take_in(
        &self,
        sender: &Identity,
        message: &Message,
        source: Option<MessageSource<'_>>,
    ) -> Result<Option<Commit>, IngestError> {
        let table = self.routes.current().ok_or_else(|| {
            IngestError::Unavailable("the edge has no routes yet; they come with its first deployment".to_owned())
        })?;
        let enqueued_at = self.millis();
        let is_twin_change = source.is_some();
        let source = source.unwrap_or_else(|| MessageSource::of(sender, message));
        let (planned, expired) = plan(&table, &source, message, enqueued_at);
        if expired > 0 {
            self.counters.dropped_expired.add(expired);
            self.figures
                .expired(&sender.to_string(), &self.output_label(message), expired);
        }
        if planned.is_empty() {
            if expired == 0 && !is_twin_change {
                self.counters.dropped_no_route.count();
                self.figures.no_route(&sender.to_string(), &self.output_label(message));
            }
            return Ok(None);
        }
        let most_urgent = planned.iter().map(|delivery| delivery.priority.number()).min();
        let most_urgent = most_urgent.unwrap_or_default();
        let lanes = self.lanes_of(&table, planned).await?;
        let sender = sender.to_string();
        let record = NewRecord {
            sender: &sender,
            lanes: &lanes,
            enqueued_at,
            payload: message.encode(),
        };
        self.append(&record, most_urgent).await
    }

    async fn lanes_of(&self, table: &Table, planned: Vec<Planned<'_>>) -> Result<Vec<(LaneId, u64)>, IngestError> {
        let mut lanes = Vec::with_capacity(planned.len());
        for delivery in planned {
            let lane = match table.known_lane(delivery.sink_index, delivery.priority) {
                Some(lane) => lane,
                None => table
                    .lane(&self.lanes, delivery.sink_index, delivery.sink, delivery.priority)
                    .await
                    .map_err(|error| IngestError::Unavailable(error.to_string()))?,
            };
            lanes.push((lane, delivery.expires_at));
        }
        Ok(lanes)
    }

    /// Appends; waits while too much waits for the disk, so that the senders feel it.
    async fn append(&self, record: &NewRecord<'_>, most_urgent: u32) -> Result<Option<Commit>, IngestError> {
        loop {
            match self.lanes.queue().append(record) {
                Ok(pending) => {
                    self.has_room();
                    return Ok(Some(pending.into()));
                }
                Err(AppendError::Busy { .. }) => self.lanes.queue().room().await,
                Err(error @ AppendError::QueueFull { .. }) => {
                    let bytes = (record.sender.len() + record.payload.len()) as u64;
                    if !self.make_room(bytes, most_urgent).await {
                        self.counters.refused_quota.count();
                        return Err(IngestError::Unavailable(error.to_string()));
                    }
                }
                Err(error) => return Err(IngestError::Unavailable(error.to_string())),
            }
        }
    }
}

/// The size of a message, if it may be taken in.
pub(super) fn counted_bytes(message: &Message) -> Result<usize, IngestError> {
    let size = message.counted_bytes();
    if size > MAX_DEVICE_TO_CLOUD_BYTES {
        return Err(IngestError::TooLarge {
            size,
            limit: MAX_DEVICE_TO_CLOUD_BYTES,
        });
    }
    let bytes = bag::longest(message);
    if bytes > bag::MAX_BYTES {
        return Err(IngestError::PropertiesTooLong {
            bytes,
            limit: bag::MAX_BYTES,
        });
    }
    Ok(size)
}

/// What routes want of a message, and how many deliveries expire at once.
fn plan<'t>(
    table: &'t Arc<Table>,
    source: &MessageSource<'t>,
    message: &'t Message,
    now: u64,
) -> (Vec<Planned<'t>>, u64) {
    let mut planned = Vec::new();
    let mut expired = 0;
    for delivery in table.set.evaluate(source, message) {
        match table.expiry(&delivery, now) {
            Some(expires_at) => planned.push(Planned {
                sink_index: delivery.sink_index,
                sink: delivery.sink,
                priority: delivery.priority,
                expires_at,
            }),
            None => expired += 1,
        }
    }
    (planned, expired)
}
