//! Which identities the node above refuses. A refusal is no outage: waiting alone does not end it, so it is told by name, and
//! whoever keeps the identities looks at them again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use holm_client::client::State;
use holm_model::{Identity, Timestamp};
use serde::Serialize;
use tokio::sync::watch;

/// An identity that the node above refuses now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// `device/module`; the device alone, where the hub's registry refuses that.
    pub identity: String,
    /// Since when.
    pub since: Timestamp,
    /// The node's answer.
    pub reason: String,
}

/// The identities that are refused now: at most one entry a module of this device, and one for itself. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Held for map operations.
    refused: Mutex<BTreeMap<Identity, Refused>>,
    attempts: watch::Sender<u64>,
    /// Whether anybody was let in.
    let_in: AtomicBool,
}

impl Refusals {
    /// Everybody who is refused now.
    #[must_use]
    pub fn list(&self) -> Vec<Refused> {
        self.refused().values().cloned().collect()
    }

    /// Changes with each attempt that was refused.
    #[must_use]
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.0.attempts.subscribe()
    }

    /// Whether the node above has let in anybody.
    #[must_use]
    pub fn was_let_in(&self) -> bool {
        self.0.let_in.load(Ordering::Relaxed)
    }

    /// Follows a connection until it is closed.
    pub(super) async fn follow(self, identity: Identity, mut state: watch::Receiver<State>) {
        while state.changed().await.is_ok() {
            let state = state.borrow_and_update().clone();
            match state {
                State::Refused(reason) => self.refuse(&identity, reason),
                State::Connected => self.accept(&identity),
                State::Connecting | State::Disconnected(_) => {}
            }
        }
        self.refused().remove(&identity);
    }

    /// Notes that somebody was let in.
    pub(crate) fn accept(&self, identity: &Identity) {
        self.0.let_in.store(true, Ordering::Relaxed);
        self.refused().remove(identity);
    }

    /// Notes that somebody was refused.
    pub(crate) fn refuse(&self, identity: &Identity, reason: String) {
        let mut refused = self.refused();
        if let Some(known) = refused.get_mut(identity) {
            known.reason = reason;
        } else {
            tracing::warn!(%identity, reason, "the hub refuses an identity; its messages wait");
            let entry = Refused {
                identity: identity.to_string(),
                since: Timestamp::from(SystemTime::now()),
                reason,
            };
            refused.insert(identity.clone(), entry);
        }
        drop(refused);
        self.0.attempts.send_modify(|count| *count += 1);
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<Identity, Refused>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
