//! Deliveries that wait for an outcome, and outcomes that wait to be told. AMQP 1.0, part 2, 2.6.12.
//!
//! ```text
//!   out   number 0, 1, 2, …  64 bits here, the low 32 on the wire, given with the first frame; settled ones leave no trace
//!   in    the peer's numbers, as it likes
//!   settle 4, settle 5, settle 6 --> one disposition 4 to 6
//! ```
//!
//! Invariants: what waits is bounded by the credit that was given (in) and by `max_unsettled` of each link (out). A disposition
//! costs as much as there is that waits, not as much as its range. The numbers on the wire have no gap and go up in the order of
//! first frames, whatever waited for credit or was given up before it had one: peers (proton, rhea) close on any other.

use std::collections::BTreeMap;

use crate::performative::{Disposition, Outcome, Role};

/// What this side sent and the peer has not settled, by number of the delivery in its session, with its name here and the handle
/// of its link.
#[derive(Debug, Default)]
pub(crate) struct UnsettledOut {
    named: u64,
    next: u64,
    waiting: BTreeMap<u64, (u64, u32)>,
}

impl UnsettledOut {
    /// A name for a delivery that will be sent, by which the application knows it.
    pub(crate) const fn name(&mut self) -> u64 {
        let name = self.named;
        self.named += 1;
        name
    }

    /// The number on the wire of a delivery of which the first frame goes out now. With its name and the handle of its link it
    /// waits for an outcome.
    pub(crate) fn begin(&mut self, waits: Option<(u64, u32)>) -> u32 {
        let number = self.next;
        self.next += 1;
        if let Some(waits) = waits {
            self.waiting.insert(number, waits);
        }
        on_wire(number)
    }

    /// Takes what waits between two numbers on the wire: names, and handles of links.
    pub(crate) fn take(&mut self, first: u32, last: u32) -> Vec<(u64, u32)> {
        let (Some(first), Some(last)) = (self.number(first), self.number(last)) else {
            return Vec::new();
        };
        if first > last {
            return Vec::new();
        }
        let numbers: Vec<u64> = self.waiting.range(first..=last).map(|(number, _)| *number).collect();
        numbers
            .iter()
            .filter_map(|number| self.waiting.remove(number))
            .collect()
    }

    /// The number that was last given out of those that look like this on the wire.
    fn number(&self, wire: u32) -> Option<u64> {
        let last = self.next.checked_sub(1)?;
        let behind = on_wire(last).wrapping_sub(wire);
        last.checked_sub(u64::from(behind))
    }

    /// Forgets the deliveries of a link.
    pub(crate) fn forget(&mut self, handle: u32) {
        self.waiting.retain(|_, (_, of)| *of != handle);
    }
}

/// A number of a delivery as it is on the wire.
pub(crate) const fn on_wire(number: u64) -> u32 {
    let [.., a, b, c, d] = number.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What the peer sent and the application has not decided on, by the peer's number, with the handle of its link.
#[derive(Debug, Default)]
pub(crate) struct UnsettledIn(BTreeMap<u32, u32>);

impl UnsettledIn {
    pub(crate) fn holds(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    pub(crate) fn wait(&mut self, number: u32, handle: u32) {
        self.0.insert(number, handle);
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<u32> {
        self.0.remove(&number)
    }

    /// Takes what waits between two numbers; a range over the end of the numbers is two.
    pub(crate) fn take_range(&mut self, first: u32, last: u32) -> Vec<(u32, u32)> {
        let within = |number: u32| number.wrapping_sub(first) <= last.wrapping_sub(first);
        let found: Vec<(u32, u32)> = self.0.iter().map(|(number, handle)| (*number, *handle)).collect();
        let found: Vec<(u32, u32)> = found.into_iter().filter(|(number, _)| within(*number)).collect();
        for (number, _) in &found {
            self.0.remove(number);
        }
        found
    }

    pub(crate) fn forget(&mut self, handle: u32) {
        self.0.retain(|_, of| *of != handle);
    }
}

/// Outcomes that wait to be told: a run of deliveries that were accepted one after the other.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    run: Option<(u32, u32)>,
}

impl Settlements {
    /// Adds an outcome; gives what has to be told before it, and the outcome itself if it does not go into a run.
    pub(crate) fn add(&mut self, number: u32, outcome: Outcome) -> [Option<Disposition>; 2] {
        match (&mut self.run, &outcome) {
            (Some((_, last)), Outcome::Accepted) if last.wrapping_add(1) == number => {
                *last = number;
                [None, None]
            }
            (_, Outcome::Accepted) => {
                let before = self.take();
                self.run = Some((number, number));
                [before, None]
            }
            _ => [self.take(), Some(settled(number, number, outcome))],
        }
    }

    /// Takes the run, to be told now.
    pub(crate) fn take(&mut self) -> Option<Disposition> {
        let (first, last) = self.run.take()?;
        Some(settled(first, last, Outcome::Accepted))
    }
}

fn settled(first: u32, last: u32, outcome: Outcome) -> Disposition {
    Disposition {
        role: Role::Receiver,
        first,
        last: Some(last),
        settled: true,
        state: Some(outcome.into()),
        batchable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_takes_only_what_waits() {
        let mut outbound = UnsettledOut::default();
        for handle in [0, 0, 1, 0] {
            let name = outbound.name();
            outbound.begin(Some((name, handle)));
        }
        outbound.forget(1);

        assert_eq!(outbound.take(9, 9), [], "never sent");
        assert_eq!(outbound.take(2, 1), [], "backwards");
        assert_eq!(outbound.take(1, 3), [(1, 0), (3, 0)]);
        assert_eq!(outbound.take(0, 3), [(0, 0)]);
    }

    #[test]
    fn numbers_go_on_beyond_32_bits() {
        let mut outbound = UnsettledOut {
            next: u64::from(u32::MAX),
            ..UnsettledOut::default()
        };
        let numbers = [(); 3].map(|()| {
            let name = outbound.name();
            outbound.begin(Some((name, 0)))
        });

        assert_eq!(numbers, [u32::MAX, 0, 1]);
        assert_eq!(outbound.take(u32::MAX, 0).len(), 2);
        assert_eq!(outbound.take(1, 1), [(2, 0)]);
    }

    #[test]
    fn neighbours_that_are_accepted_are_told_together() {
        let mut settlements = Settlements::default();
        for number in [u32::MAX, 0, 1] {
            assert_eq!(settlements.add(number, Outcome::Accepted), [None, None]);
        }

        let [before, itself] = settlements.add(2, Outcome::Released);

        assert_eq!(before, Some(settled(u32::MAX, 1, Outcome::Accepted)));
        assert_eq!(itself, Some(settled(2, 2, Outcome::Released)));
        assert_eq!(settlements.take(), None);
    }
}
