//! What everybody said and saw, and what must follow from it: the invariants, checked as messages arrive and at the end.
//!
//! ```text
//!   program ── made(n) ──> edge ── acknowledged: stored(n) ──> … ── arrived(n) at the hub, or at another program
//! ```
//!
//! Each program numbers what it sends to each output from 0, and sends the next one when the last was acknowledged. An
//! output has one priority, so what arrives of it for the first time has rising numbers: order per sender and priority.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Who sent, by which output, and to whom.
pub type Stream = (String, String);

/// What was sent by one program to one output.
#[derive(Clone, Debug, Default)]
struct Sent {
    made: u64,
    /// When each was acknowledged, in virtual time.
    stored: BTreeMap<u64, Duration>,
    arrived: BTreeSet<u64>,
    duplicates: u64,
    /// When each was made, in virtual time.
    made_at: BTreeMap<u64, Duration>,
    /// Those whose life was counted by a clock that was wrong.
    timeless: BTreeSet<u64>,
}

/// What becomes of the messages of an output that wait too long or are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Each one arrives.
    Arrives,
    /// It arrives within this time, or not at all.
    Expires(Duration),
    /// The oldest may go to make room.
    MakesRoom,
}

/// The ledger. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<Stream, Sent>>>);

/// What came of all messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Acknowledged by the edge.
    pub stored: u64,
    /// Arrived, repeats left out.
    pub arrived: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Expired on the way.
    pub expired: u64,
    /// Made room for others.
    pub made_room: u64,
}

impl Ledger {
    fn streams(&self) -> MutexGuard<'_, BTreeMap<Stream, Sent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program makes its next message for an output; gives its number.
    #[must_use]
    pub fn make(&self, stream: &Stream, now: Duration, is_clock_right: bool) -> u64 {
        let mut streams = self.streams();
        let sent = streams.entry(stream.clone()).or_default();
        sent.made += 1;
        sent.made_at.insert(sent.made - 1, now);
        if !is_clock_right {
            sent.timeless.insert(sent.made - 1);
        }
        sent.made - 1
    }

    /// The edge has acknowledged a message.
    pub fn stored(&self, stream: &Stream, number: u64, now: Duration, is_clock_right: bool) {
        let mut streams = self.streams();
        let sent = streams.entry(stream.clone()).or_default();
        sent.stored.insert(number, now);
        if !is_clock_right {
            sent.timeless.insert(number);
        }
    }

    /// A message has arrived at its destination.
    ///
    /// # Panics
    /// When it was never made, comes out of order, or too late.
    pub fn arrived(&self, stream: &Stream, number: u64, fate: Fate, now: Duration) {
        let mut streams = self.streams();
        let sent = streams.entry(stream.clone()).or_default();
        assert!(number < sent.made, "{stream:?}: {number} arrived and was never made");
        if sent.arrived.contains(&number) {
            sent.duplicates += 1;
            return;
        }
        let last = sent.arrived.last().copied();
        assert!(
            last.is_none_or(|last| last < number),
            "{stream:?}: {number} arrived for the first time after {last:?}"
        );
        sent.arrived.insert(number);
        if let Fate::Expires(life) = fate
            && !sent.timeless.contains(&number)
        {
            let age = now.saturating_sub(sent.made_at[&number]);
            assert!(
                age <= life + SLACK,
                "{stream:?}: {number} arrived {age:?} after it was made"
            );
        }
    }

    /// Everything has come to rest: checks what became of each message, and counts.
    ///
    /// # Panics
    /// When something that was acknowledged is lost.
    #[must_use]
    pub fn settle(&self, fate: impl Fn(&str) -> Fate, was_reachable: impl Fn(Duration, Duration) -> bool) -> Summary {
        let mut summary = Summary::default();
        for (stream, sent) in self.streams().iter() {
            summary.stored += sent.stored.len() as u64;
            summary.arrived += sent.arrived.len() as u64;
            summary.duplicates += sent.duplicates;
            let missing: Vec<(u64, Duration)> = sent
                .stored
                .iter()
                .filter(|(number, _)| !sent.arrived.contains(number))
                .map(|(number, at)| (*number, *at))
                .collect();
            match fate(&stream.1) {
                Fate::Arrives => assert!(
                    missing.is_empty(),
                    "{stream:?}: {} of {} acknowledged messages are lost: {:?}",
                    missing.len(),
                    sent.stored.len(),
                    missing.iter().take(5).collect::<Vec<_>>()
                ),
                Fate::Expires(life) => {
                    for (number, at) in &missing {
                        assert!(
                            !was_reachable(*at, *at + life),
                            "{stream:?}: {number}, acknowledged at {at:?}, had time to arrive and did not"
                        );
                    }
                    summary.expired += missing.len() as u64;
                }
                Fate::MakesRoom => {
                    let (first, last) = (missing.first().map(|it| it.0), missing.last().map(|it| it.0));
                    let inside = sent.arrived.iter().find(|number| {
                        first.is_some_and(|first| first < **number) && last.is_some_and(|last| **number < last)
                    });
                    assert!(
                        inside.is_none(),
                        "{stream:?}: {first:?} to {last:?} are gone, but {inside:?} arrived: not the oldest made room"
                    );
                    summary.made_room += missing.len() as u64;
                }
            }
        }
        summary
    }
}

/// How much later than its end a message may be seen: what was on its way when it ended arrives.
const SLACK: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        ("a".to_owned(), "out".to_owned())
    }

    /// Five messages, all acknowledged.
    fn five() -> Ledger {
        let ledger = Ledger::default();
        for second in 0..5 {
            let at = Duration::from_secs(second);
            let number = ledger.make(&stream(), at, true);
            ledger.stored(&stream(), number, at, true);
        }
        ledger
    }

    /// For tests in which nobody comes to look at it.
    fn drop_summary(_: Summary) {}

    fn arrive(ledger: &Ledger, numbers: &[u64]) {
        for number in numbers {
            ledger.arrived(&stream(), *number, Fate::Arrives, Duration::from_secs(9));
        }
    }

    #[test]
    fn repeats_are_counted() {
        let ledger = five();
        arrive(&ledger, &[0, 1, 0, 1, 2, 3, 4]);

        let summary = ledger.settle(|_| Fate::Arrives, |_, _| false);

        assert_eq!((summary.arrived, summary.duplicates), (5, 2));
    }

    #[test]
    #[should_panic(expected = "1 of 5 acknowledged messages are lost")]
    fn a_loss_is_found() {
        let ledger = five();
        arrive(&ledger, &[0, 1, 2, 4]);

        drop_summary(ledger.settle(|_| Fate::Arrives, |_, _| false));
    }

    #[test]
    #[should_panic(expected = "3 arrived for the first time after Some(4)")]
    fn another_order_is_found() {
        arrive(&five(), &[0, 4, 3]);
    }

    #[test]
    #[should_panic(expected = "arrived 129s after it was made")]
    fn a_message_after_its_time_is_found() {
        let ledger = Ledger::default();
        let number = ledger.make(&stream(), Duration::ZERO, true);

        ledger.arrived(
            &stream(),
            number,
            Fate::Expires(Duration::from_secs(1)),
            SLACK + Duration::from_secs(9),
        );
    }

    #[test]
    #[should_panic(expected = "had time to arrive")]
    fn a_message_that_went_before_its_time_is_found() {
        drop_summary(five().settle(|_| Fate::Expires(Duration::from_secs(60)), |_, _| true));
    }

    #[test]
    #[should_panic(expected = "not the oldest made room")]
    fn a_younger_one_that_made_room_is_found() {
        let ledger = five();
        arrive(&ledger, &[0, 2, 4]);

        drop_summary(ledger.settle(|_| Fate::MakesRoom, |_, _| false));
    }
}
