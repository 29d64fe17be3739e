//! Latencies counted in buckets that grow with the value, so that any quantile is known to better than one part in a hundred
//! at the same small cost, from nanoseconds to years.
//!
//! ```text
//!   value      0 … 127      128 … 255     256 … 511     512 … 1023   …
//!   buckets    128, width 1 128, width 1  128, width 2  128, width 4 …     the leading bit, then the next 7
//! ```
//!
//! What is reported for a bucket is its upper end: never less than what was measured.

/// Bits of a value that are kept below its leading one.
const PRECISION: u32 = 7;
/// Buckets for each power of two.
const WIDTH: usize = 1 << PRECISION;
/// Buckets for every value of 64 bits.
const BUCKETS: usize = WIDTH * (64 - PRECISION as usize + 1);

/// Counts of values, in nanoseconds wherever this crate uses it. Holds 58 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing was counted.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The largest value, exactly; 0 when there is none.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that `per_mille` thousandths of all values do not exceed, at most 0.8 % too high; none when nothing was
    /// counted. 500 is the median, 990 the 99th percentile.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let rank = self.total.saturating_mul(per_mille.min(1000)).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|index| upper_end(index).min(self.max))
    }
}

fn bucket(value: u64) -> usize {
    let magnitude = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    let mantissa = usize::try_from(value >> magnitude).unwrap_or(usize::MAX);
    magnitude as usize * WIDTH + mantissa
}

/// The largest value of a bucket.
fn upper_end(index: usize) -> u64 {
    let group = index / WIDTH;
    let magnitude = u32::try_from(group.saturating_sub(1)).unwrap_or(0);
    let mantissa = (index - magnitude as usize * WIDTH) as u64;
    ((mantissa + 1) << magnitude).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_value_and_is_at_most_one_part_in_a_hundred_wide() {
        let interesting = (0..64).flat_map(|shift| [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + (1 << shift) / 3]);

        for value in interesting.chain([u64::MAX, 999, 123_456_789]) {
            let end = upper_end(bucket(value));

            assert!(end >= value, "{value} is in a bucket that ends at {end}");
            assert!(end - value <= value / 100, "{value} is reported as {end}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_values_are_those_values() {
        let mut histogram = Histogram::default();
        for value in 1..=1000 {
            histogram.record(value * 1000);
        }

        let median = histogram.quantile(500).unwrap();
        let high = histogram.quantile(990).unwrap();

        assert!((500_000..=505_000).contains(&median), "{median}");
        assert!((990_000..=1_000_000).contains(&high), "{high}");
        assert_eq!(histogram.quantile(1000), Some(1_000_000));
    }

    #[test]
    fn an_empty_histogram_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(500), None);
    }

    #[test]
    fn merging_counts_what_both_counted() {
        let (mut left, mut right) = (Histogram::default(), Histogram::default());
        left.record(10);
        right.record(5_000_000);

        left.merge(&right);

        assert_eq!(left.len(), 2);
        assert_eq!(left.quantile(500), Some(10));
        assert_eq!(left.max(), 5_000_000);
    }
}
