//! The messages of one device: which wait, which are in its hands, and which it settled too late to tell the hub.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use holm_client::event::Received;
use holm_gateway::{Delivery, SessionId};
use holm_model::{SystemProperty, Timestamp};
use tokio::time::Instant;

use super::Verdict;
use super::mark::Mark;
use crate::broker::abandoned;

/// Completions of a device that the hub is still to be told of. Beyond it the oldest is forgotten, and delivered again.
const MAX_REMEMBERED: usize = 256;
/// How long after a connection a hub may take to send again what was in flight: it does so at once.
const BACKLOG: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Letters {
    last: u64,
    /// In order of arrival.
    waiting: BTreeMap<u64, Letter>,
    /// By session and lease, which is the number of the letter.
    leased: HashMap<(SessionId, u64), Letter>,
    settled: VecDeque<Settled>,
}

#[derive(Debug)]
struct Letter {
    received: Received,
    mark: Mark,
    /// When it expires, as far as that is known.
    ends: Option<Instant>,
    /// How often it was abandoned here, where the hub can't be told.
    abandoned: u32,
    /// When it comes again, if it was abandoned.
    due: Option<Instant>,
    was_leased: bool,
}

/// What was settled too late to tell.
#[derive(Debug)]
struct Settled {
    mark: Mark,
    verdict: Verdict,
    /// When it can't come again.
    ends: Option<Instant>,
}

/// What a receiver gets, and what goes back because its time is over.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) expired: Vec<Received>,
}

impl Letter {
    /// Whether the connection is gone that brought it: then the hub sends it again.
    fn is_lost(&self) -> bool {
        self.received.is_lost()
    }
}

impl Letters {
    /// Takes a message from above. Gives back one that the device has settled already, with how.
    pub(super) fn arrive(&mut self, received: Received, now: Timestamp) -> Option<(Received, Verdict)> {
        let mark = Mark::of(&received);
        self.forget_ended();
        self.drop_lost();
        let known = self.settled.iter().position(|known| mark.is_again(known.mark));
        if let Some(known) = known.and_then(|index| self.settled.remove(index)) {
            return Some((received, known.verdict));
        }
        // The device has it in its hands, from a connection that is gone.
        let held = self
            .leased
            .values_mut()
            .find(|held| held.is_lost() && mark.is_again(held.mark));
        if let Some(held) = held {
            held.received = received;
            return None;
        }
        self.last += 1;
        let letter = Letter {
            ends: ends(&received, now),
            received,
            mark,
            abandoned: 0,
            due: None,
            was_leased: false,
        };
        self.waiting.insert(self.last, letter);
        None
    }

    /// What waits and came by a connection that is gone comes again.
    pub(super) fn drop_lost(&mut self) {
        self.waiting.retain(|_, letter| !letter.is_lost());
    }

    /// A connection stands: what was in flight before comes again soon, or not at all.
    pub(super) fn resumed(&mut self) {
        let ends = Instant::now() + BACKLOG;
        for settled in &mut self.settled {
            settled.ends = Some(settled.ends.map_or(ends, |before| before.min(ends)));
        }
    }

    fn forget_ended(&mut self) {
        let now = Instant::now();
        self.settled
            .retain(|settled| settled.ends.is_none_or(|ends| ends > now));
    }

    /// Leases what is due, oldest first.
    pub(super) fn lease(&mut self, session: SessionId, most: usize) -> Taken {
        self.drop_lost();
        let now = Instant::now();
        let due = self
            .waiting
            .iter()
            .filter(|(_, letter)| letter.due.is_none_or(|due| due <= now));
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        let mut taken = Taken::default();
        for number in due {
            if taken.deliveries.len() >= most {
                break;
            }
            let Some(letter) = self.waiting.remove(&number) else {
                continue;
            };
            if letter.ends.is_some_and(|ends| ends <= now) {
                taken.expired.push(letter.received);
                continue;
            }
            taken.deliveries.push(Delivery {
                message: letter.received.message.clone(),
                input: None,
                lease: number,
                redelivered: letter.was_leased || letter.received.redelivered,
            });
            self.leased.insert((session, number), letter);
        }
        taken
    }

    /// When one comes again that was abandoned.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|letter| letter.due).min()
    }

    /// Ends a lease; gives the message when the hub can be told.
    pub(super) fn finish(&mut self, session: SessionId, lease: u64, verdict: Verdict) -> Option<(Received, Verdict)> {
        let letter = self.leased.remove(&(session, lease))?;
        if !letter.is_lost() {
            return Some((letter.received, verdict));
        }
        if self.settled.len() >= MAX_REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back(Settled {
            mark: letter.mark,
            verdict,
            ends: letter.ends,
        });
        None
    }

    /// The device gives one back and wants it again. Gives it with what the hub is to be told, if it is: one that is abandoned too often
    /// counts as rejected.
    pub(super) fn abandon(&mut self, session: SessionId, lease: u64) -> Option<(Received, Verdict)> {
        let mut letter = self.leased.remove(&(session, lease))?;
        if letter.is_lost() {
            return None;
        }
        if letter.received.can_be_abandoned() {
            return Some((letter.received, Verdict::Abandoned));
        }
        letter.abandoned += 1;
        let Some(pause) = abandoned::pause(letter.abandoned) else {
            return Some((letter.received, Verdict::Rejected));
        };
        letter.due = Some(Instant::now() + pause);
        self.put_back(lease, letter);
        None
    }

    /// One that was not handled waits again, in its place.
    pub(super) fn release(&mut self, session: SessionId, lease: u64) {
        if let Some(letter) = self.leased.remove(&(session, lease)) {
            self.put_back(lease, letter);
        }
    }

    /// All that a session holds waits again.
    pub(super) fn release_all(&mut self, session: SessionId) {
        let held = self.leased.keys().filter(|(holder, _)| *holder == session);
        let held: Vec<_> = held.copied().collect();
        for (session, lease) in held {
            self.release(session, lease);
        }
    }

    /// A letter whose connection is gone does not wait: it comes again.
    fn put_back(&mut self, number: u64, mut letter: Letter) {
        if !letter.is_lost() {
            letter.was_leased = true;
            self.waiting.insert(number, letter);
        }
    }

    /// Whether nothing is here, and nothing is remembered.
    pub(super) fn is_empty(&mut self) -> bool {
        self.forget_ended();
        self.waiting.is_empty() && self.leased.is_empty() && self.settled.is_empty()
    }

    /// Whether the hub could be told now of what is leased; `None` when nothing is.
    #[cfg(test)]
    pub(super) fn is_told(&self) -> Option<bool> {
        self.leased.values().map(|letter| !letter.is_lost()).next()
    }
}

/// When a message expires, by a clock that nobody sets. The wall clock says how long it has left; one that says that it is over is
/// wrong, for no hub sends what has expired.
fn ends(received: &Received, now: Timestamp) -> Option<Instant> {
    let expires = received.message.system.get(SystemProperty::AbsoluteExpiryTime)?;
    let left = Timestamp::parse(expires)?.millis_since(now);
    let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
    Instant::now().checked_add(Duration::from_millis(left))
}
