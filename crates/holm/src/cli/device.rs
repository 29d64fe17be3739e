//! Commands at a hub: devices, methods, events and deployments.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use holm_identity::Thumbprint;
use serde_json::Value;

use super::values::{self, Begin};
use super::{DeviceArgument, DeviceFilter, HubAccess, RenewedKey, TargetArgument, WhichKey};

/// How a device proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// Symmetric keys, made by the hub.
    Sas,
    /// A certificate, known by its thumbprint.
    X509Thumbprint,
}

/// Whether a device may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceStatus {
    /// It may.
    Enabled,
    /// It may not.
    Disabled,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Device {
    /// Register a device.
    Create {
        #[command(flatten)]
        device: DeviceArgument,
        /// It runs an edge.
        #[arg(long)]
        edge: bool,
        /// How it proves who it is [default: sas, but with --thumbprint x509-thumbprint]
        #[arg(long, value_enum)]
        auth: Option<Auth>,
        /// The SHA-1 or SHA-256 thumbprint of its certificate.
        #[arg(long, value_name = "HEX", required_if_eq("auth", "x509-thumbprint"), value_parser = values::thumbprint)]
        thumbprint: Option<Thumbprint>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a device, with its connection string.
    Show {
        #[command(flatten)]
        device: DeviceArgument,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List devices.
    List {
        /// At most so many, the first of them.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
        max: Option<u64>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change a device: what is not given stays.
    #[command(group = ArgGroup::new("change").required(true).multiple(true))]
    Update {
        #[command(flatten)]
        device: DeviceArgument,
        /// Whether it may connect; sessions of a device that is disabled end.
        #[arg(long, value_enum, group = "change")]
        status: Option<DeviceStatus>,
        /// Why; at most 128 characters, and an empty text takes the reason away.
        #[arg(long, value_name = "TEXT", group = "change")]
        reason: Option<String>,
        /// Whether it runs an edge: `true` or `false`.
        #[arg(long, value_name = "BOOL", group = "change")]
        edge: Option<bool>,
        /// The thumbprint of its certificate, by which it logs in from now on.
        #[arg(long, value_name = "HEX", group = "change", value_parser = values::thumbprint)]
        thumbprint: Option<Thumbprint>,
        /// That of the certificate to change to.
        #[arg(long, value_name = "HEX", requires = "thumbprint", value_parser = values::thumbprint)]
        secondary_thumbprint: Option<Thumbprint>,
        /// Only if the device still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Give a device a new key. Its sessions end, and it connects by a key that is good.
    RenewKey {
        #[command(flatten)]
        device: DeviceArgument,
        /// Which key.
        #[arg(long, value_enum)]
        key: RenewedKey,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Print the connection string of a device, and nothing else.
    ConnectionString {
        #[command(flatten)]
        device: DeviceArgument,
        /// By which key.
        #[arg(long, value_enum, default_value_t)]
        key: WhichKey,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Write all devices and modules with their keys and twins to a file, an object a line.
    #[cfg(feature = "hub")]
    Export {
        /// Where to write it; `-` is standard output.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Leave out the keys.
        #[arg(long)]
        exclude_keys: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Make or change devices and modules as a file says that `export` has written. The exit code is 1 if a line failed.
    #[cfg(feature = "hub")]
    Import {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete a device with its modules, twin and waiting messages.
    Delete {
        #[command(flatten)]
        device: DeviceArgument,
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
        #[arg(value_parser = values::id)]
        parent: String,
        /// The devices.
        #[arg(required = true, value_parser = values::id)]
        children: Vec<String>,
        /// Also those that have another parent now.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Take devices away from their edge device.
    #[command(
        group = ArgGroup::new("which").args(["children", "all"]).required(true),
        override_usage = "holm device children remove [OPTIONS] <PARENT> <CHILDREN...|--all>"
    )]
    Remove {
        /// The edge device.
        #[arg(value_parser = values::id)]
        parent: String,
        /// The devices.
        #[arg(value_parser = values::id)]
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
        #[arg(value_parser = values::id)]
        parent: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// How long the call of a method waits.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Timeouts {
    /// How long to wait for the answer, in seconds, 5 to 300.
    #[arg(id = "timeout", long = "timeout", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=300))]
    pub(crate) response: u64,
    /// How long to wait before for a device that is not connected, in seconds, 0 to 300.
    #[arg(id = "connect_timeout", long = "connect-timeout", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub(crate) connect: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Method {
    /// Call a method and print its answer. The exit code is 1 if its status is 400 or more, or if there is no answer; an
    /// answer is on standard output in either case.
    #[command(allow_missing_positional = true)]
    Invoke {
        #[command(flatten)]
        of: TargetArgument,
        /// Which method.
        #[arg(value_parser = values::id)]
        name: String,
        /// Its argument, as JSON.
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = values::json)]
        payload: Value,
        #[command(flatten)]
        timeouts: Timeouts,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) device: DeviceArgument,
    /// The deployment manifest.
    pub(crate) manifest: PathBuf,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

/// What the events of a hub are about; `all` is ours.
const SOURCES: [&str; 7] = [
    "Telemetry",
    "twinChangeEvents",
    "deviceLifecycleEvents",
    "deviceConnectionStateEvents",
    "deviceJobLifecycleEvents",
    "digitalTwinChangeEvents",
    "all",
];

/// What of a message is shown beside its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shown {
    /// What the application said about it.
    App,
    /// What the platform knows of it.
    Sys,
    /// Where it stands in the log.
    Anno,
    /// All of that.
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Monitor {
    #[command(flatten)]
    pub(crate) device: DeviceFilter,
    /// Only messages of this module of the device.
    #[arg(long, short, requires = "DeviceFilter", value_parser = values::id)]
    pub(crate) module: Option<String>,
    /// Only this partition of the event log.
    #[arg(long, value_name = "NUMBER", conflicts_with = "DeviceFilter")]
    pub(crate) partition: Option<u16>,
    /// Where to begin: `start`, `latest`, a sequence number, or a time (2026-01-02T03:04:05Z).
    #[arg(long, default_value = "latest", value_parser = values::begin)]
    pub(crate) from: Begin,
    /// Go on as messages come.
    #[arg(long)]
    pub(crate) follow: bool,
    /// What to read.
    #[arg(long, default_value = "Telemetry", value_parser = PossibleValuesParser::new(SOURCES))]
    pub(crate) source: String,
    /// What to show of a message beside its body: `app`, `sys`, `anno` or `all`; several are separated by commas. With `--json`
    /// everything is there.
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        value_delimiter = ',',
        hide_possible_values = true
    )]
    pub(crate) properties: Vec<Shown>,
    /// With `--follow`, stop when no message has come for so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "follow", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Stop after so many messages.
    #[arg(long, alias = "message-count", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
