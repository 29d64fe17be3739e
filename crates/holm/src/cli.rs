//! The command line: names, options, and what `--help` says of them.

mod access;
mod device;
mod edge;
pub(crate) mod values;

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::build;
use crate::logging::LogFormat;
use crate::output::WrongUse;

pub(crate) use access::{HubAccess, Login};
pub(crate) use device::{Auth, C2d, Children, Deploy, Device, Method, Module, Monitor, Target, Twin};
pub(crate) use edge::{Check, CheckOutput, Config, DeadLetters, Edge, Level, OnDevice, Socket, SupportBundle, System};

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
        let read = |text: &str| LogFormat::from_str(text, true).map_err(|_| "give `text` or `json`".to_owned());
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
