//! The deadlines of a connection, in a small table: one place each, set or not.

use std::fmt;
use std::time::Instant;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The peer's steps up to its open.
    Handshake,
    /// Server: the application's decision on credentials; the client is told to try again later.
    Decision,
    /// Anything from the peer, within 1.5 times the idle time-out that was announced to it.
    Silence,
    /// The time to show the peer that this side is there; not a deadline of the peer.
    Beat,
    /// The peer's close after ours.
    Close,
}

const ALL: [Timer; 5] = [
    Timer::Handshake,
    Timer::Decision,
    Timer::Silence,
    Timer::Beat,
    Timer::Close,
];

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Handshake => "the peer's open",
            Self::Decision => "the application's decision on credentials",
            Self::Silence => "any frame within the idle time-out",
            Self::Beat => "the next empty frame",
            Self::Close => "the peer's close",
        })
    }
}

/// The deadlines that are set.
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Instant>; ALL.len()]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, deadline: Instant) {
        self.0[timer as usize] = Some(deadline);
    }

    pub(crate) fn clear(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn clear_all(&mut self) {
        self.0 = Default::default();
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes a timer whose deadline is `now` or earlier.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Timer> {
        let timer = ALL
            .into_iter()
            .find(|timer| self.0[*timer as usize].is_some_and(|deadline| deadline <= now))?;
        self.clear(timer);
        Some(timer)
    }
}
