//! Cloud-to-device messages on their way through the edge: taken from the hub over the device's own connection above, handed to
//! the device, and settled at the hub when the device has settled them.
//!
//! ```text
//!   hub ──arrived──> waiting ──lease──> device ──complete──> acknowledged at the hub, over the connection that brought it
//!                       ^   |             |└──abandon──> told to the hub, which counts; over MQTT it waits here, longer each time
//!                       |   '── expired, connection above lost: dropped here, the hub has it
//!                       └── session closed, released
//! ```
//!
//! Nothing is stored here: a message waits in the hub, which counts its deliveries and its time to live (`edge-broker.md` §4.4).
//! What the device completed after its connection above was lost is remembered, so that it is not delivered again: the hub is
//! told when it sends it the next time. What the device holds meanwhile is not delivered beside. At most as many wait for a device as
//! a connection takes without acknowledgement (256).

mod letters;
mod mark;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use holm_client::event::Received;
use holm_gateway::{Delivery, Mailbox, SessionId, Settlement};
use holm_model::{Identity, Timestamp};
use tokio::sync::Notify;

use super::{Broker, abandoned, lock};
use letters::Letters;

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

/// What a device made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Completed,
    Rejected,
    Abandoned,
}

impl Verdict {
    /// Tells the hub, as far as its protocol has a word for it: over MQTT what is rejected is completed.
    pub(super) async fn tell(self, received: Received) {
        match self {
            Self::Completed => received.complete().await,
            Self::Rejected => received.reject().await,
            Self::Abandoned => received.abandon().await,
        }
    }
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
        received: Received,
        now: Timestamp,
    ) -> Option<(Received, Verdict)> {
        let mailbox = self.of(identity);
        let known = lock(&mailbox.letters).arrive(received, now);
        mailbox.arrived.notify_one();
        known
    }

    /// A connection above stands.
    pub(super) fn resumed(&self, identity: &Identity) {
        if let Some(mailbox) = self.find(identity) {
            lock(&mailbox.letters).resumed();
        }
    }

    /// A connection above has ended: what it brought comes again.
    pub(super) fn lost(&self, identity: &Identity) {
        if let Some(mailbox) = self.find(identity) {
            lock(&mailbox.letters).drop_lost();
            drop(mailbox);
            self.tidy(identity);
        }
    }

    /// Takes back what a session has not settled.
    pub(super) fn close(&self, session: SessionId, identity: &Identity) {
        let Some(mailbox) = self.find(identity) else { return };
        lock(&mailbox.letters).release_all(session);
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
        letters.is_told()
    }

    /// Drops a mailbox that nobody uses.
    fn tidy(&self, identity: &Identity) {
        let mut all = lock(&self.all);
        let is_unused = all.get(identity).is_some_and(|mailbox| {
            // Whoever uses it took a second reference, under the lock that is held here.
            lock(&mailbox.letters).is_empty() && Arc::strong_count(mailbox) == 1
        });
        if is_unused {
            all.remove(identity);
        }
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
            let (taken, due) = {
                let mut letters = lock(&mailbox.letters);
                (letters.lease(session, most), letters.next_due())
            };
            for received in taken.expired {
                self.tell_above(received, Verdict::Abandoned);
            }
            if !taken.deliveries.is_empty() {
                return taken.deliveries;
            }
            tokio::select! {
                () = arrived => {}
                () = abandoned::wait(due) => {}
            }
        }
    }

    pub(super) fn settle_mail(&self, session: SessionId, identity: &Identity, lease: u64, settlement: Settlement) {
        let Some(mailbox) = self.mail.find(identity) else {
            return;
        };
        let mut letters = lock(&mailbox.letters);
        let told = match settlement {
            Settlement::Complete => letters.finish(session, lease, Verdict::Completed),
            Settlement::Reject => letters.finish(session, lease, Verdict::Rejected),
            Settlement::Abandon => {
                let told = letters.abandon(session, lease);
                if matches!(told, Some((_, Verdict::Rejected))) {
                    tracing::warn!(%identity, "a message was abandoned too often; it counts as rejected");
                }
                told
            }
            Settlement::Release => {
                letters.release(session, lease);
                None
            }
        };
        drop(letters);
        mailbox.arrived.notify_one();
        if let Some((received, verdict)) = told {
            self.tell_above(received, verdict);
        }
    }

    /// Tells the hub what became of a message.
    fn tell_above(&self, received: Received, verdict: Verdict) {
        // Bounded: a session leases as many as its window has room for.
        self.scope.spawn_until_stopped(verdict.tell(received));
    }
}
