//! A link on which a client reads a partition.
//!
//! ```text
//!            .--credit, room: read, write, send--.
//! Ready ----<---------------------------------->-'     all that there is was sent: Empty
//!   |  ^--credit-- NoCredit     the client asks for no more now; nothing is read
//!   |  ^--written- NoRoom       the client reads its socket too slowly; nothing is read
//!   '--^--more---- Empty        the reader says when there is more
//! ```
//!
//! Deliveries are settled when they are sent (`libraries.md`, AMQP fact 7): a reader knows by the sequence number how far it is.
//! What is read ahead is one batch of the reader's and one message, whatever the client's credit.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use holm_amqp::performative::{Attach, SenderSettleMode};
use holm_amqp::{Acceptance, AmqpError, Connection, DeliveryTag, LinkId, Outbound, SendError, Symbol, condition};
use holm_model::Timestamp;

use super::super::refusals;
use super::errors;
use super::event_message::{RuntimeMetric, write_event};
use crate::service::{PartitionReader, ReadRefusal, StoredEvent};

/// The capability by which a reader asks for what is known of the partition, with every event.
const RUNTIME_METRIC: &str = "com.microsoft:enable-receiver-runtime-metric";
/// Room that is made at a time for messages to be sent: they share it, so it is not much more than they are.
const CHUNK: usize = 64 * 1024;

/// Where the link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// There may be something to send.
    Ready,
    /// All that there is was sent.
    Empty,
    /// The client gives no credit.
    NoCredit,
    /// The connection has no room.
    NoRoom,
}

/// The sending end of a partition's link.
#[derive(Debug)]
pub(super) struct EventLink<R> {
    reader: R,
    partition: u16,
    ahead: VecDeque<StoredEvent>,
    /// What was written and not sent yet.
    written: Option<Bytes>,
    flow: Flow,
    /// The client wants the rest of its credit back.
    is_draining: bool,
    wants_metric: bool,
    metric: Option<RuntimeMetric>,
    sent: u64,
}

/// What a link needs of its surroundings while it sends.
pub(super) struct Surroundings<'c> {
    pub(super) connection: &'c mut Connection,
    pub(super) buffer: &'c mut BytesMut,
    pub(super) now: Timestamp,
}

impl<R: PartitionReader> EventLink<R> {
    pub(super) fn new(reader: R, partition: u16, attach: &Attach) -> Self {
        let wants_metric = wants_metric(attach);
        Self {
            reader,
            partition,
            ahead: VecDeque::new(),
            written: None,
            flow: Flow::NoCredit,
            is_draining: false,
            wants_metric,
            metric: None,
            sent: 0,
        }
    }

    /// The answer to the client's attach; its filter comes back in the source.
    pub(super) fn acceptance(attach: &Attach) -> Acceptance {
        let mut offered_capabilities = Vec::new();
        if wants_metric(attach) {
            offered_capabilities.push(Symbol::from_static(RUNTIME_METRIC));
        }
        Acceptance {
            snd_settle_mode: SenderSettleMode::Settled,
            offered_capabilities,
            ..super::admission::acceptance(attach)
        }
    }

    /// The client has said how much more it takes.
    pub(super) fn credit(&mut self, credit: u32, drain: bool) {
        self.is_draining = drain;
        self.flow = match (self.flow, credit) {
            // Only what it has to give back is left to be said.
            (Flow::Empty, 1..) if !drain => Flow::Empty,
            (_, 0) if !drain => Flow::NoCredit,
            _ => Flow::Ready,
        };
    }

    /// Whether it waits for room.
    pub(super) fn wants_room(&self) -> bool {
        self.flow == Flow::NoRoom
    }

    /// The connection may have room again.
    pub(super) fn room(&mut self) {
        if self.flow == Flow::NoRoom {
            self.flow = Flow::Ready;
        }
    }

    /// Ready when there is something to do: the reader has lost the partition, or there is more to send.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<ReadRefusal>> {
        if let Poll::Ready(end) = self.reader.poll_end(context) {
            return Poll::Ready(Some(end));
        }
        if self.flow == Flow::Empty && self.reader.poll_readable(context).is_ready() {
            self.flow = Flow::Ready;
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Sends what there is, as far as credit and room allow.
    ///
    /// # Errors
    /// What the link is to be detached with.
    pub(super) fn send(&mut self, link: LinkId, around: &mut Surroundings<'_>) -> Result<(), AmqpError> {
        while self.flow == Flow::Ready {
            let Some(payload) = self.next_payload(around)? else {
                self.flow = Flow::Empty;
                break;
            };
            let delivery = Outbound {
                tag: DeliveryTag::from(self.sent),
                format: 0,
                payload,
                settled: true,
            };
            match around.connection.send(link, &delivery) {
                Ok(_) => self.sent += 1,
                Err(error) => self.not_sent(delivery.payload, error)?,
            }
        }
        let has_all = matches!(self.flow, Flow::Empty | Flow::NoCredit);
        if self.is_draining && has_all {
            self.is_draining = !around.connection.give_credit_back(link);
            self.flow = Flow::NoCredit;
        }
        Ok(())
    }

    fn not_sent(&mut self, payload: Bytes, error: SendError) -> Result<(), AmqpError> {
        self.flow = match error {
            SendError::QueueFull | SendError::WindowFull => Flow::NoRoom,
            SendError::NoCredit | SendError::NotAttached => Flow::NoCredit,
            // It would be passed over in silence, or stop the reader for ever.
            SendError::TooLarge { .. } => {
                let text = format!("an event can't be sent: {error}; attach with a larger `max-message-size`, or none");
                return Err(refusals::error(condition::MESSAGE_SIZE_EXCEEDED, text));
            }
        };
        self.written = Some(payload);
        Ok(())
    }

    /// The next message to send; none when all that there is was sent.
    fn next_payload(&mut self, around: &mut Surroundings<'_>) -> Result<Option<Bytes>, AmqpError> {
        if let Some(written) = self.written.take() {
            return Ok(Some(written));
        }
        loop {
            if self.ahead.is_empty() {
                self.read_ahead(around.now)?;
            }
            let Some(event) = self.ahead.pop_front() else {
                return Ok(None);
            };
            around.buffer.reserve(CHUNK.min(event.message.len() + 1024));
            let (partition, sequence) = (self.partition, event.sequence);
            match write_event(event, self.metric.as_ref(), around.buffer) {
                Ok(()) => return Ok(Some(around.buffer.split().freeze())),
                Err(error) => {
                    tracing::error!(partition, sequence, %error, "an event can't be read and is passed over");
                }
            }
        }
    }

    fn read_ahead(&mut self, now: Timestamp) -> Result<(), AmqpError> {
        self.ahead = match self.reader.try_read() {
            Ok(events) => events.into(),
            Err(refusal) => return Err(errors::of_read(&refusal)),
        };
        if self.wants_metric {
            let bounds = self.reader.bounds();
            self.metric = bounds.map(|bounds| RuntimeMetric { bounds, at: now });
        }
        Ok(())
    }
}

fn wants_metric(attach: &Attach) -> bool {
    attach
        .desired_capabilities
        .iter()
        .any(|capability| *capability == RUNTIME_METRIC)
}
