//! Who waits to be written to, and in which turn.
//!
//! A twin that has just changed does not wait for a fan-out over the whole fleet: there are two turns, and whoever takes some takes
//! most of them from the first. Not all, or twins that change without end would keep a fan-out from ever ending.

use std::collections::BTreeSet;

/// When somebody's turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Turn {
    /// Its own twin or identity has changed.
    First,
    /// A configuration has come, gone or changed, or the hub has started: there may be a fleet of them.
    Rest,
}

/// Who waits, by number.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    first: BTreeSet<u32>,
    rest: BTreeSet<u32>,
}

impl Waiting {
    /// Has somebody wait. Who has the first turn keeps it.
    pub(super) fn add(&mut self, number: u32, turn: Turn) {
        match turn {
            Turn::First => {
                self.rest.remove(&number);
                self.first.insert(number);
            }
            Turn::Rest if self.first.contains(&number) => {}
            Turn::Rest => {
                self.rest.insert(number);
            }
        }
    }

    /// Has somebody wait no more.
    pub(super) fn remove(&mut self, number: u32) {
        if !self.first.remove(&number) {
            self.rest.remove(&number);
        }
    }

    /// Takes one of those whose turn this is.
    pub(super) fn pop(&mut self, turn: Turn) -> Option<u32> {
        match turn {
            Turn::First => self.first.pop_first(),
            Turn::Rest => self.rest.pop_first(),
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_changed_comes_first_and_waits_once() {
        let mut waiting = Waiting::default();
        for number in 0..4 {
            waiting.add(number, Turn::Rest);
        }

        waiting.add(3, Turn::First);
        waiting.add(3, Turn::Rest);
        waiting.remove(1);

        assert_eq!(waiting.len(), 3);
        assert_eq!([(); 2].map(|()| waiting.pop(Turn::First)), [Some(3), None]);
        assert_eq!([(); 3].map(|()| waiting.pop(Turn::Rest)), [Some(0), Some(2), None]);
    }
}
