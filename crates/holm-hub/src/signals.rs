//! What the hub's parts tell each other and the sessions, after a change is on disk.
//!
//! Nothing here is kept: whoever misses a signal reads the state. Every call returns at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holm_gateway::{CloseReason, Directory, SessionHandle, SessionId};
use holm_model::{DeviceId, Identity};
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// Reaches the sessions and the hub's own tasks. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    directory: Arc<Directory>,
    outbox: Notify,
    /// Who has proved a key or is connected. Holds an entry for each session and for each identity whose proof is under
    /// way or was not followed by a session.
    known: Mutex<HashMap<Identity, Known>>,
    /// Who waits for mail: one notice a device that has a receiver.
    mailboxes: Mutex<HashMap<DeviceId, Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether a proof was taken back since the registry was last read for one.
    revoked: bool,
    sessions: Vec<SessionHandle>,
}

impl Signals {
    /// The sessions that live here.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    /// Tells the identity's session, if it has one here, of changed desired properties.
    pub fn desired_changed(&self, identity: &Identity, patch: &Map<String, Value>) {
        if let Some(session) = self.0.directory.find(identity) {
            session.desired_changed(Value::Object(patch.clone()));
        }
    }

    /// Ends the sessions of an identity whose proof no longer holds; of a device, also those of its modules.
    pub fn revoked(&self, identity: &Identity) {
        let ended = |other: &Identity| other == identity || (!identity.is_module() && other.device == identity.device);
        let mut known = lock(&self.0.known);
        for (_, known) in known.iter_mut().filter(|(other, _)| ended(other)) {
            known.revoked = true;
            for session in &known.sessions {
                session.close(CloseReason::Revoked);
            }
        }
    }

    /// An identity begins to prove a key; called before its registry entry is read.
    pub(crate) fn admitting(&self, identity: &Identity) {
        lock(&self.0.known).entry(identity.clone()).or_default().revoked = false;
    }

    /// A session opens; [`Signals::revoked`] reaches it from now on. `false` when the proof was taken back between the
    /// reading of the registry and now.
    pub(crate) fn opened(&self, session: &SessionHandle) -> bool {
        let mut known = lock(&self.0.known);
        let known = known.entry(session.identity().clone()).or_default();
        if !known.revoked {
            known.sessions.push(session.clone());
        }
        !known.revoked
    }

    /// A session has ended. Says whether the identity has no other.
    pub(crate) fn closed(&self, session: SessionId, identity: &Identity) -> bool {
        let mut all = lock(&self.0.known);
        let Some(known) = all.get_mut(identity) else {
            return true;
        };
        known.sessions.retain(|other| other.id() != session);
        let last = known.sessions.is_empty();
        if last {
            all.remove(identity);
        }
        last
    }

    /// There may be events in the outbox.
    pub fn outbox_filled(&self) {
        self.0.outbox.notify_one();
    }

    /// Waits for events in the outbox.
    pub(crate) async fn outbox(&self) {
        self.0.outbox.notified().await;
    }

    /// Mail may wait for a device.
    pub fn mail_arrived(&self, device: &DeviceId) {
        if let Some(waiting) = lock(&self.0.mailboxes).get(device) {
            waiting.notify_waiters();
        }
    }

    /// What wakes those who wait for mail of this device; kept while somebody holds it.
    pub(crate) fn mailbox(&self, device: &DeviceId) -> Arc<Notify> {
        let mut mailboxes = lock(&self.0.mailboxes);
        // Nobody waits at a notice that only this table holds: a cheap moment to forget the idle ones.
        if mailboxes.len() >= MAILBOXES_BEFORE_SWEEP && !mailboxes.contains_key(device) {
            mailboxes.retain(|_, waiting| Arc::strong_count(waiting) > 1);
        }
        Arc::clone(mailboxes.entry(device.clone()).or_default())
    }
}

/// From this many on, notices that nobody waits at are dropped before a new one is made.
const MAILBOXES_BEFORE_SWEEP: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Held for a map operation only, never across an await.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
