//! The connections upstream, one an identity: when they open and close, what arrives on them, and the state of the link.
//!
//! ```text
//!   ensure ──> Link ──task──> events:  Connected       read the twin, tell what is new, send what is pending
//!                                      DesiredChanged  apply, or read the whole twin
//!                                      Method          call the module, answer
//!                             wake:    reported properties are pending
//! ```
//!
//! `$edgeHub` is always open; its connection is what "the link" means. A module's is open while the module is connected here,
//! or has messages to forward or reported properties to send, and an hour longer. There is at most one a module of this
//! device. Closing one early loses nothing: what it had not sent goes over the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use holm_client::client::State;
use holm_client::{Client, Event, Events, Interests, MethodCall, TwinError};
use holm_gateway::InvokeError;
use holm_model::method::{MethodRequest, MethodResponse};
use holm_model::{Identity, Timestamp};
use holm_net::Scope;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::replica::{Above, Heard};
use super::{Broker, lock};
use crate::keys::ModuleKeys;
use crate::uplink::Uplink;

/// How long a connection that nobody needs stays open.
const IDLE: Duration = Duration::from_secs(3600);
/// How often it is looked whether one is still needed.
const IDLE_CHECK: Duration = Duration::from_secs(60);
/// The first and the longest wait before twins are compared again after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// The longest that anybody may wait for the answer of a method: whoever called from above gives up earlier.
const METHOD_PATIENCE: Duration = Duration::from_secs(300);

/// The state of the link to the node above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkState {
    /// Whether the node above can be reached.
    pub connected: bool,
    /// Since when.
    pub since: Timestamp,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The connection of one identity.
#[derive(Debug)]
pub(super) struct Link {
    identity: Identity,
    client: Client,
    wake: Notify,
    /// When it was last asked for; held for a copy.
    used: Mutex<Instant>,
}

impl Link {
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Says that reported properties are pending.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Subscribes to methods above while somebody here listens to them.
    pub(super) fn listen_to_methods(&self, methods: bool) {
        self.client.set_interests(interests(methods));
    }

    /// Waits for the connection.
    pub(super) async fn connected(&self) -> Result<(), String> {
        let mut state = self.client.state();
        let connected = state.wait_for(|state| *state == State::Connected).await;
        connected.map(|_| ()).map_err(|_| "the client has stopped".to_owned())
    }

    fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }
}

const fn interests(methods: bool) -> Interests {
    Interests {
        methods,
        desired_properties: true,
        cloud_to_device: false,
        inputs: false,
    }
}

/// All connections upstream.
pub(super) struct Links {
    uplink: Uplink,
    keys: Arc<dyn ModuleKeys>,
    scope: Scope,
    broker: Weak<Broker>,
    /// Held for map operations.
    open: Mutex<HashMap<Identity, Arc<Link>>>,
    changes: watch::Sender<u64>,
    state: watch::Sender<LinkState>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("uplink", &self.uplink)
            .finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(uplink: Uplink, keys: Arc<dyn ModuleKeys>, scope: Scope, broker: Weak<Broker>) -> Self {
        let state = LinkState {
            connected: false,
            since: super::now(),
            reason: None,
        };
        Self {
            uplink,
            keys,
            scope,
            broker,
            open: Mutex::default(),
            changes: watch::Sender::new(0),
            state: watch::Sender::new(state),
        }
    }

    /// The connection of an identity, opened if it is not. `None` when it is no module of this device (any more).
    pub(super) fn ensure(&self, identity: &Identity) -> Option<Arc<Link>> {
        if let Some(link) = self.find(identity) {
            link.touch();
            return Some(link);
        }
        if !self.is_ours(identity) {
            return None;
        }
        let (module, broker) = (identity.module.as_ref()?, self.broker.upgrade()?);
        let mut open = lock(&self.open);
        if let Some(link) = open.get(identity) {
            return Some(Arc::clone(link));
        }
        let (client, events) = self.uplink.open(module, interests(false));
        let link = Arc::new(Link {
            identity: identity.clone(),
            client,
            wake: Notify::new(),
            used: Mutex::new(Instant::now()),
        });
        open.insert(identity.clone(), Arc::clone(&link));
        self.scope
            .spawn_until_stopped(Serving::new(broker, Arc::clone(&link)).run(events));
        Some(link)
    }

    pub(super) fn find(&self, identity: &Identity) -> Option<Arc<Link>> {
        lock(&self.open).get(identity).cloned()
    }

    pub(super) fn is_ours(&self, identity: &Identity) -> bool {
        let generation = identity.module.as_ref().and_then(|module| self.keys.generation(module));
        identity.device == *self.keys.device() && generation.is_some()
    }

    /// Closes a connection as soon as nobody uses it.
    pub(super) fn close(&self, identity: &Identity) {
        if let Some(link) = lock(&self.open).remove(identity) {
            link.wake();
        }
    }

    /// The open connections whose identity is no more.
    pub(super) fn without_keys(&self) -> Vec<Identity> {
        let all: Vec<_> = lock(&self.open).keys().cloned().collect();
        all.into_iter().filter(|identity| !self.is_ours(identity)).collect()
    }

    /// How many connections are up, and how many are open.
    pub(super) fn count(&self) -> (usize, usize) {
        let open = lock(&self.open);
        let up = open.values().filter(|link| link.client.is_connected()).count();
        (up, open.len())
    }

    /// Whether the node above can be reached.
    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().connected
    }

    /// The state of the link, with what keeps it down now.
    pub(super) fn describe(&self, edge_hub: &Identity) -> LinkState {
        let mut state = self.state.borrow().clone();
        if let Some(link) = self.find(edge_hub)
            && !state.connected
            && let State::Disconnected(reason) = &*link.client.state().borrow()
        {
            state.reason = Some(reason.clone());
        }
        state
    }

    /// The state of the link, and how it changes.
    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Changes when a connection came or went.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn window(&self) -> usize {
        self.uplink.window()
    }

    fn tell(&self, connected: bool, reason: Option<String>) {
        self.state.send_replace(LinkState {
            connected,
            since: super::now(),
            reason,
        });
    }
}

/// The task of one connection.
struct Serving {
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
    const fn new(broker: Arc<Broker>, link: Arc<Link>) -> Self {
        Self {
            broker,
            link,
            is_connected: false,
            above: None,
            retry: None,
            wait: RETRY.0,
        }
    }

    async fn run(mut self, mut events: Events) {
        let mut idle = tokio::time::interval(IDLE_CHECK);
        idle.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.handle(event).await,
                    None => return,
                },
                () = self.link.wake.notified() => {
                    if self.is_closed() {
                        return;
                    }
                    self.synchronise().await;
                }
                () = until(self.retry) => self.synchronise().await,
                _ = idle.tick() => if self.is_idle().await {
                    tracing::debug!(identity = %self.link.identity, "nobody needs the connection any more; closing it");
                    self.broker.links.close(&self.link.identity);
                    return;
                },
            }
        }
    }

    /// Whether another took its place, or nobody wants it any more.
    fn is_closed(&self) -> bool {
        let current = self.broker.links.find(&self.link.identity);
        !current.is_some_and(|current| Arc::ptr_eq(&current, &self.link))
    }

    async fn is_idle(&self) -> bool {
        let identity = &self.link.identity;
        let is_recent = lock(&self.link.used).elapsed() < IDLE;
        if is_recent || *identity == self.broker.edge_hub || self.broker.directory.find(identity).is_some() {
            return false;
        }
        // One that can't be read is not known to have nothing to send.
        let twin = self.broker.twins.read(identity).await;
        twin.is_ok_and(|twin| !twin.is_pending())
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.is_connected = true;
                self.tell(true, None);
                self.broker.links.changed();
                self.above = None;
                self.synchronise().await;
            }
            Event::Disconnected(reason) => {
                self.is_connected = false;
                self.above = None;
                self.retry = None;
                self.tell(false, Some(reason));
                self.broker.links.changed();
            }
            Event::Method(call) => {
                let (broker, identity) = (Arc::clone(&self.broker), self.link.identity.clone());
                // Bounded: a session takes so many calls at once, and the others are answered at once.
                self.broker
                    .scope
                    .spawn_until_stopped(async move { broker.call(&identity, call).await });
            }
            Event::DesiredChanged(Value::Object(changes)) => self.desired_changed(changes).await,
            Event::DesiredChanged(_) => {
                tracing::warn!(identity = %self.link.identity, "a change of desired properties is no object; reading the twin");
                self.above = None;
                self.synchronise().await;
            }
            // Nothing is subscribed that brings messages.
            Event::Message(message) => message.complete().await,
        }
    }

    /// The connection of `$edgeHub` is the link.
    fn tell(&self, connected: bool, reason: Option<String>) {
        let identity = &self.link.identity;
        if *identity != self.broker.edge_hub {
            return tracing::debug!(%identity, connected, reason, "connection upstream");
        }
        tracing::info!(connected, reason, "link to the hub");
        self.broker.links.tell(connected, reason);
    }

    async fn desired_changed(&mut self, changes: Map<String, Value>) {
        let identity = &self.link.identity;
        match self
            .broker
            .twins
            .change(identity, |replica| Ok(replica.hear(&changes)))
            .await
        {
            Ok(Heard::Applied) => self.broker.tell_desired(identity, changes).await,
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
                tracing::debug!(identity = %self.link.identity, error, "twins could not be compared; trying again");
                self.above = None;
                self.try_later();
            }
        }
    }

    fn try_later(&mut self) {
        self.retry = Some(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(RETRY.1);
    }

    async fn try_synchronise(&mut self) -> Result<(), SyncError> {
        let (client, identity) = (&self.link.client, &self.link.identity);
        let twins = &self.broker.twins;
        let mut known = match self.above.take() {
            Some(known) => known,
            None => {
                let twin = client.twin().await.map_err(SyncError::Above)?;
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
                client.patch_reported(Value::Object(difference)).await
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

impl Broker {
    /// Calls a method of a module that is connected here, for somebody above.
    async fn call(&self, identity: &Identity, call: MethodCall) {
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
        call.answer(response).await;
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
