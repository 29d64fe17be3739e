//! The task of one connection upstream: what arrives on it, and how both sides of a twin become equal.
//!
//! ```text
//!   connected ─> read the twin ─> adopt it, tell what is new ─> send the difference of what is reported ─> equal
//!                     ^                                               |
//!                     '── answer lost, patch missed, not kept ────────'   after a wait that grows
//! ```
//!
//! What the node above has as reported section is certain only while one connection lasts and every answer came; else it is
//! read again. So a patch whose answer was lost can be taken back by a later one.

use std::sync::Arc;
use std::time::Duration;

use holm_client::client::State;
use holm_client::{Event, Events, MethodCall, TwinError};
use holm_gateway::InvokeError;
use holm_model::Identity;
use holm_model::method::{MethodRequest, MethodResponse};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::links::Link;
use super::presence::needs_link;
use super::replica::{Above, Heard};
use super::{Broker, figures};

/// How long a connection that nobody needs stays open.
const IDLE: Duration = Duration::from_secs(3600);
/// The same for a child.
const CHILD_IDLE: Duration = Duration::from_secs(300);
/// How often it is looked whether one is still needed.
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// The first and the longest wait before twins are compared again after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest that anybody may wait for the answer of a method: whoever called from above gives up earlier.
const METHOD_PATIENCE: Duration = Duration::from_secs(300);

/// The task of one connection.
pub(super) struct Serving {
    broker: Arc<Broker>,
    link: Arc<Link>,
    is_connected: bool,
    /// The reported section above, as long as it is certain.
    above: Option<Map<String, Value>>,
    /// When twins are compared again, and the wait after that.
    retry: Option<Instant>,
    wait: Duration,
}

/// Why twins could not be compared; tried again.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("the node above did not answer")]
    Above(#[source] TwinError),
    #[error("the twin from above has not the published form")]
    Form,
    #[error("{0}")]
    Kept(holm_model::error::ServiceError),
}

impl Serving {
    pub(super) const fn new(broker: Arc<Broker>, link: Arc<Link>) -> Self {
        Self {
            broker,
            link,
            is_connected: false,
            above: None,
            retry: None,
            wait: RETRY.0,
        }
    }

    pub(super) async fn run(mut self, mut events: Events) {
        let _ending = Ending {
            broker: Arc::clone(&self.broker),
            link: Arc::clone(&self.link),
        };
        self.serve(&mut events).await;
        // The identity may have been taken away while its twin was being written here.
        Box::pin(self.broker.forget_if_gone(self.link.identity())).await;
    }

    async fn serve(&mut self, events: &mut Events) {
        let mut idle = tokio::time::interval(IDLE_CHECK);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let is_edge_hub = *self.link.identity() == self.broker.edge_hub;
        let mut state = self.link.state();
        loop {
            tokio::select! {
                // What seldom happens is in boxes: there is a task like this for each connection, and most wait.
                event = events.next() => match event {
                    Some(event) => Box::pin(self.handle(event)).await,
                    None => return,
                },
                () = self.link.woken() => {
                    if self.is_closed() {
                        return;
                    }
                    Box::pin(self.synchronise()).await;
                }
                () = until(self.retry) => Box::pin(self.synchronise()).await,
                Ok(()) = state.changed() => {
                    let state = state.borrow_and_update().clone();
                    if matches!(state, State::Refused(_) | State::Disconnected(_)) && self.link.failed() {
                        self.broker.links.changed();
                    }
                    if is_edge_hub {
                        self.answered(&state);
                    }
                }
                _ = idle.tick() => if Box::pin(self.is_idle()).await {
                    tracing::debug!(identity = %self.link.identity(), "nobody needs the connection any more; closing it");
                    self.broker.links.close(self.link.identity());
                    // The node above may have answered in this moment, when this one was still there.
                    if self.broker.links.is_reachable(self.link.identity()) {
                        Box::pin(self.broker.open_again(self.link.identity())).await;
                    }
                    if self.broker.links.is_child(self.link.identity()) {
                        self.broker.twins.release(self.link.identity());
                    }
                    return;
                },
            }
        }
    }

    /// Whether another took its place, or nobody wants it any more.
    fn is_closed(&self) -> bool {
        let current = self.broker.links.find(self.link.identity());
        !current.is_some_and(|current| Arc::ptr_eq(&current, &self.link))
    }

    async fn is_idle(&self) -> bool {
        let identity = self.link.identity();
        if *identity == self.broker.edge_hub {
            return false;
        }
        if !self.broker.links.is_reachable(identity) && !self.is_connected {
            // It is opened again with the link.
            return true;
        }
        let session = self.broker.directory.find(identity);
        let (is_child, all) = (
            self.broker.links.is_child(identity),
            session.map(|session| session.subscriptions()),
        );
        let (patience, is_needed) = if is_child {
            (CHILD_IDLE, all.is_some_and(needs_link))
        } else {
            (IDLE, all.is_some())
        };
        if is_needed || self.link.unused_for() < patience {
            return false;
        }
        // One that can't be read is not known to have nothing to send.
        let twin = self.broker.twins.read(identity).await;
        twin.is_ok_and(|twin| !twin.is_pending())
    }

    /// The connection of `$edgeHub` stands elsewhere than before. A node that refuses it answers: modules may be let in.
    fn answered(&self, state: &State) {
        let links = &self.broker.links;
        match state {
            State::Refused(_) if !links.refuses_edge_hub(true) => self.open_others(),
            State::Connected | State::Disconnected(_) => {
                links.refuses_edge_hub(false);
            }
            State::Refused(_) | State::Connecting => {}
        }
    }

    /// The node above answers: connections open that waited for it.
    fn open_others(&self) {
        let broker = Arc::clone(&self.broker);
        let opening = async move { broker.open_above().await };
        self.broker.scope.spawn_until_stopped(opening);
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                self.tell(true, None);
                self.broker.mail.resumed(self.link.identity());
                self.broker.links.changed();
                self.above = None;
                if *self.link.identity() == self.broker.edge_hub {
                    self.open_others();
                }
                self.synchronise().await;
            }
            Event::Disconnected(reason) => {
                self.is_connected = false;
                self.above = None;
                self.retry = None;
                self.tell(false, Some(reason));
                self.broker.mail.lost(self.link.identity());
                // Somebody above may have ended it: the device has another parent, another key, or is gone.
                if self.broker.links.is_child(self.link.identity()) && self.broker.links.is_up() {
                    self.broker.children.hint(self.link.identity());
                }
                self.broker.links.changed();
            }
            Event::Method(call) => {
                let (broker, identity) = (Arc::clone(&self.broker), self.link.identity().clone());
                // Bounded: a session takes so many calls at once, and the others are answered at once.
                self.broker
                    .scope
                    .spawn_until_stopped(async move { broker.call(&identity, call).await });
            }
            Event::DesiredChanged(Value::Object(changes)) => self.desired_changed(changes).await,
            Event::DesiredChanged(_) => {
                tracing::warn!(identity = %self.link.identity(), "a change of desired properties is no object; reading the twin");
                self.above = None;
                self.synchronise().await;
            }
            // Inputs are not subscribed above.
            Event::Message(message) => {
                if let Some((known, verdict)) =
                    self.broker
                        .mail
                        .arrived(self.link.identity(), message, self.broker.now())
                {
                    verdict.tell(known).await;
                }
            }
        }
    }

    /// The connection of `$edgeHub` is the link.
    fn tell(&self, connected: bool, reason: Option<String>) {
        let identity = self.link.identity();
        if *identity != self.broker.edge_hub {
            return tracing::debug!(%identity, connected, reason, "connection upstream");
        }
        tracing::info!(connected, reason, "link to the hub");
        self.broker.figures.link(connected);
        self.broker.links.tell(connected, reason);
    }

    async fn desired_changed(&mut self, changes: Map<String, Value>) {
        let identity = self.link.identity();
        let heard = self.broker.twins.change_then(
            identity,
            |replica| Ok(replica.hear(&changes)),
            |heard| {
                if *heard == Heard::Applied {
                    self.broker.tell_session(identity, &changes);
                }
            },
        );
        match heard.await {
            Ok(Heard::Applied) => self.broker.desired_changed(identity).await,
            Ok(Heard::Known) => tracing::trace!(%identity, "a desired change that is known already"),
            Ok(Heard::Missed) => {
                self.above = None;
                self.synchronise().await;
            }
            Err(error) => {
                tracing::warn!(%identity, %error, "a desired change was not kept; reading the twin again");
                self.above = None;
                self.try_later();
            }
        }
    }

    /// Makes both sides equal; on failure tries again later.
    async fn synchronise(&mut self) {
        if !self.is_connected {
            return;
        }
        self.retry = None;
        match self.try_synchronise().await {
            Ok(()) => self.wait = RETRY.0,
            Err(error) => {
                let error = holm_net::error_chain(&error);
                tracing::debug!(identity = %self.link.identity(), error, "twins could not be compared; trying again");
                self.above = None;
                self.try_later();
            }
        }
    }

    fn try_later(&mut self) {
        let id = self.link.identity().to_string();
        let retries = &self.broker.figures.retries;
        retries.of(&[&id, "synchronise_twin"]).increment();
        self.retry = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(RETRY.1);
    }

    async fn try_synchronise(&mut self) -> Result<(), SyncError> {
        let (client, identity) = (self.link.client(), self.link.identity());
        let twins = &self.broker.twins;
        let mut known = match self.above.take() {
            Some(known) => known,
            None => {
                let began = Instant::now().into_std();
                let twin = client.twin().await.map_err(SyncError::Above)?;
                let figures = &self.broker.figures;
                figures
                    .twins
                    .of(&[figures::UPSTREAM, &identity.to_string()])
                    .done(began);
                let above = Above::read(twin).ok_or(SyncError::Form)?;
                self.broker
                    .adopt(identity, &above, true)
                    .await
                    .map_err(SyncError::Kept)?;
                if *identity == self.broker.edge_hub {
                    self.broker.report.wake();
                }
                above.reported
            }
        };
        loop {
            let replica = twins.read(identity).await.map_err(SyncError::Kept)?;
            if !replica.is_pending() {
                break;
            }
            let (difference, reported) = (replica.difference_to(&known), replica.reported().clone());
            let version = if difference.is_empty() {
                Ok(None)
            } else {
                let began = Instant::now().into_std();
                let version = client.patch_reported(Value::Object(difference)).await;
                if version.is_ok() {
                    let reports = &self.broker.figures.reports;
                    reports.of(&[figures::UPSTREAM, &identity.to_string()]).done(began);
                }
                version
            };
            match version {
                Ok(version) => {
                    let confirm = twins.change(identity, |replica| {
                        replica.confirm(&reported, version);
                        Ok(())
                    });
                    confirm.await.map_err(SyncError::Kept)?;
                    known = reported;
                }
                // The patch breaks a rule that this edge does not know; it will not be right the next time.
                Err(TwinError::Refused {
                    status: status @ (400 | 413),
                    reason,
                }) => {
                    self.broker.counters.refused_reported.count();
                    tracing::warn!(%identity, status, reason, "the node above refused reported properties; they are dropped");
                    let give_up = twins.change(identity, |replica| {
                        replica.give_up(&known);
                        Ok(())
                    });
                    give_up.await.map_err(SyncError::Kept)?;
                }
                Err(error) => return Err(SyncError::Above(error)),
            }
        }
        self.above = Some(known);
        Ok(())
    }
}

/// What came over a connection is lost with it, however it ends; it comes again over the next.
struct Ending {
    broker: Arc<Broker>,
    link: Arc<Link>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.broker.mail.lost(self.link.identity());
    }
}

impl Broker {
    /// Calls a method of a module that is connected here, for somebody above.
    async fn call(&self, identity: &Identity, call: MethodCall) {
        let began = Instant::now().into_std();
        if *identity == self.edge_hub {
            let response = self.own_method(&call).await;
            return call.answer(response).await;
        }
        let response = match MethodRequest::new(call.name.clone(), call.payload.clone()) {
            Ok(request) => {
                let request = MethodRequest {
                    response_timeout: METHOD_PATIENCE,
                    ..request
                };
                self.directory
                    .invoke(identity, request)
                    .await
                    .unwrap_or_else(failed_call)
            }
            Err(error) => answer(400, &error.message),
        };
        self.method_called(None, identity, began);
        call.answer(response).await;
    }
}

impl Broker {
    /// The one method of `$edgeHub`: the hub is asked about the devices below this edge (`edge-broker.md` §4.2).
    async fn own_method(&self, call: &MethodCall) -> MethodResponse {
        if call.name != "RefreshDeviceScopeIdentityCache" {
            return answer(404, &format!("`$edgeHub` has no method `{}`", call.name));
        }
        // The devices that the call may name are looked at with all others.
        let named = call.payload.get("deviceIds");
        if named.is_some_and(|named| !named.is_array()) {
            return answer(400, "`deviceIds` must be an array of device ids");
        }
        match self.children.refresh().await {
            Ok(()) => MethodResponse {
                status: 200,
                payload: Value::Null,
            },
            Err(reason) => answer(500, &reason),
        }
    }
}

fn failed_call(error: InvokeError) -> MethodResponse {
    let status = match error {
        InvokeError::NotOnline => 404,
        InvokeError::NoAnswer => 504,
        InvokeError::BadAnswer => 502,
        InvokeError::TooManyCalls => 429,
    };
    answer(status, &error.to_string())
}

fn answer(status: i32, message: &str) -> MethodResponse {
    MethodResponse {
        status,
        payload: json!({ "message": message }),
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
