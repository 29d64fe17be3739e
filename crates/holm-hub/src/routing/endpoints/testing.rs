//! Messages and surroundings for the tests of endpoints.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use holm_model::{Message, SystemProperty, Timestamp};
use serde_json::Value;

use super::open;
use crate::Clock;
use crate::routing::definition::DefinitionError;
use crate::routing::{Endpoint, EndpointDefinition, Routed, Source, Surroundings};

/// 2026-01-02T03:04:05.123Z.
pub(super) const START: i64 = 1_767_323_045_123;

/// A message of a device, in JSON.
pub(super) fn routed(sequence: u64, device: &str) -> Routed {
    let mut message = Message::new(format!("{{\"n\":{sequence}}}"));
    message.system.set(SystemProperty::ConnectionDeviceId, device);
    message.system.set(SystemProperty::ContentType, "application/json");
    message.system.set(SystemProperty::ContentEncoding, "utf-8");
    Routed {
        sequence,
        enqueued: Timestamp::from_unix_millis(START + i64::try_from(sequence).unwrap_or_default()),
        source: Source::DeviceMessages,
        partition: u16::from(device == "d1"),
        message,
    }
}

/// A hub around endpoints whose clock is turned by hand.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) surroundings: Surroundings,
    now: Arc<AtomicI64>,
}

impl World {
    pub(super) fn new(files: &Path) -> Self {
        let now = Arc::new(AtomicI64::new(START));
        let told = Arc::clone(&now);
        Self {
            surroundings: Surroundings {
                hub_name: "hub".into(),
                lane: "routed/hot/1".into(),
                files: Arc::new(files.to_owned()),
                clock: Clock::new(move || Timestamp::from_unix_millis(told.load(Ordering::Relaxed))),
            },
            now,
        }
    }

    pub(super) fn turn_clock(&self, millis: i64) {
        self.now.fetch_add(millis, Ordering::Relaxed);
    }

    pub(super) fn open(&self, document: Value) -> Result<Box<dyn Endpoint>, DefinitionError> {
        let Value::Object(document) = document else {
            panic!("a definition is an object");
        };
        let definition = EndpointDefinition::read("hot".parse()?, document)?;
        open(&definition.settings, &self.surroundings)
    }
}
