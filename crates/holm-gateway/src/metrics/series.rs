//! Figures whose labels are names that a deployment or a hub gives.
//!
//! Invariant: there are at most as many as was said; what comes beyond is counted together, under labels that all read
//! `other`. One that was made stays until the process ends, as counters do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Between the values of labels in a key; no name holds it.
const BETWEEN: char = '\u{1f}';
/// What all labels read where there is no room for more.
const OTHER: &str = "other";

/// A `T` for each combination of names.
#[derive(Debug)]
pub struct Series<T> {
    names: &'static [&'static str],
    most: usize,
    /// Held for a look-up or an insertion.
    all: Mutex<BTreeMap<String, Arc<T>>>,
}

impl<T: Default> Series<T> {
    /// With these labels, and at most so many combinations of their values.
    #[must_use]
    pub const fn new(names: &'static [&'static str], most: usize) -> Self {
        Self {
            names,
            most,
            all: Mutex::new(BTreeMap::new()),
        }
    }

    /// That of these values, in the order of the labels.
    pub fn of(&self, values: &[&str]) -> Arc<T> {
        let mut key = values.join("\u{1f}");
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&key) {
            return Arc::clone(known);
        }
        if all.len() >= self.most {
            key = vec![OTHER; self.names.len()].join("\u{1f}");
        }
        Arc::clone(all.entry(key).or_default())
    }

    /// Calls `show` with the labels and value of each, in the order of the labels' values.
    pub fn each(&self, mut show: impl FnMut(&[(&str, &str)], &T)) {
        // A copy, so that nobody who counts waits for whoever reads.
        let all: Vec<_> = {
            let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter()
                .map(|(key, value)| (key.clone(), Arc::clone(value)))
                .collect()
        };
        for (key, value) in all {
            let labels: Vec<_> = self.names.iter().copied().zip(key.split(BETWEEN)).collect();
            show(&labels, &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Counter;
    use super::*;

    #[test]
    fn beyond_the_bound_everything_is_counted_together() {
        let series: Series<Counter> = Series::new(&["from", "to"], 2);

        series.of(&["a", "b"]).increment();
        series.of(&["a", ""]).increment();
        series.of(&["c", "d"]).increment();
        series.of(&["e", "f"]).increment();
        series.of(&["a", "b"]).increment();

        let mut seen = Vec::new();
        series.each(|labels, counter| seen.push((format!("{labels:?}"), counter.get())));
        let expected = [
            (r#"[("from", "a"), ("to", "")]"#, 1),
            (r#"[("from", "a"), ("to", "b")]"#, 2),
            (r#"[("from", "other"), ("to", "other")]"#, 2),
        ];
        assert_eq!(seen, expected.map(|(labels, count)| (labels.to_owned(), count)));
    }
}
