//! Condenses the readings of an interval: how many, least, mean, greatest.

use serde::{Deserialize, Serialize};

/// The readings of one interval, condensed. Flows in litres per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Time of the first reading, as the sensor gave it.
    pub from: String,
    /// Time of the last reading.
    pub to: String,
    /// How many readings.
    pub readings: u32,
    /// The least flow.
    pub least: f64,
    /// The mean flow.
    pub mean: f64,
    /// The greatest flow.
    pub greatest: f64,
}

/// Gathers readings into summaries of a fixed number of them.
#[derive(Clone, Debug)]
pub struct Digest {
    size: u32,
    current: Option<Summary>,
}

impl Digest {
    /// Summaries of `size` readings each (at least one).
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self {
            size: size.max(1),
            current: None,
        }
    }

    /// Adds a reading; gives the summary that it completes.
    pub fn add(&mut self, time: &str, flow: f64) -> Option<Summary> {
        let summary = self.current.get_or_insert_with(|| Summary {
            from: time.to_owned(),
            to: String::new(),
            readings: 0,
            least: flow,
            mean: 0.0,
            greatest: flow,
        });
        summary.readings += 1;
        time.clone_into(&mut summary.to);
        summary.least = summary.least.min(flow);
        summary.greatest = summary.greatest.max(flow);
        summary.mean += (flow - summary.mean) / f64::from(summary.readings);
        if summary.readings >= self.size {
            self.current.take()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_condensed_when_it_is_full() {
        let mut digest = Digest::new(3);

        assert_eq!(digest.add("t1", 1.0), None);
        assert_eq!(digest.add("t2", 6.0), None);
        let summary = digest.add("t3", 2.0);

        let expected = Summary {
            from: "t1".into(),
            to: "t3".into(),
            readings: 3,
            least: 1.0,
            mean: 3.0,
            greatest: 6.0,
        };
        assert_eq!(summary, Some(expected));
        assert_eq!(digest.add("t4", 1.0), None, "a new interval begins");
    }
}
