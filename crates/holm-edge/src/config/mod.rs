//! The configuration file: TOML with the key names of the original `config.toml`, and `[holm]` for what is our own.
//!
//! ```text
//! text --toml--> document --keys--> every key is known, and either used, without effect (noted), or refused by name
//!                                   '--read--> EdgeConfig: typed, defaults filled in
//! ```
//!
//! - No key is passed over in silence. One that does nothing here is noted once; one that would be expected to do something
//!   and can't is refused; an unknown one is refused with the nearest known one.
//! - Everything that is wrong is told at once, each with line and column.
//! - A file that holds a secret must be readable by its owner alone.
//! - One table ([`keys::KEYS`]) says what each key means; the reference manual is made from it.
//!
//! Source: `edge-agent.md` §5.

mod certificate;
mod check;
mod dps;
pub mod import;
pub mod keys;
mod nearest;
mod otel;
mod read;
mod reference;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_client::{Assignment, Transport};
use holm_identity::SymmetricKey;
use holm_identity::private_file::{self, PrivateFileError};
use holm_model::DeviceId;
use holm_runtime::LogLimits;
use holm_runtime::docker::NetworkConfig;

use crate::provisioning;

pub use dps::{Again, Dps};
pub use otel::{Otel, OtelEndpoint};
pub use reference::reference_markdown;

/// The largest file that is read.
const MAX_BYTES: u64 = 256 * 1024;

/// How an edge is set up.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// The name by which modules and downstream devices reach the edge.
    pub hostname: String,
    /// The hub above.
    pub hub: HubAddress,
    /// The device that this edge is.
    pub device: DeviceId,
    /// What it proves itself by.
    pub proof: DeviceProof,
    /// Whom to ask for hub and device; `None`: they stand in the configuration.
    pub dps: Option<Dps>,
    /// More roots, for modules and for the hub's certificate.
    pub trust_bundle_cert: Option<PathBuf>,
    /// Where the edge's certificates come from.
    pub edge_ca: EdgeCa,
    /// Whether containers may be privileged.
    pub allow_elevated_docker_permissions: bool,
    /// How long a call to the hub's HTTPS side may take.
    pub cloud_timeout: Duration,
    /// The container engine: `unix:///…` or `tcp://host:port`.
    pub engine_uri: String,
    /// The network that containers join.
    pub network: NetworkConfig,
    /// The management socket that the edge makes.
    pub management_socket: PathBuf,
    /// The address that modules and devices connect to.
    pub bind: IpAddr,
    /// The port for MQTT over TLS.
    pub mqtt_port: u16,
    /// The port for AMQP over TLS.
    pub amqp_port: u16,
    /// The port for HTTPS and WebSocket.
    pub https_port: u16,
    /// Where `/healthz` and `/metrics` are served, without TLS.
    pub metrics_bind: MetricsBind,
    /// The directory of everything that the edge keeps.
    pub data: PathBuf,
    /// Where images of process modules are looked for, in this order.
    pub module_paths: Vec<PathBuf>,
    /// How much output of a module is kept when its create options don't say.
    pub log: LogLimits,
    /// Messages are kept in so many bytes of memory; `None`: on disk.
    pub messages_in_memory: Option<u64>,
    /// How long a new deployment must run well until it counts as good.
    pub deployment_trial: Duration,
    /// How often a silent connection to the hub is proved alive.
    pub keep_alive: Duration,
    /// Where figures are sent to; `None`: nowhere.
    pub otel: Option<Otel>,
}

/// Where `/healthz` and `/metrics` are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsBind {
    /// Nobody said where: at the usual address if it is free, else nowhere.
    Usual,
    /// At the address that was asked for, or the edge does not start.
    At(SocketAddr),
    /// Nowhere, as was asked for.
    Nowhere,
}

impl MetricsBind {
    /// The usual address.
    pub const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9600);
}

/// Where the hub is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubAddress {
    /// Its name, as it stands in tokens and user names; never with a port.
    pub host: String,
    /// Its HTTPS port.
    pub https_port: u16,
    /// Its port for MQTT over TLS.
    pub mqtt_port: u16,
    /// Its port for AMQP over TLS.
    pub amqp_port: u16,
    /// What is spoken with it.
    pub protocol: Transport,
}

impl HubAddress {
    /// The port to which the edge connects for its modules and children.
    #[must_use]
    pub const fn uplink_port(&self) -> u16 {
        match self.protocol {
            Transport::Mqtt => self.mqtt_port,
            Transport::Amqp => self.amqp_port,
            Transport::MqttWebSocket | Transport::AmqpWebSocket => self.https_port,
        }
    }
}

/// What the device proves itself by.
#[derive(Clone, Debug)]
pub enum DeviceProof {
    /// A key that stands in the configuration.
    Key(SymmetricKey),
    /// A key in a file, in base64.
    KeyFile(PathBuf),
    /// A certificate.
    Certificate(CertificateFiles),
}

/// The device's certificate. Who renews it replaces both files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, with the chain above it (PEM).
    pub cert: PathBuf,
    /// Its key (PEM), with mode 0600.
    pub pk: PathBuf,
}

/// Where the certificates of the edge come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeCa {
    /// From an authority that the edge makes for itself.
    QuickStart {
        /// How long it lives.
        days: u32,
    },
    /// From an authority that was given.
    Files {
        /// Its certificate, with the chain above it.
        cert: PathBuf,
        /// Its key.
        pk: PathBuf,
    },
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line and column, both from 1; `None` when it is about something that is not there.
    pub at: Option<(usize, usize)>,
    /// What is wrong, and the way out.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    /// What the parser has to say, and where. Not its own text: that shows the line, and with it the key that may stand there.
    fn syntax(text: &str, error: &toml_edit::TomlError) -> Self {
        Self {
            at: error.span().map(|span| check::position(text, span.start)),
            text: error.message().to_owned(),
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read, or others may read its secret.
    #[error("the configuration can't be read")]
    File(#[source] PrivateFileError),
    /// The text is not TOML.
    #[error("the configuration is not TOML")]
    Syntax(#[source] Problem),
    /// Keys or values are wrong; all of them.
    #[error("the configuration can't be used\n  {}", list(.0))]
    Problems(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let all: Vec<String> = problems.iter().map(Problem::to_string).collect();
    all.join("\n  ")
}

/// A configuration and what should be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: EdgeConfig,
    /// Keys without effect, each a line for the log.
    pub notes: Vec<String>,
    /// Whether the text holds a secret.
    pub holds_secret: bool,
}

impl EdgeConfig {
    /// The same for the hub and device that the provisioning service has told.
    #[must_use]
    pub fn assigned(mut self, told: &Assignment) -> Self {
        self.hub.host.clone_from(&told.hub);
        self.device = told.device.clone();
        self
    }

    /// Reads a file. An edge that asks the provisioning service is what it was told the last time.
    ///
    /// # Errors
    /// [`ConfigError`]; a file with a secret must have mode 0600.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let bytes = private_file::read_public(path, MAX_BYTES).map_err(ConfigError::File)?;
        let mut loaded = Self::parse(&String::from_utf8_lossy(&bytes))?;
        if loaded.holds_secret {
            // Read once more, by the rule for secrets: that tells the mode, and the way out.
            private_file::read(path, MAX_BYTES).map_err(ConfigError::File)?;
        }
        loaded.config = provisioning::recall(loaded.config);
        Ok(loaded)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ConfigError`], naming everything that is wrong.
    pub fn parse(text: &str) -> Result<Loaded, ConfigError> {
        let document = toml_edit::Document::parse(text);
        let document = document.map_err(|error| ConfigError::Syntax(Problem::syntax(text, &error)))?;
        let checked = check::check(text, document.as_table());
        let mut problems = checked.problems;
        let mut reader = read::Reader::new(text, document.as_table(), &mut problems);
        let config = read::resolve(&mut reader);
        let holds_secret = reader.holds_secret;
        match config {
            Some(config) if problems.is_empty() => Ok(Loaded {
                config,
                notes: checked.notes,
                holds_secret,
            }),
            _ => {
                problems.sort_by_key(|problem| problem.at.unwrap_or((usize::MAX, 0)));
                Err(ConfigError::Problems(problems))
            }
        }
    }
}

#[cfg(test)]
mod tests;
