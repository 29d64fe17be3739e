//! Brings the messages of one lane to their endpoint.
//!
//! ```text
//! lane --collect--> batch --send--> taken        -> acknowledged in the lane -> on disk -> next batch
//!                     ^               not now      -> pause: 1 s, 2 s, … 60 s, half of it by chance -> again
//!                     |               never        -> one message to the dead letters, or dropped -> the rest again
//!                     '-- what is over its time, or beyond the bytes that may wait: dropped and counted
//! ```
//!
//! - What is sent is on the hub's disk; what is acknowledged was taken by the endpoint, or is counted as something else.
//! - An acknowledgement is on disk before the next batch is sent: after `kill -9`, at most one batch comes twice.
//! - One batch is in memory, however much waits.

mod dead_letters;
mod pause;

use std::future::Future;
use std::time::Duration;

use holm_model::{DeviceId, Message, SystemProperty};
use holm_queue::{LaneId, ReadError, Reader, Record, Start, Visibility};
use tokio::time::Instant;

use dead_letters::DEAD_LETTER;
pub(super) use dead_letters::DeadLetters;
use pause::{FIRST_PAUSE, chance, pause};

use super::endpoint::{Endpoint, Limits, Routed, SendError};
use super::health::Health;
use super::source::Source;
use crate::Clock;
use crate::events::{EventLog, partition_of, timestamp, unix_millis};

/// How often what waits is looked at while nothing can be sent.
const LOOK: Duration = Duration::from_secs(5);
/// How long an endpoint may take to say good-bye.
const GOOD_BYE: Duration = Duration::from_secs(3);
/// The most bytes of a batch, whatever the endpoint wants.
const MAX_BATCH_BYTES: usize = 64 << 20;

/// Brings messages to an endpoint.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) name: String,
    pub(super) log: EventLog,
    pub(super) lane: LaneId,
    pub(super) health: Health,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) max_waiting_bytes: u64,
    pub(super) clock: Clock,
}

/// Messages that are to be sent, with what decides whether they still are.
#[derive(Debug, Default)]
struct Batch {
    messages: Vec<Routed>,
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    expires_at: u64,
    is_dead_letter: bool,
}

/// What of the lane has gone, and how much of it by our hand.
#[derive(Debug)]
struct Ledger {
    first: u64,
    settled: u64,
}

impl Delivery {
    /// Works until `stop` resolves, or the lane is gone.
    pub(super) async fn run(self, mut endpoint: Box<dyn Endpoint>, stop: impl Future<Output = ()> + Send) {
        tokio::select! {
            ended = self.work(endpoint.as_mut()) => {
                if let Err(error) = ended {
                    tracing::debug!(endpoint = self.name, %error, "nothing more is delivered");
                }
            }
            () = stop => {}
        }
        if tokio::time::timeout(GOOD_BYE, endpoint.close()).await.is_err() {
            tracing::debug!(endpoint = self.name, "the endpoint did not say good-bye in time");
        }
    }

    async fn work(&self, endpoint: &mut dyn Endpoint) -> Result<(), ReadError> {
        let mut reader = self
            .log
            .queue()
            .reader(self.lane, Start::LowWater, Visibility::Durable)?;
        let first = self.log.queue().low_water(self.lane);
        let mut ledger = Ledger {
            first: first.unwrap_or_default(),
            settled: 0,
        };
        let mut failures = 0_u32;
        let mut batch = Batch::default();
        loop {
            self.trim();
            self.account(&ledger);
            if batch.messages.is_empty() {
                let limits = endpoint.limits();
                self.collect(limits, &mut reader, &mut batch, &mut ledger).await?;
            }
            self.leave_out_what_is_over(&mut batch);
            if batch.messages.is_empty() {
                continue;
            }
            match endpoint.send(&batch.messages).await {
                Ok(()) => {
                    failures = 0;
                    let all = batch.messages.len();
                    self.settle(&mut batch, &mut ledger, all).await;
                }
                Err(SendError::Later { delivered, after, why }) => {
                    self.failed(&why, &endpoint.describe());
                    failures = if delivered > 0 { 1 } else { failures.saturating_add(1) };
                    self.settle(&mut batch, &mut ledger, delivered).await;
                    self.rest(pause(failures, after, chance())).await;
                }
                Err(SendError::Never { index, why }) => {
                    failures = 0;
                    self.settle(&mut batch, &mut ledger, index).await;
                    self.give_up(&mut batch, &mut ledger, &why).await;
                }
            }
        }
    }

    /// Reads the next batch; waits for a message.
    async fn collect(
        &self,
        limits: Limits,
        reader: &mut Reader,
        batch: &mut Batch,
        ledger: &mut Ledger,
    ) -> Result<(), ReadError> {
        let Limits {
            messages,
            bytes,
            linger,
        } = limits;
        let (messages, bytes) = (messages.max(1), bytes.clamp(1, MAX_BATCH_BYTES));
        let mut until: Option<Instant> = None;
        let mut size = 0;
        loop {
            let records = match reader.try_read(messages - batch.messages.len(), bytes.saturating_sub(size).max(1)) {
                Ok(records) => records,
                Err(error @ ReadError::Io { .. }) => {
                    let error = holm_net::error_chain(&error);
                    tracing::error!(
                        endpoint = self.name,
                        error,
                        "waiting messages can't be read; it is tried again"
                    );
                    tokio::time::sleep(FIRST_PAUSE).await;
                    continue;
                }
                Err(gone) => return Err(gone),
            };
            for record in records {
                size += record.payload_len();
                self.take(&record, batch, ledger);
            }
            if batch.messages.len() >= messages || size >= bytes {
                return Ok(());
            }
            if batch.messages.is_empty() {
                // The lane may have given up what there was to read, and nothing may come for long.
                self.account(ledger);
                reader.wait().await?;
                continue;
            }
            let until = *until.get_or_insert_with(|| Instant::now() + linger);
            match tokio::time::timeout_at(until, reader.wait()).await {
                Ok(waited) => waited?,
                Err(_) => return Ok(()),
            }
        }
    }

    fn take(&self, record: &Record, batch: &mut Batch, ledger: &mut Ledger) {
        let message = match Message::decode(record.payload()) {
            Ok(message) => message,
            Err(error) => {
                let sequence = record.position;
                tracing::error!(endpoint = self.name, sequence, %error, "a message can't be read back and is dropped");
                self.health.rejected(&error.to_string(), false, self.clock.now());
                self.acknowledge(record.position, ledger);
                return;
            }
        };
        let device = message.system.get(SystemProperty::ConnectionDeviceId);
        let device = device.and_then(|device| DeviceId::new(device).ok());
        batch.messages.push(Routed {
            sequence: record.position,
            enqueued: timestamp(record.enqueued_at),
            source: Source::of(&message),
            partition: device.map_or(0, |device| partition_of(&device, self.log.partitions())),
            message,
        });
        batch.marks.push(Mark {
            expires_at: record.expires_at,
            is_dead_letter: record.sender().starts_with(DEAD_LETTER),
        });
    }

    /// Removes from the front of a batch what the lane has given up meanwhile, or gives up now.
    fn leave_out_what_is_over(&self, batch: &mut Batch) {
        let low_water = self.log.queue().low_water(self.lane).unwrap_or_default();
        let now = unix_millis(self.clock.now());
        let is_over = |(message, mark): (&Routed, &Mark)| {
            message.sequence < low_water || (mark.expires_at != 0 && mark.expires_at <= now)
        };
        let over = batch
            .messages
            .iter()
            .zip(&batch.marks)
            .take_while(|both| is_over(*both));
        let over = over.count();
        for message in batch.messages.iter().take(over) {
            self.log
                .queue()
                .expire(self.lane, message.sequence..message.sequence.saturating_add(1));
        }
        batch.forget(over);
    }

    /// Gives up the oldest of what waits beyond the bytes that may wait.
    fn trim(&self) {
        let Some(depth) = self.log.queue().depth(self.lane) else {
            return;
        };
        let Some(excess) = depth
            .bytes
            .checked_sub(self.max_waiting_bytes)
            .filter(|excess| *excess > 0)
        else {
            return;
        };
        let average = (depth.bytes / depth.records.max(1)).max(1);
        let first = self.log.queue().low_water(self.lane).unwrap_or_default();
        let count = excess.div_ceil(average);
        self.log.queue().expire(self.lane, first..first.saturating_add(count));
    }

    /// Counts what was given up, whoever did it, and tells of it.
    fn account(&self, ledger: &Ledger) {
        let Some(low_water) = self.log.queue().low_water(self.lane) else {
            return;
        };
        let gone = low_water.saturating_sub(ledger.first);
        let news = self.health.dropped(gone.saturating_sub(ledger.settled));
        if news > 0 {
            tracing::warn!(
                endpoint = self.name,
                dropped = news,
                "messages waited longer for an endpoint, or were more, than its definition allows; they are lost to it"
            );
        }
    }

    /// The first `count` messages of a batch were taken.
    async fn settle(&self, batch: &mut Batch, ledger: &mut Ledger, count: usize) {
        let count = count.min(batch.messages.len());
        let Some(last) = count.checked_sub(1).and_then(|last| batch.messages.get(last)) else {
            return;
        };
        if self.health.delivered(count, last.enqueued, self.clock.now()) {
            tracing::info!(endpoint = self.name, "an endpoint takes messages again");
        }
        for message in batch.messages.iter().take(count) {
            self.acknowledge(message.sequence, ledger);
        }
        batch.forget(count);
        self.commit().await;
    }

    fn acknowledge(&self, sequence: u64, ledger: &mut Ledger) {
        // What was given up meanwhile is counted as given up.
        let is_there = self
            .log
            .queue()
            .low_water(self.lane)
            .is_some_and(|low_water| low_water <= sequence);
        ledger.settled += u64::from(is_there);
        if let Err(error) = self
            .log
            .queue()
            .acknowledge(self.lane, sequence..sequence.saturating_add(1))
        {
            tracing::debug!(endpoint = self.name, %error, "a delivery is not recorded; it may be repeated");
        }
    }

    /// On a disk that is full or failing, deliveries go on; a crash then repeats them.
    async fn commit(&self) {
        if let Err(error) = self.log.flush().await {
            let error = holm_net::error_chain(&error);
            tracing::debug!(endpoint = self.name, error, "deliveries are not recorded yet");
        }
    }

    fn failed(&self, why: &str, to: &str) {
        if self.health.failed(why, self.clock.now()) {
            tracing::warn!(
                endpoint = self.name,
                to,
                why,
                "an endpoint takes no messages; they wait, and it is tried again"
            );
        }
    }

    /// Waits before the next attempt; meanwhile no more waits than may.
    async fn rest(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.trim();
            tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
        }
    }
}

impl Batch {
    /// The first `count` are done.
    fn forget(&mut self, count: usize) {
        self.messages.drain(..count.min(self.messages.len()));
        self.marks.drain(..count.min(self.marks.len()));
    }
}

/// Of an endpoint that can't be used as it is defined: what is for it waits until it is defined otherwise.
#[derive(Debug)]
pub(super) struct Unusable(pub(super) String);

impl Endpoint for Unusable {
    fn send<'a>(&'a mut self, _batch: &'a [Routed]) -> futures_util::future::BoxFuture<'a, Result<(), SendError>> {
        let why = self.0.clone();
        Box::pin(std::future::ready(Err(SendError::later(why))))
    }

    fn limits(&self) -> Limits {
        Limits {
            messages: 1,
            ..Limits::USUAL
        }
    }

    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
}

/// The time after which a message for an endpoint is given up, as lanes count it.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
