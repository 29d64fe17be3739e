//! How a measure was distributed during the last hour, in little memory.
//!
//! ```text
//!   value ──> bucket floor(16 · log2 value) of the current window; six windows of ten minutes
//! ```
//!
//! A quantile is at most 2.2 % away from a value that was measured, never outside of what was measured in the hour, and exact
//! when all values were equal. A window holds only buckets that were met: usually some dozens, of 8 bytes each.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The published quantiles.
pub const QUANTILES: [f64; 4] = [0.1, 0.5, 0.9, 0.99];

/// Buckets of each doubling.
const STEPS: f64 = 16.0;
/// How long a window is filled.
const WINDOW: Duration = Duration::from_secs(600);
/// Windows that count: the published hour.
const WINDOWS: usize = 6;

/// A measure.
#[derive(Debug)]
pub struct Summary {
    /// Held for a few operations on memory.
    state: Mutex<State>,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                count: 0,
                sum: 0.0,
                began: Instant::now(),
                turn: 0,
                windows: Default::default(),
            }),
        }
    }
}

#[derive(Debug)]
struct State {
    count: u64,
    sum: f64,
    /// When the first window began.
    began: Instant,
    /// How many windows have ended since.
    turn: u64,
    windows: [Window; WINDOWS],
}

#[derive(Debug, Default)]
struct Window {
    /// By bucket, in their order.
    buckets: Vec<(i16, u32)>,
    least: f64,
    most: f64,
}

/// A measure as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SummaryView {
    /// How many values, since the start.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The values at [`QUANTILES`] during the last hour; not a number when there was none.
    pub quantiles: [f64; 4],
}

impl Summary {
    /// Takes note of a value; what is not finite is left out.
    pub fn observe(&self, value: f64) {
        self.observe_at(Instant::now(), value);
    }

    /// Takes note of values that came together; what is not finite is left out.
    pub fn observe_all(&self, values: impl Iterator<Item = f64>) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for value in values.filter(|value| value.is_finite()) {
            state.count += 1;
            state.sum += value;
            state.turn_to(now).add(value);
        }
    }

    /// Takes note of a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// The measure now.
    #[must_use]
    pub fn read(&self) -> SummaryView {
        self.read_at(Instant::now())
    }

    fn observe_at(&self, now: Instant, value: f64) {
        if !value.is_finite() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        state.sum += value;
        state.turn_to(now).add(value);
    }

    fn read_at(&self, now: Instant) -> SummaryView {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.turn_to(now);
        SummaryView {
            count: state.count,
            sum: state.sum,
            quantiles: quantiles(&state.windows),
        }
    }
}

impl State {
    /// Empties the windows that have become too old, and gives the current one.
    fn turn_to(&mut self, now: Instant) -> &mut Window {
        let turn = now.saturating_duration_since(self.began).as_secs() / WINDOW.as_secs();
        let passed = turn.saturating_sub(self.turn).min(WINDOWS as u64);
        for _ in 0..passed {
            self.windows.rotate_right(1);
            if let Some(first) = self.windows.first_mut() {
                *first = Window::default();
            }
        }
        self.turn = self.turn.max(turn);
        let [current, ..] = &mut self.windows;
        current
    }
}

impl Window {
    fn add(&mut self, value: f64) {
        if self.buckets.is_empty() {
            (self.least, self.most) = (value, value);
        } else {
            (self.least, self.most) = (self.least.min(value), self.most.max(value));
        }
        let bucket = bucket(value);
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(place) => {
                if let Some((_, count)) = self.buckets.get_mut(place) {
                    *count = count.saturating_add(1);
                }
            }
            Err(place) => self.buckets.insert(place, (bucket, 1)),
        }
    }
}

/// Values of 0 and below have one bucket, before all others.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a logarithm of a number times 16 is within ±17200"
)]
fn bucket(value: f64) -> i16 {
    if value <= 0.0 {
        i16::MIN
    } else {
        (value.log2() * STEPS).floor() as i16
    }
}

/// The middle of a bucket.
fn middle(bucket: i16) -> f64 {
    if bucket == i16::MIN {
        0.0
    } else {
        ((f64::from(bucket) + 0.5) / STEPS).exp2()
    }
}

fn quantiles(windows: &[Window]) -> [f64; 4] {
    let filled = || windows.iter().filter(|window| !window.buckets.is_empty());
    let mut all: Vec<(i16, u32)> = filled().flat_map(|window| window.buckets.iter().copied()).collect();
    all.sort_unstable_by_key(|(bucket, _)| *bucket);
    let total: u64 = all.iter().map(|(_, count)| u64::from(*count)).sum();
    let least = filled().map(|window| window.least).fold(f64::INFINITY, f64::min);
    let most = filled().map(|window| window.most).fold(f64::NEG_INFINITY, f64::max);
    QUANTILES.map(|quantile| {
        let mut rank = wanted_rank(quantile, total);
        for (bucket, count) in &all {
            match rank.checked_sub(u64::from(*count)) {
                Some(left) if left > 0 => rank = left,
                _ => return middle(*bucket).clamp(least, most),
            }
        }
        f64::NAN
    })
}

/// Which of so many values, counted from 1 in their order, stands at a quantile.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of a count is between 0 and it; what is beyond 2^53 is rounded"
)]
fn wanted_rank(quantile: f64, total: u64) -> u64 {
    ((quantile * total as f64).ceil() as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_three_percent_of_what_was_measured() {
        let (summary, start) = (Summary::default(), Instant::now());
        for thousandth in 1..=1000 {
            summary.observe_at(start, f64::from(thousandth) / 1000.0);
        }

        let view = summary.read_at(start);

        assert_eq!(view.count, 1000);
        assert!((view.sum - 500.5).abs() < 1e-9);
        for (got, wanted) in view.quantiles.into_iter().zip(QUANTILES) {
            assert!((got / wanted - 1.0).abs() < 0.03, "{got} for {wanted}");
        }
    }

    #[test]
    fn what_is_older_than_an_hour_counts_no_more_but_in_sum_and_count() {
        let (summary, start) = (Summary::default(), Instant::now());
        summary.observe_at(start, 1.0);
        summary.observe_at(start + Duration::from_secs(1801), 3.0);

        let later = |seconds| summary.read_at(start + Duration::from_secs(seconds));

        assert!((1.0..1.03).contains(&later(1802).quantiles[0]));
        assert_eq!(later(3700).quantiles, [3.0; 4]);
        assert!(later(9000).quantiles.iter().all(|value| value.is_nan()));
        assert_eq!((later(9000).count, later(9000).sum), (2, 4.0));
    }

    #[test]
    fn nothing_zero_and_what_is_no_number_break_nothing() {
        let summary = Summary::default();
        summary.observe(f64::NAN);
        summary.observe(f64::INFINITY);
        assert!(summary.read().quantiles[0].is_nan());

        summary.observe(0.0);
        summary.observe(-1.0);
        summary.observe(f64::MIN_POSITIVE);
        summary.observe(f64::MAX);

        assert_eq!(summary.read().count, 4);
        assert!(summary.read().quantiles.iter().all(|value| value.is_finite()));
    }
}
