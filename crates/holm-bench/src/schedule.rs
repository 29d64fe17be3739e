//! When each message is due. An open loop keeps its schedule whatever the broker does; a closed loop has none.
//!
//! ```text
//!   rate 4/s, 2 publishers:    t=0      250      500      750      1000 ms
//!                 publisher 0  0                 1                 2
//!                 publisher 1           0                 1
//! ```

use crate::clock::SECOND;

/// How fast a run publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many messages a second from all publishers together, evenly spread, due by schedule: latency counts from the time
    /// at which a message was due, so that a broker which makes its senders wait can't hide it.
    Open {
        /// Messages a second, at least 1.
        per_second: u32,
    },
    /// As fast as the window of unacknowledged messages allows: for throughput. Latency then counts from sending and says
    /// little.
    Closed,
}

/// The due times of one publisher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) pace: Pace,
    pub(crate) start_ns: u64,
    /// Nothing is due at or after this.
    pub(crate) end_ns: u64,
    /// This publisher, from 0, and how many there are.
    pub(crate) publisher: u32,
    pub(crate) publishers: u32,
}

impl Schedule {
    /// When the message `sequence` is due, none when that is after the end. A closed loop wants it `now_ns`.
    pub(crate) fn due_ns(&self, sequence: u64, now_ns: u64) -> Option<u64> {
        let due = match self.pace {
            Pace::Closed => now_ns.max(self.start_ns),
            Pace::Open { per_second } => {
                let index = u128::from(sequence) * u128::from(self.publishers) + u128::from(self.publisher);
                let offset = index * u128::from(SECOND) / u128::from(per_second.max(1));
                self.start_ns.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
            }
        };
        (due < self.end_ns).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(pace: Pace, publisher: u32) -> Schedule {
        Schedule {
            pace,
            start_ns: 1000,
            end_ns: 1000 + SECOND,
            publisher,
            publishers: 2,
        }
    }

    #[test]
    fn publishers_of_an_open_loop_take_turns_and_the_time_of_day_does_not_matter() {
        let open = Pace::Open { per_second: 4 };
        let due = |publisher, sequence, now| schedule(open, publisher).due_ns(sequence, now);

        assert_eq!(due(0, 0, 0), Some(1000));
        assert_eq!(due(1, 0, 0), Some(1000 + SECOND / 4));
        assert_eq!(due(0, 1, 0), due(0, 1, SECOND));
        assert_eq!(due(1, 1, 0), Some(1000 + 3 * SECOND / 4));
        assert_eq!(due(0, 2, 0), None);
    }

    #[test]
    fn a_closed_loop_is_always_due_until_its_end() {
        let closed = schedule(Pace::Closed, 0);

        assert_eq!(closed.due_ns(77, 5000), Some(5000));
        assert_eq!(closed.due_ns(77, 1000 + SECOND), None);
    }
}
