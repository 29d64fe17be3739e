//! PUBLISH: what a topic asks for, and the acknowledgement that a message gets when it is safe and not before.
//!
//! ```text
//!   parse the topic ─> telemetry: entrance (waits for room) ─> receipt (waits for the disk) ─> PUBACK
//!                      twin, method: asked and answered elsewhere
//!                      anything else: what came before is acknowledged, then the connection closes
//! ```

use holm_model::Message;
use holm_model::twin::reported_from_json;
use holm_model::wire::{ClientTopic, bag};
use holm_mqtt::{DeliveryId, Outcome, Will};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Asker;
use super::serve::Client;
use crate::backend::{Backend, IngestError};
use crate::intake::LAST_ROOM;
use crate::metrics::{End, Throttle};
use crate::twin_requests::{Answer, Asked, Request};

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Client<'_, B, S> {
    pub(super) fn handle_publish(&mut self, publish: holm_mqtt::Message, delivery: Option<DeliveryId>) {
        let topic = publish.topic.as_str();
        match ClientTopic::parse(topic, &self.admission.identity) {
            Ok(ClientTopic::Telemetry { bag, .. }) => {
                let message = message(bag, &publish);
                self.entrance.push(message, delivery);
            }
            Ok(ClientTopic::TwinGet { rid: None }) if self.gateway.profile.twin_get_without_request_id_closes => {
                self.refuse_publish(delivery, "a twin request without `$rid`");
            }
            Ok(ClientTopic::TwinGet { rid: None }) => self.accept(delivery),
            Ok(ClientTopic::TwinGet { rid }) => {
                self.accept(delivery);
                self.ask_twin(Asked {
                    request: Request::Get,
                    asker: Asker {
                        rid: rid.map(str::to_owned),
                        delivery: None,
                    },
                });
            }
            Ok(ClientTopic::TwinPatchReported { rid, version }) => {
                let rid = rid.map(str::to_owned);
                let asker = Asker { rid, delivery };
                match reported_from_json(&publish.payload) {
                    Ok(patch) => {
                        let request = Request::PatchReported {
                            patch: Value::Object(patch),
                            expected: version,
                        };
                        self.ask_twin(Asked { request, asker });
                    }
                    Err(error) => {
                        let outcome = Err(error);
                        self.answer_twin(Answer { asker, outcome });
                    }
                }
            }
            Ok(ClientTopic::IssueCertificate { rid }) => {
                self.accept(delivery);
                self.ask_certificate(rid, &publish.payload);
            }
            Ok(ClientTopic::MethodResponse { status, rid }) => {
                self.calls.answered(rid, status, &publish.payload);
                self.accept(delivery);
            }
            Err(error) => self.refuse_publish(delivery, &error.to_string()),
        }
    }

    /// Takes in the messages that have come, as far as there is room.
    pub(super) fn enter(&mut self) {
        let was_waiting = self.entrance.is_waiting();
        if let Err((delivery, error)) = self.entrance.enter(&mut self.receipts) {
            return self.not_entered(delivery, &error);
        }
        if self.entrance.is_waiting() && !was_waiting {
            if self.closing.is_some() {
                // The client of a session that the node has closed was told nothing of it, and sends it again.
                self.entrance.clear();
            } else {
                self.gateway.metrics.throttled.of(Throttle::Messages).increment();
            }
        }
    }

    /// The message that waited for room has its place in the order of the node, or none; those behind it follow.
    pub(super) fn entered(&mut self, delivery: Option<DeliveryId>, outcome: Result<B::Receipt, IngestError>) {
        match outcome {
            Ok(receipt) => {
                self.receipts.push(delivery.into_iter(), receipt);
                self.enter();
            }
            Err(error) => self.not_entered(delivery, &error),
        }
    }

    /// Nothing behind a message that was not taken in is: the order of a sender's messages would suffer.
    fn not_entered(&mut self, delivery: Option<DeliveryId>, error: &IngestError) {
        self.entrance.clear();
        match error {
            IngestError::TooLarge { .. } | IngestError::PropertiesTooLong { .. } => {
                self.refuse_publish(delivery, &error.to_string());
            }
            IngestError::Unavailable(_) => self.not_stored(delivery, error),
        }
    }

    /// Messages are on disk, or could not be brought there, and with them those behind them that were in the same commit.
    pub(super) fn stored_all(&mut self, count: usize, outcome: Result<(), IngestError>) {
        let mut next = Some((count, outcome));
        while let Some((count, outcome)) = next {
            for _ in 0..count {
                if let Some(delivery) = self.receipts.pop() {
                    self.stored(delivery, &outcome);
                }
            }
            next = self.receipts.try_next();
        }
    }

    fn stored(&mut self, delivery: DeliveryId, outcome: &Result<(), IngestError>) {
        match outcome {
            Ok(()) => self.accept(Some(delivery)),
            Err(error) => self.not_stored(Some(delivery), error),
        }
    }

    /// MQTT 3.1.1 has no word for "not now": the connection closes, and the client sends the message again.
    fn not_stored(&mut self, delivery: Option<DeliveryId>, error: &IngestError) {
        tracing::warn!(identity = %self.admission.identity, %error, "a message was not taken in; closing");
        self.close_after(delivery, End::NotStored);
    }

    pub(super) fn refuse_publish(&mut self, delivery: Option<DeliveryId>, reason: &str) {
        tracing::warn!(identity = %self.admission.identity, reason, "a publish was refused; closing");
        self.close_after(delivery, End::MessageRefused);
    }

    fn close_after(&mut self, delivery: Option<DeliveryId>, end: End) {
        self.end.get_or_insert(end);
        let session = self.connection.session_mut();
        match delivery {
            // What came before it is acknowledged first.
            Some(delivery) => {
                session.acknowledge(delivery, Outcome::Close);
            }
            None => session.close(),
        }
    }

    pub(super) fn accept(&mut self, delivery: Option<DeliveryId>) {
        if let Some(delivery) = delivery {
            self.connection.session_mut().acknowledge(delivery, Outcome::Accept);
        }
    }

    pub(super) async fn publish_will(&mut self, will: &Will) {
        let Ok(ClientTopic::Telemetry { bag, .. }) = ClientTopic::parse(will.topic.as_str(), &self.admission.identity)
        else {
            return;
        };
        let (system, properties) = bag::from_client(bag);
        let mut message = Message {
            body: will.payload.clone(),
            system,
            properties,
        };
        message
            .properties
            .set(self.gateway.profile.will_property, Some("Will".into()));
        if will.retain {
            message.properties.set(bag::MQTT_RETAIN, Some("true".into()));
        }
        let entering = tokio::time::timeout(LAST_ROOM, self.gateway.backend.ingest(&self.admission, message));
        let stored = match entering.await {
            Ok(Ok(receipt)) => receipt.await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(IngestError::Unavailable("there is no room for it".to_owned())),
        };
        if let Err(error) = stored {
            tracing::warn!(identity = %self.admission.identity, %error, "a will was lost");
        }
    }
}

/// A message as it was published: the bag, the body, and what the packet's flags say as application properties.
///
/// `bag` is a part of the packet's topic.
fn message(bag: &str, publish: &holm_mqtt::Message) -> Message {
    let (system, properties) = bag::from_packet(bag, publish.topic.buffer());
    let mut message = Message {
        body: publish.payload.clone(),
        system,
        properties,
    };
    if publish.retain {
        message.properties.set(bag::MQTT_RETAIN, Some("true".into()));
    }
    if publish.dup {
        message.properties.set(bag::MQTT_DUP, Some("true".into()));
    }
    message
}
