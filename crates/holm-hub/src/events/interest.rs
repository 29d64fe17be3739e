//! Of which of the hub's own events anybody wants to know: what costs something to find out is found out for them alone.
//!
//! ```text
//! routes, `--event-sources` --turn--> Interest --asked within a change--> an event in the outbox, or nothing at all
//! ```
//!
//! Whoever has been told that a route is there misses no event of a change that is made afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use holm_model::{Identity, ServiceError};

use crate::presence::Presence;
use crate::routing::Source;
use crate::storage::View;
use crate::twins;

/// Which events are wanted, and what has to be known for them beside the database. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Interest(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A bit for each source.
    wanted: AtomicU8,
    presence: Presence,
}

impl Interest {
    /// Nobody wants to know of anything yet.
    #[must_use]
    pub fn new(presence: Presence) -> Self {
        let wanted = AtomicU8::new(0);
        Self(Arc::new(Shared { wanted, presence }))
    }

    /// From now on the sources that `is_wanted` names are wanted, and no others.
    pub(crate) fn turn(&self, is_wanted: impl Fn(Source) -> bool) {
        let wanted = Source::ALL.into_iter().filter(|source| is_wanted(*source));
        let bits = wanted.fold(0, |bits, source| bits | bit(source));
        self.0.wanted.store(bits, Ordering::Release);
    }

    /// Whether anybody wants to know of events of this source.
    #[must_use]
    pub(crate) fn wants(&self, source: Source) -> bool {
        self.0.wanted.load(Ordering::Acquire) & bit(source) != 0
    }

    /// The digital-twin model that an identity has announced; empty for none.
    pub(crate) fn model_of(&self, view: &View<'_>, identity: &Identity) -> Result<String, ServiceError> {
        Ok(twins::activity(view, &self.0.presence, identity)?.model_id)
    }
}

const fn bit(source: Source) -> u8 {
    1 << source as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_wanted_by_itself() {
        let interest = Interest::default();
        let wanted = || Source::ALL.map(|source| interest.wants(source));
        let before = wanted();

        interest.turn(|source| source == Source::DigitalTwinChangeEvents);

        assert_eq!(before, [false; 6]);
        assert_eq!(
            wanted(),
            Source::ALL.map(|source| source == Source::DigitalTwinChangeEvents)
        );
    }
}
