//! Sets of positions as sorted, disjoint, non-adjacent ranges, and a lane's progress made of them.
//!
//! ```text
//!  positions   0 1 2 3 4 5 6 7 8 9
//!  acked       x x x . x x . x . .      low-water mark 3, beyond it {4..6, 7..8}
//! ```
//!
//! Invariants: ranges never touch or overlap; nothing of `beyond` lies below the low-water mark; the position at the
//! low-water mark is never acknowledged.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of positions, as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    by_start: BTreeMap<u64, u64>,
    positions: u64,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// How many ranges there are: what memory and checkpoint sizes depend on.
    pub(crate) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// How many positions are in the set.
    pub(crate) fn positions(&self) -> u64 {
        self.positions
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        self.by_start.iter().map(|(&start, &end)| start..end)
    }

    pub(crate) fn clear(&mut self) {
        self.by_start.clear();
        self.positions = 0;
    }

    /// The range that holds `position`.
    pub(crate) fn find(&self, position: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.by_start.range(..=position).next_back()?;
        (position < end).then_some(start..end)
    }

    /// Whether inserting `range` would need a range more than there are.
    pub(crate) fn would_grow(&self, range: &Range<u64>) -> bool {
        // Touching counts as joining: a range that ends at `range.start`, or one that starts within `range` or at its end.
        let before = self.by_start.range(..=range.end).next_back();
        before.is_none_or(|(_, &end)| end < range.start)
    }

    /// Adds the positions of `range` and returns how many of them are new.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let Range { mut start, mut end } = range;
        let mut absorbed = 0;
        while let Some((&other_start, &other_end)) = self.by_start.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.by_start.remove(&other_start);
            absorbed += other_end - other_start;
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.by_start.insert(start, end);
        let new = end - start - absorbed;
        self.positions += new;
        new
    }

    /// Removes every position below `end`.
    pub(crate) fn remove_below(&mut self, end: u64) {
        while let Some((&start, &other_end)) = self.by_start.first_key_value() {
            if start >= end {
                return;
            }
            self.by_start.remove(&start);
            self.positions -= other_end.min(end) - start;
            if other_end > end {
                self.by_start.insert(end, other_end);
                return;
            }
        }
    }

    /// Removes every position at or above `start`.
    pub(crate) fn remove_from(&mut self, start: u64) {
        while let Some((&other_start, &end)) = self.by_start.last_key_value() {
            if end <= start {
                return;
            }
            self.by_start.remove(&other_start);
            self.positions -= end - other_start.max(start);
            if other_start < start {
                self.by_start.insert(other_start, start);
                return;
            }
        }
    }
}

/// How far a lane has come: everything below `low_water` is acknowledged, and so is everything in `beyond`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    low_water: u64,
    beyond: Ranges,
}

impl Progress {
    pub(crate) fn new(low_water: u64) -> Self {
        Self {
            low_water,
            beyond: Ranges::default(),
        }
    }

    pub(crate) fn low_water(&self) -> u64 {
        self.low_water
    }

    pub(crate) fn beyond(&self) -> &Ranges {
        &self.beyond
    }

    /// How many positions below `end` are not acknowledged. Nothing at or above `end` may be acknowledged.
    pub(crate) fn open_below(&self, end: u64) -> u64 {
        end.saturating_sub(self.low_water)
            .saturating_sub(self.beyond.positions())
    }

    /// Whether `range` fits in `max_ranges` ranges once it is acknowledged.
    pub(crate) fn has_room_for(&self, range: &Range<u64>, max_ranges: usize) -> bool {
        range.start <= self.low_water || self.beyond.len() < max_ranges || !self.beyond.would_grow(range)
    }

    /// Acknowledges `range` and returns how many positions were not acknowledged before.
    pub(crate) fn acknowledge(&mut self, range: Range<u64>) -> u64 {
        let range = range.start.max(self.low_water)..range.end;
        let new = self.beyond.insert(range);
        if let Some(first) = self.beyond.find(self.low_water) {
            self.low_water = first.end;
            self.beyond.remove_below(first.end);
        }
        new
    }

    /// The first position at or after `position` that is not acknowledged.
    pub(crate) fn next_open(&self, position: u64) -> u64 {
        let position = position.max(self.low_water);
        self.beyond.find(position).map_or(position, |range| range.end)
    }

    /// The parts of `range` that are not acknowledged, in order.
    pub(crate) fn open_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut open = Vec::new();
        let mut at = range.start;
        loop {
            at = self.next_open(at);
            if at >= range.end {
                return open;
            }
            let next = self
                .beyond
                .by_start
                .range(at..)
                .next()
                .map_or(range.end, |(&start, _)| start.min(range.end));
            open.push(at..next);
            at = next;
        }
    }

    /// How many positions of `range` are not acknowledged.
    pub(crate) fn open_count(&self, range: Range<u64>) -> u64 {
        self.open_in(range).iter().map(|open| open.end - open.start).sum()
    }

    /// Whether every position of `range` is acknowledged.
    pub(crate) fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty() || self.next_open(range.start) >= range.end
    }

    /// Forgets acknowledgements at or above `end` and returns whether there were any.
    pub(crate) fn pull_back(&mut self, end: u64) -> bool {
        let beyond = self.beyond.iter().last().is_some_and(|range| range.end > end);
        let pulled = self.low_water > end || beyond;
        self.low_water = self.low_water.min(end);
        self.beyond.remove_from(end);
        pulled
    }

    /// Adds everything that `other` has acknowledged.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.acknowledge(0..other.low_water);
        for range in other.beyond.iter() {
            self.acknowledge(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn progress_agrees_with_a_plain_set(acks in prop::collection::vec((0u64..60, 1u64..8), 0..40)) {
            let mut progress = Progress::default();
            let mut model = BTreeSet::new();

            for (start, length) in acks {
                let new = (start..start + length).filter(|&position| model.insert(position)).count();
                prop_assert_eq!(progress.acknowledge(start..start + length), new as u64);
            }

            let low_water = (0..).find(|position| !model.contains(position)).unwrap();
            prop_assert_eq!(progress.low_water(), low_water);
            prop_assert_eq!(progress.open_below(100), 100 - model.len() as u64);
            for position in 0..80 {
                let next = (position..).find(|position| !model.contains(position)).unwrap();
                prop_assert_eq!(progress.next_open(position), next);
                let open = (10..position).filter(|position| !model.contains(position)).count();
                prop_assert_eq!(progress.open_count(10..position), open as u64);
            }
        }

        #[test]
        fn pulling_back_forgets_exactly_what_lies_beyond(acks in prop::collection::vec((0u64..60, 1u64..8), 0..40), end in 0u64..70) {
            let mut progress = Progress::default();
            for (start, length) in acks {
                progress.acknowledge(start..start + length);
            }
            let before = progress.clone();

            progress.pull_back(end);

            for position in 0..80 {
                let kept = position < end && before.covers(position..position + 1);
                prop_assert_eq!(progress.covers(position..position + 1), kept);
            }
        }
    }

    #[test]
    fn joining_range_needs_no_room_but_a_separate_one_does() {
        let mut progress = Progress::default();
        progress.acknowledge(2..3);
        progress.acknowledge(5..6);

        assert!(progress.has_room_for(&(3..4), 2));
        assert!(progress.has_room_for(&(4..5), 2));
        assert!(progress.has_room_for(&(0..1), 2));
        assert!(!progress.has_room_for(&(8..9), 2));
    }
}
