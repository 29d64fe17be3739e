//! Who is connected, and when each was last heard of.
//!
//! ```text
//! connect, message, disconnect -> memory --every few seconds, all that changed in one transaction--> database
//! ```
//!
//! Connecting and sending cost no transaction of their own. What a crash loses is at most the last seconds' times; that
//! nobody is connected after a start is known without being told.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, PoisonError};

use holm_model::{Identity, ServiceError, Timestamp};

use crate::storage::{Activity, Repository};

/// The most that one transaction writes, so that others don't wait for a whole fleet that has come or gone.
const AT_ONCE: usize = 1000;

/// What is known of the connections here. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Mutex<HashMap<Identity, Live>>>);

#[derive(Debug)]
struct Live {
    activity: Activity,
    changed: bool,
}

impl Presence {
    /// A session of the identity has opened.
    pub fn connected(&self, identity: &Identity, model_id: &str, now: Timestamp) {
        let activity = Activity {
            connected: true,
            state_updated: now,
            last_activity: now,
            model_id: model_id.to_owned(),
        };
        self.lock().insert(
            identity.clone(),
            Live {
                activity,
                changed: true,
            },
        );
    }

    /// The last session of the identity has ended.
    pub fn disconnected(&self, identity: &Identity, now: Timestamp) {
        if let Some(live) = self.lock().get_mut(identity) {
            live.activity.connected = false;
            live.activity.state_updated = now;
            live.activity.last_activity = now;
            live.changed = true;
        }
    }

    /// The identity was heard of.
    pub fn heard(&self, identity: &Identity, now: Timestamp) {
        // Nobody is there for a request over HTTPS: the state in the database stays what it is.
        if let Some(live) = self.lock().get_mut(identity) {
            live.activity.last_activity = now;
            live.changed = true;
        }
    }

    /// What is known of an identity that is or was just connected here.
    #[must_use]
    pub fn activity(&self, identity: &Identity) -> Option<Activity> {
        self.lock().get(identity).map(|live| live.activity.clone())
    }

    /// Forgets an identity that is no more.
    pub fn forget(&self, identity: &Identity) {
        self.lock().remove(identity);
    }

    /// Writes what has changed since the last time.
    ///
    /// # Errors
    /// When the database can't be written to; then it is tried again with the next call.
    pub async fn flush(&self, repository: &Repository) -> Result<(), ServiceError> {
        let mut changed: Vec<(Identity, Activity)> = {
            let mut all = self.lock();
            all.iter_mut()
                .filter_map(|(identity, live)| {
                    std::mem::take(&mut live.changed).then(|| (identity.clone(), live.activity.clone()))
                })
                .collect()
        };
        while !changed.is_empty() {
            let part = changed.split_off(changed.len().saturating_sub(AT_ONCE));
            if let Err(error) = self.write(repository, part).await {
                let mut all = self.lock();
                for (identity, _) in changed {
                    if let Some(live) = all.get_mut(&identity) {
                        live.changed = true;
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write(&self, repository: &Repository, changed: Vec<(Identity, Activity)>) -> Result<(), ServiceError> {
        let identities: Vec<Identity> = changed.iter().map(|(identity, _)| identity.clone()).collect();
        let written = repository
            .change(move |transaction| {
                changed
                    .iter()
                    .try_for_each(|(identity, activity)| transaction.put_activity(identity, activity))
            })
            .await;
        let mut all = self.lock();
        for identity in identities {
            let Slot::Occupied(mut live) = all.entry(identity) else {
                continue;
            };
            match &written {
                Err(_) => live.get_mut().changed = true,
                // What is in the database and will not change soon need not be here.
                Ok(()) if !live.get().changed && !live.get().activity.connected => {
                    live.remove();
                }
                Ok(()) => {}
            }
        }
        written
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Live>> {
        // Held for map operations only, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Entry;

    #[tokio::test]
    async fn a_whole_fleet_that_has_connected_is_written_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let fleet: Vec<Identity> = (0..2500).map(|n| format!("d{n}").parse().unwrap()).collect();
        let made = fleet.clone();
        repository
            .change(move |transaction| {
                made.into_iter()
                    .try_for_each(|identity| transaction.put_entry(&Entry::new(identity, Timestamp::NEVER)?))
            })
            .await
            .unwrap();
        let presence = Presence::default();
        for identity in &fleet {
            presence.connected(identity, "", Timestamp::NEVER);
        }
        let before = repository.commits();

        presence.flush(&repository).await.unwrap();

        assert_eq!(repository.commits() - before, 3);
        let last = fleet.clone();
        let connected = repository.read(move |view| {
            let found = last
                .iter()
                .map(|identity| view.activity(identity))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(found
                .into_iter()
                .flatten()
                .filter(|activity| activity.connected)
                .count())
        });
        assert_eq!(connected.await.unwrap(), 2500);
    }
}
