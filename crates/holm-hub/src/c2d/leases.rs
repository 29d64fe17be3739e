//! Who holds which waiting message, in memory.
//!
//! ```text
//!             .--> Held(session, token, lock) --settle--> Settling --written--> gone
//!   (none) ---'     |            |                            |
//!     Returned <----'------------'--release, lock is over     '--abandoned, or not written--> Returned
//!                   '--a newer session receives--> Held(that, another token)
//! ```
//!
//! Numbers name leases and states of mailboxes. One counter gives them out for all devices, and it outlives the entries of
//! devices: a number that somebody still holds never comes to mean something else. It begins at another number with each
//! process, so that a number from before a restart names nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use holm_gateway::SessionId;
use holm_model::{DeviceId, Timestamp};

use crate::storage::Waiting;

/// The leases of all devices.
#[derive(Debug, Default)]
pub(super) struct Leases {
    devices: HashMap<DeviceId, DeviceLeases>,
    last_number: u64,
}

/// The leases of one device, by sequence; at most [`super::MAX_WAITING`] and those being settled.
#[derive(Debug, Default)]
struct DeviceLeases {
    by_sequence: BTreeMap<u64, Lease>,
    /// Names the state after the last settlement that is on disk: a list of messages read before it may name what is gone.
    state: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    /// `=> (Settling | Returned | Held)`
    Held {
        session: SessionId,
        token: u64,
        /// `None`: as long as the session lives.
        lock: Option<Lock>,
    },
    /// Being written; `=> gone | Returned`.
    Settling,
    /// Free, but it was delivered before: the next delivery is a repetition.
    Returned,
}

/// When a lease ends by itself. A clock that was set back before its beginning ends it too: nobody knows how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lock {
    taken: Timestamp,
    until: Timestamp,
}

impl Lock {
    fn is_over(self, now: Timestamp) -> bool {
        now >= self.until || now < self.taken
    }
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) session: SessionId,
    pub(super) device: &'a DeviceId,
    pub(super) now: Timestamp,
    /// For how long; `None`: as long as the session lives.
    pub(super) lock: Option<Duration>,
    pub(super) most: usize,
}

impl Asked<'_> {
    fn lock(&self) -> Option<Lock> {
        let millis = |lock: Duration| i64::try_from(lock.as_millis()).unwrap_or(i64::MAX);
        self.lock.map(|lock| Lock {
            taken: self.now,
            until: self.now.plus_millis(millis(lock)),
        })
    }

    /// Whether a message with this lease is free for who asks. Sessions take it from older sessions of the device.
    fn finds_free(&self, lease: Option<Lease>) -> bool {
        match lease {
            None | Some(Lease::Returned) => true,
            Some(Lease::Settling) => false,
            Some(Lease::Held { lock: Some(lock), .. }) => lock.is_over(self.now),
            Some(Lease::Held {
                session, lock: None, ..
            }) => self.lock.is_none() && session < self.session,
        }
    }
}

/// A message that is free, and how it would be handed out.
pub(super) struct Free {
    pub(super) message: Waiting,
    pub(super) token: u64,
    pub(super) redelivered: bool,
}

/// What becomes of a free message.
pub(super) enum Taken {
    /// It is handed out.
    Held,
    /// It is being removed.
    Settling,
}

/// How an attempt to hold went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing was done: the mailbox is no longer in the state in which its messages were read.
    OutOfDate,
    /// All there is was handed out.
    Done {
        /// When a lock of the mailbox is over next.
        next_end: Option<Timestamp>,
    },
}

impl Leases {
    /// None yet; numbers begin behind this one.
    pub(super) fn numbered_after(last_number: u64) -> Self {
        Self {
            devices: HashMap::new(),
            last_number,
        }
    }

    /// The state of a device's mailbox, to be compared once its messages were read.
    pub(super) fn state(&mut self, device: &DeviceId) -> u64 {
        if let Some(leases) = self.devices.get(device) {
            return leases.state;
        }
        let state = self.next_number();
        let by_sequence = BTreeMap::new();
        self.devices.insert(device.clone(), DeviceLeases { by_sequence, state });
        state
    }

    /// Leases the free ones of `waiting` to who asks, in order, at most as many as it asks for; `take` hands one out or says
    /// that it is being removed.
    pub(super) fn hold(
        &mut self,
        asked: &Asked<'_>,
        state: u64,
        waiting: Vec<Waiting>,
        mut take: impl FnMut(Free) -> Taken,
    ) -> Hold {
        let Self { devices, last_number } = self;
        let Some(leases) = devices.get_mut(asked.device).filter(|leases| leases.state == state) else {
            return Hold::OutOfDate;
        };
        let leases = &mut leases.by_sequence;
        forget(leases, &waiting, asked.now);
        let mut held = 0;
        for message in waiting {
            if held == asked.most {
                break;
            }
            let sequence = message.sequence;
            let before = leases.get(&sequence).copied();
            if !asked.finds_free(before) {
                continue;
            }
            *last_number += 1;
            let token = *last_number;
            let redelivered = before.is_some();
            let taken = take(Free {
                message,
                token,
                redelivered,
            });
            let lease = match taken {
                Taken::Held => {
                    held += 1;
                    Lease::Held {
                        session: asked.session,
                        token,
                        lock: asked.lock(),
                    }
                }
                Taken::Settling => Lease::Settling,
            };
            leases.insert(sequence, lease);
        }
        let next_end = leases.values().filter_map(|lease| match lease {
            Lease::Held { lock: Some(lock), .. } => Some(lock.until),
            _ => None,
        });
        let next_end = next_end.min();
        if leases.is_empty() {
            devices.remove(asked.device);
        }
        Hold::Done { next_end }
    }

    /// Ends the lease of this token, whose settlement is to be written; gives the message's sequence. `None` for a lease
    /// that is not held by this session, or no longer.
    pub(super) fn settle(&mut self, session: SessionId, device: &DeviceId, token: u64, now: Timestamp) -> Option<u64> {
        let leases = &mut self.devices.get_mut(device)?.by_sequence;
        let mut held = leases.iter_mut().filter_map(|(sequence, lease)| match *lease {
            Lease::Held {
                session: holder,
                token: named,
                lock,
            } if (holder, named) == (session, token) => Some((*sequence, lease, lock)),
            _ => None,
        });
        let (sequence, lease, lock) = held.next()?;
        if lock.is_some_and(|lock| lock.is_over(now)) {
            *lease = Lease::Returned;
            return None;
        }
        *lease = Lease::Settling;
        Some(sequence)
    }

    /// What was being settled is gone from the disk, or free again, perhaps with one delivery more: a list that was read before does
    /// not know.
    pub(super) fn settled(&mut self, device: &DeviceId, sequence: u64, is_gone: bool) {
        let state = self.next_number();
        let Some(leases) = self.devices.get_mut(device) else {
            return;
        };
        leases.state = state;
        if is_gone {
            leases.by_sequence.remove(&sequence);
        } else {
            leases.by_sequence.insert(sequence, Lease::Returned);
        }
    }

    /// What a session holds goes back, uncounted. Whether it held anything.
    pub(super) fn release(&mut self, session: SessionId, device: &DeviceId) -> bool {
        let Some(leases) = self.devices.get_mut(device) else {
            return false;
        };
        let mut any = false;
        for lease in leases.by_sequence.values_mut() {
            if matches!(lease, Lease::Held { session: holder, .. } if *holder == session) {
                *lease = Lease::Returned;
                any = true;
            }
        }
        any
    }

    /// Whether somebody holds a message, or is settling it.
    pub(super) fn is_held(&self, device: &DeviceId, sequence: u64, now: Timestamp) -> bool {
        let leases = self.devices.get(device);
        match leases.and_then(|leases| leases.by_sequence.get(&sequence)) {
            None | Some(Lease::Returned) => false,
            Some(Lease::Held { lock: Some(lock), .. }) => !lock.is_over(now),
            Some(Lease::Held { lock: None, .. } | Lease::Settling) => true,
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// Forgets what came back or whose lock is over, and which is gone from the list.
fn forget(leases: &mut BTreeMap<u64, Lease>, waiting: &[Waiting], now: Timestamp) {
    let numbers: HashSet<u64> = waiting.iter().map(|message| message.sequence).collect();
    leases.retain(|sequence, lease| {
        if matches!(lease, Lease::Held { lock: Some(lock), .. } if lock.is_over(now)) {
            *lease = Lease::Returned;
        }
        *lease != Lease::Returned || numbers.contains(sequence)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    fn waiting(sequence: u64) -> Vec<Waiting> {
        let at = at(0);
        vec![Waiting {
            sequence,
            enqueued: at,
            expires: at,
            deliveries: 0,
            ack: "none".into(),
            message: Vec::new(),
        }]
    }

    /// Holds what is free; the tokens, or `None` for a list that is out of date.
    fn hold(
        leases: &mut Leases,
        session: SessionId,
        device: &DeviceId,
        state: u64,
        list: Vec<Waiting>,
    ) -> Option<Vec<u64>> {
        hold_for(leases, (session, None), device, state, list, 0)
    }

    /// The same, under a lock, at a time.
    fn hold_for(
        leases: &mut Leases,
        (session, lock): (SessionId, Option<Duration>),
        device: &DeviceId,
        state: u64,
        list: Vec<Waiting>,
        now: i64,
    ) -> Option<Vec<u64>> {
        let mut tokens = Vec::new();
        let asked = Asked {
            session,
            device,
            now: at(now),
            lock,
            most: 16,
        };
        let hold = leases.hold(&asked, state, list, |free| {
            tokens.push(free.token);
            Taken::Held
        });
        (hold != Hold::OutOfDate).then_some(tokens)
    }

    #[test]
    fn a_list_read_before_a_settlement_is_out_of_date_also_when_the_mailbox_was_forgotten_in_between() {
        let (mut leases, session, device) = (Leases::default(), SessionId::next(), DeviceId::new("d1").unwrap());
        let before = leases.state(&device);
        let token = hold(&mut leases, session, &device, before, waiting(1)).unwrap()[0];
        let sequence = leases.settle(session, &device, token, at(0)).unwrap();
        leases.settled(&device, sequence, true);

        // Nothing is left, so the device's entry goes; the next to ask makes it anew.
        let settled = leases.state(&device);
        assert_eq!(hold(&mut leases, session, &device, settled, Vec::new()), Some(vec![]));
        let anew = leases.state(&device);

        assert_ne!(anew, before);
        assert_eq!(hold(&mut leases, session, &device, before, waiting(1)), None);
    }

    #[test]
    fn a_token_is_given_out_once_and_settles_its_own_delivery_only() {
        let (mut leases, session, device) = (Leases::default(), SessionId::next(), DeviceId::new("d1").unwrap());
        let state = leases.state(&device);
        let first = hold(&mut leases, session, &device, state, waiting(1)).unwrap()[0];
        leases.settle(session, &device, first, at(0)).unwrap();
        leases.settled(&device, 1, false);

        // It was counted, and the list of before does not have that.
        assert_eq!(hold(&mut leases, session, &device, state, waiting(1)), None);
        let counted = leases.state(&device);
        let second = hold(&mut leases, session, &device, counted, waiting(1)).unwrap()[0];

        assert_ne!(first, second);
        assert_eq!(leases.settle(session, &device, first, at(0)), None);
        assert_eq!(leases.settle(session, &device, second, at(0)), Some(1));
    }

    #[test]
    fn a_lock_that_is_over_frees_its_message_and_its_token_settles_nothing() {
        let (mut leases, session, device) = (Leases::default(), SessionId::next(), DeviceId::new("d1").unwrap());
        let state = leases.state(&device);
        let minute = (session, Some(Duration::from_secs(60)));
        let first = hold_for(&mut leases, minute, &device, state, waiting(1), 0).unwrap()[0];
        let held = hold_for(&mut leases, minute, &device, state, waiting(1), 59_999).unwrap();

        let second = hold_for(&mut leases, minute, &device, state, waiting(1), 60_000).unwrap();

        assert_eq!((held.len(), second.len()), (0, 1));
        assert_eq!(leases.settle(session, &device, first, at(60_000)), None);
        assert_eq!(leases.settle(session, &device, second[0], at(120_000)), None);
        // Set back before the lock began: nobody knows how much of it is left.
        let third = hold_for(&mut leases, minute, &device, state, waiting(1), 120_000).unwrap()[0];
        assert_eq!(leases.settle(session, &device, third, at(119_999)), None);
    }

    #[test]
    fn a_newer_session_takes_what_an_older_one_holds_and_never_what_is_locked() {
        let (mut leases, device) = (Leases::default(), DeviceId::new("d1").unwrap());
        let (older, newer) = (SessionId::next(), SessionId::next());
        let state = leases.state(&device);
        let lost = hold(&mut leases, older, &device, state, waiting(1)).unwrap()[0];
        let locked = (older, Some(Duration::from_secs(60)));
        hold_for(&mut leases, locked, &device, state, waiting(2), 0).unwrap();

        let both = [waiting(1), waiting(2)].concat();
        let won = hold(&mut leases, newer, &device, state, both.clone()).unwrap();
        let again = hold(&mut leases, older, &device, state, both).unwrap();

        assert_eq!((won.len(), again.len()), (1, 0));
        assert_eq!(leases.settle(older, &device, lost, at(0)), None);
        assert_eq!(leases.settle(newer, &device, won[0], at(0)), Some(1));
    }
}
