//! `watcher` raises an alert through the output `alerts` when a reading at its input `readings` is unusual
//! ([`crate::detector`]). The desired property `threshold` says how unusual, and takes effect at once; what is in effect is
//! reported.

use holm_client::Interests;
use holm_model::method::MethodResponse;
use holm_model::{Message, SystemProperty};
use serde_json::{Value, json};

use crate::detector::{DEFAULT_THRESHOLD, Detector};
use crate::host::{Module, json_message};
use crate::reading::Seen;

/// The output of alerts.
pub const ALERTS: &str = "alerts";

/// The module.
#[derive(Debug)]
pub struct Watcher {
    detector: Detector,
    threshold: f64,
    seen: Seen,
    alerts: u64,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            detector: Detector::default(),
            threshold: DEFAULT_THRESHOLD,
            seen: Seen::default(),
            alerts: 0,
        }
    }
}

impl Module for Watcher {
    fn interests(&self) -> Interests {
        Interests {
            methods: true,
            desired_properties: true,
            inputs: true,
            ..Interests::default()
        }
    }

    fn message(&mut self, _input: &str, message: &Message) -> Vec<(&'static str, Message)> {
        let Some(reading) = self.seen.new_reading(message) else {
            return Vec::new();
        };
        let judgement = self.detector.judge(reading.hour, reading.flow, self.threshold);
        if !judgement.unusual {
            return Vec::new();
        }
        self.alerts += 1;
        let cause = message.system.get(SystemProperty::MessageId).unwrap_or_default();
        let body = json!({
            "time": reading.time,
            "flow": reading.flow,
            "expected": judgement.expected,
            "score": judgement.score,
            "threshold": self.threshold,
            "reading": cause,
        });
        // Named after its cause, so that a repeat of the reading makes the same alert again and not another one.
        let mut alert = json_message(format!("alert-{cause}"), &body);
        alert.properties.set("level", Some("warning".into()));
        vec![(ALERTS, alert)]
    }

    fn desired(&mut self, properties: &Value) -> Value {
        match properties.get("threshold") {
            None => {}
            Some(Value::Null) => self.threshold = DEFAULT_THRESHOLD,
            Some(wanted) => match wanted.as_f64().filter(|threshold| *threshold > 0.0) {
                Some(threshold) => self.threshold = threshold,
                None => {
                    tracing::warn!(%wanted, "the desired `threshold` is not a number above 0; the old one stays");
                    let error = "give a number above 0";
                    return json!({ "threshold": self.threshold, "thresholdError": error });
                }
            },
        }
        json!({ "threshold": self.threshold, "thresholdError": null })
    }

    fn method(&mut self, name: &str, _payload: &Value) -> MethodResponse {
        match name {
            "status" => MethodResponse {
                status: 200,
                payload: json!({ "readings": self.seen.count(), "alerts": self.alerts, "threshold": self.threshold }),
            },
            _ => MethodResponse {
                status: 404,
                payload: json!({ "error": format!("there is no method `{name}`; there is `status`") }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::Recording;
    use crate::sensor::Sensor;

    fn replay(watcher: &mut Watcher, readings: usize) -> Vec<Message> {
        let mut sensor = Sensor::new(Recording::water_flow(), "r".into(), 1, None);
        let readings: Vec<_> = (0..readings).flat_map(|_| sensor.tick()).collect();
        readings
            .iter()
            .flat_map(|(_, reading)| watcher.message("readings", reading))
            .map(|(_, alert)| alert)
            .collect()
    }

    #[test]
    fn a_repeated_reading_raises_no_second_alert() {
        let mut sensor = Sensor::new(Recording::water_flow(), "r".into(), 1, None);
        let mut watcher = Watcher::default();
        let mut alerts = 0;
        for _ in 0..200 {
            let reading = sensor.tick().remove(0).1;
            alerts += watcher.message("readings", &reading).len();
            assert!(watcher.message("readings", &reading).is_empty(), "a repeat");
        }

        assert_eq!(alerts, replay(&mut Watcher::default(), 200).len());
        assert!(alerts > 0);
    }

    #[test]
    fn a_new_threshold_takes_effect_on_the_next_reading_and_is_reported() {
        let mut watcher = Watcher::default();

        let report = watcher.desired(&json!({ "threshold": 1000, "$version": 2 }));

        assert_eq!(report["threshold"], 1000.0);
        assert!(replay(&mut watcher, 400).is_empty());
    }

    #[test]
    fn a_threshold_that_is_no_number_leaves_the_old_one_and_says_so() {
        let mut watcher = Watcher::default();

        let report = watcher.desired(&json!({ "threshold": "high" }));

        assert_eq!(report["threshold"], DEFAULT_THRESHOLD);
        assert!(report["thresholdError"].is_string());
    }
}
