//! What the edge writes on every message that it takes in: who sent it, when, and an id of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use holm_model::message::SharedText;
use holm_model::{Identity, Message, SystemProperty, Timestamp};

use super::Broker;

/// Makes ids that are unique across restarts: a random half, and a count.
#[derive(Debug)]
pub(super) struct MessageIds {
    opening: u64,
    count: AtomicU64,
}

impl MessageIds {
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            opening: getrandom::u64()?,
            count: AtomicU64::new(0),
        })
    }

    /// In the form of a GUID.
    fn next(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut number = u128::from(self.opening) << 64 | u128::from(count);
        let mut text = *b"00000000-0000-0000-0000-000000000000";
        for place in text.iter_mut().rev().filter(|place| **place == b'0') {
            *place = DIGITS[usize::try_from(number & 0xf).unwrap_or_default()];
            number >>= 4;
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// What is stamped on every message of a sender; made once for those that came together.
pub(super) struct Stamps {
    device: SharedText,
    module: Option<SharedText>,
    model: Option<SharedText>,
    origin: SharedText,
    time: SharedText,
}

/// Stamps of a message, at most.
const STAMPS: usize = 6;
/// The bytes that they take as a rule, with their framing; only a hint.
pub(super) const STAMPED_BYTES: usize = 256;

impl Broker {
    pub(super) fn stamps(&self, sender: &Identity, model: Option<&str>, now: Timestamp) -> Stamps {
        Stamps {
            device: sender.device.as_str().into(),
            module: sender.module.as_ref().map(|module| module.as_str().into()),
            model: model.map(SharedText::from),
            origin: SharedText::from_static(self.origin(sender)),
            time: now.to_string().into(),
        }
    }

    pub(super) fn stamp(&self, message: &mut Message, stamps: &Stamps) {
        let system = &mut message.system;
        system.reserve(STAMPS);
        system.set(SystemProperty::ConnectionDeviceId, stamps.device.clone());
        if let Some(module) = &stamps.module {
            system.set(SystemProperty::ConnectionModuleId, module.clone());
        }
        system.set(SystemProperty::EnqueuedTime, stamps.time.clone());
        system.set(SystemProperty::EdgeMessageId, self.message_ids.next());
        system.set(SystemProperty::EdgeOrigin, stamps.origin.clone());
        if let Some(model) = &stamps.model {
            system.set(SystemProperty::ModelId, model.clone());
        }
    }
}
