//! Who may be a target, by small numbers: what conditions know of each, what is wanted there and what was applied.
//!
//! ```text
//! number        0          1         2
//! target      pump-1      (free)   pump-3        wanted, applied, what came of it
//! facts     [3, 7, 0]      …      [4, 7, 0]      a term for each column
//! numbers by identity: a table of numbers alone, which finds by hash and compares with the target there
//! ```
//!
//! A fleet may have a million, so each identity is kept once: a target has some 60 bytes and its id, and four for each column.

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use holm_model::{Identity, ServiceError};

use super::super::outcome::Outcome;

/// One who may be a target.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) identity: Identity,
    /// The set of configurations that match.
    pub(super) wanted: u32,
    /// What its row names as applied.
    pub(super) applied: u32,
    /// Whether nobody else has written there since.
    pub(super) is_trusted: bool,
    pub(super) outcome: Outcome,
    /// What could not be applied, by its fingerprint, and why; tried again when another thing is wanted, or the twin changes. Not by
    /// the number of its set: sets are numbered anew whenever a configuration comes or goes.
    pub(super) refused: Option<Box<(String, ServiceError)>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// `None`: nobody stands here.
    places: Vec<Option<Target>>,
    free: Vec<u32>,
    by_identity: HashTable<u32>,
    hasher: RandomState,
    /// `width` terms for each place.
    facts: Vec<u32>,
    width: usize,
}

impl Targets {
    /// Forgets all; from now on so many columns are known of each.
    pub(super) fn clear(&mut self, width: usize) {
        *self = Self {
            width,
            ..Self::default()
        };
    }

    /// The number of an identity.
    pub(super) fn find(&self, identity: &Identity) -> Option<u32> {
        let found = self.by_identity.find(self.hasher.hash_one(identity), |number| {
            self.get(*number).is_some_and(|target| target.identity == *identity)
        });
        found.copied()
    }

    /// The one with a number.
    pub(super) fn get(&self, number: u32) -> Option<&Target> {
        self.places.get(number as usize)?.as_ref()
    }

    /// The one with a number.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Target> {
        self.places.get_mut(number as usize)?.as_mut()
    }

    /// What is known of one; nothing where nobody can stand.
    pub(super) fn facts(&self, number: u32) -> &[u32] {
        let begin = number as usize * self.width;
        self.facts.get(begin..begin + self.width).unwrap_or_default()
    }

    /// Enters one, or what is known of it now; gives its number.
    pub(super) fn put(&mut self, identity: Identity, facts: &[u32]) -> u32 {
        let number = self.find(&identity).unwrap_or_else(|| self.occupy(identity));
        let begin = number as usize * self.width;
        if let Some(place) = self.facts.get_mut(begin..begin + self.width)
            && place.len() == facts.len()
        {
            place.copy_from_slice(facts);
        }
        number
    }

    fn occupy(&mut self, identity: Identity) -> u32 {
        let hash = self.hasher.hash_one(&identity);
        let target = Target {
            identity,
            wanted: 0,
            applied: 0,
            is_trusted: true,
            outcome: Outcome::default(),
            refused: None,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.places.get_mut(number as usize) {
                    *place = Some(target);
                }
                number
            }
            None => {
                self.places.push(Some(target));
                self.facts.resize(self.places.len() * self.width, 0);
                // A fleet of 2^32 does not fit into memory.
                u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let Self {
            places,
            by_identity,
            hasher,
            ..
        } = self;
        by_identity.insert_unique(hash, number, |number| {
            let target = places.get(*number as usize).and_then(Option::as_ref);
            target.map_or(0, |target| hasher.hash_one(&target.identity))
        });
        number
    }

    /// Removes one; gives the number that it had.
    pub(super) fn remove(&mut self, identity: &Identity) -> Option<u32> {
        let number = self.find(identity)?;
        let hash = self.hasher.hash_one(identity);
        if let Ok(entry) = self.by_identity.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        if let Some(place) = self.places.get_mut(number as usize) {
            *place = None;
            self.free.push(number);
        }
        Some(number)
    }

    /// The numbers of all, and of those who have gone.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.places.len()).unwrap_or(u32::MAX)
    }

    /// All who are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.places.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_takes_the_place_of_who_has_gone_and_each_is_found_by_its_identity() {
        let mut targets = Targets::default();
        targets.clear(2);
        let id = |number: u32| -> Identity { format!("d{number}").parse().unwrap() };

        for number in 0..1000 {
            targets.put(id(number), &[number, 7]);
        }
        let gone = targets.remove(&id(500));
        let again = targets.remove(&id(500));
        let new = targets.put(id(1000), &[1000, 7]);
        let changed = targets.put(id(3), &[9, 9]);

        assert_eq!((gone, again, new, changed), (Some(500), None, 500, 3));
        assert_eq!((targets.facts(3), targets.facts(4)), (&[9, 9][..], &[4, 7][..]));
        assert_eq!(targets.iter().count(), 1000);
        for number in (0..=1000).filter(|number| *number != 500) {
            let found = targets.find(&id(number)).and_then(|found| targets.get(found));
            assert_eq!(found.unwrap().identity, id(number));
        }
        assert_eq!(targets.find(&id(500)), None);
    }
}
