//! Commands on a device: the edge that runs there, its configuration, and its modules.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::values;
use crate::output::WrongUse;

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
        #[arg(value_parser = values::id)]
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
        #[arg(value_parser = values::id)]
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
#[derive(Debug, Args)]
pub(crate) struct Configuration {
    /// The configuration file [else `/etc/holm/config.toml` or, where that is not, `/etc/aziot/config.toml`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Configuration {
    /// The file that was named, else the usual one.
    pub(crate) fn file(&self) -> PathBuf {
        values::configuration(self.config.as_deref())
    }
}

/// What to look at, and how to tell of it.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    /// For people.
    #[default]
    Text,
    /// For scripts, in the published form.
    Json,
}

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
    #[command(group = ArgGroup::new("which").args(["ids", "all"]).required(true))]
    Resend {
        /// Their numbers in the list.
        #[arg(value_parser = values::dead_letter)]
        ids: Vec<u64>,
        /// All there are.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        on: OnDevice,
    },
    /// Remove all of them.
    Purge(OnDevice),
}

/// How to reach the edge of this device, and how to tell of it.
#[derive(Debug, Args)]
pub(crate) struct OnDevice {
    #[command(flatten)]
    pub(crate) edge: Socket,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to reach the edge of this device.
#[derive(Debug, Args)]
pub(crate) struct Socket {
    /// The edge's management socket [else IOTEDGE_HOST, else `unix:///var/run/iotedge/mgmt.sock` or, where that is not,
    /// `unix:///var/lib/holm/edge/mgmt.sock`]
    #[arg(short = 'H', long, value_name = "URI", value_parser = values::socket)]
    host: Option<String>,
}

impl Socket {
    /// The one that was named.
    pub(crate) fn named(&self) -> Result<Option<String>, WrongUse> {
        match &self.host {
            Some(uri) => Ok(Some(uri.clone())),
            None => values::variable("IOTEDGE_HOST", values::socket),
        }
    }
}
