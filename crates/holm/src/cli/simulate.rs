//! A simulated fleet.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use holm_client::Transport;

use super::HubAccess;
use super::values;

/// How a simulated fleet is made and for how long it lives.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("fleet").args(["devices", "edges"]).required(true).multiple(true))]
pub(crate) struct Simulate {
    /// How many devices.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) devices: u32,
    /// How many edge devices: they follow their deployments and report what would run.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) edges: u32,
    /// What their ids begin with; `device-7` and `edge-7` follow.
    #[arg(long, value_name = "TEXT", default_value = "sim-")]
    pub(crate) prefix: String,
    /// What they do: JSON with `every`, `body`, `report`, `tags`, `methodStatus`. See docs/simulator.md.
    #[arg(long, value_name = "FILE")]
    pub(crate) behaviour: Option<PathBuf>,
    /// What the edges run: a deployment for all of them, as a manifest describes it. They report that it runs.
    #[arg(long, value_name = "FILE", requires = "edges")]
    pub(crate) deployment: Option<PathBuf>,
    /// Share connections, hundreds on each, as devices behind a gateway do. Over AMQP alone.
    #[arg(long)]
    pub(crate) shared: bool,
    /// How long, once all are connected and have reported; else until Ctrl-C.
    #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
    pub(crate) life: Option<Duration>,
    /// What they speak: `mqtt`, `mqtt-ws`, `amqp` or `amqp-ws`.
    #[arg(long, value_name = "PROTOCOL", default_value = "mqtt")]
    pub(crate) protocol: Transport,
    /// The port of that protocol, if it is not the published one.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) port: Option<u16>,
    /// Only register them, with their tags.
    #[arg(long, conflicts_with = "life")]
    pub(crate) register_only: bool,
    /// Delete from the hub at the end what this simulation, or an earlier one of the same prefix, has made.
    #[arg(long)]
    pub(crate) delete: bool,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[cfg(test)]
impl Simulate {
    /// With nothing but so many devices and edges.
    pub(crate) fn for_tests(devices: u32, edges: u32) -> Self {
        Self {
            devices,
            edges,
            prefix: "sim-".to_owned(),
            behaviour: None,
            deployment: None,
            life: None,
            protocol: Transport::default(),
            port: None,
            shared: false,
            register_only: false,
            delete: false,
            hub: HubAccess::default(),
        }
    }
}
