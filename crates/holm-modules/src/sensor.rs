//! `sensor` replays recorded machine data: one reading after the other through the output `readings`, from the beginning
//! again at its end. An hour of the recording passes in `INTERVAL_MS` milliseconds (100), which the desired property
//! `intervalMs` changes while it runs.

use std::time::Duration;

use holm_client::Interests;
use holm_model::Message;
use holm_model::method::MethodResponse;
use serde_json::{Value, json};

use crate::host::{Module, json_message};
use crate::recording::Recording;

/// The output of readings.
pub const READINGS: &str = "readings";
/// The least pause between two readings, in milliseconds.
const LEAST_INTERVAL_MS: u64 = 1;

/// The module.
#[derive(Debug)]
pub struct Sensor {
    recording: Recording,
    /// Tells the readings of this run from those of another.
    run: String,
    sent: u64,
    interval_ms: u64,
    /// How many readings to send; `None`: no end.
    limit: Option<u64>,
}

impl Sensor {
    /// Replays a recording. `run` makes its message ids unique among runs.
    #[must_use]
    pub fn new(recording: Recording, run: String, interval_ms: u64, limit: Option<u64>) -> Self {
        Self {
            recording,
            run,
            sent: 0,
            interval_ms: interval_ms.max(LEAST_INTERVAL_MS),
            limit,
        }
    }
}

impl Module for Sensor {
    fn interests(&self) -> Interests {
        Interests {
            methods: true,
            desired_properties: true,
            ..Interests::default()
        }
    }

    fn message(&mut self, input: &str, _message: &Message) -> Vec<(&'static str, Message)> {
        tracing::warn!(input, "a sensor has no inputs; check the routes");
        Vec::new()
    }

    fn desired(&mut self, properties: &Value) -> Value {
        if let Some(interval) = properties.get("intervalMs").and_then(Value::as_u64) {
            self.interval_ms = interval.max(LEAST_INTERVAL_MS);
        }
        json!({ "intervalMs": self.interval_ms })
    }

    fn method(&mut self, name: &str, _payload: &Value) -> MethodResponse {
        match name {
            "status" => MethodResponse {
                status: 200,
                payload: json!({ "readings": self.sent, "intervalMs": self.interval_ms }),
            },
            _ => MethodResponse {
                status: 404,
                payload: json!({ "error": format!("there is no method `{name}`; there is `status`") }),
            },
        }
    }

    fn pause(&self) -> Option<Duration> {
        let ended = self.limit.is_some_and(|limit| self.sent >= limit);
        (!ended).then(|| Duration::from_millis(self.interval_ms))
    }

    fn tick(&mut self) -> Vec<(&'static str, Message)> {
        let readings = self.recording.readings();
        let Some(row) = usize::try_from(self.sent)
            .ok()
            .and_then(|sent| sent.checked_rem(readings.len()))
        else {
            return Vec::new();
        };
        let reading = &readings[row];
        let id = format!("reading-{}-{}", self.run, self.sent);
        let body = json!({ "sequence": self.sent, "time": reading.time, "hour": reading.hour, "flow": reading.flow });
        self.sent += 1;
        vec![(READINGS, json_message(id, &body))]
    }
}
