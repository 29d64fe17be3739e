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

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_client::{Endpoint, Interests};
use holm_gateway::{CloseReason, Gateway, Profile};
use holm_identity::ProofOfKeyVerifier;
use holm_identity::tls::{TlsError, server_config};
use holm_model::manifest::BuildVersion;
use holm_model::{ModuleId, Timestamp};
use holm_net::http::Client;
use holm_net::{Clock, ListeningSockets, Scope};
use holm_queue::{Clock as QueueClock, Options as QueueOptions};
use holm_runtime::{
    DockerConfig, DockerRuntime, EdgeNetwork, ModuleRuntime, ProcessConfig, ProcessRuntime, RuntimeError,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::agent::{self, Agent, AgentParts, Surroundings};
use crate::broker::{Broker, BrokerOptions, OpenBrokerError};
use crate::children::{self, Children, Keeper, KeeperParts, ScopeApi};
use crate::config::EdgeConfig;
use crate::data_directory;
use crate::front::Front;
use crate::identities::{Identities, IdentitiesError, IdentitiesOptions};
use crate::keys::ModuleKeys;
use crate::local_api::SocketError;
use crate::management::{self, Managed, Wish};
use crate::metrics::{EdgeMetrics, Labels};
use crate::own_log::OwnLog;
use crate::runtimes::Runtimes;
use crate::security::{Security, SecurityError, SecurityOptions};
use crate::state::{OpenStateError, Rescue, State, StateError, Vault};
use crate::steady::SteadyClock;
use crate::uplink::{Uplink, UplinkSettings};
use crate::usage::Usage;
use crate::workload::Sockets;

pub use listeners::Entrance;
use listeners::{ContainerListeners, Listeners};
pub use platform::Platform;

/// How long tasks may take to end at a stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long sockets of the process before are kept for an address that may yet be wanted: that of the containers' network,
/// which the engine has to tell.
const UNUSED_SOCKETS: Duration = Duration::from_secs(60);

/// What the agent wants to hear of the hub.
const AGENT_INTERESTS: Interests = Interests {
    methods: true,
    desired_properties: true,
    cloud_to_device: false,
    inputs: false,
};

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
    mqtt: SocketAddr,
    https: SocketAddr,
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

    /// [`Edge::start`] on something else than this machine.
    ///
    /// # Errors
    /// [`StartEdgeError`].
    pub async fn start_on(platform: Platform, config: EdgeConfig, program: Program) -> Result<Self, StartEdgeError> {
        let (clock, dialer) = (platform.clock, platform.dialer);
        let Program {
            file,
            ready_made,
            build,
            sockets,
            own_log,
        } = program;
        let data = &config.data;
        let lock = data_directory::open(data)?;
        let scope = Scope::new();
        let security = Security::open(SecurityOptions::from_config(&config), clock.now().into()).await;
        let security = Arc::new(security.map_err(StartEdgeError::Security)?);
        scope.spawn(Arc::clone(&security).run(scope.clone(), clock.clone()));
        let steady = match platform.lives {
            Some(_) => None,
            None => Some(Arc::new(SteadyClock::open(data))),
        };
        let mut upstream_tls = security.upstream_tls().map_err(StartEdgeError::Security)?;
        upstream_tls.time_provider = Arc::new(clock.clone());
        let upstream_tls = Arc::new(upstream_tls);
        let upload_tls = Arc::clone(&upstream_tls);
        #[cfg(feature = "otel")]
        let otel_tls = Arc::clone(&upstream_tls);
        let hub =
            Client::new(Arc::clone(&upstream_tls), &config.hub.host, config.hub.https_port).with_dialer(dialer.clone());
        let identities = IdentitiesOptions {
            cache: data.join("identities.json"),
            hub: hub.clone(),
            timeout: config.cloud_timeout,
            clock: clock.clone(),
        };
        let identities = Identities::open(Arc::clone(&security), identities).map_err(StartEdgeError::Identities)?;
        let identities = Arc::new(identities);
        let keys: Arc<dyn ModuleKeys> = Arc::<Identities>::clone(&identities);
        let vault = Vault::open(Arc::clone(security.keys())).await;
        let vault = vault.map_err(|error| StartEdgeError::Security(SecurityError::KeyStore(error)))?;
        let state = State::open(&data.join("state.db"), vault)
            .await
            .map_err(StartEdgeError::State)?;
        let rescue = state.rescue().cloned();
        let (known, asks) = Children::new();
        known.trust(security.operators_roots().map_err(StartEdgeError::Security)?);
        children::restore(&known, &state).await;
        let known = Arc::new(known);

        let endpoint = Endpoint {
            host: config.hub.host.clone(),
            port: config.hub.mqtt_port,
        };
        let uplink = Uplink::new(
            UplinkSettings {
                keep_alive: config.keep_alive,
                clock: clock.clone(),
                dialer: dialer.clone(),
                ..UplinkSettings::new(endpoint, upstream_tls)
            },
            Arc::clone(&keys),
            scope.clone(),
        );
        let options = BrokerOptions {
            hostname: config.hostname.clone(),
            version: version(),
            children: Arc::clone(&known),
            queue: QueueOptions {
                clock: match (platform.lives, &steady) {
                    (Some(lives), _) => lives,
                    (None, Some(steady)) => queue_clock(steady),
                    (None, None) => QueueClock::default(),
                },
                ..QueueOptions::default()
            },
            memory_bytes: config.messages_in_memory,
            scope: scope.clone(),
            clock: clock.clone(),
        };
        let directory = data.join("queue");
        let (for_broker, uplink_of_broker) = (Arc::clone(&keys), uplink.clone());
        let broker = match platform.messages {
            Some(files) => Broker::open_on(files, for_broker, uplink_of_broker, state.clone(), options).await,
            None => Broker::open(&directory, for_broker, uplink_of_broker, state.clone(), options).await,
        };
        let broker = broker.map_err(StartEdgeError::Broker)?;
        // Now that nothing of the data was refused, something may be written beside it.
        if let Some(watched) = steady.clone() {
            let (certified, clock) = (Arc::clone(&security), clock.clone());
            scope.spawn_until_stopped(async move { watched.watch(|| certified.look_after(&clock)).await });
        }
        let keeper = Keeper::new(KeeperParts {
            children: Arc::clone(&known),
            asks,
            api: ScopeApi::new(Arc::clone(&keys), hub, config.cloud_timeout, clock.clone()),
            state: state.clone(),
            link: broker.link(),
            refusals: uplink.child_refusals(),
        });
        scope.spawn_until_stopped(keeper.run());
        let gateway = Gateway::new(
            Arc::clone(&broker),
            Arc::clone(broker.directory()),
            Profile::edge(),
            scope.clone(),
        )
        .with_clock(clock.clone());

        let tls = server_config(security.server_certificate().clone(), Arc::new(ProofOfKeyVerifier));
        let mut tls = tls.map_err(StartEdgeError::Tls)?;
        tls.time_provider = Arc::new(clock.clone());
        let listeners = Listeners {
            gateway: gateway.clone(),
            front: Arc::new(Front::new(gateway.clone(), config.device.clone())),
            tls: Arc::new(tls),
            sockets: sockets.clone(),
            scope: scope.clone(),
        };
        let (mqtt, https) = listeners.open(config.bind, config.mqtt_port, config.https_port)?;

        let docker = DockerRuntime::new(DockerConfig {
            endpoint: config.engine_uri.clone(),
            network: config.network.clone(),
            edge_hostname: Some(config.hostname.clone()),
            instance: None,
            allow_elevated: config.allow_elevated_docker_permissions,
            log: config.log,
        });
        let docker = Arc::new(docker.map_err(StartEdgeError::Engine)?);
        let network = watch::Sender::new(None);
        let process = ProcessRuntime::new(ProcessConfig {
            log: config.log,
            ready_made,
            ..ProcessConfig::new(data.join("processes"), config.module_paths.clone(), file)
        });
        let runtimes = platform.runtimes.unwrap_or_else(|| {
            Runtimes::new([
                Arc::new(process) as Arc<dyn ModuleRuntime>,
                Arc::<DockerRuntime>::clone(&docker) as Arc<dyn ModuleRuntime>,
            ])
        });
        let usage = Usage::new(runtimes.clone(), data.clone());
        scope.spawn_until_stopped(usage.clone().run());
        let labels = Labels::new(&config).map_err(StartEdgeError::Random)?;
        let workload = Sockets::new(
            data,
            Arc::clone(&identities),
            runtimes.clone(),
            sockets.clone(),
            scope.clone(),
        );
        let (client, events) = uplink.open(&ModuleId::edge_agent(), AGENT_INTERESTS);
        let agent = Agent::open(AgentParts {
            surroundings: Surroundings {
                device: config.device.clone(),
                hub_host: config.hub.host.clone(),
                gateway_host: config.hostname.clone(),
                mqtt_port: mqtt.port(),
                data: data.clone(),
                network: network.subscribe(),
            },
            version: version().version,
            period: agent::PERIOD,
            trial: config.deployment_trial,
            state: state.clone(),
            identities,
            runtimes: runtimes.clone(),
            sockets: Arc::new(workload),
            outbox: Arc::<Broker>::clone(&broker),
            own_log: own_log.clone(),
            refusals: uplink.refusals(),
            upload_tls,
            clock: clock.clone(),
        });
        let agent = agent.await.map_err(StartEdgeError::Agent)?;
        let (running, agent_scope) = (agent.clone(), scope.clone());
        scope.spawn(async move { running.run(agent_scope, client, events).await });

        let found = network.subscribe();
        let entrance = listeners.clone();
        let container_listeners = ContainerListeners {
            docker,
            listeners,
            security: Arc::clone(&security),
            clock: clock.clone(),
            config: config.clone(),
            ports: (mqtt.port(), https.port()),
            network,
        };
        scope.spawn_until_stopped(container_listeners.run());
        let standing = Standing {
            broker: Arc::clone(&broker),
            agent: agent.clone(),
            steady,
            rescue,
            build,
            started: Timestamp::from(clock.now()).to_string(),
        };
        let (wishing, wishes) = mpsc::channel(1);
        let managed = Managed {
            runtimes,
            keys,
            broker: Arc::clone(&broker),
            status: standing.clone().tell(),
            agent,
            usage: usage.clone(),
            own_log,
            wishing,
        };
        management::serve(&scope, &sockets, &config.management_socket, managed).map_err(StartEdgeError::Socket)?;
        let unused = sockets.clone();
        scope.spawn_until_stopped(async move {
            tokio::time::sleep(UNUSED_SOCKETS).await;
            let closed = unused.close_unused();
            if closed > 0 {
                tracing::info!(closed, "sockets of the process before are not wanted any more");
            }
        });
        let edge = Self {
            scope,
            state,
            sockets,
            wishes,
            broker,
            standing,
            security,
            children: known,
            gateway,
            entrance,
            clock,
            usage,
            labels,
            network: found,
            mqtt,
            https,
            _lock: lock,
        };
        #[cfg(feature = "otel")]
        if let Some(otel) = config.otel.clone() {
            edge.scope
                .spawn_until_stopped(crate::otel::run(otel, edge.metrics(), otel_tls));
        }
        Ok(edge)
    }

    /// Where MQTT is served.
    #[must_use]
    pub const fn mqtt_address(&self) -> SocketAddr {
        self.mqtt
    }

    /// Where HTTPS is served.
    #[must_use]
    pub const fn https_address(&self) -> SocketAddr {
        self.https
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
        self.children.trust(self.security.operators_roots()?);
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

fn queue_clock(clock: &Arc<SteadyClock>) -> QueueClock {
    let clock = Arc::clone(clock);
    QueueClock::new(move || u64::try_from(clock.millis()).unwrap_or(0))
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
