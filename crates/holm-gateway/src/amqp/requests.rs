//! Methods and twins: calls and their answers, requests and their answers, changes.
//!
//! ```text
//!   method   node: correlation-id a UUID, `IoThub-methodname`       client: the same id, `IoThub-status`
//!   twin     client: its own correlation-id, `operation`            node: the same id and type, `status`
//!   change   node: no correlation-id, `resource`, `version`
//! ```
//!
//! A call's id is a UUID (C reads nothing else) and may come back as text; they are compared by text. Every operation on a twin
//! is answered (C, Node and Java wait). Source: `hub-device-protocols.md` §3.4.

use bytes::Bytes;
use holm_amqp::{
    ApplicationProperties, Body, Delivery, DeliveryTag, Fields, Limits, LinkId, Message, MessageId, Outbound, Outcome,
    Properties, SendError, Symbol, Text, Value,
};
use holm_model::error::{ErrorCode, ServiceError};
use holm_model::method::MethodRequest;
use holm_model::twin::reported_from_json;
use holm_model::wire::amqp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Asker;
use super::crowd::Name;
use super::front::Front;
use super::{message, refusals};
use crate::backend::Backend;
use crate::gateway::now;
use crate::method_calls::Caller;
use crate::metrics::{End, Throttle};
use crate::session::CloseReason;
use crate::tracking_id;
use crate::twin_requests::{Answer, Asked, Request, Success};

/// What a client asks of its twin.
enum Asks {
    /// The backend answers.
    Backend(Request),
    /// To hear of changes of desired properties, or no more.
    Changes(bool),
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Front<'_, B, S> {
    /// Calls a method on a client.
    pub(super) fn call(&mut self, name: Name, request: &MethodRequest, caller: Caller) {
        let Some(client) = self.clients.get(name) else { return };
        // Without a link the answer could never be asked for: the caller learns it as the channel closes.
        let Some(link) = client.methods else { return };
        let id = MessageId::Uuid(tracking_id().bits().to_be_bytes());
        let text = id.to_string();
        if !client.calls.begin(text.as_str(), caller) {
            return;
        }
        let message = Message {
            properties: Some(Box::new(Properties {
                correlation_id: Some(id),
                ..Properties::default()
            })),
            application_properties: ApplicationProperties::new()
                .with(Text::from_static(amqp::METHOD_NAME), request.name.as_str()),
            // Never an empty payload: Node answers 400 by itself.
            ..Message::of_data(request.payload.to_string())
        };
        if !self.tell(name, link, &message)
            && let Some(client) = self.clients.get(name)
        {
            client.calls.give_up(&text);
        }
    }

    /// The answer of a client to a method.
    pub(super) fn method_answer(&mut self, name: Name, delivery: &Delivery) {
        let answer = match Message::decode(&delivery.payload, Limits::default()) {
            Ok(answer) => answer,
            Err(error) => return self.reject(delivery.id, refusals::of_unreadable(&error.into())),
        };
        self.settle(delivery.id, Outcome::Accepted);
        let id = answer.properties.and_then(|properties| properties.correlation_id);
        let id = id.map(|id| id.to_string().to_ascii_lowercase());
        let status = answer
            .application_properties
            .get(amqp::METHOD_STATUS)
            .and_then(Value::as_i64);
        let status = status.and_then(|status| i32::try_from(status).ok());
        // What is not JSON its caller learns; a body that is no bytes is not.
        let body = message::body(answer.body).unwrap_or_else(|_| Bytes::from_static(b"\0"));
        if let Some(client) = self.clients.get(name) {
            client.calls.answered(id.as_deref(), status.unwrap_or_default(), &body);
        }
    }

    /// A request of a client to its twin.
    pub(super) async fn twin_request(&mut self, name: Name, delivery: &Delivery) {
        let request = match Message::decode(&delivery.payload, Limits::default()) {
            Ok(request) => request,
            Err(error) => return self.reject(delivery.id, refusals::of_unreadable(&error.into())),
        };
        self.settle(delivery.id, Outcome::Accepted);
        let asks = read(&request);
        let id = request.properties.and_then(|properties| properties.correlation_id);
        let asker = Asker { id };
        let refused = match asks {
            Ok(Asks::Backend(request)) => {
                let client = self.clients.get(name);
                client.and_then(|client| client.twins.ask(Asked { request, asker }))
            }
            Ok(Asks::Changes(wanted)) => {
                if let Some(client) = self.clients.get(name) {
                    client.wants_desired = wanted;
                }
                let told = self.tell_subscriptions(name).await;
                let outcome = told
                    .map(|()| Success::Patched(None))
                    .map_err(|refusal| ServiceError::unavailable(refusal.to_string()));
                return self.answer_twin(name, Answer { asker, outcome });
            }
            Err(error) => {
                let outcome = Err(error);
                return self.answer_twin(name, Answer { asker, outcome });
            }
        };
        if let Some(refused) = refused {
            self.gateway.metrics.throttled.of(Throttle::TwinRequests).increment();
            self.answer_twin(name, refused);
        }
    }

    pub(super) fn answer_twin(&mut self, name: Name, answer: Answer<Asker>) {
        let Some(client) = self.clients.get(name) else { return };
        let Some(link) = client.twin else {
            tracing::debug!(identity = %client.admission.identity, "a twin answer was dropped: the client has no link for answers");
            return;
        };
        let status = Symbol::from_static(amqp::TWIN_STATUS);
        let (annotations, body) = match answer.outcome {
            Ok(Success::Twin(twin)) => (Fields::new().with(status, 200i32), twin.to_string()),
            Ok(Success::Patched(version)) => {
                let annotations = Fields::new().with(status, 204i32);
                (with_version(annotations, version), String::new())
            }
            Err(error) => {
                let annotations = Fields::new().with(status, i32::from(error.code.status()));
                (annotations, error.device_body(tracking_id(), now()).to_string())
            }
        };
        let message = Message {
            message_annotations: annotations,
            properties: Some(Box::new(Properties {
                correlation_id: answer.asker.id,
                ..Properties::default()
            })),
            ..Message::of_data(body)
        };
        self.tell(name, link, &message);
    }

    /// Tells a client of changed desired properties.
    pub(super) fn tell_desired(&mut self, name: Name, patch: &serde_json::Value) {
        let Some(client) = self.clients.get(name).filter(|client| client.wants_desired) else {
            return;
        };
        let Some(link) = client.twin else {
            return;
        };
        let Some(version) = patch.get("$version").and_then(serde_json::Value::as_u64) else {
            tracing::error!(identity = %client.admission.identity, "a desired-property change without `$version` was dropped");
            return;
        };
        let annotations = Fields::new().with(Symbol::from_static(amqp::TWIN_RESOURCE), amqp::DESIRED);
        let message = Message {
            message_annotations: with_version(annotations, Some(version)),
            ..Message::of_data(patch.to_string())
        };
        self.tell(name, link, &message);
    }

    /// Sends a message that is not settled by its receiver, now or when the connection has room. One that the client itself
    /// has no room for ends what it does here, since nothing would bring it again. False then.
    fn tell(&mut self, name: Name, link: LinkId, message: &Message) -> bool {
        let Some(client) = self.clients.get(name) else {
            return false;
        };
        let outbound = Outbound {
            tag: DeliveryTag::from(client.calls.number()),
            format: 0,
            payload: message.to_bytes(),
            settled: true,
        };
        let told = client.untold.tell(self.connection.session_mut(), link, outbound);
        if client.is_blocked() {
            self.blocked.insert(name);
        }
        if let Err(error) = &told {
            self.expel_slow(name, error);
        }
        told.is_ok()
    }

    /// A client does not take what is sent to it.
    pub(super) fn expel_slow(&mut self, name: Name, error: &SendError) {
        let Some(client) = self.clients.look(name) else { return };
        let identity = client.admission.identity.clone();
        tracing::info!(%identity, %error, "the client does not take what is sent to it; its links are detached");
        self.gateway.metrics.ended.of(End::TooSlow).increment();
        self.expel(name, &refusals::of_close(CloseReason::TooSlow, &identity));
    }
}

fn with_version(annotations: Fields, version: Option<u64>) -> Fields {
    match version.and_then(|version| i64::try_from(version).ok()) {
        Some(version) => annotations.with(Symbol::from_static(amqp::TWIN_VERSION), version),
        None => annotations,
    }
}

/// What a request asks for.
///
/// # Errors
/// What is answered to it instead.
fn read(request: &Message) -> Result<Asks, ServiceError> {
    let said = |name: &str| request.message_annotations.get(name);
    let operation = said(amqp::TWIN_OPERATION).and_then(Value::as_str).unwrap_or_default();
    let resource = said(amqp::TWIN_RESOURCE).and_then(Value::as_str).unwrap_or_default();
    let elsewhere = |wanted: &str| {
        ServiceError::argument_invalid(format!(
            "the annotation `resource` is `{resource}`; `{operation}` is for `{wanted}`"
        ))
    };
    match operation {
        "GET" => Ok(Asks::Backend(Request::Get)),
        "PATCH" if resource.eq_ignore_ascii_case(amqp::REPORTED) => {
            let body = match &request.body {
                Body::Data(sections) => sections.concat().into(),
                other => message::body(other.clone())
                    .map_err(|error| ServiceError::new(ErrorCode::ArgumentInvalid, error.to_string()))?,
            };
            let patch = reported_from_json(&body)?;
            let expected = match said(amqp::TWIN_VERSION) {
                None | Some(Value::Null) => None,
                Some(version) => {
                    let version = version.as_i64().and_then(|version| u64::try_from(version).ok());
                    Some(version.ok_or_else(|| {
                        ServiceError::argument_invalid(
                            "the annotation `version` is not a version; send a long of 1 or more",
                        )
                    })?)
                }
            };
            let patch = serde_json::Value::Object(patch);
            Ok(Asks::Backend(Request::PatchReported { patch, expected }))
        }
        "PATCH" => Err(elsewhere(amqp::REPORTED)),
        "PUT" | "DELETE" if resource.eq_ignore_ascii_case(amqp::DESIRED_NOTIFICATIONS) => {
            Ok(Asks::Changes(operation == "PUT"))
        }
        "PUT" | "DELETE" => Err(elsewhere(amqp::DESIRED_NOTIFICATIONS)),
        _ => Err(ServiceError::argument_invalid(format!(
            "the annotation `operation` is `{operation}`; send GET, PATCH, PUT or DELETE"
        ))),
    }
}
