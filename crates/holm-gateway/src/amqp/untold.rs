//! What one client is to be told (answers, calls, changes) while the connection that it shares with others is full: a crowd
//! behind a peer that reads slowly waits, as far as it has not caused it.
//!
//! ```text
//!   tell --there is room--> its link                        its link alone is full: the client does not take it
//!        --the connection is full--> waits --room--> its link, in order
//! ```
//!
//! While something waits, the node's commands wait in the inbox and twin answers in their queue, which have bounds.

use std::collections::VecDeque;

use holm_amqp::{Connection, LinkId, Outbound, SendError};

/// What may wait for one client: no more comes but answers to requests that are refused at once.
const MAX_UNTOLD: usize = 64;

/// Messages that wait for room on the connection, in order.
#[derive(Debug, Default)]
pub(super) struct Untold(VecDeque<(LinkId, Outbound)>);

impl Untold {
    /// Whether something waits.
    pub(super) fn waits(&self) -> bool {
        !self.0.is_empty()
    }

    /// Sends a message behind what waits, or lets it wait.
    ///
    /// # Errors
    /// The client does not take what is sent to it.
    pub(super) fn tell(
        &mut self,
        connection: &mut Connection,
        link: LinkId,
        message: Outbound,
    ) -> Result<(), SendError> {
        if !self.waits() {
            match connection.send_later(link, &message) {
                Err(SendError::QueueFull) if connection.is_full() => {}
                told => return told.map(|_| ()),
            }
        }
        if self.0.len() >= MAX_UNTOLD {
            return Err(SendError::QueueFull);
        }
        self.0.push_back((link, message));
        Ok(())
    }

    /// Sends what waits, as far as there is room. What was for a link that has gone is gone with it.
    ///
    /// # Errors
    /// As [`Untold::tell`].
    pub(super) fn tell_waiting(&mut self, connection: &mut Connection) -> Result<(), SendError> {
        while let Some((link, message)) = self.0.front() {
            match connection.send_later(*link, message) {
                Err(SendError::QueueFull) if connection.is_full() => return Ok(()),
                Ok(_) | Err(SendError::NotAttached) => self.0.pop_front(),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }
}
