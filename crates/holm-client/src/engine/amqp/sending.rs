//! What an identity sends: messages that wait for their outcome, in order, and what has none.

use bytes::Bytes;
use holm_amqp::condition::{
    DECODE_ERROR, INVALID_FIELD, MESSAGE_SIZE_EXCEEDED, NOT_ALLOWED, NOT_IMPLEMENTED, PRECONDITION_FAILED,
};
use holm_amqp::{AmqpError, Message, Outbound, Outcome, Token};

use super::end_of;
use super::links::Purpose;
use super::messages::{self, TwinOperation};
use super::serving::Serving;
use super::shared::Room;
use crate::client::SendError;
use crate::engine::{End, tell};

impl Serving<'_> {
    /// Sends what waits, oldest first, while there is room: all of it under one lock, so that it leaves together.
    pub(super) fn send_kept(&mut self) {
        let Some(link) = self.links.standing(Purpose::Telemetry) else {
            return;
        };
        if self.kept.is_empty() || self.in_flight.len() >= self.options.window.max(1) {
            return;
        }
        let (window, kept, in_flight) = (self.options.window.max(1), &mut *self.kept, &mut self.in_flight);
        let last_tag = &mut self.last_tag;
        self.seat.with_room(|connection| {
            while in_flight.len() < window
                && let Some(first) = kept.pop_front()
            {
                let payload = match messages::to_server(&first.message) {
                    Ok(message) => message.to_bytes(),
                    Err(reason) => {
                        tell(first.acknowledged, Err(SendError::Invalid(reason)));
                        continue;
                    }
                };
                match connection.send(link, &outbound(last_tag, payload, false)) {
                    Ok(Some(token)) => in_flight.push_back((token, first)),
                    Ok(None) => tell(first.acknowledged, Ok(())),
                    Err(error @ holm_amqp::SendError::TooLarge { .. }) => {
                        tell(first.acknowledged, Err(SendError::Invalid(error.to_string())));
                    }
                    Err(error) => {
                        kept.push_front(first);
                        return Room::needed_if(error == holm_amqp::SendError::QueueFull);
                    }
                }
            }
            Room::Enough
        });
    }

    /// Takes the outcome of a message. One that says "not now" ends the session: what is sent again on the next goes before
    /// what came after it.
    pub(super) fn settled(&mut self, token: Token, outcome: Option<Outcome>) -> Option<End> {
        let index = self.in_flight.iter().position(|(known, _)| *known == token)?;
        let error = match outcome {
            Some(Outcome::Accepted) => None,
            Some(Outcome::Rejected(error)) => match error {
                Some(error) if !is_final(&error) => return Some(end_of("a message's way", Some(&error))),
                Some(error) => Some(format!("the node above rejects it: {error}")),
                None => Some("the node above rejects it".to_owned()),
            },
            Some(Outcome::Released | Outcome::Modified(_)) | None => {
                return Some(End::Lost("the node above gave a message back".to_owned()));
            }
        };
        let (_, unacknowledged) = self.in_flight.remove(index)?;
        tell(
            unacknowledged.acknowledged,
            error.map_or(Ok(()), |error| Err(SendError::Invalid(error))),
        );
        None
    }

    pub(super) fn ask_twin(&mut self, operation: TwinOperation<'_>, id: &str) -> bool {
        let message = messages::twin_request(operation, id);
        self.send_once(Purpose::TwinRequests, &message)
    }

    /// Sends what has no outcome; says whether it is on its way.
    pub(super) fn send_once(&mut self, purpose: Purpose, message: &Message) -> bool {
        let delivery = outbound(&mut self.last_tag, message.to_bytes(), true);
        let Some(link) = self.links.standing(purpose) else {
            return false;
        };
        let sent = self.seat.with(|connection| connection.send_later(link, &delivery));
        if let Err(error) = &sent {
            tracing::warn!(identity = %self.options.identity, ?purpose, %error, "a request or an answer was not sent");
        }
        sent.is_ok()
    }
}

fn outbound(last_tag: &mut u64, payload: Bytes, settled: bool) -> Outbound {
    *last_tag += 1;
    Outbound {
        tag: (*last_tag).into(),
        format: 0,
        payload,
        settled,
    }
}

/// Whether a rejected message would be rejected again, however often it is sent.
fn is_final(error: &AmqpError) -> bool {
    matches!(
        error.condition.as_str(),
        DECODE_ERROR
            | INVALID_FIELD
            | MESSAGE_SIZE_EXCEEDED
            | NOT_ALLOWED
            | NOT_IMPLEMENTED
            | PRECONDITION_FAILED
            | "com.microsoft:argument-error"
            | "com.microsoft:argument-out-of-range"
    )
}
