//! The way to the node above: one carrier that holds many identities, each of which speaks as itself.
//!
//! ```text
//!   open($edgeHub)   ─┐
//!   open(sensor)    ──┼── a connection each (MQTT), or a session each of one connection (AMQP) ──> hub or parent
//!   open_child(leaf) ─┘   tokens signed by `ModuleKeys`: a module's with its own key, a child's with that of `$edgeHub`
//! ```
//!
//! Over MQTT an identity costs a connection; over AMQP up to 995 share one. Nothing outside of this module depends on which
//! it is.

mod refusals;
mod tokens;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use holm_client::{Client, Connections, Credential, Endpoint, Events, Interests, Options, Transport};
use holm_model::{Identity, ModuleId};
use holm_net::{Clock, Dialer, Scope};
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use crate::keys::ModuleKeys;
pub use refusals::{Refusals, Refused};
use tokens::ModuleTokens;

/// Where the node above is, and how to talk to it.
#[derive(Clone, Debug)]
pub struct UplinkSettings {
    /// Host and port to connect to. The name in tokens and user names is [`ModuleKeys::hub_host`].
    pub endpoint: Endpoint,
    /// What carries the protocol. Default: MQTT over TLS.
    pub transport: Transport,
    /// Whom to trust.
    pub tls: Arc<ClientConfig>,
    /// How often a silent connection is proved alive. Default 30 s: a dead link is noticed within 60 s (the answer may take
    /// 30 s), and later by what a large message on its way takes at 600 bytes a second.
    pub keep_alive: Duration,
    /// The longest wait between two attempts to connect. Default 30 s.
    pub longest_retry_wait: Duration,
    /// Messages of one identity that are sent and not acknowledged. Default 100.
    pub window: usize,
    /// Tells the time of day. Default: the system's clock.
    pub clock: Clock,
    /// How the endpoint is reached. Default: TCP.
    pub dialer: Dialer,
}

impl UplinkSettings {
    /// Settings with the defaults.
    #[must_use]
    pub fn new(endpoint: Endpoint, tls: Arc<ClientConfig>) -> Self {
        Self {
            endpoint,
            transport: Transport::Mqtt,
            tls,
            keep_alive: Duration::from_secs(30),
            longest_retry_wait: Duration::from_secs(30),
            window: 100,
            clock: Clock::system(),
            dialer: Dialer::default(),
        }
    }
}

/// Opens connections to the node above in the name of this device's modules and of the devices below it. Clones are the same carrier.
#[derive(Clone)]
pub struct Uplink {
    settings: Arc<UplinkSettings>,
    keys: Arc<dyn ModuleKeys>,
    scope: Scope,
    /// What all share over AMQP.
    connections: Connections,
    refusals: Refusals,
    child_refusals: Refusals,
    /// In which modules connect, but for the runtime's own.
    module_turns: Arc<Semaphore>,
    /// In which children connect.
    turns: Arc<Semaphore>,
}

/// Modules, and children, that connect at a time: a few handshakes fill a small device's processor, and the last of more would
/// be given up on a slow link before it had its turn.
const TURNS: usize = 8;

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Uplink {
    /// A carrier whose connections live in a scope.
    #[must_use]
    pub fn new(settings: UplinkSettings, keys: Arc<dyn ModuleKeys>, scope: Scope) -> Self {
        Self {
            settings: Arc::new(settings),
            keys,
            connections: Connections::new(scope.clone()),
            scope,
            refusals: Refusals::default(),
            child_refusals: Refusals::default(),
            module_turns: Arc::new(Semaphore::new(TURNS)),
            turns: Arc::new(Semaphore::new(TURNS)),
        }
    }

    /// The children that the node above refuses.
    #[must_use]
    pub fn child_refusals(&self) -> Refusals {
        self.child_refusals.clone()
    }

    /// The same, noting whom the node above refuses in a list that others keep too.
    #[must_use]
    pub fn with_refusals(mut self, refusals: Refusals) -> Self {
        self.refusals = refusals;
        self
    }

    /// The modules of this device that the node above refuses.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.refusals.clone()
    }

    /// Connects as a module of this device, and comes back for ever, until client and events are dropped. At the node above
    /// an identity has one connection, so whoever opens an identity is its only user: the broker opens `$edgeHub` and the
    /// modules that are connected to it, the agent opens `$edgeAgent`.
    #[must_use]
    pub fn open(&self, module: &ModuleId, interests: Interests) -> (Client, Events) {
        let identity = Identity::of_module(self.keys.device().clone(), module.clone());
        let mut options = self.options(identity, module, interests);
        if ![ModuleId::edge_hub(), ModuleId::edge_agent()].contains(module) {
            options.turns = Some(Arc::clone(&self.module_turns));
        }
        self.start(options, self.refusals.clone())
    }

    /// Connects as a device below this edge, or as a module of one: as [`Uplink::open`], with the key of `$edgeHub`.
    #[must_use]
    pub fn open_child(&self, child: &Identity, interests: Interests) -> (Client, Events) {
        let mut options = self.options(child.clone(), &ModuleId::edge_hub(), interests);
        let device = self.keys.device();
        options.auth_chain = Some(match &child.module {
            None => format!("{child};{device}"),
            Some(_) => format!("{child};{};{device}", child.device),
        });
        options.turns = Some(Arc::clone(&self.turns));
        self.start(options, self.child_refusals.clone())
    }

    fn options(&self, identity: Identity, signer: &ModuleId, interests: Interests) -> Options {
        let tokens = ModuleTokens::new(Arc::clone(&self.keys), signer.clone(), identity.clone());
        let settings = self.settings.as_ref();
        let mut options = Options::new(
            identity,
            self.keys.hub_host(),
            Credential::Tokens(Arc::new(tokens)),
            Arc::clone(&settings.tls),
        );
        options.endpoint = settings.endpoint.clone();
        options.transport = settings.transport;
        options.connections = Some(self.connections.clone());
        options.interests = interests;
        options.keep_alive = settings.keep_alive;
        options.longest_retry_wait = settings.longest_retry_wait;
        options.window = settings.window;
        options.clock = settings.clock.clone();
        options.dialer = settings.dialer.clone();
        options.user_agent = concat!("holm-edge/", env!("CARGO_PKG_VERSION")).to_owned();
        options
    }

    fn start(&self, options: Options, refusals: Refusals) -> (Client, Events) {
        let (client, events) = Client::start(&self.scope, options);
        let (identity, state) = (client.identity().clone(), client.state());
        self.scope.spawn_until_stopped(refusals.follow(identity, state));
        (client, events)
    }

    /// What carries the protocol.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.settings.transport
    }

    /// Messages of one identity that may be sent and not acknowledged.
    #[must_use]
    pub fn window(&self) -> usize {
        self.settings.window.max(1)
    }
}
