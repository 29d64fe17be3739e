//! Who reads which partition, under which owner level.
//!
//! ```text
//! none, level n   comes      nobody, or plain readers: all of them lose it to a level; up to 5 plain ones beside each other
//! level n         has it     level m >= n comes: n loses it      m < n, or none: refused
//! ```
//!
//! A [`Seat`] is held for as long as its reader reads. Who loses it is told by [`Seat::poll_lost`], and why: to another reader, or
//! with its group. Clients take the first for lost ownership and wait for their turn, so the second must not look like it. Source:
//! `hub-service-api.md` §6.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use holm_gateway::service::ReadRefusal;

/// Readers without a level of one partition and group. Source: `hub-service-api.md` §6.
pub const MAX_PLAIN_READERS: usize = 5;

/// Who reads. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Readers(Arc<Mutex<HashMap<Place, Vec<Taken>>>>);

/// A partition as one group reads it; the group in lower case.
type Place = (u16, String);

#[derive(Debug)]
struct Taken {
    number: u64,
    level: Option<i64>,
    loss: Arc<Loss>,
}

/// How a reader learns that it has lost its place.
#[derive(Debug, Default)]
struct Loss {
    why: OnceLock<ReadRefusal>,
    reader: AtomicWaker,
}

impl Loss {
    fn tell(&self, why: ReadRefusal) {
        // The first reason stays.
        drop(self.why.set(why));
        self.reader.wake();
    }
}

/// A reader's place; free for others when it is dropped.
#[derive(Debug)]
pub struct Seat {
    readers: Readers,
    place: Place,
    number: u64,
    loss: Arc<Loss>,
}

impl Readers {
    /// Takes a place for a reader that calls itself `name`.
    ///
    /// # Errors
    /// [`ReadRefusal::Stolen`] beside a reader of a higher level, [`ReadRefusal::TooManyReaders`].
    pub fn sit(&self, partition: u16, group: &str, level: Option<i64>, name: &str) -> Result<Seat, ReadRefusal> {
        let place = (partition, group.to_ascii_lowercase());
        let mut all = self.lock();
        let here = all.entry(place.clone()).or_default();
        let owner = here.iter().filter_map(|taken| taken.level).max();
        match (owner, level) {
            (Some(owner), None) => {
                return Err(ReadRefusal::Stolen(format!(
                    "partition {partition} of `{group}` has a reader of owner level {owner}; a reader without one is not let in beside it"
                )));
            }
            (Some(owner), Some(level)) if level < owner => {
                return Err(ReadRefusal::Stolen(format!(
                    "partition {partition} of `{group}` has a reader of owner level {owner}; one of level {level} is not let in"
                )));
            }
            (None, None) if here.len() >= MAX_PLAIN_READERS => {
                return Err(ReadRefusal::TooManyReaders(format!(
                    "exceeded the maximum number of allowed receivers per partition in a consumer group, which is {MAX_PLAIN_READERS}: \
                     partition {partition} of `{group}` is read by as many; end one, or read with another consumer group"
                )));
            }
            (_, None) => {}
            (_, Some(level)) => {
                for taken in here.drain(..) {
                    taken.loss.tell(ReadRefusal::Stolen(format!(
                        "a reader `{name}` of owner level {level} has taken partition {partition} of `{group}`"
                    )));
                }
            }
        }
        let number = here.iter().map(|taken| taken.number + 1).max().unwrap_or(0);
        let loss = Arc::new(Loss::default());
        here.push(Taken {
            number,
            level,
            loss: Arc::clone(&loss),
        });
        drop(all);
        Ok(Seat {
            readers: self.clone(),
            place,
            number,
            loss,
        })
    }

    /// Takes the places of all readers of a group: it is no more, and they learn [`ReadRefusal::Stolen`] with the group in its text. Of
    /// that the SDKs tell their applications; what is not found Python's asks for again and again, in silence.
    pub fn clear(&self, group: &str) {
        self.lock().retain(|(_, other), here| {
            let goes = other.eq_ignore_ascii_case(group);
            if goes {
                for taken in here.drain(..) {
                    let text = format!(
                        "the consumer group `{group}` was removed; add it again with `holm hub consumer-group add`"
                    );
                    taken.loss.tell(ReadRefusal::Stolen(text));
                }
            }
            !goes
        });
    }

    /// How many read.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<Taken>>> {
        // Held for map operations only, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Why it was lost, if it was.
    #[must_use]
    pub fn lost(&self) -> Option<ReadRefusal> {
        self.loss.why.get().cloned()
    }

    /// Ready when it was lost.
    pub fn poll_lost(&self, context: &mut Context<'_>) -> Poll<ReadRefusal> {
        // First the waker, then the look: who takes the place does both the other way around.
        self.loss.reader.register(context.waker());
        self.lost().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.readers.lock();
        if let Some(here) = all.get_mut(&self.place) {
            here.retain(|taken| !Arc::ptr_eq(&taken.loss, &self.loss) || taken.number != self.number);
            if here.is_empty() {
                all.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sit(readers: &Readers, level: Option<i64>) -> Result<Seat, ReadRefusal> {
        readers.sit(0, "$Default", level, "me")
    }

    fn is_stolen(seat: &Seat) -> bool {
        matches!(seat.lost(), Some(ReadRefusal::Stolen(_)))
    }

    #[test]
    fn a_higher_or_equal_level_takes_the_partition_and_a_lower_one_or_none_is_refused() {
        let readers = Readers::default();
        let first = sit(&readers, Some(1)).unwrap();

        // Row 80 of the reference.
        assert!(matches!(sit(&readers, Some(0)), Err(ReadRefusal::Stolen(_))));
        assert!(matches!(sit(&readers, None), Err(ReadRefusal::Stolen(_))));
        assert!(!is_stolen(&first));
        let equal = sit(&readers, Some(1)).unwrap();
        assert!(is_stolen(&first) && !is_stolen(&equal));
        let higher = sit(&readers, Some(7)).unwrap();
        assert!(is_stolen(&equal) && !is_stolen(&higher));

        // Those that lost it take nothing with them.
        drop((first, equal));
        assert!(matches!(sit(&readers, None), Err(ReadRefusal::Stolen(_))));
        drop(higher);
        assert!(sit(&readers, None).is_ok());
    }

    #[test]
    fn a_level_takes_the_partition_from_readers_without_one() {
        let readers = Readers::default();
        let plain: Vec<_> = (0..2).map(|_| sit(&readers, None).unwrap()).collect();

        let owner = sit(&readers, Some(0)).unwrap();

        assert!(plain.iter().all(is_stolen));
        assert!(!is_stolen(&owner));
    }

    #[test]
    fn five_readers_without_a_level_read_beside_each_other() {
        let readers = Readers::default();
        let mut plain: Vec<_> = (0..MAX_PLAIN_READERS).map(|_| sit(&readers, None).unwrap()).collect();

        assert!(matches!(sit(&readers, None), Err(ReadRefusal::TooManyReaders(_))));
        assert!(readers.sit(1, "$Default", None, "me").is_ok());
        assert!(readers.sit(0, "other", None, "me").is_ok());
        assert!(matches!(
            readers.sit(0, "$default", None, "me"),
            Err(ReadRefusal::TooManyReaders(_))
        ));
        plain.pop();
        assert!(sit(&readers, None).is_ok());
    }

    #[test]
    fn a_group_that_is_removed_ends_its_readers_and_no_others() {
        let readers = Readers::default();
        let gone = readers.sit(0, "Group", None, "me").unwrap();
        let stays = sit(&readers, None).unwrap();

        readers.clear("GROUP");

        let why = gone.lost();
        assert!(
            matches!(&why, Some(ReadRefusal::Stolen(text)) if text.contains("`GROUP`")),
            "{why:?}"
        );
        assert_eq!(stays.lost(), None);
        assert_eq!(readers.count(), 1);
    }
}
