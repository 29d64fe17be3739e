//! The hub: a process, and what belongs to its data directory.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::bounds::Bounds;
use super::values;

#[derive(Debug, Subcommand)]
pub(crate) enum Hub {
    /// Run the hub. At the first start it makes its authority, its certificate and its policies.
    Run(Box<HubRun>),
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
    /// The port of AMQP over TLS; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 5671)]
    pub(crate) amqp_port: u16,
    /// The port of HTTPS and WebSocket; 0 lets the system choose.
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    pub(crate) https_port: u16,
    /// Where `/healthz` and `/metrics` are served, in plain HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    pub(crate) status: std::net::SocketAddr,
    /// Where files of devices are kept [default: blobs in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) blobs: Option<PathBuf>,
    /// The most bytes of all files; more are refused.
    #[arg(long, value_name = "SIZE", default_value = "10GiB", value_parser = values::size)]
    pub(crate) blob_quota: u64,
    /// How long a device may take for an upload, 1m to 24h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = values::duration)]
    pub(crate) upload_life: Duration,
    /// Don't tell back ends of files that came.
    #[arg(long)]
    pub(crate) no_file_notifications: bool,
    /// Take no files of devices.
    #[arg(long)]
    pub(crate) no_files: bool,
    /// Check settings and data directory, and stop.
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
}
