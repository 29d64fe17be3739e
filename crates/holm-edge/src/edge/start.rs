//! How an edge starts: each part opens on those before it, and nothing is written until nothing of what is there was refused.
//!
//! ```text
//!   Ground: data, security, identities, state, who is below ──> uplink ──> broker ──> front, listeners
//!                                                                            '──> runtimes ──> agent ──> management socket
//! ```

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use holm_client::{Endpoint, Interests};
use holm_gateway::{Gateway, Profile};
use holm_identity::ProofOfKeyVerifier;
use holm_identity::tls::server_config;
use holm_model::{ModuleId, Timestamp};
use holm_net::http::Client;
use holm_net::{Clock, Dialer, ListeningSockets, Scope};
use holm_queue::{Clock as QueueClock, FileSystem, Options as QueueOptions};
use holm_runtime::{DockerConfig, DockerRuntime, ModuleRuntime, ProcessConfig, ProcessRuntime};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};

use super::listeners::{ContainerListeners, Listeners, Ports};
use super::{Edge, Platform, Program, Standing, StartEdgeError, version};
use crate::agent::{self, Agent, AgentParts, Surroundings};
use crate::broker::{Broker, BrokerOptions};
use crate::children::{self, Ask, Children, Keeper, KeeperParts, ScopeApi};
use crate::config::EdgeConfig;
use crate::data_directory;
use crate::front::Front;
use crate::identities::{Identities, IdentitiesOptions};
use crate::keys::ModuleKeys;
use crate::management::{self, Managed};
use crate::metrics::Labels;
use crate::runtimes::Runtimes;
use crate::security::{Security, SecurityError, SecurityOptions};
use crate::state::{State, Vault};
use crate::steady::SteadyClock;
use crate::uplink::{Refusals, Uplink, UplinkSettings};
use crate::usage::Usage;
use crate::workload::Sockets;

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

impl Edge {
    /// [`Edge::start`] on something else than this machine.
    ///
    /// # Errors
    /// [`StartEdgeError`].
    pub async fn start_on(platform: Platform, config: EdgeConfig, program: Program) -> Result<Self, StartEdgeError> {
        let Platform {
            clock,
            dialer,
            messages,
            lives,
            runtimes,
        } = platform;
        let Program {
            file,
            ready_made,
            build,
            sockets,
            own_log,
        } = program;
        let (ground, asks) = Ground::lay(&config, clock, dialer, lives.is_none()).await?;
        let Ground { scope, clock, .. } = &ground;
        let uplink = ground.uplink(&config);
        let broker = ground.broker(&config, &uplink, messages, lives).await?;
        // Now that nothing of the data was refused, something may be written beside it.
        ground.watch_clock();
        ground.keep_children(&config, asks, &broker, &uplink);
        let listeners = ground.listeners(&config, &broker, &sockets)?;
        let ports = Ports {
            mqtt: config.mqtt_port,
            amqp: config.amqp_port,
            https: config.https_port,
        };
        let addresses = listeners.open(config.bind, ports)?;

        let docker = Arc::new(docker_runtime(&config)?);
        let process = ProcessConfig {
            log: config.log,
            ready_made,
            ..ProcessConfig::new(config.data.join("processes"), config.module_paths.clone(), file)
        };
        let runtimes = runtimes.unwrap_or_else(|| both_runtimes(process, &docker));
        let usage = Usage::new(runtimes.clone(), config.data.clone());
        scope.spawn_until_stopped(usage.clone().run());
        let labels = Labels::new(&config).map_err(StartEdgeError::Random)?;
        let network = watch::Sender::new(None);
        let workload = Sockets::new(
            &config.data,
            Arc::clone(&ground.identities),
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
                mqtt_port: addresses.mqtt.port(),
                hub_protocol: config.hub.protocol,
                data: config.data.clone(),
                network: network.subscribe(),
            },
            version: version().version,
            period: agent::PERIOD,
            trial: config.deployment_trial,
            state: ground.state.clone(),
            identities: Arc::<Identities>::clone(&ground.identities),
            runtimes: runtimes.clone(),
            sockets: Arc::new(workload),
            outbox: Arc::<Broker>::clone(&broker),
            own_log: own_log.clone(),
            refusals: uplink.refusals(),
            upload_tls: Arc::clone(&ground.upstream_tls),
            clock: clock.clone(),
        });
        let agent = agent.await.map_err(StartEdgeError::Agent)?;
        let (running, agent_scope) = (agent.clone(), scope.clone());
        scope.spawn(async move { running.run(agent_scope, client, events).await });

        let found = network.subscribe();
        let container_listeners = ContainerListeners {
            docker,
            listeners: listeners.clone(),
            security: Arc::clone(&ground.security),
            clock: clock.clone(),
            config: config.clone(),
            ports: addresses.ports(),
            network,
        };
        scope.spawn_until_stopped(container_listeners.run());
        let standing = Standing {
            broker: Arc::clone(&broker),
            agent: agent.clone(),
            steady: ground.steady.clone(),
            rescue: ground.state.rescue().cloned(),
            build,
            started: Timestamp::from(clock.now()).to_string(),
        };
        let (wishing, wishes) = mpsc::channel(1);
        let managed = Managed {
            runtimes,
            keys: Arc::clone(&ground.keys),
            broker: Arc::clone(&broker),
            status: standing.clone().tell(),
            agent,
            usage: usage.clone(),
            own_log,
            wishing,
        };
        management::serve(scope, &sockets, &config.management_socket, managed).map_err(StartEdgeError::Socket)?;
        scope.spawn_until_stopped(close_unused(sockets.clone()));
        let edge = Self {
            scope: ground.scope,
            state: ground.state,
            sockets,
            wishes,
            broker,
            standing,
            security: ground.security,
            children: ground.children,
            gateway: listeners.gateway.clone(),
            entrance: listeners,
            clock: ground.clock,
            usage,
            labels,
            network: found,
            addresses,
            refusals: uplink.refusals(),
            _lock: ground.lock,
        };
        #[cfg(feature = "otel")]
        if let Some(otel) = config.otel.clone() {
            edge.scope
                .spawn_until_stopped(crate::otel::run(otel, edge.metrics(), ground.upstream_tls));
        }
        Ok(edge)
    }
}

/// What everything else stands on: who this device is, and what it knew last.
struct Ground {
    /// Held as long as the edge runs.
    lock: File,
    scope: Scope,
    clock: Clock,
    dialer: Dialer,
    security: Arc<Security>,
    /// By which messages live, unless somebody gave another clock.
    steady: Option<Arc<SteadyClock>>,
    /// Whom to trust upstream.
    upstream_tls: Arc<ClientConfig>,
    /// Whom the hub refuses.
    refusals: Refusals,
    /// The hub's REST side.
    hub: Client,
    identities: Arc<Identities>,
    keys: Arc<dyn ModuleKeys>,
    state: State,
    children: Arc<Children>,
}

impl Ground {
    /// Opens what is in the data directory. Who asks about those below asks through the second.
    async fn lay(
        config: &EdgeConfig,
        clock: Clock,
        dialer: Dialer,
        is_steady: bool,
    ) -> Result<(Self, mpsc::Receiver<Ask>), StartEdgeError> {
        let lock = data_directory::open(&config.data)?;
        let scope = Scope::new();
        let security = Security::open(SecurityOptions::from_config(config), clock.now().into()).await;
        let security = Arc::new(security.map_err(StartEdgeError::Security)?);
        scope.spawn(Arc::clone(&security).run(scope.clone(), clock.clone()));
        let steady = is_steady.then(|| Arc::new(SteadyClock::open(&config.data)));
        let mut upstream_tls = security.upstream_tls().map_err(StartEdgeError::Security)?;
        upstream_tls.time_provider = Arc::new(clock.clone());
        let upstream_tls = Arc::new(upstream_tls);
        let hub =
            Client::new(Arc::clone(&upstream_tls), &config.hub.host, config.hub.https_port).with_dialer(dialer.clone());
        let mut device_tls = security.device_tls().map_err(StartEdgeError::Security)?;
        device_tls.time_provider = Arc::new(clock.clone());
        let as_device = Client::new(Arc::new(device_tls), &config.hub.host, config.hub.https_port);
        let refusals = Refusals::default();
        let identities = IdentitiesOptions {
            cache: config.data.join("identities.json"),
            hub: as_device.with_dialer(dialer.clone()),
            timeout: config.cloud_timeout,
            clock: clock.clone(),
            refusals: refusals.clone(),
        };
        let identities = Identities::open(Arc::clone(&security), identities).map_err(StartEdgeError::Identities)?;
        let identities = Arc::new(identities);
        let vault = Vault::open(Arc::clone(security.keys())).await;
        let vault = vault.map_err(|error| StartEdgeError::Security(SecurityError::KeyStore(error)))?;
        let state = State::open(&config.data.join("state.db"), vault)
            .await
            .map_err(StartEdgeError::State)?;
        let (children, asks) = Children::new();
        children.trust(security.operators_authorities().map_err(StartEdgeError::Security)?);
        children::restore(&children, &state).await;
        let ground = Self {
            lock,
            scope,
            clock,
            dialer,
            security,
            steady,
            upstream_tls,
            refusals,
            hub,
            keys: Arc::<Identities>::clone(&identities),
            identities,
            state,
            children: Arc::new(children),
        };
        Ok((ground, asks))
    }

    fn uplink(&self, config: &EdgeConfig) -> Uplink {
        let endpoint = Endpoint {
            host: config.hub.host.clone(),
            port: config.hub.uplink_port(),
        };
        let settings = UplinkSettings {
            transport: config.hub.protocol,
            keep_alive: config.keep_alive,
            clock: self.clock.clone(),
            dialer: self.dialer.clone(),
            ..UplinkSettings::new(endpoint, Arc::clone(&self.upstream_tls))
        };
        Uplink::new(settings, Arc::clone(&self.keys), self.scope.clone()).with_refusals(self.refusals.clone())
    }

    async fn broker(
        &self,
        config: &EdgeConfig,
        uplink: &Uplink,
        messages: Option<Arc<dyn FileSystem>>,
        lives: Option<QueueClock>,
    ) -> Result<Arc<Broker>, StartEdgeError> {
        let steady = || self.steady.as_ref().map(queue_clock);
        let options = BrokerOptions {
            hostname: config.hostname.clone(),
            version: version(),
            children: Arc::clone(&self.children),
            queue: QueueOptions {
                clock: lives.or_else(steady).unwrap_or_default(),
                ..QueueOptions::default()
            },
            memory_bytes: config.messages_in_memory,
            scope: self.scope.clone(),
            clock: self.clock.clone(),
        };
        let directory = config.data.join("queue");
        let (keys, uplink, state) = (Arc::clone(&self.keys), uplink.clone(), self.state.clone());
        let broker = match messages {
            Some(files) => Broker::open_on(files, keys, uplink, state, options).await,
            None => Broker::open(&directory, keys, uplink, state, options).await,
        };
        broker.map_err(StartEdgeError::Broker)
    }

    /// Notices when somebody sets the time of day.
    fn watch_clock(&self) {
        if let Some(steady) = self.steady.clone() {
            let (security, clock) = (Arc::clone(&self.security), self.clock.clone());
            self.scope
                .spawn_until_stopped(async move { steady.watch(|| security.look_after(&clock)).await });
        }
    }

    /// Learns from the hub who is below.
    fn keep_children(&self, config: &EdgeConfig, asks: mpsc::Receiver<Ask>, broker: &Broker, uplink: &Uplink) {
        let keys = Arc::clone(&self.keys);
        let keeper = Keeper::new(KeeperParts {
            children: Arc::clone(&self.children),
            asks,
            api: ScopeApi::new(keys, self.hub.clone(), config.cloud_timeout, self.clock.clone()),
            state: self.state.clone(),
            link: broker.link(),
            refusals: uplink.child_refusals(),
        });
        self.scope.spawn_until_stopped(keeper.run());
    }

    fn listeners(
        &self,
        config: &EdgeConfig,
        broker: &Arc<Broker>,
        sockets: &ListeningSockets,
    ) -> Result<Listeners, StartEdgeError> {
        let (directory, scope) = (Arc::clone(broker.directory()), self.scope.clone());
        let gateway = Gateway::new(Arc::clone(broker), directory, Profile::edge(), scope.clone());
        let gateway = gateway.with_clock(self.clock.clone());
        let certificate = self.security.server_certificate().clone();
        let mut tls = server_config(certificate, Arc::new(ProofOfKeyVerifier)).map_err(StartEdgeError::Tls)?;
        tls.time_provider = Arc::new(self.clock.clone());
        Ok(Listeners {
            front: Arc::new(Front::new(gateway.clone(), config.device.clone())),
            gateway,
            tls: Arc::new(tls),
            sockets: sockets.clone(),
            scope,
        })
    }
}

fn docker_runtime(config: &EdgeConfig) -> Result<DockerRuntime, StartEdgeError> {
    let docker = DockerRuntime::new(DockerConfig {
        endpoint: config.engine_uri.clone(),
        network: config.network.clone(),
        edge_hostname: Some(config.hostname.clone()),
        instance: None,
        allow_elevated: config.allow_elevated_docker_permissions,
        log: config.log,
    });
    docker.map_err(StartEdgeError::Engine)
}

fn both_runtimes(process: ProcessConfig, docker: &Arc<DockerRuntime>) -> Runtimes {
    let process = Arc::new(ProcessRuntime::new(process)) as Arc<dyn ModuleRuntime>;
    Runtimes::new([process, Arc::<DockerRuntime>::clone(docker) as Arc<dyn ModuleRuntime>])
}

fn queue_clock(clock: &Arc<SteadyClock>) -> QueueClock {
    let clock = Arc::clone(clock);
    QueueClock::new(move || u64::try_from(clock.millis()).unwrap_or(0))
}

/// Closes what the process before left, when it is known not to be wanted.
async fn close_unused(sockets: ListeningSockets) {
    tokio::time::sleep(UNUSED_SOCKETS).await;
    let closed = sockets.close_unused();
    if closed > 0 {
        tracing::info!(closed, "sockets of the process before are not wanted any more");
    }
}
