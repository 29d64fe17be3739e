//! What the hub's parts tell each other and the sessions, after a change is on disk.
//!
//! Nothing here is kept: whoever misses a signal reads the state. Every call returns at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_gateway::{CloseReason, Directory, SessionHandle, SessionId};
use holm_model::{DeviceId, Identity, ModuleId};
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// Reaches the sessions and the hub's own tasks. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    directory: Arc<Directory>,
    outbox: Notify,
    /// Who is logging in or connected. An entry goes with its last session and log-in, so strangers who fail to log in
    /// leave nothing behind.
    known: Mutex<AllKnown>,
    /// Who waits for mail: one notice a device that has a receiver.
    mailboxes: Mutex<HashMap<DeviceId, Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether a proof was taken back while somebody was logging in.
    revoked: bool,
    /// When each log-in that is under way began.
    logging_in: VecDeque<Instant>,
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
        let mut all = lock(&self.0.known);
        let Some(of_device) = all.get_mut(&identity.device) else {
            return;
        };
        let ended = |module: &Option<ModuleId>| !identity.is_module() || *module == identity.module;
        for (_, known) in of_device.iter_mut().filter(|(module, _)| ended(module)) {
            known.revoked = !known.logging_in.is_empty();
            for session in &known.sessions {
                session.close(CloseReason::Revoked);
            }
        }
    }

    /// An identity begins to log in; called before its registry entry is read. [`Signals::opened`] or
    /// [`Signals::not_opened`] ends it.
    pub(crate) fn logging_in(&self, identity: &Identity) {
        let mut all = lock(&self.0.known);
        let of_device = all.entry(identity.device.clone()).or_default();
        let known = of_device.entry(identity.module.clone()).or_default();
        // Fronts open the session at once; what did not open one by now never will.
        known.logging_in.retain(|began| began.elapsed() < LONGEST_LOG_IN);
        if known.logging_in.is_empty() {
            known.revoked = false;
        }
        known.logging_in.push_back(Instant::now());
    }

    /// A log-in has ended without a session.
    pub(crate) fn not_opened(&self, identity: &Identity) {
        let mut all = lock(&self.0.known);
        if let Some(known) = find(&mut all, identity) {
            known.logging_in.pop_front();
            if known.is_idle() {
                remove(&mut all, identity);
            }
        }
    }

    /// A session opens; [`Signals::revoked`] reaches it from now on. `false` when the proof may have been taken back
    /// between the reading of the registry and now: the client is to log in again.
    pub(crate) fn opened(&self, session: &SessionHandle) -> bool {
        let mut all = lock(&self.0.known);
        let identity = session.identity();
        let of_device = all.entry(identity.device.clone()).or_default();
        let known = of_device.entry(identity.module.clone()).or_default();
        known.logging_in.pop_front();
        let good = !known.revoked;
        if good {
            known.sessions.push(session.clone());
        } else if known.is_idle() {
            remove(&mut all, identity);
        }
        good
    }

    /// A session has ended. Says whether the identity has no other.
    pub(crate) fn closed(&self, session: SessionId, identity: &Identity) -> bool {
        let mut all = lock(&self.0.known);
        let Some(known) = find(&mut all, identity) else {
            return true;
        };
        known.sessions.retain(|other| other.id() != session);
        let last = known.sessions.is_empty();
        if known.is_idle() {
            remove(&mut all, identity);
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

impl Known {
    fn is_idle(&self) -> bool {
        self.logging_in.is_empty() && self.sessions.is_empty()
    }
}

/// A device and its modules together: a device that goes ends the sessions of all of them, among however many others.
type AllKnown = HashMap<DeviceId, HashMap<Option<ModuleId>, Known>>;

fn find<'a>(all: &'a mut AllKnown, identity: &Identity) -> Option<&'a mut Known> {
    all.get_mut(&identity.device)?.get_mut(&identity.module)
}

fn remove(all: &mut AllKnown, identity: &Identity) {
    if let Some(of_device) = all.get_mut(&identity.device) {
        of_device.remove(&identity.module);
        if of_device.is_empty() {
            all.remove(&identity.device);
        }
    }
}

/// How long a log-in may take until its session opens.
const LONGEST_LOG_IN: Duration = Duration::from_secs(30);

/// From this many on, notices that nobody waits at are dropped before a new one is made.
const MAILBOXES_BEFORE_SWEEP: usize = 4096;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Held for a map operation only, never across an await.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(identity: &Identity) -> SessionHandle {
        SessionHandle::new(identity.clone()).0
    }

    #[test]
    fn a_key_that_changes_during_the_log_in_opens_no_session() {
        let (signals, identity) = (Signals::default(), "d1/m".parse::<Identity>().unwrap());
        let device = Identity::of_device(identity.device.clone());

        signals.logging_in(&identity);
        signals.revoked(&device);
        let late = signals.opened(&session(&identity));
        signals.logging_in(&identity);
        let again = signals.opened(&session(&identity));

        assert!(!late);
        assert!(again);
    }

    #[test]
    fn who_fails_to_log_in_leaves_nothing_behind() {
        let (signals, identity) = (Signals::default(), "d1".parse::<Identity>().unwrap());
        let first = session(&identity);

        signals.logging_in(&identity);
        signals.not_opened(&identity);
        assert!(lock(&signals.0.known).is_empty());

        signals.logging_in(&identity);
        assert!(signals.opened(&first));
        signals.logging_in(&identity);
        assert!(signals.closed(first.id(), &identity));
        signals.not_opened(&identity);
        assert!(lock(&signals.0.known).is_empty());
    }

    #[test]
    fn a_proof_that_is_taken_back_costs_nothing_for_the_others_who_are_connected() {
        let signals = Signals::default();
        let others: Vec<Identity> = (0..100_000).map(|n| format!("d{n}").parse().unwrap()).collect();
        for other in &others {
            signals.logging_in(other);
        }
        let module = "d7/m".parse::<Identity>().unwrap();
        signals.logging_in(&module);

        let begun = Instant::now();
        for other in &others[..5000] {
            signals.revoked(other);
        }

        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(!signals.opened(&session(&module)));
        assert!(signals.opened(&session(&others[5000])));
    }
}
