//! The command line: names, options, and what `--help` says of them.

pub(crate) mod values;

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use holm_identity::Thumbprint;
use serde_json::Value;

use crate::build;
use crate::logging::LogFormat;
use crate::output::WrongUse;
use values::{Begin, Property};

/// Edge computing that anyone can run: a hub, an edge on each device, modules, and the tools to operate them.
#[derive(Debug, Parser)]
#[command(name = "holm", version = build::text(), propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// How log lines look: `text` or `json` [else HOLM_LOG_FORMAT, else text]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub(crate) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// How log lines look.
    pub(crate) fn log_format(&self) -> Result<LogFormat, WrongUse> {
        let read = |text: &str| LogFormat::from_str(text, true);
        match self.log_format {
            Some(format) => Ok(format),
            None => Ok(values::variable("HOLM_LOG_FORMAT", read)?.unwrap_or_default()),
        }
    }
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, or the method that was called answered with a status of 400 or more; 2 wrong\n\
                          command line; 3 the demo lost a message.\n\
                          HOLM_LOG says how much is logged (info, debug, holm_edge=debug,info, …).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell the whole story on this machine: a hub, an edge, three modules, a link that is cut.
    #[cfg(all(feature = "hub", feature = "edge"))]
    Demo(Demo),
    /// Run the hub, and what belongs to its data directory.
    #[cfg(feature = "hub")]
    #[command(subcommand)]
    Hub(Hub),
    /// Run the edge, and look at the one that runs on this device.
    #[cfg(feature = "edge")]
    #[command(subcommand)]
    Edge(Edge),
    /// Remember a hub's connection string for the commands below.
    Login(Login),
    /// Devices of a hub.
    #[command(subcommand)]
    Device(Device),
    /// Modules of a device.
    #[command(subcommand)]
    Module(Module),
    /// Twins of devices and modules.
    #[command(subcommand)]
    Twin(Twin),
    /// Direct methods.
    #[command(subcommand)]
    Method(Method),
    /// Cloud-to-device messages.
    #[command(subcommand)]
    C2d(C2d),
    /// Give one edge device its deployment.
    Deploy(Deploy),
    /// Read the messages that have reached the hub.
    Monitor(Monitor),
    /// Run a ready-made module (as an edge does).
    Run {
        /// Which one.
        #[arg(value_parser = PossibleValuesParser::new(holm_modules::NAMES))]
        name: String,
    },
    /// The supervisor of a process module (as an edge starts it).
    #[cfg(feature = "edge")]
    #[command(hide = true)]
    Supervise {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
}

#[cfg(all(feature = "hub", feature = "edge"))]
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How long the story lasts, in seconds.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=86400))]
    pub(crate) seconds: u64,
    /// Leave the link alone.
    #[arg(long)]
    pub(crate) no_cut: bool,
    /// End with one JSON object on the last line of standard output.
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(feature = "hub")]
#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Run the hub. At the first start it makes its authority, its certificate and its policies.
    Run(HubRun),
    /// Print the service connection string.
    ConnectionString {
        /// The hub's data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub(crate) struct HubRun {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// The host name by which clients know the hub; it stands in its certificate and in connection strings. An IP address
    /// will do.
    #[arg(long, value_name = "NAME", default_value = "localhost", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) hostname: String,
    /// The address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub(crate) bind: std::net::IpAddr,
    /// The port of MQTT over TLS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    pub(crate) mqtt_port: u16,
    /// The port of HTTPS and WebSocket; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    pub(crate) https_port: u16,
    /// Where `/healthz` and `/metrics` are served, in plain HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) status: std::net::SocketAddr,
    /// Check settings and data directory, and stop.
    #[arg(long)]
    pub(crate) check: bool,
}

#[cfg(feature = "edge")]
#[derive(Debug, Subcommand)]
pub(crate) enum Edge {
    /// Run the edge.
    Run {
        #[command(flatten)]
        config: Configuration,
        /// Check the configuration, and stop.
        #[arg(long)]
        check: bool,
    },
    /// Print the edge's authority, which downstream devices are to trust.
    Ca {
        #[command(flatten)]
        config: Configuration,
    },
    /// List the modules.
    List(OnDevice),
    /// Print the log of a module; `edgeAgent` and `edgeHub` are the edge itself.
    Logs {
        /// Which module.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        module: String,
        /// Go on as lines come.
        #[arg(short, long)]
        follow: bool,
        /// Only so many lines from the end, or `all`.
        #[arg(long, value_name = "LINES", value_parser = values::tail)]
        tail: Option<values::LogTail>,
        /// Nothing older: a time, seconds since 1970, or how long ago (`1 day`).
        #[arg(long, value_name = "WHEN", value_parser = values::moment)]
        since: Option<String>,
        /// Nothing newer, in the same forms.
        #[arg(long, value_name = "WHEN", value_parser = values::moment)]
        until: Option<String>,
        #[command(flatten)]
        edge: Socket,
    },
    /// Stop a module and start it again.
    Restart {
        /// Which module.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        module: String,
        #[command(flatten)]
        edge: Socket,
    },
    /// Show modules, link and queues.
    Status(OnDevice),
    /// Look at messages that could not reach their destination, and send them again.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Show how far the deployment is carried out, and what is planned next.
    Plan(OnDevice),
    /// Try the deployment that was taken back once more.
    Retry(Socket),
    /// Go on with the program that is installed now, after its file was replaced: no module stops, clients reconnect.
    Upgrade(Socket),
    /// Look at everything that can be wrong with the edge and this device, and say what to do.
    Check(Box<Check>),
    /// Collect what helps to find a fault into one archive, without the secrets whose form is known: look at it before you give it away. With the edge
    /// running or not.
    SupportBundle(Box<SupportBundle>),
    /// Make a configuration, take one over from IoT Edge, put one into force.
    #[command(subcommand)]
    Config(Config),
    /// The edge as a service of this device.
    #[command(subcommand)]
    System(System),
    /// List the checks.
    CheckList {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which configuration.
#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct Configuration {
    /// The configuration file [else `/etc/holm/config.toml` or, where that is not, `/etc/aziot/config.toml`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[cfg(feature = "edge")]
impl Configuration {
    /// The file that was named, else the usual one.
    pub(crate) fn file(&self) -> PathBuf {
        values::configuration(self.config.as_deref())
    }
}

/// What to look at, and how to tell of it.
#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: Configuration,
    /// Ids of checks to leave out.
    #[arg(long, value_name = "IDS", value_delimiter = ',', num_args = 1..)]
    pub(crate) dont_run: Vec<String>,
    /// Another hub to look at than that of the configuration.
    #[arg(long, value_name = "HOST")]
    pub(crate) iothub_hostname: Option<String>,
    /// `json` is the same as --json.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: CheckOutput,
    /// Show the notes of what is in order, too.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Exit with 1 when there are warnings.
    #[arg(long)]
    pub(crate) warnings_as_errors: bool,
    /// Options of the original that have nothing to act on here: no engine client, no image and no list of releases is asked.
    #[command(flatten)]
    pub(crate) without_effect: WithoutEffect,
    #[command(flatten)]
    pub(crate) on: OnDevice,
}

#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct WithoutEffect {
    #[arg(long, hide = true)]
    pub(crate) container_engine_config_file: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) diagnostics_image_name: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) expected_aziot_edged_version: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) expected_aziot_version: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) aziot_edged: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) proxy_uri: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) ntp_server: Option<String>,
}

#[cfg(feature = "edge")]
impl WithoutEffect {
    /// Those that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let all = [
            ("--container-engine-config-file", &self.container_engine_config_file),
            ("--diagnostics-image-name", &self.diagnostics_image_name),
            ("--expected-aziot-edged-version", &self.expected_aziot_edged_version),
            ("--expected-aziot-version", &self.expected_aziot_version),
            ("--aziot-edged", &self.aziot_edged),
            ("--proxy-uri", &self.proxy_uri),
            ("--ntp-server", &self.ntp_server),
        ];
        all.into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name)
            .collect()
    }
}

/// What to collect, and where to.
#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct SupportBundle {
    #[command(flatten)]
    pub(crate) config: Configuration,
    /// Where to write the archive; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "support_bundle.zip")]
    pub(crate) output: String,
    /// Logs from then on: a time, seconds since 1970, or how long ago.
    #[arg(long, value_name = "WHEN", default_value = "1 day", value_parser = values::moment)]
    pub(crate) since: String,
    /// Logs until then.
    #[arg(long, value_name = "WHEN", value_parser = values::moment)]
    pub(crate) until: Option<String>,
    /// Leave the logs of modules out.
    #[arg(short = 'e', long)]
    pub(crate) include_edge_runtime_only: bool,
    /// Another hub to look at than that of the configuration.
    #[arg(long, value_name = "HOST")]
    pub(crate) iothub_hostname: Option<String>,
    /// Say nothing on the way.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) edge: Socket,
}

#[cfg(feature = "edge")]
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check a configuration, give it to the service, and restart that; modules go on.
    Apply {
        /// The configuration file [else `/etc/holm/config.toml` or, where that is not, `/etc/aziot/config.toml`]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Make the smallest configuration, from a connection string.
    Mp {
        /// The device's connection string.
        #[arg(short, long, value_name = "CONNECTION-STRING")]
        connection_string: String,
        /// Where to write it.
        #[arg(
            short,
            long = "out-config-file",
            value_name = "FILE",
            default_value = "/etc/aziot/config.toml"
        )]
        output: PathBuf,
        /// Replace what is there.
        #[arg(short, long)]
        force: bool,
    },
    /// Take over a configuration of IoT Edge: `config.yaml` of 1.1, or `config.toml`. Each key is told of.
    Import {
        /// The configuration of IoT Edge.
        #[arg(short, long, value_name = "FILE", default_value = "/etc/iotedge/config.yaml")]
        config: PathBuf,
        /// Where to write ours.
        #[arg(
            short,
            long = "out-config-file",
            value_name = "FILE",
            default_value = "/etc/aziot/config.toml"
        )]
        output: PathBuf,
        /// Replace what is there.
        #[arg(short, long)]
        force: bool,
        /// What became of each key, as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[cfg(feature = "edge")]
#[derive(Debug, Subcommand)]
pub(crate) enum System {
    /// Whether the edge answers, and what systemd says of it.
    Status(OnDevice),
    /// The service's journal; without one, the last lines that the edge keeps in memory.
    Logs {
        /// Options of `journalctl`, after `--`.
        #[arg(last = true, value_name = "OPTIONS")]
        options: Vec<String>,
        #[command(flatten)]
        edge: Socket,
    },
    /// Restart the edge; modules go on.
    Restart,
    /// Stop the edge; modules go on.
    Stop,
    /// Say how much the edge logs, and restart it; modules go on.
    SetLogLevel {
        /// The least severe that is logged.
        #[arg(value_enum)]
        level: Level,
    },
    /// Provision the device anew.
    Reprovision(Socket),
}

/// How much is logged.
#[cfg(feature = "edge")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[cfg(feature = "edge")]
impl Level {
    /// As `HOLM_LOG` has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How findings are written.
#[cfg(feature = "edge")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// For scripts, in the published form.
    Json,
}

#[cfg(feature = "edge")]
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// List them, oldest first.
    List(OnDevice),
    /// Print one with its message.
    Show {
        /// Its number in the list.
        #[arg(value_parser = values::dead_letter)]
        id: u64,
        #[command(flatten)]
        on: OnDevice,
    },
    /// Send some again to the endpoints that they were for.
    Resend {
        /// Their numbers in the list.
        #[arg(required_unless_present = "all", value_parser = values::dead_letter)]
        ids: Vec<u64>,
        /// All there are.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        #[command(flatten)]
        on: OnDevice,
    },
    /// Remove all of them.
    Purge(OnDevice),
}

/// How to reach the edge of this device, and how to tell of it.
#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct OnDevice {
    #[command(flatten)]
    pub(crate) edge: Socket,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to reach the edge of this device.
#[cfg(feature = "edge")]
#[derive(Debug, Args)]
pub(crate) struct Socket {
    /// The edge's management socket [else IOTEDGE_HOST, else `unix:///var/run/iotedge/mgmt.sock` or, where that is not,
    /// `unix:///var/lib/holm/edge/mgmt.sock`]
    #[arg(short = 'H', long, value_name = "URI", value_parser = values::socket)]
    host: Option<String>,
}

#[cfg(feature = "edge")]
impl Socket {
    /// The one that was named.
    pub(crate) fn named(&self) -> Result<Option<String>, WrongUse> {
        match &self.host {
            Some(uri) => Ok(Some(uri.clone())),
            None => values::variable("IOTEDGE_HOST", values::socket),
        }
    }
}

/// How to reach a hub. Variables are read where options are used, not here: what they give would stand among the compulsory
/// options of each usage error. Without options: `HOLM_HUB`, then what `holm login` remembered.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct HubAccess {
    /// The connection string; others on this machine can read it from the process list: prefer HOLM_HUB or --hub-file.
    #[arg(long, value_name = "CONNECTION-STRING")]
    pub(crate) hub: Option<String>,
    /// A file that holds the connection string.
    #[arg(long, value_name = "FILE", conflicts_with = "hub")]
    pub(crate) hub_file: Option<PathBuf>,
    /// A further authority to trust: the hub's `ca.pem` [else HOLM_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl HubAccess {
    /// The further authority to trust.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.ca.clone().or_else(values::authority)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The connection string; `-` (the default) reads it from standard input.
    #[arg(default_value = "-")]
    pub(crate) connection_string: String,
    /// A further authority to trust: the hub's `ca.pem` [else HOLM_CA]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Login {
    /// The further authority to trust.
    pub(crate) fn authority(&self) -> Option<PathBuf> {
        self.ca.clone().or_else(values::authority)
    }
}

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// Symmetric keys, made by the hub.
    #[default]
    Sas,
    /// A certificate, known by its thumbprint.
    X509Thumbprint,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Register a device.
    Create {
        /// Its id.
        id: String,
        /// It runs an edge.
        #[arg(long)]
        edge: bool,
        /// How it proves who it is.
        #[arg(long, value_enum, default_value_t)]
        auth: Auth,
        /// The SHA-1 or SHA-256 thumbprint of its certificate.
        #[arg(long, value_name = "HEX", required_if_eq("auth", "x509-thumbprint"), value_parser = values::thumbprint)]
        thumbprint: Option<Thumbprint>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a device, with its connection string.
    Show {
        /// Its id.
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List devices.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete a device with its modules, twin and waiting messages.
    Delete {
        /// Its id.
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// The devices that connect through an edge device.
    #[command(subcommand)]
    Children(Children),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Children {
    /// Put devices below an edge device, so that it lets them in and speaks for them.
    Add {
        /// The edge device.
        parent: String,
        /// The devices.
        #[arg(required = true)]
        children: Vec<String>,
        /// Also those that have another parent now.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Take devices away from their edge device.
    Remove {
        /// The edge device.
        parent: String,
        /// The devices.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        children: Vec<String>,
        /// All of them.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List the devices below an edge device.
    List {
        /// The edge device.
        parent: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// List the modules of a device.
    List {
        /// The device.
        #[arg(long)]
        device: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// Whose twin or method.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The device.
    #[arg(long)]
    pub(crate) device: String,
    /// The module; without it, the device itself.
    #[arg(long)]
    pub(crate) module: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Twin {
    /// Show a twin.
    Show {
        #[command(flatten)]
        of: Target,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Merge a patch into a twin: null removes a key.
    Update {
        #[command(flatten)]
        of: Target,
        /// Desired properties, as JSON.
        #[arg(long, value_name = "JSON", required_unless_present = "tags", value_parser = values::json)]
        desired: Option<Value>,
        /// Tags, as JSON.
        #[arg(long, value_name = "JSON", value_parser = values::json)]
        tags: Option<Value>,
        /// Only if the twin still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Method {
    /// Call a method and print its answer. The exit code is 1 if its status is 400 or more, or if there is no answer; an
    /// answer is on standard output in either case.
    Invoke {
        #[command(flatten)]
        of: Target,
        /// Which method.
        name: String,
        /// Its argument, as JSON.
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = values::json)]
        payload: Value,
        /// How long to wait for the answer, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=300))]
        timeout: u64,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum C2d {
    /// Send a message to a device.
    Send {
        /// The device.
        #[arg(long)]
        device: String,
        /// Its text; `-` reads it from standard input.
        text: String,
        /// A property, as name=value; may be repeated.
        #[arg(long = "property", value_name = "NAME=VALUE", value_parser = values::property)]
        properties: Vec<Property>,
        /// Its message id.
        #[arg(long)]
        message_id: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The edge device.
    #[arg(long)]
    pub(crate) device: String,
    /// The deployment manifest.
    pub(crate) manifest: PathBuf,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

/// What the events of a hub are about; `all` is ours.
const SOURCES: [&str; 4] = ["Telemetry", "twinChangeEvents", "deviceLifecycleEvents", "all"];

#[derive(Debug, Args)]
pub(crate) struct Monitor {
    /// Only messages of this device and its modules.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Where to begin: `start`, `latest`, a sequence number, or a time (2026-01-02T03:04:05Z).
    #[arg(long, default_value = "latest", value_parser = values::begin)]
    pub(crate) from: Begin,
    /// Go on as messages come.
    #[arg(long)]
    pub(crate) follow: bool,
    /// What to read.
    #[arg(long, default_value = "Telemetry", value_parser = PossibleValuesParser::new(SOURCES))]
    pub(crate) source: String,
    /// Stop after so many messages.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
