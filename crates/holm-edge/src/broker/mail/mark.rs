//! By what a message is known again when it comes a second time.

use holm_client::event::Received;
use holm_model::SystemProperty;
use sha2::{Digest as _, Sha256};

/// What tells a message from others of the same content: no two have the same.
const OWN: [SystemProperty; 3] = [
    SystemProperty::SequenceNumber,
    SystemProperty::MessageId,
    SystemProperty::AbsoluteExpiryTime,
];

/// A message, without what differs from delivery to delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    digest: [u8; 32],
    /// Whether it has something of its own.
    is_sure: bool,
}

impl Mark {
    /// The mark of what came. One that has nothing of its own is known again only if the hub says that it comes again: a command that
    /// is delivered twice does less harm than one that somebody holds for delivered.
    pub(super) fn of(received: &Received) -> Self {
        let mut message = received.message.clone();
        message.system.remove(SystemProperty::DeliveryCount);
        Self {
            digest: Sha256::digest(message.encode()).into(),
            is_sure: received.redelivered || OWN.iter().any(|name| message.system.get(*name).is_some()),
        }
    }

    /// Whether the message that comes now, with this mark, is the one that came with an earlier mark.
    pub(super) fn is_again(self, earlier: Self) -> bool {
        self.is_sure && self.digest == earlier.digest
    }
}
