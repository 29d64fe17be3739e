//! The brokers that are measured: each in a process of its own, on a free port of the loopback, with its own directory, ended
//! when it is dropped.
//!
//! What a peer is told is what makes the comparison fair, and no more: both sides keep messages for a subscriber that is slow,
//! both switch Nagle's algorithm off, both store on the same file system. What each *promises* by its PUBACK differs and
//! stands in the table.

mod certificates;
mod edge;
pub(crate) mod hub;
mod mosquitto;
mod nats;
mod rumqttd;
mod whole_edge;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use certificates::Certificates;
pub use edge::EDGE_DEVICE;
pub use hub::Hub;
pub use whole_edge::WholeEdge;

use crate::client::{self, Link, Login, Target};
use crate::edge_server::EdgeSettings;
use crate::load::{ListenerPlan, PublisherPlan};
use crate::process::Process;

/// How long a broker may take to let the first client in.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How often a broker that does not listen yet is asked again: the resolution of start times.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// A kind of broker, and how clients reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Which program.
    pub product: Product,
    /// TLS, or plain TCP.
    pub tls: bool,
}

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// The broker of a Holm edge, without a hub above it: module to module.
    HolmEdge,
    /// The same with its messages in memory.
    HolmEdgeMemory,
    /// Eclipse Mosquitto.
    Mosquitto,
    /// NATS JetStream with its MQTT face and file store.
    Nats,
    /// rumqttd, which keeps messages in memory.
    Rumqttd,
}

impl Product {
    /// As it stands in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HolmEdge => "Holm edge",
            Self::HolmEdgeMemory => "Holm edge, in memory",
            Self::Rumqttd => "rumqttd",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "NATS JetStream",
        }
    }

    /// What is true of a message when its PUBACK comes.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::HolmEdge => edge::PROMISE,
            Self::HolmEdgeMemory => edge::PROMISE_IN_MEMORY,
            Self::Rumqttd => rumqttd::PROMISE,
            Self::Mosquitto => mosquitto::PROMISE,
            Self::Nats => nats::PROMISE,
        }
    }

    /// How it was set up, as far as it is not by default.
    #[must_use]
    pub const fn settings(self) -> &'static str {
        match self {
            Self::HolmEdge => edge::SETTINGS,
            Self::HolmEdgeMemory => edge::SETTINGS_IN_MEMORY,
            Self::Rumqttd => rumqttd::SETTINGS,
            Self::Mosquitto => mosquitto::SETTINGS,
            Self::Nats => nats::SETTINGS,
        }
    }

    /// The version that is installed.
    ///
    /// # Errors
    /// It is not installed.
    pub fn version(self) -> Result<String> {
        match self {
            Self::HolmEdge | Self::HolmEdgeMemory => Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::Rumqttd => rumqttd::version(),
            Self::Mosquitto => mosquitto::version(),
            Self::Nats => nats::version(),
        }
    }
}

/// A broker that lets clients in.
#[derive(Debug)]
pub struct Broker {
    process: Process,
    target: Target,
    started: Instant,
    clients: Clients,
}

/// How clients of a broker are named, and where they publish.
#[derive(Clone, Debug)]
enum Clients {
    /// Anyone, any topic.
    Anonymous,
    /// Modules of an edge, which are known to it.
    Modules(Box<EdgeSettings>),
}

impl Broker {
    /// Starts a broker that knows `clients` publishers and a listener, and waits until it lets clients in.
    ///
    /// # Errors
    /// The program is not installed, or ends, or lets nobody in within 30 s.
    pub async fn start(kind: Kind, directory: &Path, certificates: &Certificates, clients: usize) -> Result<Self> {
        let (broker, mut link) = Self::start_with_listener(kind, directory, certificates, clients).await?;
        link.session_mut().close();
        link.finish().await;
        Ok(broker)
    }

    /// [`Broker::start`], with the listener's connection, which is the first that the broker let in.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_with_listener(
        kind: Kind,
        directory: &Path,
        certificates: &Certificates,
        clients: usize,
    ) -> Result<(Self, Link)> {
        make(directory)?;
        let port = free_port()?;
        let tls = kind.tls.then_some(certificates);
        let (command, clients) = match kind.product {
            Product::HolmEdge | Product::HolmEdgeMemory => {
                let mut settings = edge::alone(directory, port, certificates, clients);
                settings.memory_bytes = (kind.product == Product::HolmEdgeMemory).then_some(edge::MEMORY_BYTES);
                (
                    edge::command(directory, &settings)?,
                    Clients::Modules(Box::new(settings)),
                )
            }
            Product::Mosquitto => (mosquitto::command(directory, port, tls)?, Clients::Anonymous),
            Product::Nats => (nats::command(directory, port, tls)?, Clients::Anonymous),
            Product::Rumqttd => (rumqttd::command(directory, port, tls)?, Clients::Anonymous),
        };
        let target = Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: tls.map(Certificates::client_config),
        };
        Self::launch(command, directory, target, clients, LISTENER)
            .await
            .with_context(|| format!("{} did not start", kind.product.name()))
    }

    /// Starts an edge below a hub: what its `clients` modules, at most [`MAX_MODULES`], publish goes up.
    ///
    /// # Errors
    /// The hub refuses what the edge needs, or the edge does not start.
    pub async fn start_below(hub: &Hub, directory: &Path, certificates: &Certificates, clients: usize) -> Result<Self> {
        make(directory)?;
        let settings = edge::below(hub, directory, free_port()?, certificates, clients);
        hub.admit(&settings).await.context("the hub does not take the edge")?;
        let target = Target {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port)),
            tls: Some(certificates.client_config()),
        };
        let command = edge::command(directory, &settings)?;
        let clients = Clients::Modules(Box::new(settings));
        let launched = Self::launch(command, directory, target, clients, &publisher_name(0)).await;
        let (broker, mut link) = launched.context("the edge did not start")?;
        link.session_mut().close();
        link.finish().await;
        Ok(broker)
    }

    async fn launch(
        mut command: Command,
        directory: &Path,
        target: Target,
        clients: Clients,
        first: &str,
    ) -> Result<(Self, Link)> {
        let started = Instant::now();
        let mut broker = Self {
            process: Process::start(&mut command, &directory.join("log"))?,
            target,
            started,
            clients,
        };
        let login = broker.login(first)?;
        loop {
            match client::connect(&broker.target, &login, 1).await {
                Ok(link) => return Ok((broker, link)),
                Err(error) if started.elapsed() > START_DEADLINE => return Err(error),
                Err(_) => broker.process.check()?,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Where clients connect.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// When its process was started.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// The publisher of that number, from 0.
    ///
    /// # Errors
    /// Its token can't be signed.
    pub fn publisher(&self, number: usize) -> Result<PublisherPlan> {
        let name = publisher_name(number);
        Ok(PublisherPlan {
            login: self.login(&name)?,
            topic: match &self.clients {
                Clients::Anonymous => format!("bench/{number}"),
                Clients::Modules(settings) => settings.output_topic(&name)?,
            },
        })
    }

    /// The client that gets what every publisher publishes.
    ///
    /// # Errors
    /// Its token can't be signed.
    pub fn subscriber(&self) -> Result<ListenerPlan> {
        Ok(ListenerPlan::Subscriber {
            target: self.target.clone(),
            login: self.login(LISTENER)?,
            filter: match &self.clients {
                Clients::Anonymous => "bench/#".to_owned(),
                Clients::Modules(settings) => settings.input_filter(LISTENER),
            },
        })
    }

    fn login(&self, name: &str) -> Result<Login> {
        match &self.clients {
            Clients::Anonymous => Ok(Login::anonymous(name)),
            Clients::Modules(settings) => settings.login(name),
        }
    }
}

/// The most modules that a hub gives one device (`hub-service-api.md`).
pub const MAX_MODULES: usize = 50;
/// The client that listens.
const LISTENER: &str = "listener";

fn publisher_name(number: usize) -> String {
    format!("publisher-{number}")
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("`{}` can't be made", directory.display()))
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(socket.local_addr()?.port())
}

/// A program of Debian, which may lie outside a user's `PATH`.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut candidates = directories.map(|directory| directory.join(name));
    candidates
        .find(|file| file.is_file())
        .with_context(|| format!("`{name}` is not installed; `cargo xtask setup` installs it"))
}

/// A program that cargo built with this one: in the same directory, or for a test in the one above.
fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let mut candidates = own.ancestors().skip(1).take(2).map(|directory| directory.join(name));
    candidates
        .find(|file| file.is_file())
        .with_context(|| format!("there is no `{name}` beside `{}`; build it first", own.display()))
}

/// What a program says of its version: the first line of its answer that holds a number.
fn version_line(name: &str, argument: &str) -> Result<String> {
    version_of(&program(name)?, argument)
}

fn version_of(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    match line {
        Some(line) => Ok(line.trim().to_owned()),
        None => bail!("`{} {argument}` does not tell a version", program.display()),
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("`{}` can't be written", path.display()))
}
