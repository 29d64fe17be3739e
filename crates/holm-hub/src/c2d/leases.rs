//! Who holds which waiting message, in memory.
//!
//! ```text
//!             .--> Held(session, token) --settle--> Settling --written--> gone
//!   (none) ---'          |                              |
//!     Returned <---------'--release                     '--abandoned, or not written--> Returned
//! ```
//!
//! Numbers name leases and states of mailboxes. One counter gives them out for all devices, and it outlives the entries of
//! devices: a number that somebody still holds never comes to mean something else.

use std::collections::{BTreeMap, HashMap, HashSet};

use holm_gateway::SessionId;
use holm_model::DeviceId;

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
    /// `=> (Settling | Returned)`
    Held { session: SessionId, token: u64 },
    /// Being written; `=> gone | Returned`.
    Settling,
    /// Free, but it was delivered before: the next delivery is a repetition.
    Returned,
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

impl Leases {
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

    /// Leases the free ones of `waiting` to a session, in order, at most `most`; `take` hands one out or says that it is
    /// being removed. False, and nothing is done, when the mailbox is no longer in `state`: the list is out of date.
    pub(super) fn hold(
        &mut self,
        session: SessionId,
        device: &DeviceId,
        state: u64,
        most: usize,
        waiting: Vec<Waiting>,
        mut take: impl FnMut(Free) -> Taken,
    ) -> bool {
        let Self { devices, last_number } = self;
        let Some(leases) = devices.get_mut(device).filter(|leases| leases.state == state) else {
            return false;
        };
        let leases = &mut leases.by_sequence;
        let numbers: HashSet<u64> = waiting.iter().map(|message| message.sequence).collect();
        leases.retain(|sequence, lease| *lease != Lease::Returned || numbers.contains(sequence));
        let mut held = 0;
        for message in waiting {
            if held == most {
                break;
            }
            let sequence = message.sequence;
            let before = leases.get(&sequence).copied();
            if before.is_some_and(|lease| lease != Lease::Returned) {
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
                    Lease::Held { session, token }
                }
                Taken::Settling => Lease::Settling,
            };
            leases.insert(sequence, lease);
        }
        if leases.is_empty() {
            devices.remove(device);
        }
        true
    }

    /// Ends the lease of this token, whose settlement is to be written; gives the message's sequence. `None` for a lease
    /// that is not held by this session.
    pub(super) fn settle(&mut self, session: SessionId, device: &DeviceId, token: u64) -> Option<u64> {
        let held = Lease::Held { session, token };
        let leases = &mut self.devices.get_mut(device)?.by_sequence;
        let (sequence, lease) = leases.iter_mut().find(|(_, lease)| **lease == held)?;
        *lease = Lease::Settling;
        Some(*sequence)
    }

    /// What was being settled is gone from the disk, or free again.
    pub(super) fn settled(&mut self, device: &DeviceId, sequence: u64, is_gone: bool) {
        let state = self.next_number();
        let Some(leases) = self.devices.get_mut(device) else {
            return;
        };
        if is_gone {
            leases.state = state;
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

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use holm_model::Timestamp;

    use super::*;

    fn waiting(sequence: u64) -> Vec<Waiting> {
        let at = Timestamp::from_unix_millis(0);
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
        let mut tokens = Vec::new();
        let current = leases.hold(session, device, state, 16, list, |free| {
            tokens.push(free.token);
            Taken::Held
        });
        current.then_some(tokens)
    }

    #[test]
    fn a_list_read_before_a_settlement_is_out_of_date_also_when_the_mailbox_was_forgotten_in_between() {
        let (mut leases, session, device) = (Leases::default(), SessionId::next(), DeviceId::new("d1").unwrap());
        let before = leases.state(&device);
        let token = hold(&mut leases, session, &device, before, waiting(1)).unwrap()[0];
        let sequence = leases.settle(session, &device, token).unwrap();
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
        leases.settle(session, &device, first).unwrap();
        leases.settled(&device, 1, false);

        let second = hold(&mut leases, session, &device, state, waiting(1)).unwrap()[0];

        assert_ne!(first, second);
        assert_eq!(leases.settle(session, &device, first), None);
        assert_eq!(leases.settle(session, &device, second), Some(1));
    }
}
