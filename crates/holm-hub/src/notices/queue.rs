//! Which notices of one kind are given out next, to whom, until when: decided here, without clock, disk or waiting.
//!
//! ```text
//! arrived -> free --take--> leased(token) --settle--> being written --settled--> gone
//!             ^ |             |                            |
//!             | '-- too old --+--> overdue --> gone        '--abandoned (counted), released, not written--.
//!             '---------------'-- lock over, reader gone (not counted) ------------------------------------'
//! ```
//!
//! - A batch has notices that were abandoned equally often, so what comes again comes as it was.
//! - It is given out when it is full, or when its first has waited long enough, or has been given out before.
//! - A lease whose time is over ends at the next look; its token then names nothing.
//! - A clock that is set back makes a notice wait no longer and ends a lease early: both are seen as over before they began.
//! - What is kept is bounded: beyond [`MAX_KEPT`] the oldest that nobody holds become overdue.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holm_model::Timestamp;

use super::{LockToken, ReaderId};
use crate::storage::NoticeHead;

/// Notices of a kind that are kept for readers. A thousand devices whose fifty messages expire at once make half of them; in
/// memory they take some ten megabytes. The oldest go first, which is told in the log and in the metrics.
pub(super) const MAX_KEPT: usize = 100_000;

/// How a kind is given out. Times are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Notices in a batch.
    pub(super) most: usize,
    /// How long a batch that is not full waits for more.
    pub(super) patience: i64,
    pub(super) lock: i64,
    pub(super) time_to_live: i64,
    pub(super) max_deliveries: u32,
}

#[derive(Debug)]
pub(super) struct Queue {
    rules: Rules,
    kept: BTreeMap<u64, Kept>,
    free: BTreeSet<u64>,
    /// Not given out any more; to be removed from the disk.
    overdue: BTreeSet<u64>,
    leases: HashMap<LockToken, Lease>,
    /// Given up for want of room, ever.
    dropped: u64,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    enqueued: Timestamp,
    deliveries: u32,
}

#[derive(Debug)]
struct Lease {
    reader: ReaderId,
    ids: Vec<u64>,
    taken: Timestamp,
    until: Timestamp,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) ids: Vec<u64>,
    pub(super) enqueued: Timestamp,
    pub(super) deliveries: u32,
    pub(super) until: Timestamp,
}

/// The outcome of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Something is leased.
    Taken(Batch),
    /// Nothing yet; more is known at this time, or (`None`) when something arrives or comes back.
    Wait(Option<Timestamp>),
}

/// What a settlement does to the notices of a lease.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settling {
    pub(super) ids: Vec<u64>,
    /// Whether one more abandoned delivery is the last.
    pub(super) is_last: bool,
}

/// What became of notices that were being settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Gone,
    Abandoned,
    Returned,
}

impl Queue {
    /// What an earlier process left: nothing is leased.
    pub(super) fn new(rules: Rules, left: impl IntoIterator<Item = NoticeHead>) -> Self {
        let mut queue = Self {
            rules,
            kept: BTreeMap::new(),
            free: BTreeSet::new(),
            overdue: BTreeSet::new(),
            leases: HashMap::new(),
            dropped: 0,
        };
        for head in left {
            queue.arrived(head);
        }
        queue
    }

    /// A notice is on disk. Whether that may matter to somebody who waits.
    pub(super) fn arrived(&mut self, head: NoticeHead) -> bool {
        let kept = Kept {
            enqueued: head.enqueued,
            deliveries: head.deliveries,
        };
        self.kept.insert(head.id, kept);
        self.free.insert(head.id);
        if self.kept.len() - self.overdue.len() > MAX_KEPT
            && let Some(oldest) = self.free.pop_first()
        {
            self.overdue.insert(oldest);
            self.dropped += 1;
        }
        self.free.len() == 1 || self.free.len() >= self.rules.most
    }

    /// Leases what is due to a reader.
    pub(super) fn take(&mut self, now: Timestamp, reader: ReaderId, token: LockToken) -> Look {
        self.end_old_leases(now);
        self.set_aside_overdue(now);
        let Some((first, ids)) = self.next_batch() else {
            return Look::Wait(self.first_lease_end());
        };
        let waited = now.millis_since(first.enqueued);
        let is_due =
            ids.len() == self.rules.most || first.deliveries > 0 || !(0..self.rules.patience).contains(&waited);
        if !is_due {
            let due = first.enqueued.plus_millis(self.rules.patience);
            return Look::Wait(Some(self.first_lease_end().map_or(due, |end| end.min(due))));
        }
        for id in &ids {
            self.free.remove(id);
        }
        let until = now.plus_millis(self.rules.lock);
        let lease = Lease {
            reader,
            ids: ids.clone(),
            taken: now,
            until,
        };
        self.leases.insert(token, lease);
        Look::Taken(Batch {
            ids,
            enqueued: first.enqueued,
            deliveries: first.deliveries,
            until,
        })
    }

    /// The first that are free and were abandoned equally often.
    fn next_batch(&self) -> Option<(Kept, Vec<u64>)> {
        let first = *self.kept.get(self.free.first()?)?;
        let is_alike = |id: &&u64| {
            self.kept
                .get(id)
                .is_some_and(|kept| kept.deliveries == first.deliveries)
        };
        let ids = self.free.iter().take_while(is_alike).take(self.rules.most);
        Some((first, ids.copied().collect()))
    }

    /// Ends a lease whose settlement is to be written. `None` where there is none, or no longer.
    pub(super) fn settle(&mut self, now: Timestamp, token: LockToken) -> Option<Settling> {
        self.end_old_leases(now);
        let ids = self.leases.remove(&token)?.ids;
        let deliveries = ids
            .first()
            .and_then(|id| self.kept.get(id))
            .map_or(0, |kept| kept.deliveries);
        Some(Settling {
            ids,
            is_last: deliveries + 1 >= self.rules.max_deliveries,
        })
    }

    /// The settlement is written, or could not be. Whether something is free again.
    pub(super) fn settled(&mut self, ids: &[u64], fate: Fate) -> bool {
        for id in ids {
            if fate == Fate::Gone {
                self.kept.remove(id);
            } else if let Some(kept) = self.kept.get_mut(id) {
                kept.deliveries += u32::from(fate == Fate::Abandoned);
                self.free.insert(*id);
            }
        }
        fate != Fate::Gone
    }

    /// What a lease holds goes back, uncounted. Whether there was one.
    pub(super) fn give_back(&mut self, token: LockToken) -> bool {
        let lease = self.leases.remove(&token);
        lease.map(|lease| self.free.extend(lease.ids)).is_some()
    }

    /// What a reader holds goes back, uncounted. Whether it held anything.
    pub(super) fn release(&mut self, reader: ReaderId) -> bool {
        self.give_back_where(|lease| lease.reader == reader)
    }

    /// What is to be removed from the disk, at most `most`.
    pub(super) fn overdue(&mut self, now: Timestamp, most: usize) -> Vec<u64> {
        self.end_old_leases(now);
        self.set_aside_overdue(now);
        self.overdue.iter().take(most).copied().collect()
    }

    /// It is removed.
    pub(super) fn removed(&mut self, ids: &[u64]) {
        for id in ids {
            self.overdue.remove(id);
            self.kept.remove(id);
        }
    }

    /// How many are there.
    pub(super) fn len(&self) -> usize {
        self.kept.len() - self.overdue.len()
    }

    /// How many were given up for want of room.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notices are written in the order of time, so those that are too old are the first; where a clock was set, the rest is
    /// found when it is the first.
    fn set_aside_overdue(&mut self, now: Timestamp) {
        while let Some(first) = self.free.first()
            && let Some(kept) = self.kept.get(first)
            && now.millis_since(kept.enqueued) >= self.rules.time_to_live
        {
            self.overdue.extend(self.free.pop_first());
        }
    }

    fn end_old_leases(&mut self, now: Timestamp) {
        self.give_back_where(|lease| now >= lease.until || now < lease.taken);
    }

    fn give_back_where(&mut self, ends: impl Fn(&Lease) -> bool) -> bool {
        let mut any = false;
        let free = &mut self.free;
        self.leases.retain(|_, lease| {
            let ends = ends(lease);
            if ends {
                free.extend(lease.ids.drain(..));
            }
            any |= ends;
            !ends
        });
        any
    }

    fn first_lease_end(&self) -> Option<Timestamp> {
        self.leases.values().map(|lease| lease.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn token(number: u8) -> LockToken {
        LockToken::of_bytes([number; 16])
    }

    /// A queue of feedback with so many notices, all written at 0.
    fn queue(count: u64) -> Queue {
        let rules = Rules {
            most: 64,
            patience: 15_000,
            lock: 60_000,
            time_to_live: HOUR,
            max_deliveries: 10,
        };
        Queue::new(rules, (1..=count).map(|id| head(id, 0)))
    }

    fn head(id: u64, enqueued: i64) -> NoticeHead {
        NoticeHead {
            id,
            enqueued: at(enqueued),
            deliveries: 0,
        }
    }

    fn taken(look: Look) -> Batch {
        match look {
            Look::Taken(batch) => batch,
            Look::Wait(due) => panic!("nothing before {due:?}"),
        }
    }

    #[test]
    fn a_batch_is_given_when_it_is_full_or_its_first_has_waited_long_enough() {
        let (mut queue, reader) = (queue(65), ReaderId::next());

        let full = taken(queue.take(at(0), reader, token(1)));
        let early = queue.take(at(14_999), reader, token(2));
        let rest = taken(queue.take(at(15_000), reader, token(2)));

        assert_eq!((full.ids.len(), full.until), (64, at(60_000)));
        assert_eq!(early, Look::Wait(Some(at(15_000))));
        assert_eq!(rest.ids, [65]);
    }

    #[test]
    fn two_readers_share_what_is_there() {
        let (mut queue, first, second) = (queue(128), ReaderId::next(), ReaderId::next());

        let one = taken(queue.take(at(0), first, token(1)));
        let two = taken(queue.take(at(0), second, token(2)));

        assert_eq!((one.ids.last(), two.ids.first()), (Some(&64), Some(&65)));
        assert_eq!(queue.take(at(0), first, token(3)), Look::Wait(Some(at(60_000))));
    }

    #[test]
    fn an_abandoned_batch_comes_again_as_it_was_and_counted_and_at_last_for_good() {
        let (mut queue, reader) = (queue(3), ReaderId::next());
        let mut seen = Vec::new();

        for delivery in 0..10 {
            let batch = taken(queue.take(at(15_000), reader, token(delivery)));
            queue.arrived(head(u64::from(delivery) + 4, 15_000));
            let settling = queue.settle(at(15_000), token(delivery)).unwrap();
            seen.push((batch.ids, batch.deliveries, settling.is_last));
            let is_free = queue.settled(&settling.ids, Fate::Abandoned);
            assert!(is_free);
        }

        let expected: Vec<_> = (0..10).map(|count| (vec![1, 2, 3], count, count == 9)).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_released_or_whose_lock_is_over_comes_again_uncounted_and_its_token_is_void() {
        let (mut queue, first, second) = (queue(1), ReaderId::next(), ReaderId::next());
        taken(queue.take(at(15_000), first, token(1)));

        let is_released = queue.release(first);
        let again = taken(queue.take(at(15_000), second, token(2)));
        let late = queue.settle(at(75_000), token(2));
        let third = taken(queue.take(at(75_000), first, token(3)));

        assert!(is_released && queue.settle(at(15_000), token(1)).is_none());
        assert_eq!((again.deliveries, third.deliveries), (0, 0));
        assert_eq!(late, None);
        // A clock that is set back ends it too.
        assert_eq!(queue.settle(at(74_999), token(3)), None);
        // What could not be written comes again as if nothing had been said.
        let fourth = taken(queue.take(at(75_000), first, token(4)));
        queue.settle(at(75_000), token(4)).unwrap();
        assert!(queue.settled(&fourth.ids, Fate::Returned));
        assert_eq!(taken(queue.take(at(75_000), first, token(5))).deliveries, 0);
    }

    #[test]
    fn what_is_too_old_is_given_to_nobody_and_removed_but_not_while_it_is_held() {
        let (mut queue, reader) = (queue(2), ReaderId::next());
        queue.arrived(head(3, 1));
        let held = taken(queue.take(at(HOUR - 1), reader, token(1)));
        queue.arrived(head(4, HOUR));

        let none = queue.overdue(at(HOUR + 1), 10);
        let after = queue.settle(at(HOUR + 1), token(1)).unwrap();
        queue.settled(&after.ids, Fate::Abandoned);
        let overdue = queue.overdue(at(HOUR + 1), 10);
        queue.removed(&overdue);

        assert_eq!((held.ids.len(), none), (3, vec![]));
        assert_eq!((overdue, queue.len()), (vec![1, 2, 3], 1));
    }

    #[test]
    fn the_oldest_that_nobody_holds_go_when_there_are_too_many() {
        let (mut queue, reader) = (queue(u64::try_from(MAX_KEPT).unwrap()), ReaderId::next());
        taken(queue.take(at(0), reader, token(1)));

        queue.arrived(head(1_000_000, 0));

        assert_eq!((queue.len(), queue.dropped()), (MAX_KEPT, 1));
        assert_eq!(queue.overdue(at(0), 10), [65]);
        assert_eq!(queue.settle(at(0), token(1)).unwrap().ids.first(), Some(&1));
    }
}
