//! Twin requests on their way, whatever carries them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::Command;
use crate::client::TwinError;

/// How long a twin request may wait for its answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Requests on their way at once; further ones wait.
const MOST: usize = 8;

#[derive(Debug)]
struct Waiting {
    command: Command,
    deadline: Instant,
}

/// What was asked and is not answered, by request id.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: HashMap<String, Waiting>,
    last: u64,
}

impl Requests {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    /// A request id that was not given before.
    pub(super) fn next_id(&mut self) -> String {
        self.last += 1;
        self.last.to_string()
    }

    /// Notes a request that was sent.
    pub(super) fn insert(&mut self, id: String, command: Command) {
        let deadline = Instant::now() + DEADLINE;
        self.waiting.insert(id, Waiting { command, deadline });
    }

    /// When the first of them is late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.deadline).min()
    }

    /// Fails those that are late.
    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        let late = self.waiting.extract_if(|_, waiting| waiting.deadline <= now);
        late.for_each(|(_, waiting)| waiting.command.fail(TwinError::NoAnswer));
    }

    /// The connection is gone.
    pub(super) fn fail_all(&mut self) {
        for (_, waiting) in self.waiting.drain() {
            waiting.command.fail(TwinError::NotConnected);
        }
    }

    /// Takes an answer.
    pub(super) fn answered(&mut self, id: &str, status: u16, version: Option<u64>, body: &[u8]) {
        let Some(waiting) = self.waiting.remove(id) else {
            tracing::debug!(id, "a twin answer came that nobody waits for (any more)");
            return;
        };
        if status >= 300 {
            let reason = serde_json::from_slice::<Value>(body)
                .ok()
                .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()))
                .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
            return waiting.command.fail(TwinError::Refused { status, reason });
        }
        let gone = match waiting.command {
            Command::PatchReported(_, answer) => answer.send(Ok(version)).is_err(),
            Command::Twin(answer) => {
                let twin = serde_json::from_slice(body).map_err(|error| TwinError::Refused {
                    status,
                    reason: format!("the twin is not JSON: {error}"),
                });
                answer.send(twin).is_err()
            }
        };
        if gone {
            tracing::trace!("nobody waits for a twin answer any more");
        }
    }
}
