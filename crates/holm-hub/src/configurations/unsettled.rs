//! What the commits of the hub have made uncertain since the lanes last looked.
//!
//! ```text
//! commit --watcher, on the writer's thread--> Unsettled: who changed --step, on a reader's thread--> lanes know again
//! ```
//!
//! The watcher costs nothing while there are no configurations.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holm_model::Identity;
use tokio::sync::Notify;

use crate::storage::Touched;

/// From so many changed identities on, everything is read anew: that is quicker, and the list does not grow.
const MANY: usize = 50_000;

/// What changed since the lanes last looked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsettled(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether anyone cares for identities: there is a lane, or there will be one.
    watching: AtomicBool,
    changes: Mutex<Changes>,
    /// Whether something was taken and not looked at yet.
    looking: AtomicBool,
    woken: Notify,
}

/// Who and what.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// There are others than before.
    pub(super) configurations: bool,
    /// Anybody may have changed.
    pub(super) everyone: bool,
    /// These have; where anybody may, not all of them.
    pub(super) identities: HashSet<Identity>,
}

impl Unsettled {
    /// Learns of a commit; must not block.
    pub(super) fn told(&self, touched: &[Touched]) {
        let has_configurations = touched.contains(&Touched::Configurations);
        if has_configurations {
            self.0.watching.store(true, Ordering::SeqCst);
        } else if !self.0.watching.load(Ordering::SeqCst) {
            return;
        }
        let mut changes = self.lock();
        changes.configurations |= has_configurations;
        for what in touched {
            if let Touched::Identity(identity) = what
                && !changes.everyone
            {
                changes.identities.insert(identity.clone());
            }
        }
        if changes.identities.len() > MANY {
            changes.everyone = true;
            changes.identities = HashSet::new();
        }
        drop(changes);
        self.0.woken.notify_one();
    }

    /// Makes everything uncertain: at a start.
    pub(super) fn begin(&self) {
        self.0.watching.store(true, Ordering::SeqCst);
        let mut changes = self.lock();
        (changes.configurations, changes.everyone) = (true, true);
        drop(changes);
        self.0.woken.notify_one();
    }

    /// Wakes the one who waits.
    pub(super) fn wake(&self) {
        self.0.woken.notify_one();
    }

    /// Waits until something is uncertain. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Whether nothing is uncertain.
    pub(super) fn is_empty(&self) -> bool {
        let changes = self.lock();
        !self.0.looking.load(Ordering::SeqCst)
            && !changes.configurations
            && !changes.everyone
            && changes.identities.is_empty()
    }

    /// Takes what is uncertain; to be called before the view is opened on which it is looked at.
    pub(super) fn take(&self) -> Changes {
        let mut now = self.lock();
        let changes = std::mem::take(&mut *now);
        self.0.looking.store(true, Ordering::SeqCst);
        drop(now);
        if changes.configurations {
            // Before the lanes read: what is committed from now on is told.
            self.0.watching.store(true, Ordering::SeqCst);
        }
        changes
    }

    /// Takes back what could not be looked at.
    pub(super) fn give_back(&self, changes: Changes) {
        let mut now = self.lock();
        now.configurations |= changes.configurations;
        now.everyone |= changes.everyone;
        now.identities.extend(changes.identities);
    }

    /// What was taken is looked at, or was given back.
    pub(super) fn looked(&self) {
        self.0.looking.store(false, Ordering::SeqCst);
    }

    /// There is no lane, so identities need not be told.
    pub(super) fn nobody_cares(&self) {
        let changes = self.lock();
        if !changes.configurations {
            self.0.watching.store(false, Ordering::SeqCst);
        }
    }

    /// Whether identities are told.
    #[cfg(test)]
    pub(super) fn is_watching(&self) -> bool {
        self.0.watching.load(Ordering::SeqCst)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Changes> {
        // Held for operations on a set only, never across an await.
        self.0.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
