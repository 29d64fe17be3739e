//! Messages that a sender published together: one look at the time and the routes, one append, one receipt for all.
//!
//! ```text
//!   1 2 3 4 5 ──> as many as need no waiting ──> one append ──> one receipt
//!         '────── the first that has to wait, or is refused, is left over with those behind it, and goes alone
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holm_gateway::Admission;
use holm_model::{Identity, Message};
use holm_query::MessageSource;
use holm_queue::{Commit, LaneId, NewRecord};

use super::Broker;
use super::figures::{Sender, Taken};
use super::ingest::counted_bytes;
use super::receipt::Receipt;
use super::routes::Table;
use super::stamps::STAMPED_BYTES;

/// A message on its way into the queue, with those that were published together with it.
struct Ready {
    /// Its size as it is counted.
    bytes: usize,
    /// Where its deliveries end among those of all.
    lanes_end: usize,
    /// Deliveries that expire at once.
    expired: u64,
}

impl Broker {
    /// Takes in messages from the front, as many as need no waiting.
    pub(super) fn ingest_together(&self, from: &Admission, messages: &mut VecDeque<Message>) -> Option<Receipt> {
        let table = self.routes.current()?;
        let (now, sender) = (self.now(), from.identity.to_string());
        let enqueued_at = self.millis();
        let count = messages.len();
        let mut stamps = self.stamps(&from.identity, from.announced.model_id.as_deref(), now, count);
        let (mut ready, mut payloads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        // As a rule each goes to one place.
        let mut lanes = Vec::with_capacity(count);
        let room = messages.iter().map(|message| message.body.len() + STAMPED_BYTES);
        let mut buffer = BytesMut::with_capacity(room.sum());
        for message in messages.iter_mut() {
            let Ok(bytes) = counted_bytes(message) else {
                break;
            };
            self.stamp(message, &mut stamps);
            let Some(expired) = plan_known(&table, &from.identity, message, enqueued_at, &mut lanes) else {
                break;
            };
            ready.push(Ready {
                bytes,
                lanes_end: lanes.len(),
                expired,
            });
            message.encode_into(&mut buffer);
            payloads.push(buffer.split().freeze());
        }
        let (count, commit) = self.append_ready((&sender, enqueued_at), &ready, &lanes, payloads);
        if count == 0 {
            return None;
        }
        ready.truncate(count);
        let figures = self.count_received(&table, &self.figures.sender(&sender), &ready, messages);
        messages.drain(..count);
        Some(Receipt::new(commit, figures))
    }

    /// Counts what was taken in. Gives where it was counted, for each run of messages of one output.
    fn count_received(
        &self,
        table: &Table,
        sender: &Sender,
        ready: &[Ready],
        messages: &VecDeque<Message>,
    ) -> Vec<(Arc<Taken>, u64)> {
        self.counters.received.add(ready.len() as u64);
        let mut runs: Vec<(&str, Arc<Taken>, u64)> = Vec::new();
        let mut start = 0;
        for (ready, message) in ready.iter().zip(messages) {
            let output = table.output_label(message);
            match runs.last_mut() {
                Some((known, _, count)) if *known == output => *count += 1,
                _ => runs.push((output, self.figures.taken(sender, output), 1)),
            }
            let is_routed = ready.lanes_end > start;
            start = ready.lanes_end;
            if ready.expired > 0 {
                self.counters.dropped_expired.add(ready.expired);
                self.figures.expired(sender.name(), output, ready.expired);
            } else if !is_routed {
                self.counters.dropped_no_route.count();
                self.figures.no_route(sender.name(), output);
            }
        }
        sender.measure(ready.iter().map(|ready| ready.bytes));
        let count = |(_, figures, count): (&str, Arc<Taken>, u64)| {
            figures.received.add(count);
            (figures, count)
        };
        runs.into_iter().map(count).collect()
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
