//! The life of an admitted client: one loop that waits for whatever happens next and answers it.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holm_model::twin::reported_from_json;
use holm_model::wire::{ClientTopic, ServerTopic, Subscription, bag};
use holm_model::{Message, Timestamp};
use holm_mqtt::{Closed, DeliveryId, Event, Granted, Outcome, Qos, RequestId, Session, Text, Will};
use holm_net::{Connection, Peer, Scope};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::admit::{self, Admitted};
use super::deliver::Deliveries;
use super::entrance::{Entrance, LAST_ROOM, LOOK_FOR_END};
use super::methods::Calls;
use super::publish_once;
use super::twins::{self, Answer, Asked, Request, Success};
use crate::backend::{Admission, Backend, IngestError, Refusal};
use crate::gateway::{Gateway, now};
use crate::metrics::{End, Throttle};
use crate::session::{CloseReason, Command, SessionHandle, SessionInbox, Subscriptions};

/// Filters that one client may hold: twice what every published subscription together needs
/// (`hub-device-protocols.md` §2.4).
const MAX_FILTERS: usize = 12;

/// Serves an admitted client until its connection ends.
pub(super) async fn run<B, S>(
    gateway: &Gateway<B>,
    scope: &Scope,
    connection: &mut Connection<Session, S>,
    peer: &Peer,
    admitted: Admitted,
    will: Option<Will>,
) -> End
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let admission = Arc::new(admitted.admission);
    let (handle, inbox) = SessionHandle::new(admission.identity.clone());
    let resumed = match gateway.backend.opened(&handle, &admission, admitted.clean).await {
        Ok(resumed) => resumed,
        Err(refusal) => {
            tracing::info!(identity = %admission.identity, reason = %refusal, "a client was refused");
            let refused = admit::Refused::from(refusal);
            connection.session_mut().refuse(refused.code);
            gateway.metrics.refused.of(refused.counted()).increment();
            return End::Refused;
        }
    };
    gateway.directory.enter(&handle);
    tracing::debug!(identity = %admission.identity, resumed = resumed.present, "connected");

    let backend = Arc::clone(&gateway.backend);
    let mut client = Client {
        twins: twins::Requests::new(Arc::clone(&backend), Arc::clone(&admission)),
        entrance: Entrance::new(Arc::clone(&backend), Arc::clone(&admission)),
        deliveries: Deliveries::new(
            backend,
            Arc::clone(&admission),
            handle.id(),
            gateway.profile.delivery_window,
        ),
        gateway: gateway.clone(),
        connection,
        admission,
        handle,
        inbox,
        clean: admitted.clean,
        filters: Vec::new(),
        receipts: FuturesUnordered::new(),
        calls: Calls::default(),
        closing: None,
        end: None,
    };
    client.connection.session_mut().accept(Instant::now(), resumed.present);
    client.resume(&resumed.filters);
    let closed = client.serve(scope).await;
    gateway
        .complaints
        .ended(&closed, peer.address, &client.admission.identity);
    // What closes without a reason of its own is an answer that the client had no room for.
    let end = super::end(&closed).or(client.end).unwrap_or(End::TooSlow);
    client.leave(closed, will).await;
    end
}

/// Ingested and not yet acknowledged.
type Pending<R> = std::pin::Pin<Box<dyn Future<Output = (DeliveryId, R)> + Send>>;

/// A filter that a client holds, with what it means and at which quality of service it was granted.
struct Held {
    filter: Text,
    subscription: Option<Subscription>,
    qos: Qos,
}

struct Client<'c, B: Backend, S> {
    gateway: Gateway<B>,
    connection: &'c mut Connection<Session, S>,
    admission: Arc<Admission>,
    handle: SessionHandle,
    inbox: SessionInbox,
    clean: bool,
    filters: Vec<Held>,
    entrance: Entrance<B>,
    receipts: FuturesUnordered<Pending<Result<(), IngestError>>>,
    twins: twins::Requests<B>,
    deliveries: Deliveries<B>,
    calls: Calls,
    /// Why the node closes the session, once it does.
    closing: Option<CloseReason>,
    /// Why the connection is closed from this side, once it is.
    end: Option<End>,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Client<'_, B, S> {
    async fn serve(&mut self, scope: &Scope) -> Closed {
        let ends = admit::ends(&self.admission).map(|end| tokio::time::Instant::now() + until(end));
        loop {
            self.deliveries.send(self.connection.session_mut());
            if self.connection.has_ended() || !self.connection.session().is_open() {
                self.entrance.ended();
            }
            let waits_for_room = self.entrance.is_waiting();
            let patience = self.gateway.profile.acknowledge_deadline;
            let overdue = self
                .deliveries
                .oldest()
                .map(|sent| tokio::time::Instant::from_std(sent + patience));
            tokio::select! {
                // While a message waits for room, those behind it wait too, and so does the end that is behind them.
                event = self.connection.next_event_where(|event| {
                    !waits_for_room || !matches!(event, Event::Publish { .. } | Event::Closed(_))
                }) => match event {
                    Event::Closed(reason) => return reason,
                    event => self.handle_event(event).await,
                },
                entered = self.entrance.next() => match entered {
                    Some((delivery, outcome)) => self.entered(delivery, outcome),
                    None => tracing::warn!(identity = %self.admission.identity, "a message was not taken in: there was no room for it until its connection had ended"),
                },
                // The end of the connection is behind what waits and is not told before it: it is looked at above.
                () = tokio::time::sleep(LOOK_FOR_END), if waits_for_room => {}
                Some((delivery, outcome)) = self.receipts.next() => self.stored(delivery, outcome),
                answer = self.twins.next() => self.answer_twin(answer),
                (mailbox, received) = self.deliveries.next() => match received {
                    Ok(messages) => self.deliveries.received(mailbox, messages, self.connection.session_mut()),
                    Err(refusal) => {
                        tracing::warn!(identity = %self.admission.identity, reason = %refusal, "messages can't be read");
                        self.close(End::Unavailable);
                    }
                },
                command = self.inbox.next(), if self.closing.is_none() => self.obey(command),
                () = sleep_until(ends), if self.connection.session().is_open() => {
                    tracing::debug!(identity = %self.admission.identity, "the token has ended; closing");
                    self.close(End::TokenEnded);
                }
                () = sleep_until(overdue), if self.connection.session().is_open() => if self.deliveries.is_overdue(patience) {
                    tracing::warn!(identity = %self.admission.identity, "a message was not acknowledged in time; closing");
                    self.close(End::Unacknowledged);
                },
                () = scope.stopping(), if self.closing.is_none() => self.obey(Command::Close(CloseReason::ShuttingDown)),
            }
        }
    }

    async fn handle_event(&mut self, event: Event) {
        match event {
            Event::Publish { message, delivery } => self.handle_publish(message, delivery),
            Event::Acknowledged(token) => self.deliveries.acknowledged(token),
            Event::Subscribe { request, filters } => self.subscribe(request, filters).await,
            Event::Unsubscribe { request, filters } => self.unsubscribe(request, &filters).await,
            Event::Connect(_)
            | Event::Connected { .. }
            | Event::Subscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::Closed(_) => tracing::debug!("an event of another role or time was dropped"),
        }
    }

    fn handle_publish(&mut self, publish: holm_mqtt::Message, delivery: Option<DeliveryId>) {
        let topic = publish.topic.as_str();
        match ClientTopic::parse(topic, &self.admission.identity) {
            Ok(ClientTopic::Telemetry { bag, .. }) => {
                let message = message(bag, &publish);
                self.ingest(message, delivery);
            }
            Ok(ClientTopic::TwinGet { rid: None }) if self.gateway.profile.twin_get_without_request_id_closes => {
                self.refuse_publish(delivery, "a twin request without `$rid`");
            }
            Ok(ClientTopic::TwinGet { rid: None }) => self.accept(delivery),
            Ok(ClientTopic::TwinGet { rid }) => {
                self.accept(delivery);
                self.ask_twin(Asked {
                    request: Request::Get,
                    rid: rid.map(str::to_owned),
                    delivery: None,
                });
            }
            Ok(ClientTopic::TwinPatchReported { rid, version }) => {
                let rid = rid.map(str::to_owned);
                match reported_from_json(&publish.payload) {
                    Ok(patch) => {
                        let request = Request::PatchReported {
                            patch: Value::Object(patch),
                            expected: version,
                        };
                        self.ask_twin(Asked { request, rid, delivery });
                    }
                    Err(error) => {
                        let outcome = Err(error);
                        self.answer_twin(Answer { rid, delivery, outcome });
                    }
                }
            }
            Ok(ClientTopic::MethodResponse { status, rid }) => {
                self.calls.answered(rid, status, &publish.payload);
                self.accept(delivery);
            }
            Err(error) => self.refuse_publish(delivery, &error.to_string()),
        }
    }

    fn ingest(&mut self, message: Message, delivery: Option<DeliveryId>) {
        match self.entrance.enter(message, delivery) {
            Some((delivery, outcome)) => self.entered(delivery, outcome),
            // The client of a session that the node has closed was told nothing of it, and sends it again.
            None if self.closing.is_some() => self.entrance.clear(),
            None => self.gateway.metrics.throttled.of(Throttle::Messages).increment(),
        }
    }

    /// The message has its place in the order of the node, or none.
    fn entered(&mut self, delivery: Option<DeliveryId>, outcome: Result<B::Receipt, IngestError>) {
        match outcome {
            Ok(receipt) => {
                if let Some(delivery) = delivery {
                    self.receipts.push(Box::pin(async move { (delivery, receipt.await) }));
                }
            }
            Err(error @ IngestError::TooLarge { .. }) => self.refuse_publish(delivery, &error.to_string()),
            Err(error @ IngestError::Unavailable(_)) => self.not_stored(delivery, &error),
        }
    }

    fn stored(&mut self, delivery: DeliveryId, outcome: Result<(), IngestError>) {
        match outcome {
            Ok(()) => self.accept(Some(delivery)),
            Err(error) => self.not_stored(Some(delivery), &error),
        }
    }

    /// MQTT 3.1.1 has no word for "not now": the connection closes, and the client sends the message again.
    fn not_stored(&mut self, delivery: Option<DeliveryId>, error: &IngestError) {
        tracing::warn!(identity = %self.admission.identity, %error, "a message was not taken in; closing");
        self.close_after(delivery, End::NotStored);
    }

    fn refuse_publish(&mut self, delivery: Option<DeliveryId>, reason: &str) {
        tracing::warn!(identity = %self.admission.identity, reason, "a publish was refused; closing");
        self.close_after(delivery, End::MessageRefused);
    }

    fn close(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.connection.session_mut().close();
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

    fn accept(&mut self, delivery: Option<DeliveryId>) {
        if let Some(delivery) = delivery {
            self.connection.session_mut().acknowledge(delivery, Outcome::Accept);
        }
    }

    fn ask_twin(&mut self, asked: Asked) {
        if let Some(refused) = self.twins.ask(asked) {
            self.gateway.metrics.throttled.of(Throttle::TwinRequests).increment();
            self.answer_twin(refused);
        }
    }

    fn answer_twin(&mut self, answer: Answer) {
        self.accept(answer.delivery);
        let Some(rid) = answer.rid else { return };
        if !self.handle.subscriptions().contains(Subscriptions::TWIN_RESPONSES) {
            tracing::debug!(identity = %self.admission.identity, "a twin answer was dropped: the client has not subscribed to answers");
            return;
        }
        let (topic, body) = match answer.outcome {
            Ok(Success::Twin(twin)) => (ServerTopic::twin_response(200, &rid, None), twin.to_string()),
            Ok(Success::Patched(version)) => (ServerTopic::twin_response(204, &rid, version), String::new()),
            Err(error) => {
                let status = error.code.status();
                // Node decides by `errorCode` in the body, and dies of an empty one.
                (ServerTopic::twin_response(status, &rid, None), device_error(&error))
            }
        };
        publish_once(self.connection.session_mut(), topic, body);
    }

    fn obey(&mut self, command: Command) {
        let session = self.connection.session_mut();
        match command {
            Command::Invoke(request, caller) => self.calls.call(session, request, caller),
            Command::DesiredChanged(patch) => match patch.get("$version").and_then(Value::as_u64) {
                Some(version) => publish_once(session, ServerTopic::desired_patch(version), patch.to_string()),
                None => {
                    tracing::error!(identity = %self.admission.identity, "a desired-property change without `$version` was dropped")
                }
            },
            Command::Close(reason) => {
                tracing::debug!(identity = %self.admission.identity, ?reason, "closing");
                self.closing = Some(reason);
                // Nobody waits for it here any more; its sender was not told that it is safe.
                self.entrance.clear();
                self.end.get_or_insert(match reason {
                    CloseReason::Replaced => End::Replaced,
                    CloseReason::Revoked => End::Revoked,
                    CloseReason::ShuttingDown => End::ShuttingDown,
                    CloseReason::TooSlow => End::TooSlow,
                });
                session.close();
            }
        }
    }

    /// Takes up the subscriptions of an earlier session; what they meant then they mean now.
    fn resume(&mut self, filters: &[(String, u8)]) {
        for (filter, qos) in filters {
            let subscription = Subscription::parse(filter, &self.admission.identity).ok();
            let qos = if *qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            if let Ok(filter) = Text::try_from(filter.as_str()) {
                self.filters.push(Held {
                    filter,
                    subscription,
                    qos,
                });
            }
        }
        self.apply_subscriptions();
    }

    async fn subscribe(&mut self, request: RequestId, wanted: Vec<holm_mqtt::Subscription>) {
        let granted: Vec<_> = wanted
            .into_iter()
            .map(|wish| self.grant(wish.filter, wish.qos))
            .collect();
        if let Err(refusal) = self.tell_subscriptions().await {
            tracing::warn!(identity = %self.admission.identity, reason = %refusal, "subscriptions can't be kept; closing");
            self.close(End::Unavailable);
            return;
        }
        if let Err(error) = self.connection.session_mut().suback(request, &granted) {
            tracing::error!(%error, "a SUBSCRIBE was not answered");
        }
        self.apply_subscriptions();
    }

    fn grant(&mut self, filter: Text, qos: Qos) -> Granted {
        let identity = &self.admission.identity;
        let subscription = match Subscription::parse(filter.as_str(), identity) {
            Ok(subscription) => Some(subscription),
            Err(error) => {
                let published_space = filter.as_str().starts_with("devices/") || filter.as_str().starts_with('$');
                let foreign = matches!(error, holm_model::wire::TopicError::Foreign { .. });
                if !self.gateway.profile.grants_unknown_filters || foreign || !published_space {
                    tracing::info!(%identity, %error, "a subscription was refused");
                    return Granted::Failure;
                }
                None
            }
        };
        let held = self.filters.len();
        match self.filters.iter_mut().find(|held| held.filter == filter) {
            Some(held) => held.qos = qos,
            None if held >= MAX_FILTERS => {
                tracing::info!(%identity, filter = %filter, "a subscription was refused: the client holds {MAX_FILTERS} already");
                return Granted::Failure;
            }
            None => self.filters.push(Held {
                filter: filter.to_owned_text(),
                subscription,
                qos,
            }),
        }
        Granted::Qos(qos)
    }

    async fn unsubscribe(&mut self, request: RequestId, filters: &[Text]) {
        self.filters.retain(|held| !filters.contains(&held.filter));
        self.apply_subscriptions();
        if let Err(refusal) = self.tell_subscriptions().await {
            tracing::warn!(identity = %self.admission.identity, reason = %refusal, "subscriptions can't be kept; closing");
            self.close(End::Unavailable);
            return;
        }
        if let Err(error) = self.connection.session_mut().unsuback(request) {
            tracing::error!(%error, "an UNSUBSCRIBE was not answered");
        }
    }

    async fn tell_subscriptions(&mut self) -> Result<(), Refusal> {
        let filters = || {
            self.filters
                .iter()
                .map(|held| (held.filter.as_str().to_owned(), held.qos as u8))
                .collect()
        };
        let kept = (!self.clean).then(filters);
        self.gateway
            .backend
            .subscribed(self.handle.id(), &self.admission, self.subscriptions(), kept)
            .await
    }

    /// What was granted begins to arrive.
    fn apply_subscriptions(&mut self) {
        let all = self.subscriptions();
        self.handle.set_subscriptions(all);
        self.gateway.directory.subscribed();
        let filters = &self.filters;
        self.deliveries.subscribe(all, |wanted| {
            let of_kind = filters
                .iter()
                .filter(|held| held.subscription.map(kind) == Some(wanted));
            of_kind
                .map(|held| held.qos)
                .max_by_key(|qos| *qos as u8)
                .unwrap_or(Qos::AtLeastOnce)
        });
    }

    fn subscriptions(&self) -> Subscriptions {
        self.filters
            .iter()
            .filter_map(|held| held.subscription)
            .fold(Subscriptions::NONE, |all, one| all.with(kind(one)))
    }

    /// The end: the will is told if the client did not say goodbye, and the session's leases go back.
    async fn leave(mut self, closed: Closed, will: Option<Will>) {
        self.gateway.directory.leave(&self.handle);
        tracing::debug!(identity = %self.admission.identity, reason = %closed, "disconnected");
        // What was taken in and is not acknowledged yet is safe or will come again; either way nobody waits for it here.
        self.receipts.clear();
        let silent = matches!(self.closing, Some(CloseReason::ShuttingDown | CloseReason::Revoked));
        if let Some(will) = will.filter(|_| !closed.is_clean() && !silent) {
            self.publish_will(&will).await;
        }
        self.gateway.backend.closed(self.handle.id(), &self.admission).await;
    }

    async fn publish_will(&mut self, will: &Will) {
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

const fn kind(subscription: Subscription) -> Subscriptions {
    match subscription {
        Subscription::CloudToDevice => Subscriptions::CLOUD_TO_DEVICE,
        Subscription::Inputs => Subscriptions::INPUTS,
        Subscription::Methods => Subscriptions::METHODS,
        Subscription::TwinResponses => Subscriptions::TWIN_RESPONSES,
        Subscription::DesiredPatches => Subscriptions::DESIRED_PROPERTIES,
        // It exists and nothing arrives there.
        Subscription::ModuleCloudToDevice => Subscriptions::NONE,
    }
}

/// A message as it was published: the bag, the body, and what the packet's flags say as application properties.
fn message(bag: &str, publish: &holm_mqtt::Message) -> Message {
    let (system, properties) = bag::from_client(bag);
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

fn device_error(error: &holm_model::error::ServiceError) -> String {
    error.device_body(crate::tracking_id(), now()).to_string()
}

fn until(moment: Timestamp) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(moment.millis_since(now())).unwrap_or(0))
}

/// Waits for a moment; for ever when there is none.
pub(super) async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
