//! What a connection holds, counted in two ways: the running sums that the limits go by, and what is really there.

use super::Connection;
use crate::link::Held;

impl Connection {
    /// The bytes that a peer makes this side hold, near enough.
    ///
    /// # Panics
    /// When a running sum is not what it should be.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let (links, held) = self
            .sessions
            .iter()
            .fold((0, Held::default()), |(links, held), session| {
                let (more_links, more) = session.held();
                let held = Held {
                    queued: held.queued + more.queued,
                    partial: held.partial + more.partial,
                };
                (links + more_links, held)
            });
        assert_eq!(self.links, links, "links are counted");
        assert_eq!(self.queued_bytes, held.queued, "what waits to be sent is counted");
        assert_eq!(self.unfinished_bytes, held.partial, "what is not whole is counted");
        assert_eq!(
            self.sessions.count(),
            self.sessions.iter().count(),
            "sessions are counted"
        );
        self.input.len() + self.wire.len() + self.events.bytes() + held.queued + held.partial
    }
}
