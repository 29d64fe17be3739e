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
use holm_client::{Client, Interests};
use holm_gateway::Subscriptions;
use holm_model::{Identity, Timestamp};
use holm_net::Scope;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::serving::Serving;
use super::{Broker, lock};
use crate::keys::ModuleKeys;
use crate::uplink::{Refused, Uplink};

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

    pub(super) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits for [`Link::wake`], or returns at once when that was before.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// For how long nobody has asked for it.
    pub(super) fn unused_for(&self) -> Duration {
        lock(&self.used).elapsed()
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
        // A connection that takes the place of another wants what that one wanted.
        let session = broker.directory.find(identity);
        let methods = session.is_some_and(|session| session.subscriptions().contains(Subscriptions::METHODS));
        let (client, events) = self.uplink.open(module, interests(methods));
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

    /// The identities that the node above refuses.
    pub(super) fn refused(&self) -> Vec<Refused> {
        self.uplink.refusals().list()
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
            && let State::Disconnected(reason) | State::Refused(reason) = &*link.client.state().borrow()
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

    pub(super) fn tell(&self, connected: bool, reason: Option<String>) {
        self.state.send_replace(LinkState {
            connected,
            since: super::now(),
            reason,
        });
    }
}
