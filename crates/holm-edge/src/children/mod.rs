//! The devices below this edge, and their modules: who they are and how each proves it, as the hub told last.
//!
//! ```text
//!   hub ──scope calls──> keeper ──> Children ──> broker: who is let in, in whose name messages go up
//!                          ^  '──> state.db (encrypted): the same after a restart with no hub
//!                          '── asks: somebody unknown, or with a proof that does not fit, is at the door
//! ```
//!
//! - What was told once holds until the hub tells otherwise, with or without a link.
//! - Keys of children come from the hub and are held here, in types that do not print; on disk they are encrypted.
//! - Whoever is gone, disabled or has another proof gets another stamp, so that the sessions of the old one end.
//! - There are at most [`MAX_CHILDREN`] of them; what the hub tells beyond that is not taken in, and said at ERROR.
//!
//! Source: `edge-broker.md` §1.3, §4.2.

mod child;
mod keeper;
mod scope_api;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use holm_gateway::Credential;
use holm_identity::SigningCertificate;
use holm_model::{Identity, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use child::is_audience;
pub use child::{Child, Denied, Proved};
pub use keeper::{Keeper, KeeperParts, restore};
pub use scope_api::{ScopeApi, ScopeError};

/// The most identities below one edge: the hub's limit of children, and a module for each. One takes less than 1 KiB.
pub const MAX_CHILDREN: usize = 20_000;

/// How long somebody at the door waits for the hub's answer about them.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions that wait for the keeper. Whoever finds no room is told to come again.
const MAX_ASKS: usize = 64;

/// What is asked of the keeper.
#[derive(Debug)]
pub enum Ask {
    /// Look at one identity; the answer says whether the hub has told.
    One(Identity, Option<oneshot::Sender<bool>>),
    /// Look at all, and say what went wrong.
    All(oneshot::Sender<Result<(), String>>),
}

/// The identities below this edge.
#[derive(Debug)]
pub struct Children {
    /// Held for a look or an assignment, never over an `.await`.
    known: RwLock<Known>,
    changes: watch::Sender<u64>,
    asks: mpsc::Sender<Ask>,
    /// Who may vouch for devices by certificates: the operator's authorities. Held for a look.
    authorities: RwLock<Vec<SigningCertificate>>,
}

#[derive(Debug, Default)]
struct Known {
    all: HashMap<Identity, Entry>,
    last_stamp: u64,
}

#[derive(Debug)]
struct Entry {
    child: Child,
    /// Another one whenever the child is another.
    stamp: u64,
}

/// What a change of the children did, for who keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// New, or not as they were.
    pub put: Vec<(Identity, Child)>,
    /// Gone.
    pub removed: Vec<Identity>,
}

impl Changed {
    /// Whether nothing is other than it was.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.put.is_empty() && self.removed.is_empty()
    }
}

impl Children {
    /// Nobody yet; what is asked arrives at the second.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(MAX_ASKS);
        let children = Self {
            known: RwLock::default(),
            changes: watch::Sender::new(0),
            asks,
            authorities: RwLock::default(),
        };
        (children, asked)
    }

    /// Says who may vouch for devices by certificates.
    pub fn trust(&self, authorities: Vec<SigningCertificate>) {
        *self.authorities.write().unwrap_or_else(PoisonError::into_inner) = authorities;
    }

    /// Whether there is such a child, let in or not.
    #[must_use]
    pub fn contains(&self, identity: &Identity) -> bool {
        self.read().all.contains_key(identity)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().all.len()
    }

    /// Changes with every change. `0`: the hub has never told, so nobody can be said not to exist.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the hub has ever told.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        *self.changes.borrow() > 0
    }

    /// Under what a session of this child is open now: its generation and the stamp of its proof; `None` when it may not
    /// have one.
    #[must_use]
    pub fn grant(&self, identity: &Identity) -> Option<String> {
        let known = self.read();
        let entry = known.all.get(identity)?;
        known.is_enabled(identity).then(|| entry.grant())
    }

    /// Checks a proof. `hosts` are the names that a token may name.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn judge(
        &self,
        identity: &Identity,
        credential: &Credential,
        hosts: &[String],
        now: Timestamp,
    ) -> Result<Proved, Denied> {
        let known = self.read();
        let Some(entry) = known.all.get(identity) else {
            return Err(Denied::unknown(identity));
        };
        if !known.is_enabled(identity) {
            return Err(Denied::disabled(identity));
        }
        let device = Identity::of_device(identity.device.clone());
        // A module may prove itself with its device's key.
        let device = identity.is_module().then(|| known.all.get(&device)).flatten();
        let authorities = self.authorities.read().unwrap_or_else(PoisonError::into_inner);
        let case = child::Case {
            identity,
            hosts,
            now,
            authorities: &authorities,
        };
        let proof = entry
            .child
            .judge(&case, credential, device.map(|device| &device.child))?;
        Ok(Proved {
            grant: entry.grant(),
            ..proof
        })
    }

    /// Asks the hub about one at the door, and waits. Says whether the hub has told.
    pub async fn ask(&self, identity: &Identity) -> bool {
        let (answer, told) = oneshot::channel();
        if self.asks.try_send(Ask::One(identity.clone(), Some(answer))).is_err() {
            return false;
        }
        matches!(tokio::time::timeout(PATIENCE, told).await, Ok(Ok(true)))
    }

    /// Says that something may be other with an identity. Lost when too much is asked; the hourly look finds it.
    pub fn hint(&self, identity: &Identity) {
        if self.asks.try_send(Ask::One(identity.clone(), None)).is_err() {
            tracing::debug!(%identity, "too much is asked about devices below this edge; looked at later");
        }
    }

    /// Has the hub asked about everybody now.
    ///
    /// # Errors
    /// What went wrong, for people.
    pub async fn refresh(&self) -> Result<(), String> {
        let (answer, told) = oneshot::channel();
        let busy = || "the edge is busy with its children; try again".to_owned();
        self.asks.try_send(Ask::All(answer)).map_err(|_| busy())?;
        told.await.map_err(|_| busy())?
    }

    /// What the hub has told of everybody: those who are not in it are gone.
    pub fn replace(&self, told: HashMap<Identity, Child>) -> Changed {
        let mut known = self.write();
        let gone: Vec<_> = known
            .all
            .keys()
            .filter(|identity| !told.contains_key(*identity))
            .cloned()
            .collect();
        for identity in &gone {
            known.all.remove(identity);
        }
        let mut changed = Changed {
            put: Vec::new(),
            removed: gone,
        };
        let mut told: Vec<_> = told.into_iter().collect();
        // Devices before modules, so that at the limit those go in who bring the others.
        told.sort_by(|(a, _), (b, _)| a.is_module().cmp(&b.is_module()).then_with(|| a.cmp(b)));
        for (identity, child) in told {
            known.put(identity, child, &mut changed);
        }
        drop(known);
        self.tell(&changed, true);
        changed
    }

    /// What the hub has told of one device, and of a module of it when that was asked for: `None` when it is no child.
    pub fn replace_one(&self, asked: &Identity, told: Option<HashMap<Identity, Child>>) -> Changed {
        let mut known = self.write();
        let mut changed = Changed::default();
        let told = told.unwrap_or_default();
        let is_gone = |identity: &Identity| {
            let is_asked = identity == asked || (!asked.is_module() && identity.device == asked.device);
            let is_told = told.contains_key(identity);
            // The answer about a device says nothing of its modules, as long as it is there.
            is_asked && !is_told && (identity == asked || !told.contains_key(asked))
        };
        changed.removed = known.all.keys().filter(|identity| is_gone(identity)).cloned().collect();
        for identity in &changed.removed {
            known.all.remove(identity);
        }
        for (identity, child) in told {
            known.put(identity, child, &mut changed);
        }
        drop(known);
        self.tell(&changed, false);
        changed
    }

    /// Takes in what was kept of the last run.
    pub fn restore(&self, kept: HashMap<Identity, Child>, was_loaded: bool) {
        let mut known = self.write();
        for (identity, child) in kept {
            known.put(identity, child, &mut Changed::default());
        }
        drop(known);
        if was_loaded {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn tell(&self, changed: &Changed, is_everybody: bool) {
        // The first time that everybody is known is a change, also when that is nobody.
        if !changed.is_nothing() || (is_everybody && !self.is_loaded()) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn put(&mut self, identity: Identity, child: Child, changed: &mut Changed) {
        match self.all.get(&identity) {
            Some(entry) if entry.child == child => return,
            None if self.all.len() >= MAX_CHILDREN => {
                tracing::error!(%identity, "more than {MAX_CHILDREN} identities are below this edge; this one is not let in");
                return;
            }
            _ => {}
        }
        self.last_stamp += 1;
        changed.put.push((identity.clone(), child.clone()));
        let entry = Entry {
            child,
            stamp: self.last_stamp,
        };
        self.all.insert(identity, entry);
    }

    /// Whether it may connect: a module only while its device may.
    fn is_enabled(&self, identity: &Identity) -> bool {
        let device = Identity::of_device(identity.device.clone());
        let is_enabled = |identity: &Identity| self.all.get(identity).is_some_and(|entry| entry.child.enabled);
        is_enabled(identity) && is_enabled(&device)
    }
}

impl Entry {
    fn grant(&self) -> String {
        format!("{}#{}", self.child.generation, self.stamp)
    }
}
