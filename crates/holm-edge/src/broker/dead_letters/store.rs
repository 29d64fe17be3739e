//! What operators do with dead letters.

use holm_queue::{
    AcknowledgeError, AppendError, CommitError, LaneError, LaneId, NewRecord, ReadError, Start, Visibility,
};
use serde_json::{Value, json};

use super::super::lanes::LaneName;
use super::{Broker, DeadLetter};

/// Letters of one answer, at most.
const MAX_LISTED: usize = 1000;
/// Bytes read for one answer.
const LIST_BYTES: usize = 4 << 20;

/// Why something could not be done with dead letters.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There is none of this number.
    #[error("there is no dead letter {0}; `holm edge dead-letters list` shows those there are")]
    NotFound(u64),
    /// Nothing can be made of its bytes.
    #[error(
        "dead letter {0} can't be read as a message by this release, so it would end here again; a newer release can send it"
    )]
    Undecodable(u64),
    /// The store can't be read.
    #[error("dead letters can't be read")]
    Read(#[source] ReadError),
    /// The endpoint's lane can't be had.
    #[error("the endpoint of dead letter {id} takes nothing now")]
    Lane {
        /// Which one.
        id: u64,
        /// The cause.
        #[source]
        source: LaneError,
    },
    /// It can't be stored for its endpoint.
    #[error("dead letter {id} can't be stored for its endpoint")]
    Append {
        /// Which one.
        id: u64,
        /// The cause.
        #[source]
        source: AppendError,
    },
    /// The disk refused.
    #[error("the disk did not take it")]
    Commit(#[source] CommitError),
    /// It stays in the store though it was sent again.
    #[error("dead letter {id} was sent again and stays in the store")]
    Acknowledge {
        /// Which one.
        id: u64,
        /// The cause.
        #[source]
        source: AcknowledgeError,
    },
}

impl Broker {
    /// Dead letters from number `from` on, oldest first: `{"deadLetters":[…],"next":n}`; `next` is there when there may be
    /// more.
    ///
    /// # Errors
    /// [`DeadLetterError::Read`].
    pub fn list_dead_letters(&self, from: u64, most: usize) -> Result<Value, DeadLetterError> {
        let most = most.clamp(1, MAX_LISTED);
        let letters = self.read_dead_letters(from, most)?;
        let shown: Vec<_> = letters.iter().map(DeadLetter::summary).collect();
        let mut answer = json!({ "deadLetters": shown });
        if let Some(last) = letters.last() {
            answer["next"] = json!(last.id + 1);
        }
        Ok(answer)
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`DeadLetterError`].
    pub fn dead_letter(&self, id: u64) -> Result<DeadLetter, DeadLetterError> {
        let found = self.read_dead_letters(id, 1)?.into_iter().next();
        found
            .filter(|letter| letter.id == id)
            .ok_or(DeadLetterError::NotFound(id))
    }

    /// Sends a dead letter to the endpoint that it was for. It keeps its sender, its priority, and the time to live that it had.
    ///
    /// # Errors
    /// [`DeadLetterError`]; but for [`DeadLetterError::Acknowledge`] it stays as it was.
    pub async fn resend_dead_letter(&self, id: u64) -> Result<(), DeadLetterError> {
        let resent = self.resend(id).await;
        self.dead_letters_are_gone().await;
        resent
    }

    /// What an operator is told to be gone does not come back after a crash.
    async fn dead_letters_are_gone(&self) {
        if let Err(error) = self.lanes.queue().flush().await {
            tracing::warn!(%error, "dead letters that were sent again or removed may be there again after a crash");
        }
    }

    async fn resend(&self, id: u64) -> Result<(), DeadLetterError> {
        let letter = self.dead_letter(id)?;
        if letter.message().is_none() {
            return Err(DeadLetterError::Undecodable(id));
        }
        let name = LaneName::of(letter.endpoint(), letter.heading.priority);
        let lane = self.lanes.ensure(&name).await;
        let lane = lane.map_err(|source| DeadLetterError::Lane { id, source })?;
        let now = self.millis();
        let lanes = [(lane, letter.expiry(now))];
        let record = NewRecord {
            sender: &letter.sender,
            lanes: &lanes,
            enqueued_at: now,
            payload: letter.payload.clone(),
        };
        let queue = self.lanes.queue();
        let pending = loop {
            match queue.append(&record) {
                Ok(pending) => break pending,
                Err(AppendError::Busy { .. }) => queue.room().await,
                Err(source) => return Err(DeadLetterError::Append { id, source }),
            }
        };
        pending.await.map_err(DeadLetterError::Commit)?;
        self.counters.dead_letters_resent.count();
        let Some(own) = self.dead_letters.lane() else {
            return Ok(());
        };
        queue
            .acknowledge(own, id..id + 1)
            .map_err(|source| DeadLetterError::Acknowledge { id, source })
    }

    /// Sends all dead letters there are now, oldest first. Gives how many, and why others stayed.
    ///
    /// # Errors
    /// [`DeadLetterError::Read`].
    pub async fn resend_dead_letters(&self) -> Result<Value, DeadLetterError> {
        let end = self.dead_letter_bounds().map_or(0, |(_, _, end)| end);
        let (mut resent, mut failed) = (0u64, Vec::new());
        let mut from = 0;
        loop {
            let letters = self.read_dead_letters(from, MAX_LISTED)?;
            let Some(last) = letters.last() else { break };
            from = last.id + 1;
            for letter in letters.iter().filter(|letter| letter.id < end) {
                match self.resend(letter.id).await {
                    Ok(()) => resent += 1,
                    // Somebody else was quicker.
                    Err(DeadLetterError::NotFound(_)) => {}
                    Err(error) if failed.len() < MAX_LISTED => {
                        failed.push(json!({"id": letter.id, "message": holm_net::error_chain(&error)}));
                    }
                    Err(_) => {}
                }
            }
            if from >= end {
                break;
            }
        }
        self.dead_letters_are_gone().await;
        tracing::info!(
            resent,
            failed = failed.len(),
            "dead letters were sent again by an operator"
        );
        Ok(json!({ "resent": resent, "failed": failed }))
    }

    /// Removes all dead letters there are now. Gives how many.
    ///
    /// # Errors
    /// The queue refuses.
    pub async fn purge_dead_letters(&self) -> Result<u64, DeadLetterError> {
        let Some((lane, first, end)) = self.dead_letter_bounds() else {
            return Ok(0);
        };
        let queue = self.lanes.queue();
        let purged = queue.depth(lane).map_or(0, |depth| depth.records);
        if first < end {
            queue
                .acknowledge(lane, first..end)
                .map_err(|source| DeadLetterError::Acknowledge { id: first, source })?;
        }
        self.dead_letters_are_gone().await;
        self.counters.dead_letters_purged.add(purged);
        tracing::info!(purged, "dead letters were removed by an operator");
        Ok(purged)
    }

    fn dead_letter_bounds(&self) -> Option<(LaneId, u64, u64)> {
        let lane = self.dead_letters.lane()?;
        let bounds = self.lanes.queue().lane_bounds(lane)?;
        Some((lane, bounds.first, bounds.durable_next))
    }

    fn read_dead_letters(&self, from: u64, most: usize) -> Result<Vec<DeadLetter>, DeadLetterError> {
        let Some(lane) = self.dead_letters.lane() else {
            return Ok(Vec::new());
        };
        let reader = self
            .lanes
            .queue()
            .reader(lane, Start::Position(from), Visibility::Durable);
        let mut reader = reader.map_err(DeadLetterError::Read)?;
        let records = reader.try_read(most, LIST_BYTES).map_err(DeadLetterError::Read)?;
        Ok(records.iter().filter_map(DeadLetter::read).collect())
    }
}
