//! One end of a link.
//!
//! ```text
//!   peer attaches:  Deciding --accept--> Attached --detach, either--> gone          a detach of ours waits for the peer's:
//!   we attach:      Attaching --answer-> Attached                                   Detaching --> gone
//! ```

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::credit::{ReceiveCredit, SendCredit};
use crate::performative::{DeliveryTag, ReceiverSettleMode, Role, SenderSettleMode};
use crate::text::Text;

/// A session of a connection; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    pub(crate) channel: u16,
    pub(crate) serial: u32,
}

/// A link of a connection; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(crate) session: SessionId,
    pub(crate) handle: u32,
    pub(crate) serial: u32,
}

/// A delivery of the peer's that waits for its outcome; unique while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    pub(crate) link: LinkId,
    pub(crate) number: u32,
}

/// A delivery of ours that waits for its outcome; unique within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    pub(crate) link: LinkId,
    pub(crate) number: u64,
}

impl LinkId {
    /// The session that the link is in.
    #[must_use]
    pub const fn session(self) -> SessionId {
        self.session
    }
}

impl DeliveryId {
    /// The link that it came on.
    #[must_use]
    pub const fn link(self) -> LinkId {
        self.link
    }
}

impl Token {
    /// The link that it was sent on.
    #[must_use]
    pub const fn link(self) -> LinkId {
        self.link
    }
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// The peer attached; the application decides. `Deciding => (Attached | Detaching | gone)`
    Deciding,
    /// We attached; the peer answers. `Attaching => (Attached | Detaching | gone)`
    Attaching,
    /// The peer answered our attach without its terminus: its detach follows. `Refused => (Detaching | gone)`
    Refused,
    /// `Attached => (Detaching | gone)`
    Attached,
    /// We detached; what the peer sends meanwhile is dropped. `Detaching => gone`
    Detaching,
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) serial: u32,
    pub(crate) name: Text,
    pub(crate) state: LinkState,
    /// The handle in the peer's frames, once it attached.
    pub(crate) remote_handle: Option<u32>,
    pub(crate) snd_settle_mode: SenderSettleMode,
    pub(crate) rcv_settle_mode: ReceiverSettleMode,
    pub(crate) end: LinkEnd,
}

#[derive(Debug)]
pub(crate) enum LinkEnd {
    Sender(Sender),
    Receiver(Receiver),
}

/// What this side sends.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    pub(crate) credit: SendCredit,
    /// Deliveries that wait for room, the first perhaps begun.
    pub(crate) queue: VecDeque<Outgoing>,
    pub(crate) queued_bytes: usize,
    /// Whether the link is in the ring of those that have something to send.
    pub(crate) ready: bool,
    /// How many deliveries wait for their outcome.
    pub(crate) unsettled: usize,
    /// The peer's limit; 0 for none.
    pub(crate) max_message_size: u64,
}

/// A delivery on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// That of its token; the one on the wire comes with its first frame.
    pub(crate) number: u64,
    pub(crate) tag: DeliveryTag,
    pub(crate) format: u32,
    pub(crate) settled: bool,
    /// What was not sent yet.
    pub(crate) rest: Bytes,
    pub(crate) begun: bool,
}

/// What this side receives.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) credit: ReceiveCredit,
    /// Our limit; 0 for none.
    pub(crate) max_message_size: u64,
    pub(crate) partial: Option<Box<Partial>>,
    /// Whether the link is in the list of those whose credit may be filled up.
    pub(crate) dirty: bool,
}

/// A delivery of which not all transfers came.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) number: u32,
    pub(crate) tag: DeliveryTag,
    pub(crate) format: u32,
    pub(crate) settled: bool,
    /// A copy, so that small transfers do not keep large buffers.
    pub(crate) bytes: BytesMut,
}

impl Link {
    pub(crate) const fn role(&self) -> Role {
        match self.end {
            LinkEnd::Sender(_) => Role::Sender,
            LinkEnd::Receiver(_) => Role::Receiver,
        }
    }

    pub(crate) const fn sender(&mut self) -> Option<&mut Sender> {
        match &mut self.end {
            LinkEnd::Sender(sender) => Some(sender),
            LinkEnd::Receiver(_) => None,
        }
    }

    pub(crate) const fn receiver(&mut self) -> Option<&mut Receiver> {
        match &mut self.end {
            LinkEnd::Sender(_) => None,
            LinkEnd::Receiver(receiver) => Some(receiver),
        }
    }

    /// Drops what is on its way, in and out; gives the bytes that it held of each bound.
    pub(crate) fn clear(&mut self) -> Held {
        let mut held = Held::default();
        match &mut self.end {
            LinkEnd::Sender(sender) => {
                held.queued = std::mem::take(&mut sender.queued_bytes);
                sender.queue = VecDeque::new();
            }
            LinkEnd::Receiver(receiver) => {
                held.partial = receiver.partial.take().map_or(0, |partial| partial.bytes.len());
            }
        }
        held
    }

    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        match &self.end {
            LinkEnd::Sender(sender) => Held {
                queued: sender.queued_bytes,
                partial: 0,
            },
            LinkEnd::Receiver(receiver) => Held {
                queued: 0,
                partial: receiver.partial.as_ref().map_or(0, |partial| partial.bytes.len()),
            },
        }
    }
}

/// Bytes that a link holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// To be sent.
    pub(crate) queued: usize,
    /// Of a delivery that is not whole.
    pub(crate) partial: usize,
}
