//! Method calls on their way to the client and back. Bounded: a call whose caller has gone makes room.

use std::collections::HashMap;

use holm_model::method::{MethodRequest, MethodResponse};
use holm_model::wire::ServerTopic;
use holm_mqtt::Session;
use tokio::sync::oneshot;

use super::publish_once;
use crate::session::{InvokeError, MAX_WAITING_COMMANDS};

type Caller = oneshot::Sender<Result<MethodResponse, InvokeError>>;

/// The calls that wait for an answer of one client.
#[derive(Debug, Default)]
pub(super) struct Calls {
    last: u64,
    waiting: HashMap<String, Caller>,
}

impl Calls {
    /// Sends a call to the client. The request id is short hexadecimal, unique within the connection.
    pub(super) fn call(&mut self, session: &mut Session, request: MethodRequest, caller: Caller) {
        self.waiting.retain(|_, caller| !caller.is_closed());
        if self.waiting.len() >= MAX_WAITING_COMMANDS {
            answer(caller, Err(InvokeError::TooManyCalls));
            return;
        }
        self.last += 1;
        let rid = format!("{:x}", self.last);
        // Never an empty payload: Node answers 400 by itself, Python dies in a background thread.
        publish_once(
            session,
            ServerTopic::method(&request.name, &rid),
            request.payload.to_string(),
        );
        self.waiting.insert(rid, caller);
    }

    /// Hands an answer to its caller. One that nobody waits for is late, and dropped.
    pub(super) fn answered(&mut self, rid: Option<&str>, status: i32, payload: &[u8]) {
        let Some(caller) = rid.and_then(|rid| self.waiting.remove(rid)) else {
            tracing::debug!(rid, "an answer came that nobody waits for (any more)");
            return;
        };
        let outcome = MethodResponse::from_device(status, payload).map_err(|_| InvokeError::BadAnswer);
        answer(caller, outcome);
    }
}

fn answer(caller: Caller, outcome: Result<MethodResponse, InvokeError>) {
    if caller.send(outcome).is_err() {
        tracing::debug!("the caller of a method has gone before its answer");
    }
}
