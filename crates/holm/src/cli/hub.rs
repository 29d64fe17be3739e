//! The hub: a process, and what belongs to its data directory.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use holm_hub::HubConfig;

use super::bounds::{self, Bounds};
use super::changes::Changes;
use super::serving::Serving;
use super::{Backup, HubAccess, Restore, values};

#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Run the hub. At the first start it makes its authority, its certificate and its policies.
    Run(Box<HubRun>),
    /// Write all that a hub is to one file, while it runs. See docs/backup.md.
    Backup(Box<Backup>),
    /// Make a data directory of a backup.
    Restore(Restore),
    /// Print the service connection string.
    ConnectionString {
        /// The hub's data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// That of the Event-Hubs-compatible endpoint, for clients of Event Hubs.
        #[arg(long)]
        event_hub: bool,
        /// That of the provisioning service.
        #[arg(long, conflicts_with = "event_hub")]
        dps: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the id scope, by which devices ask the provisioning service.
    IdScope {
        /// The hub's data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Consumer groups of the Event-Hubs-compatible endpoint.
    #[command(subcommand)]
    ConsumerGroup(ConsumerGroup),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConsumerGroup {
    /// Make one; nothing happens if it is there.
    Add {
        /// Its name: 1 to 50 letters, digits, `.`, `-` or `_`.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List them.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Remove one, and end its readers; nothing happens if it is not there.
    Remove {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// What the hub itself may tell by events.
pub(crate) const EVENT_SOURCES: [&str; 6] = [
    "twinChangeEvents",
    "deviceLifecycleEvents",
    "deviceConnectionStateEvents",
    "deviceJobLifecycleEvents",
    "digitalTwinChangeEvents",
    "none",
];

#[derive(Debug, Args)]
pub(crate) struct HubRun {
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// Of what the hub tells by events of its own, beside what devices send; several are separated by commas. Where routes name a
    /// source, they decide.
    #[arg(long, value_name = "SOURCES", value_delimiter = ',', value_parser = PossibleValuesParser::new(EVENT_SOURCES),
        default_value = "twinChangeEvents,deviceLifecycleEvents")]
    pub(crate) event_sources: Vec<String>,
    /// Below it endpoints of message routing may write files [default: routed in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) routed_files: Option<PathBuf>,
    /// Where `/healthz` and `/metrics` are served, in plain HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) status: std::net::SocketAddr,
    /// Where files of devices are kept [default: blobs in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) blobs: Option<PathBuf>,
    /// The most bytes of all files, each of which counts as 4 KiB at least; more are refused, with 0 every file.
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = values::size)]
    pub(crate) blob_quota: u64,
    /// How long a device may take for an upload, 1m to 24h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = bounds::upload_life)]
    pub(crate) upload_life: Duration,
    /// Keep files in a bucket of the S3-compatible store at this address. Its access keys are in AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY.
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "URL", requires = "s3_bucket")]
    pub(crate) s3_endpoint: Option<String>,
    /// The bucket.
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "NAME", requires = "s3_endpoint")]
    pub(crate) s3_bucket: Option<String>,
    /// The region that requests are signed for.
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub(crate) s3_region: String,
    /// What stands before the names of objects. They are this hub's alone: it removes those that it does not know.
    #[cfg(feature = "s3")]
    #[arg(long, value_name = "TEXT", default_value = "holm/")]
    pub(crate) s3_prefix: String,
    /// Don't tell back ends of files that came.
    #[arg(long)]
    pub(crate) no_file_notifications: bool,
    /// Take no files of devices.
    #[arg(long, conflicts_with_all = ["blobs", "blob_quota", "upload_life", "no_file_notifications"])]
    pub(crate) no_files: bool,
    /// The most devices and modules let in each second, 100 or more; those above wait up to 10 s, then are told to come again
    /// [default: as many as the machine bears]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(i64::from(HubConfig::LEAST_LOGINS)..))]
    pub(crate) max_logins_per_second: Option<u32>,
    /// The most connections over HTTPS and WebSocket at a time [default: a quarter of those that open files permit, at most 20000]; the
    /// others are for MQTT and AMQP
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_https_connections: Option<u32>,
    /// The most devices that register each minute with the provisioning service; those above are told when to come again
    /// [default: as many as the machine bears]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_registrations_per_minute: Option<u32>,
    /// How many days the certificates live that are made for devices which register, 1 to 3650.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) issued_certificate_days: u32,
    /// Check settings and data directory, and stop.
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) changes: Changes,
}
