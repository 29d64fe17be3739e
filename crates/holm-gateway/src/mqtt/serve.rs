//! The life of an admitted client: one loop that waits for whatever happens next and answers it.

use std::sync::Arc;
use std::time::Instant;

use holm_model::Timestamp;
use holm_model::wire::ServerTopic;
use holm_mqtt::{Closed, DeliveryId, Event, Session, Will};
use holm_net::clock::instant;
use holm_net::{Alarm, Clock, Connection, Peer, Scope};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::admit::{self, Admitted};
use super::credentials::Issuing;
use super::deliver::Deliveries;
use super::subscribe::Held;
use super::{Asker, complain, publish_once};
use crate::backend::{Admission, Backend, Earlier};
use crate::gateway::{Gateway, now};
use crate::intake::{Entrance, Receipts};
use crate::method_calls::Calls;
use crate::metrics::{End, Throttle};
use crate::policies::PolicyProof;
use crate::session::{CloseReason, Command, SessionHandle, SessionId, SessionInbox, Subscriptions};
use crate::twin_requests::{self, Answer, Asked, Success};

/// Serves an admitted client until its connection ends.
pub(super) async fn run<B, S>(
    gateway: &Gateway<B>,
    scope: &Scope,
    connection: &mut Connection<Session, S>,
    peer: &Peer,
    (name, admitted): (SessionId, Admitted),
    will: Option<Will>,
) -> End
where
    B: Backend,
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let admission = Arc::new(admitted.admission);
    let (handle, inbox) = SessionHandle::named(name, admission.identity.clone());
    let resumed = match Box::pin(gateway.backend.opened(&handle, &admission, Earlier::of(admitted.clean))).await {
        Ok(resumed) => resumed,
        Err(refusal) => {
            tracing::info!(identity = %admission.identity, reason = %refusal, "a client was refused");
            let refused = admit::Refused::from(refusal);
            connection.session_mut().refuse(refused.code);
            gateway.metrics.refused.of(refused.counted).increment();
            return End::Refused;
        }
    };
    gateway.directory.enter(&handle);
    tracing::debug!(identity = %admission.identity, resumed = resumed.present, "connected");

    let backend = Arc::clone(&gateway.backend);
    let policy = PolicyProof::new(admitted.policy_token, &*backend);
    let mut client = Client {
        twins: twin_requests::Requests::new(Arc::clone(&backend), Arc::clone(&admission)),
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
        policy,
        filters: Vec::new(),
        receipts: Receipts::default(),
        calls: Calls::default(),
        issuing: Issuing::default(),
        closing: None,
        last_acknowledgements: None,
        end: None,
    };
    client.connection.session_mut().accept(instant(), resumed.present);
    client.resume(&resumed.filters);
    // It may have changed while the client was let in.
    client.look_at_policy();
    let closed = client.serve(scope).await;
    complain(gateway, &closed, peer, &client.admission.identity);
    // What closes without a reason of its own is an answer that the client had no room for.
    let end = super::end(&closed).or(client.end).unwrap_or(End::TooSlow);
    Box::pin(client.leave(closed, will)).await;
    end
}

/// How long a node that stops waits for the disk, so that what a client has sent is acknowledged and need not come again.
const LAST_ACKNOWLEDGEMENTS: std::time::Duration = std::time::Duration::from_secs(2);

/// While a message waits for room, those behind it wait too, and so does the end that is behind them. A session that the node
/// ends takes nothing more.
const fn is_wanted(event: &Event, waits_for_room: bool, is_ending: bool) -> bool {
    match event {
        Event::Publish { .. } => !waits_for_room && !is_ending,
        Event::Closed(_) => !waits_for_room,
        Event::Subscribe { .. } | Event::Unsubscribe { .. } => !is_ending,
        _ => true,
    }
}

pub(super) struct Client<'c, B: Backend, S> {
    pub(super) gateway: Gateway<B>,
    pub(super) connection: &'c mut Connection<Session, S>,
    pub(super) admission: Arc<Admission>,
    pub(super) handle: SessionHandle,
    pub(super) inbox: SessionInbox,
    pub(super) clean: bool,
    policy: PolicyProof,
    pub(super) filters: Vec<Held>,
    pub(super) entrance: Entrance<B, DeliveryId>,
    pub(super) receipts: Receipts<B::Receipt, DeliveryId>,
    pub(super) twins: twin_requests::Requests<B, Asker>,
    pub(super) deliveries: Deliveries<B>,
    pub(super) calls: Calls,
    pub(super) issuing: Issuing,
    /// Why the node closes the session, once it does.
    pub(super) closing: Option<CloseReason>,
    /// Until when acknowledgements are awaited that are due to a client whose session the node ends.
    pub(super) last_acknowledgements: Option<Instant>,
    /// Why the connection is closed from this side, once it is.
    pub(super) end: Option<End>,
}

impl<B: Backend, S: AsyncRead + AsyncWrite + Unpin + Send> Client<'_, B, S> {
    async fn serve(&mut self, scope: &Scope) -> Closed {
        let ends = admit::ends(&self.admission).map(|end| instant() + until(end, &self.gateway.clock));
        let mut alarm = Alarm::default();
        let mut stopping = std::pin::pin!(scope.stopping());
        loop {
            if self.last_acknowledgements.is_some() && self.receipts.is_empty() {
                self.last_acknowledgements = None;
                self.connection.session_mut().close();
            }
            let is_ending = self.is_ending();
            if !is_ending {
                self.deliveries.send(self.connection.session_mut());
            }
            let is_open = self.connection.session().is_open();
            if self.connection.has_ended() || !is_open {
                self.entrance.ended();
            }
            let waits_for_room = self.entrance.is_waiting();
            let due = [
                ends.filter(|_| is_open),
                self.overdue().filter(|_| is_open),
                self.entrance.look_at(),
                self.last_acknowledgements.filter(|_| is_open),
            ];
            // The connection comes last: what everything before it has to say leaves in one write.
            tokio::select! {
                biased;
                command = self.inbox.next(), if self.closing.is_none() => self.obey(command),
                () = &mut stopping, if self.closing.is_none() => self.obey(Command::Close(CloseReason::ShuttingDown)),
                (count, outcome) = self.receipts.next() => self.stored_all(count, outcome),
                answer = self.twins.next() => self.answer_twin(answer),
                told = self.issuing.next(&self.gateway.backend, &self.admission) => self.tell_certificate(&told),
                (mailbox, received) = self.deliveries.next() => match received {
                    Ok(messages) => self.deliveries.received(mailbox, messages, self.connection.session_mut()),
                    Err(refusal) => {
                        tracing::warn!(identity = %self.admission.identity, reason = %refusal, "messages can't be read");
                        self.close(End::Unavailable);
                    }
                },
                entered = self.entrance.next() => match entered {
                    Some((delivery, outcome)) => self.entered(delivery, outcome),
                    None => tracing::warn!(identity = %self.admission.identity, "a message was not taken in: there was no room for it until its connection had ended"),
                },
                () = self.policy.changed(), if self.closing.is_none() => self.look_at_policy(),
                () = alarm.wait(due.into_iter().flatten().min()) => self.look_at_clock(ends),
                event = self.connection.next_event_where(|event| is_wanted(event, waits_for_room, is_ending)) => {
                    if let Some(reason) = self.handle_events(event).await {
                        return reason;
                    }
                }
            }
        }
    }

    /// Whether the node stops: nothing more is taken, and what was is acknowledged if the disk answers in time.
    fn is_ending(&self) -> bool {
        self.closing == Some(CloseReason::ShuttingDown)
    }

    /// When the oldest delivery has waited for its acknowledgement too long.
    fn overdue(&self) -> Option<Instant> {
        let patience = self.gateway.profile.acknowledge_deadline;
        self.deliveries.oldest().map(|sent| sent + patience)
    }

    /// Some time has come that was waited for. The end of a connection is behind what waits for room, and is not told before
    /// it: the loop looks at it.
    fn look_at_clock(&mut self, ends: Option<Instant>) {
        let now = instant();
        if self.entrance.look_at().is_some_and(|look_at| look_at <= now) {
            self.entrance.look_later();
        }
        if !self.connection.session().is_open() {
            return;
        }
        if self.last_acknowledgements.is_some_and(|until| until <= now) {
            tracing::warn!(identity = %self.admission.identity, "messages were not stored in time for the stop; they are not acknowledged");
            self.receipts.clear();
        }
        if ends.is_some_and(|ends| ends <= now) {
            tracing::debug!(identity = %self.admission.identity, "the token has ended; closing");
            self.close(End::TokenEnded);
        } else if self.overdue().is_some_and(|overdue| overdue <= now) {
            tracing::warn!(identity = %self.admission.identity, "a message was not acknowledged in time; closing");
            self.close(End::Unacknowledged);
        }
    }

    /// Policies have changed: the one by which the client was let in may do so no more.
    fn look_at_policy(&mut self) {
        if let Err(refusal) = self.policy.check(&*self.gateway.backend) {
            tracing::info!(identity = %self.admission.identity, reason = %refusal, "a session ends with its policy");
            self.obey(Command::Close(CloseReason::Revoked));
        }
    }

    /// Handles an event and those that are there behind it: what came in one read enters together and is answered in one
    /// write. The reason, if the connection has ended.
    async fn handle_events(&mut self, first: Event) -> Option<Closed> {
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Closed(reason) => return Some(reason),
                Event::Publish { message, delivery } => self.handle_publish(message, delivery),
                Event::Acknowledged(token) => self.deliveries.acknowledged(token),
                event => {
                    // What came before it comes before it.
                    self.enter();
                    Box::pin(self.handle_event(event)).await;
                }
            }
            let (waits_for_room, is_ending) = (self.entrance.is_waiting(), self.is_ending());
            let session = self.connection.session_mut();
            // The end waits until what came before it has entered.
            next = session.poll_event_where(|event| {
                is_wanted(event, waits_for_room, is_ending) && !matches!(event, Event::Closed(_))
            });
        }
        self.enter();
        self.deliveries.settle_acknowledged();
        None
    }

    async fn handle_event(&mut self, event: Event) {
        match event {
            Event::Subscribe { request, filters } => self.subscribe(request, filters).await,
            Event::Unsubscribe { request, filters } => self.unsubscribe(request, &filters).await,
            Event::Publish { .. }
            | Event::Acknowledged(_)
            | Event::Connect(_)
            | Event::Connected { .. }
            | Event::Subscribed { .. }
            | Event::Unsubscribed { .. }
            | Event::Closed(_) => tracing::debug!("an event of another role or time was dropped"),
        }
    }

    pub(super) fn close(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.connection.session_mut().close();
    }

    pub(super) fn ask_twin(&mut self, asked: Asked<Asker>) {
        if let Some(refused) = self.twins.ask(asked) {
            self.gateway.metrics.throttled.of(Throttle::TwinRequests).increment();
            self.answer_twin(refused);
        }
    }

    pub(super) fn answer_twin(&mut self, answer: Answer<Asker>) {
        self.accept(answer.asker.delivery);
        let Some(rid) = answer.asker.rid else { return };
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
            Command::Invoke(request, caller) => {
                // Short hexadecimal, unique within the connection.
                let rid = format!("{:x}", self.calls.number());
                if self.calls.begin(rid.as_str(), caller) {
                    let topic = ServerTopic::method(&request.name, &rid);
                    // Never an empty payload: Node answers 400 by itself, Python dies in a background thread.
                    publish_once(session, topic, request.payload.to_string());
                }
            }
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
                if reason == CloseReason::ShuttingDown {
                    self.last_acknowledgements = Some(instant() + LAST_ACKNOWLEDGEMENTS);
                } else {
                    session.close();
                }
            }
        }
    }

    /// The end: the will is told if the client did not say goodbye, and the session's leases go back.
    async fn leave(mut self, closed: Closed, will: Option<Will>) {
        self.gateway.directory.leave(&self.handle);
        tracing::debug!(identity = %self.admission.identity, reason = %closed, "disconnected");
        // What was taken in and is not acknowledged yet is safe or will come again; either way nobody waits for it here. Nor for
        // what may still be delivered: a newer session does.
        self.receipts.clear();
        self.deliveries.stop();
        let silent = matches!(self.closing, Some(CloseReason::ShuttingDown | CloseReason::Revoked));
        if let Some(will) = will.filter(|_| !closed.is_clean() && !silent) {
            self.publish_will(&will).await;
        }
        self.gateway.backend.closed(self.handle.id(), &self.admission).await;
    }
}

fn device_error(error: &holm_model::error::ServiceError) -> String {
    error.device_body(crate::tracking_id(), now()).to_string()
}

fn until(moment: Timestamp, clock: &Clock) -> std::time::Duration {
    let left = moment.millis_since(clock.now().into());
    std::time::Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
