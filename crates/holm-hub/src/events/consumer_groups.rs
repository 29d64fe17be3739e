//! The consumer groups of the Event Hub: names under which readers read by themselves. `$Default` is always there.
//!
//! They are in the database, and in memory for those who attach. Whoever reads in one that is removed loses its place. A group keeps
//! no position: readers keep theirs. Source: `hub-service-api.md` §6.

use std::sync::{Arc, PoisonError, RwLock};

use holm_model::{ErrorCode, ServiceError, Timestamp};

use super::Readers;
use crate::Clock;
use crate::storage::Repository;

/// The group that is always there.
pub const DEFAULT: &str = "$Default";
/// The most groups, the one that is always there with them. Source: `hub-service-api.md` §9.
pub const MAX_GROUPS: usize = 20;
/// The longest name, as at the original.
const MAX_NAME: usize = 50;

/// The consumer groups of a hub. Clones are the same.
#[derive(Clone, Debug)]
pub struct ConsumerGroups {
    repository: Repository,
    clock: Clock,
    /// Written after the database; read by those who attach.
    names: Arc<RwLock<Vec<String>>>,
    readers: Readers,
    created: Timestamp,
}

impl ConsumerGroups {
    /// The groups of a repository; a new one gets `$Default`.
    ///
    /// # Errors
    /// When the database can't be used.
    pub async fn open(repository: Repository, clock: Clock, readers: Readers) -> Result<Self, ServiceError> {
        let found = repository.read(|view| view.consumer_groups()).await?;
        let found = if found.iter().any(|(name, _)| name == DEFAULT) {
            found
        } else {
            let now = clock.now();
            repository
                .change(move |transaction| {
                    transaction.add_consumer_group(DEFAULT, now)?;
                    transaction.consumer_groups()
                })
                .await?
        };
        let created = found
            .iter()
            .find(|(name, _)| name == DEFAULT)
            .map(|(_, created)| *created);
        Ok(Self {
            created: created.unwrap_or_else(|| clock.now()),
            names: Arc::new(RwLock::new(found.into_iter().map(|(name, _)| name).collect())),
            readers,
            repository,
            clock,
        })
    }

    /// When the Event Hub was made.
    #[must_use]
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// The names, in the order in which they were made.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there is such a group; compared without case.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Makes a group, if it is not there.
    ///
    /// # Errors
    /// `ArgumentInvalid` for a name that can't be one; `InvalidOperation` when there are as many as allowed; when the
    /// database can't be written to.
    pub async fn add(&self, name: &str) -> Result<(), ServiceError> {
        check(name)?;
        let (wanted, now) = (name.to_owned(), self.clock.now());
        self.change(move |transaction| {
            let known = transaction.consumer_groups()?;
            if known.iter().any(|(known, _)| known.eq_ignore_ascii_case(&wanted)) {
                return Ok(());
            }
            if known.len() >= MAX_GROUPS {
                let text = format!("there are {MAX_GROUPS} consumer groups, the most allowed; remove one first");
                return Err(ServiceError::new(ErrorCode::InvalidOperation, text));
            }
            transaction.add_consumer_group(&wanted, now)?;
            transaction.record("consumerGroup.add", &wanted, None, now)
        })
        .await
    }

    /// Removes a group, if it is there, and takes the places of those who read in it.
    ///
    /// # Errors
    /// `InvalidOperation` for `$Default`; when the database can't be written to.
    pub async fn remove(&self, name: &str) -> Result<(), ServiceError> {
        if name.eq_ignore_ascii_case(DEFAULT) {
            let text = format!("the consumer group `{DEFAULT}` is always there");
            return Err(ServiceError::new(ErrorCode::InvalidOperation, text));
        }
        let (wanted, now) = (name.to_owned(), self.clock.now());
        self.change(move |transaction| {
            let was_there = transaction.remove_consumer_group(&wanted)?;
            if was_there {
                transaction.record("consumerGroup.remove", &wanted, None, now)?;
            }
            Ok(())
        })
        .await
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&crate::storage::Transaction<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (names, readers) = (Arc::clone(&self.names), self.readers.clone());
        let changed = self.repository.change_then(
            move |transaction| {
                let done = change(transaction)?;
                Ok((done, transaction.consumer_groups()?))
            },
            move |(_, groups)| {
                let all = groups.iter().map(|(name, _)| name.clone()).collect();
                let before = std::mem::replace(&mut *names.write().unwrap_or_else(PoisonError::into_inner), all);
                // Here, since whoever has asked may have gone away.
                for gone in before
                    .iter()
                    .filter(|name| !groups.iter().any(|(left, _)| left == *name))
                {
                    readers.clear(gone);
                }
            },
        );
        changed.await.map(|(done, _)| done)
    }
}

/// Letters, digits, `.`, `-` and `_`, as at the original.
fn check(name: &str) -> Result<(), ServiceError> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_default = name.eq_ignore_ascii_case(DEFAULT);
    if is_default || ((1..=MAX_NAME).contains(&name.len()) && name.chars().all(is_good)) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(ServiceError::argument_invalid(format!(
        "`{shown}` can't be the name of a consumer group; give 1 to {MAX_NAME} letters, digits, `.`, `-` or `_`"
    )))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_readers_of_a_group_end_though_whoever_removes_it_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let readers = Readers::default();
        let groups = ConsumerGroups::open(repository, Clock::system(), readers.clone());
        let groups = groups.await.unwrap();
        groups.add("billing").await.unwrap();
        let seat = readers.sit(0, "Billing", None, "me").unwrap();
        let stays = readers.sit(0, DEFAULT, None, "me").unwrap();

        // The future is dropped when it has begun.
        drop(groups.remove("billing").now_or_never());

        let lost = poll_fn(|context| seat.poll_lost(context));
        let lost = tokio::time::timeout(Duration::from_secs(60), lost).await;
        assert!(lost.is_ok());
        assert_eq!(stays.lost(), None);
        assert_eq!(groups.list(), [DEFAULT]);
    }
}
