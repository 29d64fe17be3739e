//! The deadlines of a session, in a small table: one place each, set or not.

use std::fmt;
use std::time::Instant;

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// Server: a CONNECT from the peer.
    Connect,
    /// Server: the application's decision on a CONNECT; the client is told to come later.
    Decision,
    /// Server: anything from the client, within 1.5 times its keep-alive or the idle cap.
    KeepAlive,
    /// Client: a CONNACK.
    Connack,
    /// Client: the time to send the next PINGREQ; not a deadline of the peer.
    Ping,
    /// Client: a PINGRESP.
    Pingresp,
}

const ALL: [Timer; 6] = [
    Timer::Connect,
    Timer::Decision,
    Timer::KeepAlive,
    Timer::Connack,
    Timer::Ping,
    Timer::Pingresp,
];

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "CONNECT",
            Self::Decision => "the application's answer to CONNECT",
            Self::KeepAlive => "any packet within the keep-alive",
            Self::Connack => "CONNACK",
            Self::Ping => "the next PINGREQ",
            Self::Pingresp => "PINGRESP",
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
