//! Readings as they arrive at a module: read from JSON, each taken once.

use holm_model::{Message, SystemProperty};
use serde::Deserialize;

/// A reading of the sensor.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Reading {
    /// Its number in the run, from 0.
    pub sequence: u64,
    /// When it was taken.
    pub time: String,
    /// The hour of its day.
    pub hour: u8,
    /// Flow in litres per second.
    pub flow: f64,
}

/// Which readings were taken. Delivery repeats after a crash, in order, so the last number of the run is enough.
#[derive(Debug, Default)]
pub struct Seen {
    run: String,
    last: Option<u64>,
    count: u64,
}

impl Seen {
    /// The reading in a message, unless it was taken before or is none.
    pub fn new_reading(&mut self, message: &Message) -> Option<Reading> {
        let id = message.system.get(SystemProperty::MessageId).unwrap_or_default();
        let reading: Reading = match serde_json::from_slice(&message.body) {
            Ok(reading) => reading,
            Err(error) => {
                tracing::warn!(messageId = id, %error, "a message that is no reading was dropped; check the routes");
                return None;
            }
        };
        let run = id.rsplit_once('-').map_or("", |(run, _)| run);
        if run != self.run {
            run.clone_into(&mut self.run);
            self.last = None;
        }
        if self.last.is_some_and(|last| reading.sequence <= last) {
            tracing::debug!(messageId = id, "a repeated reading was passed over");
            return None;
        }
        self.last = Some(reading.sequence);
        self.count += 1;
        Some(reading)
    }

    /// How many readings were taken.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}
