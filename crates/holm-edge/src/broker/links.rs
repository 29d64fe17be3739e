//! The connections upstream (over AMQP, which has one for all: sessions), one an identity: when they open and close, what arrives on them, and the state of the link.
//!
//! ```text
//!   ensure ──> Link ──task──> events:  Connected       read the twin, tell what is new, send what is pending
//!                                      DesiredChanged  apply, or read the whole twin
//!                                      Method          call the module, answer
//!                             wake:    reported properties are pending
//! ```
//!
//! `$edgeHub` is always open; its connection is what "the link" means, and while there is none it alone tries: the others open
//! when the node above answers it, and those that have no connection a minute or two after it fell silent are closed. A thousand
//! modules that each tried would cost memory and a storm of packets, and learn nothing that one does not.
//!
//! A module's is open while the module is connected here, or has messages to forward or reported properties to send, and an hour
//! longer. A child's is open only while it listens to something, has messages to forward or reported properties to send, and five
//! minutes longer: there may be thousands. There is at most one an identity. Closing one early loses nothing: what it had not
//! sent goes over the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use holm_client::client::State;
use holm_client::{Client, Interests};
use holm_gateway::Subscriptions;
use holm_model::{Identity, ModuleId, Timestamp};
use holm_net::{Clock, Scope};
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::serving::Serving;
use super::{Broker, lock};
use crate::children::Children;
use crate::keys::ModuleKeys;
use crate::uplink::{Refused, Uplink};

/// How long a new connection may take to come up before its sender counts as one that can't be sent for: a thousand may be on
/// their way at once, on a slow link.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Refused children that a status names.
const MAX_LISTED: usize = 100;

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

/// Names a connection above; never used twice while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source(u64);

impl Source {
    pub(super) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// The connection of one identity.
#[derive(Debug)]
pub(super) struct Link {
    identity: Identity,
    /// Names it to those who know what was sent over it.
    source: Source,
    client: Client,
    wake: Notify,
    opened: Instant,
    /// Whether an attempt to connect failed, or a connection was lost.
    has_failed: AtomicBool,
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

    /// Subscribes above to what somebody here listens to.
    pub(super) fn listen(&self, all: Subscriptions) {
        let mut interests = interests(all);
        // It has methods of its own.
        interests.methods |= self.identity.module.as_ref() == Some(&ModuleId::edge_hub());
        self.client.set_interests(interests);
    }

    /// How the node above answers the attempts to connect.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.client.state()
    }

    /// Until when its first connection is only late; `None` when there was one, or an attempt has failed.
    pub(super) fn is_awaited_until(&self) -> Option<Instant> {
        let has_failed = self.has_failed.load(Ordering::Relaxed);
        (!has_failed).then(|| self.opened + ARRIVAL)
    }

    /// An attempt to connect failed, or a connection was lost; says whether that is the first time.
    pub(super) fn failed(&self) -> bool {
        !self.has_failed.swap(true, Ordering::Relaxed)
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

    pub(super) const fn source(&self) -> Source {
        self.source
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

const fn interests(all: Subscriptions) -> Interests {
    Interests {
        methods: all.contains(Subscriptions::METHODS),
        desired_properties: true,
        cloud_to_device: all.contains(Subscriptions::CLOUD_TO_DEVICE),
        inputs: false,
    }
}

/// All connections upstream.
pub(super) struct Links {
    uplink: Uplink,
    keys: Arc<dyn ModuleKeys>,
    children: Arc<Children>,
    scope: Scope,
    clock: Clock,
    broker: Weak<Broker>,
    /// Held for map operations.
    open: Mutex<HashMap<Identity, Arc<Link>>>,
    changes: watch::Sender<u64>,
    state: watch::Sender<LinkState>,
    refuses_edge_hub: AtomicBool,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("uplink", &self.uplink)
            .finish_non_exhaustive()
    }
}

impl Links {
    pub(super) fn new(
        uplink: Uplink,
        keys: Arc<dyn ModuleKeys>,
        children: Arc<Children>,
        scope: Scope,
        clock: Clock,
        broker: Weak<Broker>,
    ) -> Self {
        let state = LinkState {
            connected: false,
            since: clock.now().into(),
            reason: None,
        };
        Self {
            uplink,
            keys,
            children,
            scope,
            clock,
            broker,
            open: Mutex::default(),
            changes: watch::Sender::new(0),
            state: watch::Sender::new(state),
            refuses_edge_hub: AtomicBool::new(false),
        }
    }

    /// The connection of an identity, opened if it is not. `None` when it is neither a module of this device nor below it (any
    /// more), and for all but `$edgeHub` while the node above is silent.
    pub(super) fn ensure(&self, identity: &Identity) -> Option<Arc<Link>> {
        if let Some(link) = self.find(identity) {
            link.touch();
            return Some(link);
        }
        let broker = self.broker.upgrade()?;
        // There is nothing to gain: when the node above answers again, `open_above` opens what is needed.
        let waits = !self.is_reachable(identity) && *identity != broker.edge_hub;
        if !self.is_ours(identity) || waits {
            return None;
        }
        let mut open = lock(&self.open);
        if let Some(link) = open.get(identity) {
            return Some(Arc::clone(link));
        }
        let nothing = interests(Subscriptions::NONE);
        let (client, events) = match &identity.module {
            Some(module) if !self.is_child(identity) => self.uplink.open(module, nothing),
            _ => self.uplink.open_child(identity, nothing),
        };
        let link = Arc::new(Link {
            identity: identity.clone(),
            source: Source::next(),
            client,
            wake: Notify::new(),
            opened: Instant::now(),
            has_failed: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        });
        // One that takes the place of another listens to what that one listened to.
        let session = broker.directory.find(identity);
        link.listen(session.map_or(Subscriptions::NONE, |session| session.subscriptions()));
        open.insert(identity.clone(), Arc::clone(&link));
        self.scope
            .spawn_until_stopped(Serving::new(broker, Arc::clone(&link)).run(events));
        Some(link)
    }

    pub(super) fn find(&self, identity: &Identity) -> Option<Arc<Link>> {
        lock(&self.open).get(identity).cloned()
    }

    /// Whether it is a module of this device or below it, let in or not.
    pub(super) fn is_ours(&self, identity: &Identity) -> bool {
        if self.is_child(identity) {
            return self.children.contains(identity);
        }
        let generation = identity.module.as_ref().and_then(|module| self.keys.generation(module));
        generation.is_some()
    }

    /// Whether it is of another device: a child, if it is ours.
    pub(super) fn is_child(&self, identity: &Identity) -> bool {
        identity.device != *self.keys.device()
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

    /// The identities that the node above refuses; of children the first hundred.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let mut all = self.uplink.refusals().list();
        all.extend(self.uplink.child_refusals().list().into_iter().take(MAX_LISTED));
        all
    }

    /// Whether the node above can be reached.
    pub(super) fn is_up(&self) -> bool {
        self.state.borrow().connected
    }

    /// Whether somebody may try to connect: the link is up. Modules speak for themselves, and a node that refuses `$edgeHub` may
    /// let them in.
    pub(super) fn is_reachable(&self, identity: &Identity) -> bool {
        self.is_up() || (!self.is_child(identity) && self.refuses_edge_hub.load(Ordering::Relaxed))
    }

    /// The node above answers, and does not let `$edgeHub` in; or that has ended. Says whether that was known.
    pub(super) fn refuses_edge_hub(&self, refuses: bool) -> bool {
        self.refuses_edge_hub.swap(refuses, Ordering::Relaxed) == refuses
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

    pub(super) fn protocol(&self) -> &'static str {
        self.uplink.transport().name()
    }

    pub(super) fn window(&self) -> usize {
        self.uplink.window()
    }

    pub(super) fn tell(&self, connected: bool, reason: Option<String>) {
        self.state.send_replace(LinkState {
            connected,
            since: self.clock.now().into(),
            reason,
        });
    }
}
