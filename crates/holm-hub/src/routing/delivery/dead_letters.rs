//! What becomes of a message that an endpoint can never take.

use holm_queue::LaneId;

use super::pause::FIRST_PAUSE;
use super::{Batch, Delivery, Ledger};
use crate::events::{Filing, LogError, unix_millis};
use crate::routing::endpoint::Routed;

/// Begins the sender of a record that is a dead letter: no id of a device holds it.
pub(super) const DEAD_LETTER: char = '/';
/// What is put on a dead letter.
const DEAD_LETTER_FROM: &str = "holm-dead-letter-endpoint";
const DEAD_LETTER_WHY: &str = "holm-dead-letter-reason";

/// Where what can never be taken goes.
#[derive(Clone, Debug)]
pub(in crate::routing) struct DeadLetters {
    /// The lane of that endpoint.
    pub(in crate::routing) lane: LaneId,
    /// How long messages wait there.
    pub(in crate::routing) max_waiting_millis: u64,
}

impl Delivery {
    /// The first message of a batch can never be taken.
    pub(super) async fn give_up(&self, batch: &mut Batch, ledger: &mut Ledger, why: &str) {
        let (Some(routed), Some(mark)) = (batch.messages.first(), batch.marks.first()) else {
            return;
        };
        // A dead letter that can't be delivered either would go in circles.
        let dead_letters = self.dead_letters.as_ref().filter(|_| !mark.is_dead_letter);
        let kept = match dead_letters {
            Some(dead_letters) => self.dead_letter(dead_letters, routed, why).await,
            None => Ok(false),
        };
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => {
                // It comes again, with the next attempt.
                let error = holm_net::error_chain(&error);
                tracing::warn!(
                    endpoint = self.name,
                    error,
                    "a dead letter can't be written; it is tried again"
                );
                return self.rest(FIRST_PAUSE).await;
            }
        };
        tracing::warn!(
            endpoint = self.name,
            sequence = routed.sequence,
            device = routed.device(),
            why,
            to_dead_letters = kept,
            "an endpoint can't take a message"
        );
        self.health.rejected(why, kept, self.clock.now());
        self.acknowledge(routed.sequence, ledger);
        batch.forget(1);
        self.commit().await;
    }

    /// Files a message for the endpoint of dead letters; says whether it is there.
    async fn dead_letter(&self, to: &DeadLetters, routed: &Routed, why: &str) -> Result<bool, LogError> {
        let mut message = routed.message.clone();
        message.properties.set(DEAD_LETTER_FROM, Some(self.name.clone()));
        let why: String = why.chars().take(500).collect();
        message.properties.set(DEAD_LETTER_WHY, Some(why));
        let now = self.clock.now();
        let filing = Filing {
            lanes: vec![(to.lane, unix_millis(now).saturating_add(to.max_waiting_millis))],
            payload: message.encode(),
        };
        let sender = format!("{DEAD_LETTER}{}", self.name);
        let filed = self.log.file_when_room(&sender, now, &[filing]).await;
        match filed {
            Ok(receipt) => receipt.await.map(|()| true),
            // Its endpoint was removed at this moment.
            Err(LogError::Append(holm_queue::AppendError::UnknownLane { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
