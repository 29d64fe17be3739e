//! Method calls on their way to one client and back, whatever protocol it speaks. Bounded: a call whose caller has gone makes
//! room.

use std::collections::HashMap;

use holm_model::method::MethodResponse;
use tokio::sync::oneshot;

use crate::session::{InvokeError, MAX_WAITING_COMMANDS};

/// Who waits for the answer to a call.
pub(crate) type Caller = oneshot::Sender<Result<MethodResponse, InvokeError>>;

/// The calls that wait for an answer of one client.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    last: u64,
    waiting: HashMap<String, Caller>,
}

impl Calls {
    /// A number for a call, unique within the connection.
    pub(crate) const fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Notes a call under an id, by which the answer comes. False when too many wait; then its caller knows.
    #[must_use]
    pub(crate) fn begin(&mut self, id: impl Into<String>, caller: Caller) -> bool {
        self.waiting.retain(|_, caller| !caller.is_closed());
        if self.waiting.len() >= MAX_WAITING_COMMANDS {
            answer(caller, Err(InvokeError::TooManyCalls));
            return false;
        }
        self.waiting.insert(id.into(), caller);
        true
    }

    /// Hands an answer to its caller. One that nobody waits for is late, and dropped.
    pub(crate) fn answered(&mut self, id: Option<&str>, status: i32, payload: &[u8]) {
        let Some(caller) = id.and_then(|id| self.waiting.remove(id)) else {
            tracing::debug!(id, "an answer came that nobody waits for (any more)");
            return;
        };
        let outcome = MethodResponse::from_device(status, payload).map_err(|_| InvokeError::BadAnswer);
        answer(caller, outcome);
    }

    /// Gives up the call of an id: the client did not take it.
    pub(crate) fn give_up(&mut self, id: &str) {
        if let Some(caller) = self.waiting.remove(id) {
            answer(caller, Err(InvokeError::NotOnline));
        }
    }
}

fn answer(caller: Caller, outcome: Result<MethodResponse, InvokeError>) {
    if caller.send(outcome).is_err() {
        tracing::debug!("the caller of a method has gone before its answer");
    }
}
