//! How many deliveries a link may carry. AMQP 1.0, part 2, 2.6.7.
//!
//! ```text
//!   receiver   window = credit the peer has + deliveries that the application has not decided on
//!              decided --> undecided - 1 --> credit is filled up when the peer has half of what it may have, or less
//!   sender     credit = the receiver's count + its credit - the count of this side
//! ```
//!
//! Invariants: a receiver never has more than `window` deliveries undecided or on their way, unless more were granted by hand;
//! credit that was once given is never a breach, also when it was taken back while the delivery was on its way.

use crate::performative::Flow;

/// What the peer lets this side send on a link.
#[derive(Debug, Default)]
pub(crate) struct SendCredit {
    count: u32,
    credit: u32,
    drain: bool,
}

impl SendCredit {
    /// Takes the link's part of a flow; whether anything changed that the application should know.
    pub(crate) fn handle_flow(&mut self, flow: &Flow) -> bool {
        let before = (self.credit, self.drain);
        if let Some(link_credit) = flow.link_credit {
            // A receiver that has not seen the attach knows no count: it means the first one, which is 0.
            let unseen = self.count.wrapping_sub(flow.delivery_count.unwrap_or(0));
            let unseen = if i32::try_from(unseen).is_ok() { unseen } else { 0 };
            self.credit = link_credit.saturating_sub(unseen);
        }
        self.drain = flow.drain;
        before != (self.credit, self.drain)
    }

    /// How many deliveries may be begun.
    pub(crate) const fn left(&self) -> u32 {
        self.credit
    }

    /// Whether the receiver wants back what is not used.
    pub(crate) const fn drain(&self) -> bool {
        self.drain
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Counts a delivery whose first transfer is sent.
    pub(crate) const fn begin(&mut self) {
        self.credit = self.credit.saturating_sub(1);
        self.count = self.count.wrapping_add(1);
    }

    /// Gives back what is not used.
    pub(crate) const fn give_back(&mut self) {
        self.count = self.count.wrapping_add(self.credit);
        self.credit = 0;
        self.drain = false;
    }
}

/// What this side lets the peer send on a link.
#[derive(Debug)]
pub(crate) struct ReceiveCredit {
    window: u32,
    undecided: u32,
    count: u32,
    credit: u32,
    draining: bool,
}

impl ReceiveCredit {
    pub(crate) const fn new(window: u32) -> Self {
        Self {
            window,
            undecided: 0,
            count: 0,
            credit: 0,
            draining: false,
        }
    }

    /// Takes the sender's count from its attach.
    pub(crate) const fn attached(&mut self, initial_delivery_count: u32) {
        self.count = initial_delivery_count;
    }

    /// Changes the window; what the peer has already, it keeps.
    pub(crate) const fn set_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Adds to the credit whatever the window.
    pub(crate) const fn grant(&mut self, more: u32) {
        self.credit = self.credit.saturating_add(more);
    }

    /// Counts a delivery that begins, and is undecided from then on; false when there was no credit for it.
    pub(crate) fn arrive(&mut self) -> bool {
        let Some(left) = self.credit.checked_sub(1) else {
            return false;
        };
        self.credit = left;
        self.count = self.count.wrapping_add(1);
        self.undecided += 1;
        true
    }

    /// A delivery was decided, or needs no decision.
    pub(crate) const fn decide(&mut self) {
        self.undecided = self.undecided.saturating_sub(1);
    }

    /// Fills the credit up to the window; whether the peer should hear of it.
    pub(crate) fn fill_up(&mut self) -> bool {
        let wanted = self.window.saturating_sub(self.undecided);
        if self.draining || wanted <= self.credit || self.credit > wanted / 2 {
            return false;
        }
        self.credit = wanted;
        true
    }

    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    pub(crate) const fn left(&self) -> u32 {
        self.credit
    }

    pub(crate) const fn draining(&self) -> bool {
        self.draining
    }

    /// Asks for what is there, and for the rest of the credit back.
    pub(crate) const fn drain(&mut self) {
        self.draining = true;
    }

    /// Takes the sender's part of a flow: while draining, its count goes ahead by what it gives back. Whether that ends it.
    pub(crate) fn handle_flow(&mut self, flow: &Flow) -> bool {
        if !self.draining {
            return false;
        }
        let ahead = flow.delivery_count.unwrap_or(self.count).wrapping_sub(self.count);
        if ahead <= self.credit {
            self.count = self.count.wrapping_add(ahead);
            self.credit -= ahead;
        }
        self.try_end_drain()
    }

    /// Ends a drain when no credit is left; whether that was now.
    pub(crate) const fn try_end_drain(&mut self) -> bool {
        let ends = self.draining && self.credit == 0;
        if ends {
            self.draining = false;
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_and_undecided_deliveries_never_exceed_the_window() {
        let mut credit = ReceiveCredit::new(8);
        assert!(credit.fill_up());
        for _ in 0..8 {
            assert!(credit.arrive());
        }

        assert!(!credit.arrive(), "the ninth of eight");
        assert!(!credit.fill_up(), "nothing was decided");
        credit.decide();
        assert!(credit.fill_up());
        assert_eq!(credit.left(), 1);
    }

    #[test]
    fn peer_hears_of_credit_when_it_has_half_of_it_left() {
        let mut credit = ReceiveCredit::new(8);
        assert!(credit.fill_up());

        let told: Vec<bool> = (0..4)
            .map(|_| {
                assert!(credit.arrive());
                credit.decide();
                credit.fill_up()
            })
            .collect();

        assert_eq!(told, [false, false, false, true]);
    }
}
