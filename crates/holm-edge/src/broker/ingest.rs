//! From a module to the queue: stamp, route, append once for all endpoints. The sender is told when the append is on disk.
//!
//! What a sender published together goes this way together: one look at the time and the routes, one append, one receipt. What
//! would have to wait, or is refused, goes alone.
//!
//! ```text
//!   message -> size -> stamps -> routes -> lanes with expiry -> one append -> receipt (resolves with the commit)
//!                                   '- none: acknowledged and counted
//! ```

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use holm_gateway::{Admission, Ingest, IngestError};
use holm_model::message::{MAX_DEVICE_TO_CLOUD_BYTES, SharedText};
use holm_model::wire::bag;
use holm_model::{Identity, Message, SystemProperty, Timestamp};
use holm_query::{MessageSource, Priority, Sink};
use holm_queue::{AppendError, Commit, LaneId, NewRecord};

use super::Broker;
use super::routes::Table;

/// Resolves when a message is on disk, or those that were taken in together.
#[derive(Debug)]
pub struct Receipt(Option<Commit>);

impl Future for Receipt {
    type Output = Result<(), IngestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            None => Poll::Ready(Ok(())),
            Some(commit) => Pin::new(commit)
                .poll(cx)
                .map_err(|error| IngestError::Unavailable(error.to_string())),
        }
    }
}

/// Makes ids that are unique across restarts: a random half, and a count.
#[derive(Debug)]
pub(super) struct MessageIds {
    opening: u64,
    count: AtomicU64,
}

impl MessageIds {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            opening: getrandom::u64()?,
            count: AtomicU64::new(0),
        })
    }

    /// In the form of a GUID.
    fn next(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut number = u128::from(self.opening) << 64 | u128::from(count);
        let mut text = *b"00000000-0000-0000-0000-000000000000";
        for place in text.iter_mut().rev().filter(|place| **place == b'0') {
            *place = DIGITS[usize::try_from(number & 0xf).unwrap_or_default()];
            number >>= 4;
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// What is stamped on every message of a sender; made once for those that came together.
struct Stamps {
    device: SharedText,
    module: Option<SharedText>,
    model: Option<SharedText>,
    origin: SharedText,
    time: SharedText,
}

/// Stamps of a message, at most.
const STAMPS: usize = 6;
/// The bytes that they take as a rule, with their framing; only a hint.
const STAMPED_BYTES: usize = 256;

/// A message on its way into the queue, with those that were published together with it.
struct Ready {
    /// Where its deliveries end among those of all.
    lanes_end: usize,
    /// Deliveries that expire at once.
    expired: u64,
}

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
        let table = self.routes.current()?;
        let (now, sender) = (super::now(), from.identity.to_string());
        let enqueued_at = millis(now);
        let stamps = self.stamps(&from.identity, from.announced.model_id.as_deref(), now);
        let (mut ready, mut lanes, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        let mut buffer =
            BytesMut::with_capacity(messages.iter().map(|message| message.body.len() + STAMPED_BYTES).sum());
        for message in messages.iter_mut() {
            if check_size(message).is_err() {
                break;
            }
            self.stamp(message, &stamps);
            let Some(expired) = plan_known(&table, &from.identity, message, enqueued_at, &mut lanes) else {
                break;
            };
            ready.push(Ready {
                lanes_end: lanes.len(),
                expired,
            });
            message.encode_into(&mut buffer);
            payloads.push(buffer.split().freeze());
        }
        let (count, commit) = self.append_ready((&sender, enqueued_at), &ready, &lanes, payloads);
        let mut start = 0;
        for ready in ready.iter().take(count) {
            self.counters.dropped_expired.add(ready.expired);
            if ready.lanes_end == start && ready.expired == 0 {
                self.counters.dropped_no_route.count();
            }
            start = ready.lanes_end;
        }
        self.counters.received.add(count as u64);
        messages.drain(..count);
        (count > 0).then_some(Receipt(commit))
    }

    async fn ingest(&self, from: &Admission, mut message: Message) -> Result<Receipt, IngestError> {
        if let Err(error) = check_size(&message) {
            self.counters.refused_too_large.count();
            return Err(error);
        }
        let now = super::now();
        let stamps = self.stamps(&from.identity, from.announced.model_id.as_deref(), now);
        self.stamp(&mut message, &stamps);
        let taken = self.take_in(&from.identity, &message, None, now).await;
        match &taken {
            Ok(_) => self.counters.received.count(),
            Err(_) => self.counters.refused_unavailable.count(),
        }
        taken
    }
}

impl Broker {
    /// Tells routes and receivers of a change that a module reported (`edge-broker.md` §2.2). Nobody waits for it.
    pub(super) async fn tell_twin_change(&self, of: &Identity, patch: &serde_json::Value) {
        let now = super::now();
        let mut message = Message::new(patch.to_string());
        self.stamp(&mut message, &self.stamps(of, None, now));
        for (property, value) in [
            (SystemProperty::MessageType, "twinChangeNotification"),
            (SystemProperty::MessageSchema, "twinChangeNotification"),
            (SystemProperty::ContentType, "application/json"),
            (SystemProperty::ContentEncoding, "utf-8"),
        ] {
            message.system.set(property, value);
        }
        let source = Some(MessageSource::TwinChange);
        if let Err(error) = self.take_in(&self.edge_hub, &message, source, now).await {
            self.counters.dropped_twin_changes.count();
            tracing::warn!(identity = %of, %error, "a message about a twin change was not stored");
        }
    }

    fn stamps(&self, sender: &Identity, model: Option<&str>, now: Timestamp) -> Stamps {
        Stamps {
            device: sender.device.as_str().into(),
            module: sender.module.as_ref().map(|module| module.as_str().into()),
            model: model.map(SharedText::from),
            origin: SharedText::from_static(self.origin(sender)),
            time: now.to_string().into(),
        }
    }

    fn stamp(&self, message: &mut Message, stamps: &Stamps) {
        let system = &mut message.system;
        system.reserve(STAMPS);
        system.set(SystemProperty::ConnectionDeviceId, stamps.device.clone());
        if let Some(module) = &stamps.module {
            system.set(SystemProperty::ConnectionModuleId, module.clone());
        }
        system.set(SystemProperty::EnqueuedTime, stamps.time.clone());
        system.set(SystemProperty::EdgeMessageId, self.message_ids.next());
        system.set(SystemProperty::EdgeOrigin, stamps.origin.clone());
        if let Some(model) = &stamps.model {
            system.set(SystemProperty::ModelId, model.clone());
        }
    }

    /// Appends messages that came together, as many as are taken; gives how many, and their commit if any needs one.
    fn append_ready(
        &self,
        (sender, enqueued_at): (&str, u64),
        ready: &[Ready],
        lanes: &[(LaneId, u64)],
        payloads: Vec<Bytes>,
    ) -> (usize, Option<Commit>) {
        let mut records = Vec::with_capacity(ready.len());
        let mut start = 0;
        for (ready, payload) in ready.iter().zip(payloads) {
            let lanes = lanes.get(start..ready.lanes_end).unwrap_or_default();
            start = ready.lanes_end;
            if !lanes.is_empty() {
                records.push(NewRecord {
                    sender,
                    lanes,
                    enqueued_at,
                    payload,
                });
            }
        }
        let (appended, commit) = match self.lanes.queue().append_all(&records) {
            Ok((appended, commit)) => (appended, Some(commit)),
            // The first that was refused is asked for again, alone; if there is none, nothing was to be appended.
            Err(_) => (0, None),
        };
        if appended > 0 {
            self.has_room();
        }
        // Those without a lane are done with, up to the first record that was refused.
        let mut left = appended;
        let mut start = 0;
        let is_taken = |ready: &&Ready| {
            let has_lanes = ready.lanes_end > start;
            start = ready.lanes_end;
            if has_lanes && left == 0 {
                return false;
            }
            left -= usize::from(has_lanes);
            true
        };
        (ready.iter().take_while(is_taken).count(), commit)
    }

    /// Routes and appends. `source` is what routes see as the origin, where that is not the sender.
    async fn take_in(
        &self,
        sender: &Identity,
        message: &Message,
        source: Option<MessageSource<'_>>,
        now: Timestamp,
    ) -> Result<Receipt, IngestError> {
        let table = self.routes.current().ok_or_else(|| {
            IngestError::Unavailable("the edge has no routes yet; they come with its first deployment".to_owned())
        })?;
        let enqueued_at = millis(now);
        let is_twin_change = source.is_some();
        let source = source.unwrap_or_else(|| MessageSource::of(sender, message));
        let (planned, expired) = plan(&table, &source, message, enqueued_at);
        self.counters.dropped_expired.add(expired);
        if planned.is_empty() {
            if expired == 0 && !is_twin_change {
                self.counters.dropped_no_route.count();
            }
            return Ok(Receipt(None));
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
    async fn append(&self, record: &NewRecord<'_>, most_urgent: u32) -> Result<Receipt, IngestError> {
        loop {
            match self.lanes.queue().append(record) {
                Ok(pending) => {
                    self.has_room();
                    return Ok(Receipt(Some(pending.into())));
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

fn check_size(message: &Message) -> Result<(), IngestError> {
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
    Ok(())
}

/// Adds the lanes of a message with the time when it expires in each; gives how many deliveries expire at once. `None` when a
/// lane is not known yet: nothing is added then.
fn plan_known(
    table: &Table,
    sender: &Identity,
    message: &Message,
    now: u64,
    lanes: &mut Vec<(LaneId, u64)>,
) -> Option<u64> {
    let before = lanes.len();
    let mut expired = 0;
    for delivery in table.set.evaluate(&MessageSource::of(sender, message), message) {
        match table.expiry(&delivery, now) {
            None => expired += 1,
            Some(expires_at) => match table.known_lane(delivery.sink_index, delivery.priority) {
                Some(lane) => lanes.push((lane, expires_at)),
                None => {
                    lanes.truncate(before);
                    return None;
                }
            },
        }
    }
    Some(expired)
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

/// Milliseconds since 1970 as the queue counts them.
fn millis(now: Timestamp) -> u64 {
    u64::try_from(now.unix_millis()).unwrap_or(0)
}
