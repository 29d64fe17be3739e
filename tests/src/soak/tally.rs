//! What arrived, counted: each sender numbers its messages from 0.

use std::collections::BTreeMap;

/// The count of each sender.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, Count>);

/// The count of one sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// The number that comes next, which is also how many have arrived.
    pub(super) next: u64,
    /// Arrivals of numbers that had arrived before.
    pub(super) duplicates: u64,
    /// Numbers that came before an earlier one had arrived.
    pub(super) early: Vec<u64>,
}

impl Tally {
    /// Takes an arrival.
    pub(super) fn add(&mut self, sender: &str, number: u64) {
        let count = self.0.entry(sender.to_owned()).or_default();
        if number < count.next {
            count.duplicates += 1;
        } else {
            count.early.extend(count.next..number);
            count.next = number + 1;
        }
    }

    /// The count of a sender.
    pub(super) fn of(&self, sender: &str) -> Count {
        self.0.get(sender).cloned().unwrap_or_default()
    }

    /// All senders.
    pub(super) fn senders(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// How many have arrived of all senders, repeats left out.
    pub(super) fn arrived(&self) -> u64 {
        self.0.values().map(|count| count.next).sum()
    }

    /// Checks that every sender's first arrivals came in order and without a gap.
    ///
    /// # Panics
    /// When one did not.
    #[track_caller]
    pub(super) fn assert_in_order(&self) {
        for (sender, count) in &self.0 {
            assert!(
                count.early.is_empty(),
                "`{sender}`: {} numbers are missing or late, the first of them {:?}",
                count.early.len(),
                count.early.first()
            );
        }
    }

    /// Repeats of all senders.
    pub(super) fn duplicates(&self) -> u64 {
        self.0.values().map(|count| count.duplicates).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_and_gaps_are_found() {
        let mut tally = Tally::default();
        for number in [0, 1, 0, 1, 2, 5] {
            tally.add("a", number);
        }

        let expected = Count {
            next: 6,
            duplicates: 2,
            early: vec![3, 4],
        };
        assert_eq!(tally.of("a"), expected);
        assert_eq!(tally.of("b"), Count::default());
    }
}
