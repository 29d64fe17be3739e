//! Acknowledgements of inbound publishes: given by the application in any order, sent in the order of arrival.
//!
//! ```text
//!   arrived:   7   8   9   10        waiting, oldest first; a serial number each, without gaps
//!   settled:   -   ok  ok  -         nothing leaves: 7 is not settled
//!   settle 7:  ok  ok  ok  -         7, 8 and 9 leave, in that order
//! ```
//!
//! Invariants: a PUBACK leaves only after the application settled its delivery and every earlier one (one SDK depends on
//! the order, `hub-device-protocols.md` §2.8); at most `window` deliveries wait; a delivery is settled once. After a
//! delivery is settled with [`Outcome::Close`] nothing more is taken in, and the close happens in its turn.

use std::collections::VecDeque;

use crate::packet::PacketId;
use crate::violation::Violation;

/// An inbound publish of QoS 1 that waits for the application; unique within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u64);

/// What the application decided about an inbound publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable: send the PUBACK.
    Accept,
    /// It is not acceptable: acknowledge what came before it, then close the connection.
    Close,
}

/// What to make of an inbound publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is new: tell the application.
    New(DeliveryId),
    /// It repeats one that waits; the acknowledgement of that one serves both.
    Repeat,
}

/// The inbound publishes that wait for their acknowledgement.
#[derive(Debug)]
pub(crate) struct Acknowledgements {
    window: usize,
    /// The serial number of the oldest that waits, or of the next arrival when none does.
    first: u64,
    waiting: VecDeque<(PacketId, Option<Outcome>)>,
    closing: bool,
}

impl Acknowledgements {
    pub(crate) fn new(window: usize) -> Self {
        Self {
            window: window.max(1),
            first: 0,
            waiting: VecDeque::new(),
            closing: false,
        }
    }

    /// Whether no further publish of QoS 1 may be taken in.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.window
    }

    /// Whether the application decided to close, be it that the turn has not come.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Notes an inbound publish. A client that sends one again on the same connection, with DUP, before it was
    /// acknowledged, must not get two acknowledgements: the second could be taken for that of a later message.
    pub(crate) fn arrive(&mut self, id: PacketId, dup: bool) -> Result<Arrival, Violation> {
        if self.waiting.iter().any(|(waiting, _)| *waiting == id) {
            return if dup {
                Ok(Arrival::Repeat)
            } else {
                Err(Violation::PacketIdInUse(id))
            };
        }
        let delivery = DeliveryId(self.first + self.waiting.len() as u64);
        self.waiting.push_back((id, None));
        Ok(Arrival::New(delivery))
    }

    /// Notes the application's decision; false when the delivery does not wait for one.
    pub(crate) fn settle(&mut self, delivery: DeliveryId, outcome: Outcome) -> bool {
        let slot = delivery
            .0
            .checked_sub(self.first)
            .and_then(|offset| usize::try_from(offset).ok())
            .and_then(|index| self.waiting.get_mut(index));
        match slot {
            Some((_, settled @ None)) => {
                *settled = Some(outcome);
                self.closing |= outcome == Outcome::Close;
                true
            }
            _ => false,
        }
    }

    /// Takes the oldest delivery if it is settled.
    pub(crate) fn next_settled(&mut self) -> Option<(PacketId, Outcome)> {
        let &(id, outcome) = self.waiting.front()?;
        let outcome = outcome?;
        self.waiting.pop_front();
        self.first += 1;
        Some((id, outcome))
    }
}
