//! A device: the real edge on a simulated clock, line and disk, with its modules; and the ways in which it dies.
//!
//! What is real: broker, queue, uplink, twins, children, agent and roll-out, security and identities, as
//! [`holm_edge::edge::Edge`] puts them together. The queue is on a disk in memory that loses what was not synced. State
//! (SQLite), keys and certificates are in a directory of the machine, which keeps all that was written: a death there is that
//! of a process, and what it had asked of SQLite at its last moment may still be carried out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_client::Transport;
use holm_edge::config::EdgeConfig;
use holm_edge::edge::{Edge, Platform, Program};
use holm_edge::own_log::OwnLog;
use holm_edge::runtimes::Runtimes;
use holm_identity::SymmetricKey;
use holm_net::ListeningSockets;
use holm_queue::testing::{CrashStyle, MemoryFiles};
use holm_runtime::ModuleRuntime;

use crate::hub;
use crate::network::{Network, Site};
use crate::programs::{EDGE_HOST, Surroundings};
use crate::runtime::Modules;
use crate::time::WallClock;

/// A device. Its edge runs or not.
#[derive(Debug)]
pub struct Device {
    config: EdgeConfig,
    /// What tells the time here.
    pub clock: WallClock,
    network: Network,
    /// The way up.
    pub uplink: Site,
    /// The disk of the messages.
    pub disk: MemoryFiles,
    /// Its modules.
    pub modules: Modules,
    edge: Option<Edge>,
}

impl Device {
    /// A device whose edge was never started; `data` is for state, keys and certificates, `uplink` what it speaks with the hub.
    ///
    /// # Panics
    /// When its configuration is wrong.
    #[must_use]
    pub fn new(
        id: &str,
        key: &SymmetricKey,
        data: &Path,
        hub_ca: &Path,
        network: &Network,
        surroundings: &Surroundings,
        uplink: Transport,
    ) -> Self {
        let text = format!(
            "hostname = \"{EDGE_HOST}\"\ntrust_bundle_cert = \"file://{ca}\"\n[provisioning]\nsource = \"manual\"\n\
             connection_string = \"HostName={hub};DeviceId={id};SharedAccessKey={key}\"\n\
             [listen]\nmanagement_uri = \"unix://{data}/mgmt.sock\"\n\
             [moby_runtime]\nuri = \"unix:///nonexistent/docker.sock\"\n\
             [holm]\nbind = \"127.0.0.1\"\nmetrics_bind = \"\"\ndata = \"{data}/edge\"\n",
            ca = hub_ca.display(),
            hub = hub::HOST,
            key = key.to_base64().expose(),
            data = data.display(),
        );
        let mut config = EdgeConfig::parse(&text)
            .unwrap_or_else(|error| panic!("{error:?}"))
            .config;
        (config.mqtt_port, config.amqp_port, config.https_port) = (0, 0, 0);
        config.hub.protocol = uplink;
        Self {
            config,
            clock: surroundings.clock.clone(),
            network: network.clone(),
            uplink: network.site(),
            disk: MemoryFiles::new(),
            modules: Modules::new(id, surroundings),
            edge: None,
        }
    }

    /// Where the edge keeps its certificate authority.
    #[must_use]
    pub fn edge_ca(data: &Path) -> PathBuf {
        data.join("edge/certificates/edge-ca.pem")
    }

    /// The edge; `None` while it does not run.
    #[must_use]
    pub const fn edge(&self) -> Option<&Edge> {
        self.edge.as_ref()
    }

    /// Starts the edge, if it does not run.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&mut self) {
        if self.edge.is_some() {
            return;
        }
        let modules = Arc::new(self.modules.clone()) as Arc<dyn ModuleRuntime>;
        let platform = Platform {
            clock: self.clock.clock(),
            dialer: self.uplink.dialer(),
            messages: Some(Arc::new(self.disk.clone())),
            lives: Some(self.clock.lives()),
            runtimes: Some(Runtimes::new([modules])),
        };
        let edge = Edge::start_on(platform, self.config.clone(), program()).await;
        let edge = edge.unwrap_or_else(|error| panic!("the edge does not start: {}", holm_net::error_chain(&error)));
        for port in [8883, 443] {
            let entrance = edge.entrance();
            self.network.listen(EDGE_HOST, port, move |stream| {
                let entrance = entrance.clone();
                tokio::spawn(async move {
                    match port {
                        443 => entrance.https(stream).await,
                        _ => entrance.mqtt(stream).await,
                    }
                });
            });
        }
        self.edge = Some(edge);
    }

    /// The edge's process dies; the machine and the modules go on.
    pub async fn kill_edge(&mut self) {
        self.die(CrashStyle::KeepAll).await;
    }

    /// The edge is asked to end.
    pub async fn stop_edge(&mut self) {
        if let Some(edge) = self.edge.take() {
            edge.stop().await;
            self.network.take_off(EDGE_HOST);
        }
    }

    /// The device loses its power: edge and modules die, and the disk keeps what the style says.
    pub async fn cut_power(&mut self, style: CrashStyle) {
        self.modules.power_cut();
        self.die(style).await;
    }

    async fn die(&mut self, style: CrashStyle) {
        // First nothing leaves any more and nothing reaches the disk; what still runs then runs for nobody.
        self.network.take_off(EDGE_HOST);
        self.uplink.die();
        self.disk.crash(style);
        if let Some(edge) = self.edge.take() {
            edge.scope().stop();
            edge.stop().await;
        }
    }
}

/// A program that supervises no process: modules are programs of the simulation.
fn program() -> Program {
    Program {
        file: PathBuf::from("/nonexistent/holm"),
        ready_made: Vec::new(),
        build: "simulation".to_owned(),
        sockets: ListeningSockets::default(),
        own_log: OwnLog::default(),
    }
}
