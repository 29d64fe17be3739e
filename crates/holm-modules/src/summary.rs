//! `summary` condenses the readings at its input `readings`: one message through the output `summaries` for every
//! `SIZE` of them (24, a day).

use holm_client::Interests;
use holm_model::method::MethodResponse;
use holm_model::{Message, SystemProperty};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::host::{Module, json_message};
use crate::reading::Seen;

/// The output of summaries.
pub const SUMMARIES: &str = "summaries";

/// The module.
#[derive(Debug)]
pub struct Condenser {
    digest: Digest,
    seen: Seen,
    made: u64,
}

impl Condenser {
    /// Condenses `size` readings into one summary.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Self {
            digest: Digest::new(size),
            seen: Seen::default(),
            made: 0,
        }
    }
}

impl Module for Condenser {
    fn interests(&self) -> Interests {
        Interests {
            methods: true,
            inputs: true,
            ..Interests::default()
        }
    }

    fn message(&mut self, _input: &str, message: &Message) -> Vec<(&'static str, Message)> {
        let Some(reading) = self.seen.new_reading(message) else {
            return Vec::new();
        };
        let Some(summary) = self.digest.add(&reading.time, reading.flow) else {
            return Vec::new();
        };
        self.made += 1;
        let last = message.system.get(SystemProperty::MessageId).unwrap_or_default();
        // Named after the reading that completed it: the same readings make the same summary again.
        vec![(SUMMARIES, json_message(format!("summary-{last}"), &json!(summary)))]
    }

    fn desired(&mut self, _properties: &Value) -> Value {
        json!({})
    }

    fn method(&mut self, name: &str, _payload: &Value) -> MethodResponse {
        match name {
            "status" => MethodResponse {
                status: 200,
                payload: json!({ "readings": self.seen.count(), "summaries": self.made }),
            },
            _ => MethodResponse {
                status: 404,
                payload: json!({ "error": format!("there is no method `{name}`; there is `status`") }),
            },
        }
    }
}
