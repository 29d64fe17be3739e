//! Moves events from the outbox to the event log.
//!
//! ```text
//! read the oldest events -> append those that the log does not hold -> wait until they are on disk -> delete them here
//! ```
//!
//! A crash or a failure between append and delete leaves events in both places. Each event's key is its message id in the log,
//! so the relay, at its first round after a start, looks at what the log holds from the time of the oldest waiting event on and
//! leaves out what is there; later it remembers what it has appended until that is deleted here. An event is told once.

use std::collections::HashSet;
use std::time::Duration;

use holm_model::{Message, ServiceError, SystemProperty};

use super::log::{EventLog, From, LogError};
use crate::Signals;
use crate::routing::{Routing, Source};
use crate::storage::Repository;

/// Events moved in one round.
const BATCH: u32 = 256;
/// How long the relay waits after a failure.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Events of the log that are looked at in one go.
const LOOKED_AT: u64 = 256;
/// Also without a signal the outbox is looked at this often.
const LOOK: Duration = Duration::from_secs(30);

/// The task that empties the outbox.
#[derive(Debug)]
pub struct Relay {
    repository: Repository,
    log: EventLog,
    signals: Signals,
    /// Says where each goes, if it goes anywhere.
    routing: Routing,
    /// Keys of events that the log has taken in and the outbox still holds; filled by the first round.
    told: Option<HashSet<String>>,
}

/// The source of an event by its key, which begins with it.
fn source_of(key: &str) -> Source {
    let name = key.split_once('/').map_or(key, |(source, _)| source);
    Source::of_message_source(name).unwrap_or(Source::DeviceMessages)
}

/// Why events could not be moved; they stay in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The outbox can't be used.
    #[error("the outbox can't be used")]
    Outbox(#[source] ServiceError),
    /// The event log can't be used.
    #[error("the event log can't be used")]
    Log(#[source] LogError),
}

impl Relay {
    /// A relay from a repository to where routes say.
    #[must_use]
    pub fn new(repository: Repository, routing: Routing, signals: Signals) -> Self {
        Self {
            repository,
            log: routing.log().clone(),
            signals,
            routing,
            told: None,
        }
    }

    /// Moves events for as long as the hub runs. May be dropped at any await: what was appended and not deleted is
    /// recognised at the next start.
    pub async fn run(mut self) {
        loop {
            let pause = match self.round().await {
                Ok(0) => LOOK,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(
                        error = %holm_net::error_chain(&error),
                        "events of the hub wait in the outbox"
                    );
                    PAUSE_AFTER_FAILURE
                }
            };
            // The time running out is as good a reason to look as a signal.
            drop(tokio::time::timeout(pause, self.signals.outbox()).await);
        }
    }

    /// Moves what waits, at most a batch; gives how many events that were.
    ///
    /// # Errors
    /// Why a round came to nothing, for the log.
    pub async fn round(&mut self) -> Result<usize, RelayError> {
        let waiting = self
            .repository
            .read(|view| view.outbox(BATCH))
            .await
            .map_err(RelayError::Outbox)?;
        let (Some(first), Some(last)) = (waiting.first(), waiting.last()) else {
            self.told = Some(HashSet::new());
            return Ok(0);
        };
        let last = last.id;
        if self.told.is_none() {
            self.told = Some(self.keys_since(first.event.at).await.map_err(RelayError::Log)?);
        }
        let told = self.told.get_or_insert_default();
        let mut keys = Vec::new();
        for emitted in waiting {
            let event = emitted.event;
            if !told.contains(&event.key) {
                let message = match Message::decode(event.message.into()) {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!(event = event.key, %error, "an event can't be read back and is not told");
                        continue;
                    }
                };
                let source = source_of(&event.key);
                let appended = self.routing.append(&event.device, source, &message, event.at).await;
                // What was appended is written as soon as the disk allows, whatever comes of this round.
                drop(appended.map_err(RelayError::Log)?);
                told.insert(event.key.clone());
            }
            keys.push(event.key);
        }
        self.log.flush().await.map_err(RelayError::Log)?;
        self.repository
            .change(move |transaction| transaction.relayed(last))
            .await
            .map_err(RelayError::Outbox)?;
        for key in &keys {
            told.remove(key);
        }
        Ok(keys.len())
    }

    /// The message ids of the hub's own events in the log since a moment. That may be long ago, where the log took nothing for
    /// a while: others have their turn in between.
    async fn keys_since(&self, at: holm_model::Timestamp) -> Result<HashSet<String>, LogError> {
        let mut keys = HashSet::new();
        for partition in 0..self.log.partitions() {
            let mut reader = self.log.reader(partition, From::Time(at))?;
            let end = self.log.bounds(partition)?.end;
            while let Some(stored) = reader.try_next()?.filter(|stored| stored.sequence < end) {
                if stored.sequence.is_multiple_of(LOOKED_AT) {
                    tokio::task::yield_now().await;
                }
                let Ok(message) = Message::decode(stored.payload) else {
                    continue;
                };
                if message.system.get(SystemProperty::MessageSource) != Some(super::TELEMETRY)
                    && let Some(id) = message.system.get(SystemProperty::MessageId)
                {
                    keys.insert(id.to_owned());
                }
            }
        }
        Ok(keys)
    }
}
