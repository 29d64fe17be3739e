//! Cloud-to-device messages on their way through the edge: taken from the hub over the device's own connection above, handed to
//! the device, and settled at the hub when the device has settled them.
//!
//! ```text
//!   hub ──arrived──> waiting ──lease──> device ──complete──> acknowledged at the hub, over the connection that brought it
//!                       ^   └ connection above lost: dropped here, the hub sends it again
//!                       └── session closed, abandoned
//! ```
//!
//! Nothing is stored here: a message waits in the hub, which counts its deliveries and its time to live (`edge-broker.md` §4.4).
//! What the device completed after its connection above was lost is remembered, so that it is not delivered again: the hub is
//! told when it sends it the next time. At most as many wait for a device as a connection takes without acknowledgement (256).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use holm_client::event::Received;
use holm_gateway::{Delivery, Mailbox, SessionId, Settlement};
use holm_model::{Identity, Message, SystemProperty};
use tokio::sync::Notify;

use super::{Broker, lock};

/// Completions of a device that the hub is still to be told of. Beyond it the oldest is forgotten, and delivered again.
const MAX_REMEMBERED: usize = 256;

/// Names a connection above; never used twice while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u64);

impl Source {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// The mailboxes of devices that have a connection above or a session here.
#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Held for map operations.
    all: Mutex<HashMap<Identity, Arc<Mailboxed>>>,
}

#[derive(Debug, Default)]
struct Mailboxed {
    /// Held for map operations.
    letters: Mutex<Letters>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Letters {
    last: u64,
    /// In order of arrival.
    waiting: BTreeMap<u64, Letter>,
    /// By session and lease, which is the number of the letter.
    leased: HashMap<(SessionId, u64), Letter>,
    /// What was settled too late to tell, and how.
    settled: VecDeque<(Mark, Verdict)>,
}

#[derive(Debug)]
struct Letter {
    received: Received,
    /// The connection that brought it; `None` when that is gone.
    source: Option<Source>,
    was_leased: bool,
}

/// By what a message is known again.
type Mark = (Option<String>, Bytes);

/// What a device made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Completed,
    Rejected,
}

impl Verdict {
    /// Tells the hub, as far as its protocol has a word for it: over MQTT what is rejected is completed.
    pub(super) async fn tell(self, received: Received) {
        match self {
            Self::Completed => received.complete().await,
            Self::Rejected => received.reject().await,
        }
    }
}

fn mark(message: &Message) -> Mark {
    let id = message.system.get(SystemProperty::MessageId).map(str::to_owned);
    (id, message.body.clone())
}

impl Mail {
    fn of(&self, identity: &Identity) -> Arc<Mailboxed> {
        Arc::clone(lock(&self.all).entry(identity.clone()).or_default())
    }

    fn find(&self, identity: &Identity) -> Option<Arc<Mailboxed>> {
        lock(&self.all).get(identity).cloned()
    }

    /// Takes a message from above. Gives back one that the device has settled already, with how.
    pub(super) fn arrived(
        &self,
        identity: &Identity,
        source: Source,
        received: Received,
    ) -> Option<(Received, Verdict)> {
        let mailbox = self.of(identity);
        let mut letters = lock(&mailbox.letters);
        let mark = mark(&received.message);
        let known = letters.settled.iter().position(|(known, _)| *known == mark);
        if let Some((_, verdict)) = known.and_then(|index| letters.settled.remove(index)) {
            return Some((received, verdict));
        }
        letters.last += 1;
        let number = letters.last;
        let letter = Letter {
            received,
            source: Some(source),
            was_leased: false,
        };
        letters.waiting.insert(number, letter);
        drop(letters);
        mailbox.arrived.notify_one();
        None
    }

    /// A connection above has ended: what it brought comes again.
    pub(super) fn lost(&self, identity: &Identity, source: Source) {
        let Some(mailbox) = self.find(identity) else { return };
        let mut letters = lock(&mailbox.letters);
        letters.waiting.retain(|_, letter| letter.source != Some(source));
        for letter in letters
            .leased
            .values_mut()
            .filter(|letter| letter.source == Some(source))
        {
            letter.source = None;
        }
        drop(letters);
        drop(mailbox);
        self.tidy(identity);
    }

    /// Takes back what a session has not settled.
    pub(super) fn close(&self, session: SessionId, identity: &Identity) {
        let Some(mailbox) = self.find(identity) else { return };
        let mut letters = lock(&mailbox.letters);
        let held: Vec<_> = letters
            .leased
            .keys()
            .filter(|(holder, _)| *holder == session)
            .copied()
            .collect();
        for key in held {
            if let Some(letter) = letters.leased.remove(&key) {
                letters.put_back(key.1, letter);
            }
        }
        drop(letters);
        mailbox.arrived.notify_one();
        drop(mailbox);
        self.tidy(identity);
    }

    pub(super) fn forget(&self, identity: &Identity) {
        lock(&self.all).remove(identity);
    }

    /// Whether the hub could be told now of what is leased to a device; `None` when nothing is.
    #[cfg(test)]
    pub(super) fn is_told(&self, identity: &Identity) -> Option<bool> {
        let mailbox = self.find(identity)?;
        let letters = lock(&mailbox.letters);
        letters.leased.values().map(|letter| letter.source.is_some()).next()
    }

    /// Drops a mailbox that nobody uses.
    fn tidy(&self, identity: &Identity) {
        let mut all = lock(&self.all);
        let is_unused = all.get(identity).is_some_and(|mailbox| {
            let letters = lock(&mailbox.letters);
            let is_empty = letters.waiting.is_empty() && letters.leased.is_empty() && letters.settled.is_empty();
            // Whoever uses it took a second reference, under the lock that is held here.
            is_empty && Arc::strong_count(mailbox) == 1
        });
        if is_unused {
            all.remove(identity);
        }
    }
}

impl Letters {
    /// A letter whose connection is gone does not wait: it comes again.
    fn put_back(&mut self, number: u64, mut letter: Letter) {
        if letter.source.is_some() {
            letter.was_leased = true;
            self.waiting.insert(number, letter);
        }
    }

    fn lease(&mut self, session: SessionId, most: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < most
            && let Some((number, letter)) = self.waiting.pop_first()
        {
            deliveries.push(Delivery {
                message: letter.received.message.clone(),
                input: None,
                lease: number,
                redelivered: letter.was_leased,
            });
            self.leased.insert((session, number), letter);
        }
        deliveries
    }

    /// Ends a lease; gives the message when the hub can be told.
    fn finish(&mut self, session: SessionId, lease: u64, verdict: Verdict) -> Option<Received> {
        let letter = self.leased.remove(&(session, lease))?;
        if letter.source.is_some() {
            return Some(letter.received);
        }
        if self.settled.len() >= MAX_REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back((mark(&letter.received.message), verdict));
        None
    }
}

impl Broker {
    /// Waits for mail, and leases it. Modules of other devices have no inputs here: routes name modules of this device.
    pub(super) async fn receive_mail(
        &self,
        session: SessionId,
        identity: &Identity,
        mailbox: Mailbox,
        most: usize,
    ) -> Vec<Delivery> {
        if mailbox != Mailbox::CloudToDevice {
            return std::future::pending().await;
        }
        let mailbox = self.mail.of(identity);
        loop {
            let mut arrived = std::pin::pin!(mailbox.arrived.notified());
            arrived.as_mut().enable();
            let deliveries = lock(&mailbox.letters).lease(session, most);
            if !deliveries.is_empty() {
                return deliveries;
            }
            arrived.await;
        }
    }

    pub(super) fn settle_mail(&self, session: SessionId, identity: &Identity, lease: u64, settlement: Settlement) {
        let Some(mailbox) = self.mail.find(identity) else {
            return;
        };
        let verdict = match settlement {
            Settlement::Complete => Verdict::Completed,
            Settlement::Reject => Verdict::Rejected,
            Settlement::Abandon | Settlement::Release => {
                let mut letters = lock(&mailbox.letters);
                if let Some(letter) = letters.leased.remove(&(session, lease)) {
                    letters.put_back(lease, letter);
                }
                drop(letters);
                return mailbox.arrived.notify_one();
            }
        };
        let received = lock(&mailbox.letters).finish(session, lease, verdict);
        if let Some(received) = received {
            // Bounded: a session leases as many as its window has room for.
            self.scope.spawn_until_stopped(verdict.tell(received));
        }
    }
}
