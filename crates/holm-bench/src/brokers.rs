//! The brokers that are measured: each in a process of its own, on a free port of the loopback, with its own directory, ended
//! when it is dropped.
//!
//! What a peer is told is what makes the comparison fair, and no more: both sides keep messages for a subscriber that is slow,
//! both switch Nagle's algorithm off, both store on the same file system. What each *promises* by its PUBACK differs and
//! stands in the table.

mod certificates;
mod mosquitto;
mod nats;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub use certificates::Certificates;

use crate::client::{self, Link, Login, Target};
use crate::load::{PublisherPlan, SubscriberPlan};
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
    /// Eclipse Mosquitto.
    Mosquitto,
    /// NATS JetStream with its MQTT face and file store.
    Nats,
}

impl Product {
    /// As it stands in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "NATS JetStream",
        }
    }

    /// What is true of a message when its PUBACK comes.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::Mosquitto => mosquitto::PROMISE,
            Self::Nats => nats::PROMISE,
        }
    }

    /// How it was set up, as far as it is not by default.
    #[must_use]
    pub const fn settings(self) -> &'static str {
        match self {
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
}

impl Broker {
    /// Starts a broker for at most `clients` publishers, and waits until it lets clients in.
    ///
    /// # Errors
    /// The program is not installed, or ends, or lets nobody in within 30 s.
    pub async fn start(kind: Kind, directory: &Path, certificates: &Certificates) -> Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("`{}` can't be made", directory.display()))?;
        let port = free_port()?;
        let tls = kind.tls.then_some(certificates);
        let mut command = match kind.product {
            Product::Mosquitto => mosquitto::command(directory, port, tls)?,
            Product::Nats => nats::command(directory, port, tls)?,
        };
        let started = Instant::now();
        let process = Process::start(&mut command, &directory.join("log"))?;
        let mut broker = Self {
            process,
            target: Target {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                tls: tls.map(Certificates::client_config),
            },
            started,
            clients: Clients::Anonymous,
        };
        let probe = broker.subscriber().login;
        let first = broker.first_connection(&probe).await;
        let mut link = first.with_context(|| format!("{} did not start", kind.product.name()))?;
        link.session_mut().close();
        link.finish().await;
        Ok(broker)
    }

    /// The connection of the first client, as soon as it is let in.
    async fn first_connection(&mut self, login: &Login) -> Result<Link> {
        loop {
            match client::connect(&self.target, login, 1).await {
                Ok(link) => return Ok(link),
                Err(error) if self.started.elapsed() > START_DEADLINE => return Err(error),
                Err(_) => self.process.check()?,
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

    /// The publisher of that number.
    #[must_use]
    pub fn publisher(&self, number: usize) -> PublisherPlan {
        match &self.clients {
            Clients::Anonymous => PublisherPlan {
                login: Login::anonymous(format!("publisher-{number}")),
                topic: format!("bench/{number}"),
            },
        }
    }

    /// The client that gets what every publisher publishes.
    #[must_use]
    pub fn subscriber(&self) -> SubscriberPlan {
        match &self.clients {
            Clients::Anonymous => SubscriberPlan {
                login: Login::anonymous("subscriber"),
                filter: "bench/#".into(),
            },
        }
    }
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

/// What a program says of its version: the first line of its answer that holds a number.
fn version_line(name: &str, argument: &str) -> Result<String> {
    let output = Command::new(program(name)?).arg(argument).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    match line {
        Some(line) => Ok(line.trim().to_owned()),
        None => bail!("`{name} {argument}` does not tell a version"),
    }
}

fn write(path: &Path, content: &str) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("`{}` can't be written", path.display()))
}
