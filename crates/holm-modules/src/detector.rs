//! Tells unusual readings from usual ones, while they come.
//!
//! Flow in a main has a daily rhythm, so each hour of the day has a level of its own, followed slowly. What a reading is
//! compared with is its own hour's level; how far off is unusual, with how far readings usually are off:
//!
//! ```text
//!   reading --> |reading - level[hour]| / spread = score;   score > threshold: unusual
//!                        |                  |
//!                 learns 20 % of a usual    learns 2 %, of at most 3 spreads
//!                 deviation, 2 % of an
//!                 unusual one
//! ```
//!
//! An unusual stretch hardly moves the level, so it stays unusual for its whole length; a change for good is learnt in the
//! end. The first [`WARM_UP`] readings only teach. Memory: 24 levels and one spread, whatever comes.

/// Readings that only teach: three days of hourly ones.
pub const WARM_UP: u32 = 72;
/// The score above which a reading is unusual, unless the module's twin says otherwise.
pub const DEFAULT_THRESHOLD: f64 = 5.0;
/// The least spread, in the unit of the readings: differences of the sensor's own noise are never unusual.
const LEAST_SPREAD: f64 = 0.5;

const LEARN_USUAL: f64 = 0.2;
const LEARN_UNUSUAL: f64 = 0.02;
const LEARN_SPREAD: f64 = 0.02;

/// What is known of the readings so far.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    levels: [Option<f64>; 24],
    spread: Option<f64>,
    seen: u32,
}

/// What the detector makes of one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The level that was expected at this hour of the day, in the unit of the readings.
    pub expected: f64,
    /// How far off the reading is, in usual deviations.
    pub score: f64,
    /// Whether it is unusual.
    pub unusual: bool,
}

impl Detector {
    /// Judges a reading taken at an hour of the day (0 to 23; taken modulo 24), and learns from it.
    pub fn judge(&mut self, hour: u8, value: f64, threshold: f64) -> Judgement {
        self.seen = self.seen.saturating_add(1);
        let level = &mut self.levels[usize::from(hour % 24)];
        let Some(expected) = *level else {
            *level = Some(value);
            return Judgement {
                expected: value,
                score: 0.0,
                unusual: false,
            };
        };

        let deviation = (value - expected).abs();
        let spread = self.spread.unwrap_or(deviation).max(LEAST_SPREAD);
        let score = deviation / spread;
        let unusual = self.seen > WARM_UP && score > threshold;

        *level = Some(expected + (value - expected) * if unusual { LEARN_UNUSUAL } else { LEARN_USUAL });
        self.spread = Some(spread * (1.0 - LEARN_SPREAD) + deviation.min(3.0 * spread) * LEARN_SPREAD);
        Judgement {
            expected,
            score,
            unusual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;

    /// Stretches of unusual readings, as first and last row, joined when they are at most three hours apart.
    fn unusual_stretches(threshold: f64) -> Vec<(usize, usize)> {
        let mut detector = Detector::default();
        let mut stretches: Vec<(usize, usize)> = Vec::new();
        for (row, reading) in Recording::water_flow().readings().iter().enumerate() {
            if !detector.judge(reading.hour, reading.flow, threshold).unusual {
                continue;
            }
            match stretches.last_mut() {
                Some((_, last)) if row - *last <= 3 => *last = row,
                _ => stretches.push((row, row)),
            }
        }
        stretches
    }

    #[test]
    fn the_four_abnormal_stretches_of_the_recording_are_found_and_nothing_else() {
        let stretches = unusual_stretches(DEFAULT_THRESHOLD);

        assert_eq!(stretches.len(), 4, "{stretches:?}");
        let lengths: Vec<_> = stretches.iter().map(|(first, last)| last - first + 1).collect();
        assert!(
            lengths.iter().filter(|&&length| length >= 8).count() == 3,
            "three long low stretches: {stretches:?}"
        );
    }

    #[test]
    fn a_higher_threshold_raises_fewer_alerts() {
        let rows = |threshold| {
            unusual_stretches(threshold)
                .iter()
                .map(|(a, b)| b - a + 1)
                .sum::<usize>()
        };

        assert!(rows(20.0) < rows(DEFAULT_THRESHOLD));
    }

    #[test]
    fn nothing_is_unusual_before_the_warm_up_ends() {
        let mut detector = Detector::default();
        for n in 0..WARM_UP {
            let hour = u8::try_from(n % 24).unwrap();
            assert!(!detector.judge(hour, if n % 2 == 0 { 0.0 } else { 1e6 }, 1.0).unusual);
        }
    }
}
