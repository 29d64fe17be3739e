//! How many transfers a session may carry, in both directions. AMQP 1.0, part 2, 2.5.6.
//!
//! ```text
//!   in:   begin, flow --> incoming = size     each transfer: incoming - 1     at half of it: a flow, incoming = size
//!   out:  the peer's begin and flow --> outgoing = what it announced, less what it had not seen    each transfer: outgoing - 1
//! ```
//!
//! What is taken in is bounded by link credit and by the events that wait, so the window of this side is opened again as soon as
//! transfers were handled: its bound is for peers that heed no credit.

use crate::performative::{Begin, Flow};

/// What is announced of this side's sending: it is bounded by the peer's window alone.
const OUTGOING_WINDOW: u32 = i32::MAX as u32;

/// The transfers of one session.
#[derive(Debug)]
pub(crate) struct SessionWindow {
    size: u32,
    /// The number of the peer's next transfer; none before its begin.
    next_incoming: Option<u32>,
    incoming: u32,
    next_outgoing: u32,
    outgoing: u32,
}

/// The session's part of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowState {
    pub(crate) next_incoming_id: Option<u32>,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) outgoing_window: u32,
}

impl SessionWindow {
    pub(crate) fn new(size: u32) -> Self {
        let size = size.max(2);
        Self {
            size,
            next_incoming: None,
            incoming: size,
            next_outgoing: 0,
            outgoing: 0,
        }
    }

    /// Takes the peer's begin.
    pub(crate) fn begun(&mut self, begin: &Begin) {
        self.next_incoming = Some(begin.next_outgoing_id);
        self.outgoing = begin.incoming_window;
    }

    /// Takes the session's part of a flow.
    pub(crate) fn handle_flow(&mut self, flow: &Flow) {
        // What was sent and the peer had not seen; one that speaks of what was never sent has seen all.
        let seen = flow.next_incoming_id.unwrap_or(0);
        let unseen = self.next_outgoing.wrapping_sub(seen);
        let unseen = if i32::try_from(unseen).is_ok() { unseen } else { 0 };
        self.outgoing = flow.incoming_window.saturating_sub(unseen);
    }

    /// Counts a transfer that arrived; false when the window was empty.
    pub(crate) fn arrive(&mut self) -> bool {
        let Some(left) = self.incoming.checked_sub(1) else {
            return false;
        };
        self.incoming = left;
        self.next_incoming = self.next_incoming.map(|id| id.wrapping_add(1));
        true
    }

    /// Whether the peer should hear that the window is open again.
    pub(crate) const fn wants_flow(&self) -> bool {
        self.incoming <= self.size / 2
    }

    /// What to say in a flow or begin, which opens the window again.
    pub(crate) const fn announce(&mut self) -> WindowState {
        self.incoming = self.size;
        WindowState {
            next_incoming_id: self.next_incoming,
            incoming_window: self.size,
            next_outgoing_id: self.next_outgoing,
            outgoing_window: OUTGOING_WINDOW,
        }
    }

    /// How many transfers may be sent.
    pub(crate) const fn free(&self) -> u32 {
        self.outgoing
    }

    /// Counts a transfer that was sent.
    pub(crate) const fn sent(&mut self) {
        self.outgoing = self.outgoing.saturating_sub(1);
        self.next_outgoing = self.next_outgoing.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Fields;

    fn flow(next_incoming_id: Option<u32>, incoming_window: u32) -> Flow {
        Flow {
            next_incoming_id,
            incoming_window,
            next_outgoing_id: 0,
            outgoing_window: 0,
            handle: None,
            delivery_count: None,
            link_credit: None,
            available: None,
            drain: false,
            echo: false,
            properties: Fields::new(),
        }
    }

    #[test]
    fn window_of_the_peer_counts_from_what_it_had_seen() {
        let mut window = SessionWindow::new(10);
        window.handle_flow(&flow(None, 5));
        window.sent();
        window.sent();
        assert_eq!(window.free(), 3);

        window.handle_flow(&flow(Some(1), 5));
        assert_eq!(window.free(), 4, "one of the two is still on its way");
        window.handle_flow(&flow(Some(2), u32::MAX));
        assert_eq!(window.free(), u32::MAX);
        window.handle_flow(&flow(Some(2_000), 5));
        assert_eq!(
            window.free(),
            5,
            "a peer that saw the future gets no more than it asks for"
        );
        window.handle_flow(&flow(Some(0), 1));
        assert_eq!(window.free(), 0);
    }

    #[test]
    fn window_of_this_side_is_used_up_and_announced_again() {
        let mut window = SessionWindow::new(4);
        assert!(window.arrive() && !window.wants_flow());
        assert!(window.arrive() && window.wants_flow());
        assert!(window.arrive() && window.arrive());
        assert!(!window.arrive(), "the fifth of four");

        assert_eq!(window.announce().incoming_window, 4);
        assert!(window.arrive());
    }
}
