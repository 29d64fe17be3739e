//! From the queue to the inputs of modules: the module's lanes are merged, most urgent first, and what is taken is on lease
//! to the session until the module has acknowledged it.
//!
//! - Deliveries run ahead of the commit (`Visibility::Appended`): latency is the bus's. A crash in between makes a duplicate.
//! - Lanes are read one window ahead at most, and only while the module is there: one that is absent or slow costs nothing
//!   and holds nobody up.
//! - Whoever waits holds the module's feeds; settling and closing need only its leases, which are never held across a wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use holm_gateway::{Admission, Delivery, Inbox, Mailbox, Refusal, SessionId, Settlement};
use holm_model::{Identity, Message, ModuleId};
use holm_query::Sink;
use holm_queue::{ReadError, Visibility};
use tokio::sync::{Notify, watch};

use super::dead_letters::{Burial, Reason};
use super::done::LastWay;
use super::feed::{Feed, is_expired, wait_any};
use super::lanes::Lanes;
use super::leases::{Leased, Leases};
use super::quota::Dropped;
use super::{Broker, abandoned, lock};

/// Bytes of bodies that one call hands out, with the last message beyond them.
const MOST_BYTES: usize = 256 << 10;

/// The inputs of one module.
#[derive(Debug)]
struct ModuleInbox {
    feeds: tokio::sync::Mutex<Feeds>,
    /// Held for a few map operations, never across a wait.
    leases: Mutex<Leases>,
    /// Something came back.
    returned: Notify,
}

#[derive(Debug)]
struct Feeds {
    module: ModuleId,
    lanes: watch::Receiver<u64>,
    open: Vec<InputFeed>,
}

#[derive(Debug)]
struct InputFeed {
    input: Arc<str>,
    feed: Feed,
}

/// The inputs of all modules that were ever connected: at most one entry a module of this device.
#[derive(Debug, Default)]
pub(super) struct Inboxes {
    all: Mutex<HashMap<ModuleId, Arc<ModuleInbox>>>,
}

impl Inboxes {
    fn of(&self, module: &ModuleId, lanes: &Lanes) -> Arc<ModuleInbox> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let inbox = all.entry(module.clone()).or_insert_with(|| {
            let mut changes = lanes.changes();
            changes.mark_changed();
            Arc::new(ModuleInbox {
                feeds: tokio::sync::Mutex::new(Feeds {
                    module: module.clone(),
                    lanes: changes,
                    open: Vec::new(),
                }),
                leases: Mutex::default(),
                returned: Notify::new(),
            })
        });
        Arc::clone(inbox)
    }

    fn find(&self, module: &ModuleId) -> Option<Arc<ModuleInbox>> {
        lock(&self.all).get(module).cloned()
    }

    /// Takes back what a session holds.
    pub(super) fn close(&self, session: SessionId, module: &ModuleId) {
        if let Some(inbox) = self.find(module)
            && inbox.leases().close(session)
        {
            inbox.returned.notify_one();
        }
    }

    /// How many deliveries of a module are in memory.
    #[cfg(test)]
    pub(super) fn held(&self, module: &ModuleId) -> usize {
        self.find(module).map_or(0, |inbox| inbox.leases().held())
    }
}

impl ModuleInbox {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        lock(&self.leases)
    }
}

impl Feeds {
    /// Opens the lanes that were made since the last time.
    fn refresh(&mut self, lanes: &Lanes) -> Result<(), ReadError> {
        if !self.lanes.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.lanes.borrow_and_update();
        for (name, lane) in lanes.all() {
            match name.endpoint {
                Sink::Module { module, input }
                    if module == self.module && self.open.iter().all(|open| open.feed.lane != lane) =>
                {
                    self.open.push(InputFeed {
                        input: input.into(),
                        feed: Feed::open(lanes.queue(), lane, name.priority, Visibility::Appended)?,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until there may be something to take, or a lane was made.
    async fn wait(&mut self) -> Result<(), ReadError> {
        let Self { lanes, open, .. } = self;
        tokio::select! {
            ready = wait_any(open.iter_mut().map(|open| &mut open.feed)) => ready,
            changed = lanes.changed() => {
                // Left as changed, for `refresh`.
                if changed.is_ok() {
                    lanes.mark_changed();
                }
                Ok(())
            }
        }
    }
}

impl Inbox for Broker {
    async fn receive(
        &self,
        session: SessionId,
        of: &Admission,
        mailbox: Mailbox,
        most: usize,
    ) -> Result<Vec<Delivery>, Refusal> {
        if mailbox == Mailbox::CloudToDevice || of.identity.device != *self.keys.device() {
            return Ok(self.receive_mail(session, &of.identity, mailbox, most).await);
        }
        let (Mailbox::Inputs, Some(module)) = (mailbox, &of.identity.module) else {
            let reason = "modules have inputs and no other mailbox";
            return Err(Refusal::NotAuthorized(reason.to_owned()));
        };
        let inbox = self.inboxes.of(module, &self.lanes);
        let mut feeds = inbox.feeds.lock().await;
        loop {
            let mut returned = std::pin::pin!(inbox.returned.notified());
            returned.as_mut().enable();
            let unreadable = |error: ReadError| Refusal::Unavailable(error.to_string());
            feeds.refresh(&self.lanes).map_err(unreadable)?;
            let deliveries = self.take(&inbox, &mut feeds, (session, &of.identity), most);
            let deliveries = deliveries.map_err(unreadable)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            let (due, is_full) = {
                let leases = inbox.leases();
                (leases.next_due(), leases.has_too_many())
            };
            tokio::select! {
                ready = feeds.wait(), if !is_full => ready.map_err(unreadable)?,
                () = returned => {}
                () = abandoned::wait(due) => {}
            }
        }
    }

    fn complete(&self, session: SessionId, of: &Admission, mailbox: Mailbox, leases: &[u64]) {
        let module = of.identity.module.as_ref().filter(|_| mailbox == Mailbox::Inputs);
        let Some(inbox) = module.and_then(|module| self.inboxes.find(module)) else {
            return leases
                .iter()
                .for_each(|lease| self.settle(session, of, mailbox, *lease, Settlement::Complete));
        };
        let mut held = inbox.leases();
        let done: Vec<_> = leases.iter().filter_map(|lease| held.end(session, *lease)).collect();
        drop(held);
        self.completed(done.into_iter());
    }

    fn settle(&self, session: SessionId, of: &Admission, mailbox: Mailbox, lease: u64, settlement: Settlement) {
        if mailbox == Mailbox::CloudToDevice {
            return self.settle_mail(session, &of.identity, lease, settlement);
        }
        let Some(inbox) = of.identity.module.as_ref().and_then(|module| self.inboxes.find(module)) else {
            return;
        };
        let Some(delivery) = inbox.leases().end(session, lease) else {
            return;
        };
        match settlement {
            Settlement::Complete => self.completed([delivery].into_iter()),
            Settlement::Reject => self.rejected(&of.identity, delivery, "rejected it"),
            Settlement::Abandon => {
                let too_often = inbox.leases().abandon(delivery);
                inbox.returned.notify_one();
                if let Some(delivery) = too_often {
                    let what = format!("abandoned it {} times", abandoned::MOST);
                    self.rejected(&of.identity, delivery, &what);
                }
            }
            Settlement::Release => {
                inbox.leases().give_back(delivery);
                inbox.returned.notify_one();
            }
        }
    }
}

impl Broker {
    /// Leases what is there, most urgent first, in the order of arrival.
    fn take(
        &self,
        inbox: &ModuleInbox,
        feeds: &mut Feeds,
        (session, of): (SessionId, &Identity),
        most: usize,
    ) -> Result<Vec<Delivery>, ReadError> {
        let now = self.millis();
        let (moment, mut last_way) = (Instant::now(), LastWay::default());
        let mut dropped = Dropped::now(self);
        let mut leases = inbox.leases();
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        while deliveries.len() < most && bytes < MOST_BYTES {
            let room = most - deliveries.len();
            let next = match leases.take_abandoned() {
                None if leases.has_too_many() => None,
                None => self.next_of(&mut leases, feeds, room)?,
                due => due,
            };
            let Some(mut next) = next else { break };
            if is_expired(&next.record, now) {
                self.figures_of_expired(&next.record);
                let position = next.record.position;
                self.lanes.queue().expire(next.lane, position..position + 1);
                continue;
            }
            if dropped.has(next.lane, next.record.position) {
                continue;
            }
            match Message::decode(next.record.payload()) {
                Ok(message) => {
                    bytes += message.body.len();
                    if next.redelivered {
                        self.counters.redelivered.count();
                    }
                    if let Some(module) = &of.module {
                        next.handed = Some((moment, last_way.of(self, module, &message, &next)));
                    }
                    let (input, redelivered) = (Some(Arc::clone(&next.input)), next.redelivered);
                    deliveries.push(Delivery {
                        message,
                        input,
                        redelivered,
                        lease: leases.lease(session, next),
                    });
                }
                Err(error) => {
                    self.counters.dropped_unreadable.count();
                    tracing::error!(offset = %next.record.offset, %error, "a stored message can't be read and is a dead letter now");
                    self.bury_delivery(of, next, Reason::Undecodable, error.to_string());
                }
            }
        }
        Ok(deliveries)
    }

    /// The first by urgency and arrival among those that came back and the heads of the lanes.
    fn next_of(&self, leases: &mut Leases, feeds: &mut Feeds, room: usize) -> Result<Option<Leased>, ReadError> {
        let mut first = leases.first_returned().map(|place| (place, None));
        for (index, open) in feeds.open.iter_mut().enumerate() {
            let priority = open.feed.priority;
            if let Some(record) = open.feed.peek(room, &self.counters)? {
                let place = (priority, record.offset);
                if first.is_none_or(|(known, _)| place < known) {
                    first = Some((place, Some(index)));
                }
            }
        }
        Ok(match first {
            None => None,
            Some((_, None)) => leases.take_returned(),
            Some((_, Some(index))) => feeds.open.get_mut(index).and_then(|open| {
                Some(Leased {
                    record: open.feed.pop()?,
                    lane: open.feed.lane,
                    priority: open.feed.priority,
                    input: Arc::clone(&open.input),
                    redelivered: false,
                    abandoned: 0,
                    handed: None,
                })
            }),
        })
    }

    /// Its receiver does not want it.
    fn rejected(&self, of: &Identity, delivery: Leased, what: &str) {
        self.counters.dropped_rejected.count();
        tracing::warn!(identity = %of, input = %delivery.input, "the receiver of a message {what}; it is a dead letter now");
        self.bury_delivery(of, delivery, Reason::Rejected, format!("`{of}` {what}"));
    }

    fn bury_delivery(&self, of: &Identity, delivery: Leased, reason: Reason, detail: String) {
        let Some(module) = of.module.clone() else { return };
        self.bury(Burial {
            endpoint: Sink::Module {
                module,
                input: delivery.input.as_ref().to_owned(),
            },
            lane: delivery.lane,
            priority: delivery.priority,
            record: delivery.record,
            reason,
            detail,
        });
    }
}
