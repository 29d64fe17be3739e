//! What the edge writes on every message that it takes in: who sent it, when, and an id of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
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

    /// The next, in the form of a GUID, as a part of a buffer that takes several.
    fn next(&self, buffer: &mut BytesMut) -> SharedText {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut number = u128::from(self.opening) << 64 | u128::from(count);
        let mut text = *b"00000000-0000-0000-0000-000000000000";
        for place in text.iter_mut().rev().filter(|place| **place == b'0') {
            *place = DIGITS[usize::try_from(number & 0xf).unwrap_or_default()];
            number >>= 4;
        }
        buffer.extend_from_slice(&text);
        SharedText::from_utf8(buffer.split().freeze()).expect("digits and hyphens are ASCII")
    }
}

/// What is stamped on every message of a sender; made once for those that came together.
pub(super) struct Stamps {
    device: SharedText,
    module: Option<SharedText>,
    model: Option<SharedText>,
    origin: SharedText,
    time: SharedText,
    /// Where the messages' own ids are.
    ids: BytesMut,
}

/// The bytes of a message's own id.
const ID_BYTES: usize = 36;

/// Stamps of a message, at most.
const STAMPS: usize = 6;
/// The bytes that they take as a rule, with their framing; only a hint.
pub(super) const STAMPED_BYTES: usize = 256;

impl Broker {
    /// What is stamped on so many messages of a sender.
    pub(super) fn stamps(&self, sender: &Identity, model: Option<&str>, now: Timestamp, count: usize) -> Stamps {
        Stamps {
            device: sender.device.as_str().into(),
            module: sender.module.as_ref().map(|module| module.as_str().into()),
            model: model.map(SharedText::from),
            origin: SharedText::from_static(self.origin(sender)),
            time: now.to_string().into(),
            ids: BytesMut::with_capacity(count * ID_BYTES),
        }
    }

    pub(super) fn stamp(&self, message: &mut Message, stamps: &mut Stamps) {
        let system = &mut message.system;
        system.reserve(STAMPS);
        system.set(SystemProperty::ConnectionDeviceId, stamps.device.clone());
        if let Some(module) = &stamps.module {
            system.set(SystemProperty::ConnectionModuleId, module.clone());
        }
        system.set(SystemProperty::EnqueuedTime, stamps.time.clone());
        system.set(SystemProperty::EdgeMessageId, self.message_ids.next(&mut stamps.ids));
        system.set(SystemProperty::EdgeOrigin, stamps.origin.clone());
        if let Some(model) = &stamps.model {
            system.set(SystemProperty::ModelId, model.clone());
        }
    }
}
