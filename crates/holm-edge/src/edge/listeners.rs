//! Where clients come in: the edge's ports, those in the network of containers, and streams that came another way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use holm_gateway::Gateway;
use holm_net::http::{serve_connection, serve_tls};
use holm_net::{Clock, Listener, ListenerOptions, ListeningSockets, Peer, Scope, error_chain};
use holm_runtime::{DockerRuntime, EdgeNetwork};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::{BrokerBackend, StartEdgeError};
use crate::config::EdgeConfig;
use crate::front::Front;
use crate::security::{Security, server_names};

/// How often an engine that does not answer is asked for its network again.
const NETWORK_PERIOD: Duration = Duration::from_secs(10);

/// The ports that clients come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) mqtt: u16,
    pub(super) amqp: u16,
    pub(super) https: u16,
}

/// Where the edge listens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) mqtt: SocketAddr,
    pub(super) amqp: SocketAddr,
    pub(super) https: SocketAddr,
}

impl Addresses {
    /// Their ports, also where the system chose them.
    pub(super) const fn ports(&self) -> Ports {
        Ports {
            mqtt: self.mqtt.port(),
            amqp: self.amqp.port(),
            https: self.https.port(),
        }
    }
}

/// Opens the edge's ports on an address.
#[derive(Clone, Debug)]
pub(super) struct Listeners {
    pub(super) gateway: Gateway<BrokerBackend>,
    pub(super) front: Arc<Front>,
    pub(super) tls: Arc<ServerConfig>,
    pub(super) sockets: ListeningSockets,
    pub(super) scope: Scope,
}

/// Serves streams that did not come through a port. Clones are the same entrance.
#[derive(Clone, Debug)]
pub struct Entrance(Listeners);

impl Entrance {
    pub(super) const fn of(listeners: Listeners) -> Self {
        Self(listeners)
    }

    /// Serves MQTT over TLS on a stream, until its end or the edge's.
    pub async fn mqtt<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Listeners {
            gateway, tls, scope, ..
        } = self.0;
        let served = async {
            match holm_net::tls::accept(tls, stream, "a stream in hand").await {
                Ok(stream) => gateway.serve_mqtt_stream(stream, Peer::default()).await,
                Err(error) => tracing::debug!(error = %error_chain(&error), "no TLS connection"),
            }
        };
        in_scope(&scope, served).await;
    }

    /// Serves HTTPS on a stream, until its end or the edge's.
    pub async fn https<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Listeners { front, tls, scope, .. } = self.0;
        let of_stream = scope.clone();
        let served = async {
            match holm_net::tls::accept(tls, stream, "a stream in hand").await {
                Ok(stream) => serve_connection(of_stream, stream, Peer::default(), front).await,
                Err(error) => tracing::debug!(error = %error_chain(&error), "no TLS connection"),
            }
        };
        in_scope(&scope, served).await;
    }
}

async fn in_scope(scope: &Scope, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = scope.stopping() => {}
    }
}

impl Listeners {
    pub(super) fn open(&self, address: IpAddr, ports: Ports) -> Result<Addresses, StartEdgeError> {
        let options = ListenerOptions::default();
        let bind = |port| Listener::open(&self.sockets, SocketAddr::new(address, port), options);
        let mqtt = bind(ports.mqtt).map_err(StartEdgeError::Listen)?;
        let amqp = bind(ports.amqp).map_err(StartEdgeError::Listen)?;
        let https = bind(ports.https).map_err(StartEdgeError::Listen)?;
        let address_of = |listener: &Listener| listener.local_address().map_err(StartEdgeError::Listen);
        let addresses = Addresses {
            mqtt: address_of(&mqtt)?,
            amqp: address_of(&amqp)?,
            https: address_of(&https)?,
        };
        self.scope
            .spawn(self.gateway.clone().serve_mqtt(mqtt, Arc::clone(&self.tls)));
        self.scope
            .spawn(self.gateway.clone().serve_amqp(amqp, Arc::clone(&self.tls)));
        let front = Arc::clone(&self.front);
        self.scope
            .spawn(serve_tls(self.scope.clone(), https, Arc::clone(&self.tls), front));
        Ok(addresses)
    }
}

/// Containers have a network of their own, and reach the edge at the device's address in it. It is listened on as soon as
/// the engine answers; where the edge listens everywhere, only its name is added to the certificate.
pub(super) struct ContainerListeners {
    pub(super) docker: Arc<DockerRuntime>,
    pub(super) listeners: Listeners,
    pub(super) security: Arc<Security>,
    pub(super) clock: Clock,
    pub(super) config: EdgeConfig,
    pub(super) ports: Ports,
    pub(super) network: watch::Sender<Option<EdgeNetwork>>,
}

impl ContainerListeners {
    pub(super) async fn run(self) {
        let mut told = false;
        let network = loop {
            match self.docker.ensure_network().await {
                Ok(network) => break network,
                Err(error) if !told => {
                    told = true;
                    tracing::info!(error = %error.chain(), "no container engine answers; process modules need none");
                }
                Err(_) => {}
            }
            tokio::time::sleep(NETWORK_PERIOD).await;
        };
        let mut names = server_names(&self.config);
        names.push(network.gateway.to_string());
        if let Err(error) = self.security.set_names(names, self.clock.now().into()) {
            tracing::error!(error = %error_chain(&error), "containers may not trust the edge under its address in their network");
        }
        if !self.config.bind.is_unspecified() {
            let mut told = false;
            while let Err(error) = self.listeners.open(network.gateway, self.ports) {
                if std::mem::replace(&mut told, true) {
                    tokio::time::sleep(NETWORK_PERIOD).await;
                    continue;
                }
                tracing::warn!(error = %error_chain(&error), gateway = %network.gateway, "containers can't reach the edge yet");
                tokio::time::sleep(NETWORK_PERIOD).await;
            }
        }
        tracing::info!(network = network.name, gateway = %network.gateway, "containers reach the edge");
        self.network.send_replace(Some(network));
        // The receivers live with the agent; so must the sender.
        std::future::pending::<()>().await;
    }
}
