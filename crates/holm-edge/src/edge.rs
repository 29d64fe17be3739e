//! The edge, put together: what opens first, who knows whom, and what ends when.
//!
//! ```text
//!   configuration --> security (keys, certificates) --> identities (who the modules are)
//!                                                           |
//!        hub <--- uplink <--- broker (queue, routes) <--- gateway <--- modules    (MQTT, WebSocket, HTTPS)
//!                    ^            agent (plan, carry out) ---> runtimes ---> modules
//!                    '--------------'          workload sockets <---------------'
//!                                              management socket <--- operators
//! ```
//!
//! Nothing here waits for the hub: what was known last is enough to start with.

mod listeners;
mod platform;
mod start;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_gateway::{CloseReason, Gateway};
use holm_identity::tls::TlsError;
use holm_model::manifest::BuildVersion;
use holm_net::{Clock, ListeningSockets, Scope};
use holm_runtime::{EdgeNetwork, RuntimeError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::agent::Agent;
use crate::broker::{Broker, OpenBrokerError};
use crate::children::Children;
use crate::config::EdgeConfig;
use crate::identities::IdentitiesError;
use crate::local_api::SocketError;
use crate::management::Wish;
use crate::metrics::{EdgeMetrics, Labels};
use crate::own_log::OwnLog;
use crate::security::{Security, SecurityError};
use crate::state::{OpenStateError, Rescue, State, StateError};
use crate::steady::SteadyClock;
use crate::uplink::Refusals;
use crate::usage::Usage;

pub use listeners::Entrance;
use listeners::{Addresses, Listeners};
pub use platform::Platform;

/// How long tasks may take to end at a stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartEdgeError {
    /// Its data directory can't be made.
    #[error("the data directory `{path}` can't be made")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another edge uses the data directory.
    #[error(
        "the data directory `{path}` is locked by another edge; stop that one or give another directory in `holm.data`"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Keys or certificates can't be used.
    #[error("keys and certificates can't be used")]
    Security(#[source] SecurityError),
    /// What is known of the modules can't be used.
    #[error("the identities can't be used")]
    Identities(#[source] IdentitiesError),
    /// The state can't be used.
    #[error("the state can't be used")]
    State(#[source] OpenStateError),
    /// What the agent remembers can't be read.
    #[error("the deployment can't be read")]
    Agent(#[source] StateError),
    /// The broker can't be opened.
    #[error("the broker can't be opened")]
    Broker(#[source] OpenBrokerError),
    /// There is no randomness to be had.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// TLS can't be set up.
    #[error("TLS can't be set up")]
    Tls(#[source] TlsError),
    /// The container engine's address can't be used.
    #[error("the container engine can't be used")]
    Engine(#[source] RuntimeError),
    /// An address can't be listened on.
    #[error("a port can't be used")]
    Listen(#[source] std::io::Error),
    /// A socket can't be served.
    #[error("a socket can't be served")]
    Socket(#[source] SocketError),
}

/// The program that an edge runs in.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file: what supervises process modules and runs the ready-made ones.
    pub file: PathBuf,
    /// The names of those.
    pub ready_made: Vec<String>,
    /// Which build it is.
    pub build: String,
    /// What it listens on; with what the process before has left it.
    pub sockets: ListeningSockets,
    /// What it logs.
    pub own_log: OwnLog,
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    scope: Scope,
    sockets: ListeningSockets,
    wishes: mpsc::Receiver<Wish>,
    state: State,
    broker: Arc<Broker>,
    standing: Standing,
    security: Arc<Security>,
    children: Arc<Children>,
    gateway: Gateway<BrokerBackend>,
    entrance: Listeners,
    clock: Clock,
    usage: Usage,
    labels: Labels,
    network: watch::Receiver<Option<EdgeNetwork>>,
    addresses: Addresses,
    refusals: Refusals,
    /// Held as long as the edge runs.
    _lock: File,
}

/// What the gateway serves: the broker.
pub type BrokerBackend = Broker;

impl Edge {
    /// Starts an edge in this program.
    ///
    /// # Errors
    /// [`StartEdgeError`].
    pub async fn start(config: EdgeConfig, program: Program) -> Result<Self, StartEdgeError> {
        Self::start_on(Platform::default(), config, program).await
    }

    /// Where MQTT is served.
    #[must_use]
    pub const fn mqtt_address(&self) -> SocketAddr {
        self.addresses.mqtt
    }

    /// Where AMQP is served.
    #[must_use]
    pub const fn amqp_address(&self) -> SocketAddr {
        self.addresses.amqp
    }

    /// Where HTTPS is served.
    #[must_use]
    pub const fn https_address(&self) -> SocketAddr {
        self.addresses.https
    }

    /// Where streams come in that no port has accepted. It outlives the edge, and then serves nobody.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        Entrance::of(self.entrance.clone())
    }

    /// The broker.
    #[must_use]
    pub const fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Owns the edge's tasks.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How the edge stands: `/holm/v1/status`.
    #[must_use]
    pub fn status(&self) -> Box<dyn Fn() -> Value + Send + Sync> {
        self.standing.clone().tell()
    }

    /// What an operator next wants of the process. Cancel-safe.
    pub async fn wish(&mut self) -> Wish {
        match self.wishes.recv().await {
            Some(wish) => wish,
            // The management API has ended.
            None => std::future::pending().await,
        }
    }

    /// The edge's figures.
    #[must_use]
    pub fn metrics(&self) -> EdgeMetrics {
        EdgeMetrics {
            broker: Arc::clone(&self.broker),
            agent: self.standing.agent.clone(),
            gateway: self.gateway.clone(),
            usage: self.usage.clone(),
            labels: self.labels.clone(),
        }
    }

    /// The device's address in the containers' network, as soon as the engine tells it. Cancel-safe.
    pub fn address_for_containers(&self) -> impl Future<Output = IpAddr> + Send + use<> {
        let mut network = self.network.clone();
        async move {
            let found = network.wait_for(Option::is_some).await;
            match found
                .ok()
                .and_then(|found| found.as_ref().map(|network| network.gateway))
            {
                Some(address) => address,
                // The edge has ended.
                None => std::future::pending().await,
            }
        }
    }

    /// Whom the hub refuses now.
    #[must_use]
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Tells whether the edge's data reaches the disk; if not, why.
    #[must_use]
    pub fn health(&self) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
        let broker = Arc::clone(&self.broker);
        Box::new(move || broker.health())
    }

    /// Reads certificates anew, as after SIGHUP.
    ///
    /// # Errors
    /// [`SecurityError`]; what was there stays.
    pub fn reload(&self) -> Result<(), SecurityError> {
        self.security.reload(self.clock.now().into())?;
        self.children.trust(self.security.operators_authorities()?);
        Ok(())
    }

    /// Stops the edge in good order. Modules go on: they find it again when it returns.
    pub async fn stop(self) {
        self.end().await;
    }

    /// Stops the edge as [`Edge::stop`] does, and gives what it listened on to the program that goes on: clients that come
    /// meanwhile wait and are refused nothing.
    #[must_use]
    pub async fn hand_over(self) -> ListeningSockets {
        let sockets = self.sockets.clone();
        sockets.keep();
        self.end().await;
        sockets
    }

    async fn end(self) {
        self.gateway.close_all(CloseReason::ShuttingDown);
        if let Err(left) = self.scope.drain(DRAIN_DEADLINE).await {
            tracing::warn!(left, "tasks were still running at the stop");
        }
        self.broker.close().await;
        self.state.close().await;
    }
}

/// What `$edgeAgent` and `$edgeHub` report as their version.
fn version() -> BuildVersion {
    BuildVersion {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..BuildVersion::default()
    }
}

/// What knows how the edge stands.
#[derive(Clone, Debug)]
struct Standing {
    broker: Arc<Broker>,
    agent: Agent,
    steady: Option<Arc<SteadyClock>>,
    rescue: Option<Rescue>,
    build: String,
    started: String,
}

impl Standing {
    fn tell(self) -> Box<dyn Fn() -> Value + Send + Sync> {
        Box::new(move || {
            let broker = self.broker.status();
            let mut status = json!(broker);
            status["build"] = json!(self.build);
            status["startedAt"] = json!(self.started);
            status["upstream"]["depth"] = json!(broker.upstream.messages);
            status["agent"] = self.agent.status();
            if let Some(clock) = &self.steady {
                status["clockMoves"] = json!(clock.moves());
            }
            if let Some(Rescue { kept, damage, rows }) = &self.rescue {
                status["damagedState"] = json!({"kept": kept.display().to_string(), "damage": damage, "rows": rows});
            }
            status
        })
    }
}
