//! The twins of senders, for conditions and enrichments that look at them: read from the database once, kept while they are the same.
//!
//! ```text
//! asked -> kept?  yes -> given
//!                 no  -> place taken -> read -> kept, if nobody has touched the twin since the place was taken
//! change of a twin -> its place is free again (before the change is answered)
//! ```
//!
//! So a message that is sent after a change was answered is routed by the changed twin. Memory: twins of at most [`MAX_BYTES`],
//! newest half first; nothing is kept where no route or enrichment looks at twins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_model::twin::rules::object_size;
use holm_model::{Identity, ServiceError, Twin};

use crate::storage::{Repository, Touched};

/// The most bytes of twins that are kept, by a rough count.
const MAX_BYTES: usize = 32 << 20;
/// What an entry costs beside its values.
const ENTRY_BYTES: usize = 512;

/// The twins of senders. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct SenderTwins {
    repository: Repository,
    kept: Arc<Mutex<Kept>>,
}

/// Two halves: what is asked for moves to the new one; when that is full, the old one is forgotten.
#[derive(Debug, Default)]
struct Kept {
    new: HashMap<Identity, Place>,
    old: HashMap<Identity, Place>,
    new_bytes: usize,
    tickets: u64,
}

#[derive(Clone, Debug)]
enum Place {
    /// Somebody reads it, with this ticket.
    Taken(u64),
    /// The twin, or that there is none.
    Read(Option<Arc<Twin>>),
}

impl SenderTwins {
    /// No twin is kept yet.
    #[must_use]
    pub(super) fn new(repository: Repository) -> Self {
        let kept = Arc::<Mutex<Kept>>::default();
        let watched = Arc::clone(&kept);
        repository.watch(move |touched| {
            let mut kept = lock(&watched);
            for what in touched {
                if let Touched::Identity(identity) = what {
                    kept.forget(identity);
                }
            }
        });
        Self { repository, kept }
    }

    /// The twin of an identity; `None` where there is none.
    ///
    /// # Errors
    /// When the database can't be read.
    pub(super) async fn of(&self, identity: &Identity) -> Result<Option<Arc<Twin>>, ServiceError> {
        let ticket = match lock(&self.kept).find(identity) {
            Ok(twin) => return Ok(twin),
            Err(ticket) => ticket,
        };
        let wanted = identity.clone();
        let twin = self
            .repository
            .read(move |view| view.twin(&wanted))
            .await?
            .map(Arc::new);
        lock(&self.kept).keep(identity, ticket, twin.clone());
        Ok(twin)
    }

    /// Nobody looks at twins any more.
    pub(super) fn clear(&self) {
        let mut kept = lock(&self.kept);
        let tickets = kept.tickets;
        *kept = Kept {
            tickets,
            ..Kept::default()
        };
    }
}

impl Kept {
    /// What is kept, or a ticket to keep it by.
    fn find(&mut self, identity: &Identity) -> Result<Option<Arc<Twin>>, u64> {
        if let Some(Place::Read(twin)) = self.new.get(identity) {
            return Ok(twin.clone());
        }
        if let Some(Place::Read(twin)) = self.old.remove(identity) {
            self.insert(identity, Place::Read(twin.clone()));
            return Ok(twin);
        }
        self.tickets += 1;
        let ticket = self.tickets;
        self.insert(identity, Place::Taken(ticket));
        Err(ticket)
    }

    fn keep(&mut self, identity: &Identity, ticket: u64, twin: Option<Arc<Twin>>) {
        if matches!(self.new.get(identity), Some(Place::Taken(mine)) if *mine == ticket) {
            self.insert(identity, Place::Read(twin));
        }
    }

    fn insert(&mut self, identity: &Identity, place: Place) {
        self.new_bytes += bytes_of(&place);
        if let Some(before) = self.new.insert(identity.clone(), place) {
            self.new_bytes = self.new_bytes.saturating_sub(bytes_of(&before));
        }
        if self.new_bytes > MAX_BYTES / 2 {
            self.old = std::mem::take(&mut self.new);
            self.new_bytes = 0;
        }
    }

    fn forget(&mut self, identity: &Identity) {
        self.old.remove(identity);
        if let Some(before) = self.new.remove(identity) {
            self.new_bytes = self.new_bytes.saturating_sub(bytes_of(&before));
        }
    }
}

fn bytes_of(place: &Place) -> usize {
    let Place::Read(Some(twin)) = place else {
        return ENTRY_BYTES;
    };
    let parts = [twin.tags(), twin.desired().properties(), twin.reported().properties()];
    // Values in memory, and their metadata, take several times what they count as.
    ENTRY_BYTES + parts.into_iter().map(object_size).sum::<usize>() * 4
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // Held for map operations only, never across an await.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;

    use super::*;

    fn twin(identity: &Identity) -> Option<Arc<Twin>> {
        Some(Arc::new(Twin::new(identity.clone(), Timestamp::NEVER)))
    }

    #[test]
    fn a_twin_that_changed_while_it_was_read_is_not_kept() {
        let (mut kept, identity) = (Kept::default(), "d1".parse::<Identity>().unwrap());

        let ticket = kept.find(&identity).unwrap_err();
        kept.forget(&identity);
        kept.keep(&identity, ticket, twin(&identity));
        let again = kept.find(&identity).unwrap_err();
        kept.keep(&identity, ticket, twin(&identity));
        assert!(kept.find(&identity).is_err());
        kept.keep(&identity, again + 1, twin(&identity));

        assert!(kept.find(&identity).unwrap().is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_stays() {
        let (mut kept, often) = (Kept::default(), "often".parse::<Identity>().unwrap());
        for number in 0..80_000 {
            let identity: Identity = format!("d{number}").parse().unwrap();
            let ticket = kept.find(&identity).unwrap_err();
            kept.keep(&identity, ticket, twin(&identity));
            if let Err(ticket) = kept.find(&often) {
                assert_eq!(number, 0, "it was forgotten");
                kept.keep(&often, ticket, twin(&often));
            }
        }

        assert!((kept.new.len() + kept.old.len()) * ENTRY_BYTES <= MAX_BYTES + ENTRY_BYTES);
    }
}
