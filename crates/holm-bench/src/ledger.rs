//! Which numbers of a counted series have been seen: for losses, repeats and order.
//!
//! ```text
//!   seen:  0 1 2 3 4 5   .  7 8   .  10
//!          [0, 6): all      `---- beyond ----'      in order, this is one number, however long the series
//! ```
//!
//! Memory: one entry for each number seen beyond the first that is missing. A run in which one message in a million is lost
//! early holds the rest of the run in entries, about 40 bytes each; a test program can bear that.

use std::collections::BTreeSet;

/// The numbers of one series that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All below this were seen.
    low: u64,
    /// Those seen above it; never holds `low` itself.
    beyond: BTreeSet<u64>,
}

/// What a number was when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// New, and none above it was seen before.
    InOrder,
    /// New, though one above it was seen before.
    Late,
    /// Seen before.
    Repeat,
}

impl Ledger {
    /// Notes a number.
    pub fn note(&mut self, number: u64) -> Seen {
        if self.contains(number) {
            return Seen::Repeat;
        }
        let highest = self.beyond.last().copied();
        if number == self.low {
            self.low += 1;
            while self.beyond.remove(&self.low) {
                self.low += 1;
            }
        } else {
            self.beyond.insert(number);
        }
        match highest {
            Some(highest) if highest > number => Seen::Late,
            _ => Seen::InOrder,
        }
    }

    /// Whether a number was seen.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        number < self.low || self.beyond.contains(&number)
    }

    /// How many different numbers were seen.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.low + self.beyond.len() as u64
    }

    /// Whether none was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many numbers this one has seen that `other` has not.
    #[must_use]
    pub fn missing_in(&self, other: &Self) -> u64 {
        let below = (other.low..self.low).filter(|number| !other.contains(*number)).count();
        let above = self.beyond.iter().filter(|number| !other.contains(**number)).count();
        below as u64 + above as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(numbers: impl IntoIterator<Item = u64>) -> Ledger {
        let mut ledger = Ledger::default();
        for number in numbers {
            ledger.note(number);
        }
        ledger
    }

    #[test]
    fn a_series_in_order_is_one_number_however_long() {
        let ledger = ledger(0..1000);

        assert_eq!(ledger.len(), 1000);
        assert!(ledger.beyond.is_empty());
    }

    #[test]
    fn a_repeat_and_a_late_number_are_told_from_new_ones() {
        let mut ledger = ledger([0, 1, 4]);

        assert_eq!(ledger.note(1), Seen::Repeat);
        assert_eq!(ledger.note(4), Seen::Repeat);
        assert_eq!(ledger.note(2), Seen::Late);
        assert_eq!(ledger.note(5), Seen::InOrder);
        assert_eq!(ledger.len(), 5);
    }

    #[test]
    fn what_one_ledger_has_and_another_lacks_is_counted_on_both_sides_of_the_gap() {
        let acknowledged = ledger([0, 1, 2, 3, 4, 7]);
        let received = ledger([0, 1, 3, 8]);

        assert_eq!(acknowledged.missing_in(&received), 3);
        assert_eq!(received.missing_in(&acknowledged), 1);
        assert_eq!(acknowledged.missing_in(&acknowledged), 0);
    }
}
