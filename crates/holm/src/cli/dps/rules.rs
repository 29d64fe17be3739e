//! What devices become that an enrollment expects.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cli::values;

/// What a later registration does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reprovision {
    /// The device may get another hub, and keeps its data.
    #[default]
    Migrate,
    /// The device may get another hub, and begins anew with the initial twin.
    Reset,
    /// The device stays what and where it is.
    Never,
}

/// Which hub a device is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Allocation {
    /// One of several, always the same for the same device.
    #[default]
    Hashed,
    /// The first of those given.
    Static,
    /// What a webhook says.
    Custom,
}

/// What happens where the hub has a device of that id already which is not the enrollment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Takeover {
    /// It becomes that device, by its own proof.
    Allow,
    /// Its registration fails.
    Refuse,
}

/// What a device becomes.
#[derive(Debug, Args)]
pub(crate) struct Rules {
    /// It becomes an edge device.
    #[arg(long)]
    pub(crate) edge: bool,
    /// It is not let in yet.
    #[arg(long)]
    pub(crate) disabled: bool,
    /// What a later registration does.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) reprovision: Reprovision,
    /// What happens where the hub has a device of that id already, made by hand or by another enrollment [default: allow]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) takeover: Option<Takeover>,
    /// Which hub it is given.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) allocation: Allocation,
    /// A hub to choose from; may be given several times [default: all]
    #[arg(long = "iot-hub", value_name = "HOST")]
    pub(crate) hubs: Vec<String>,
    /// Have certificates made for devices that send a signing request when they register, by the hub's own authority.
    #[arg(long)]
    pub(crate) issue_certificates: bool,
    /// Who is asked, with `--allocation custom` alone.
    #[arg(long, value_name = "URL", required_if_eq("allocation", "custom"))]
    pub(crate) webhook: Option<String>,
    /// Tags and desired properties of a new device, as `{"tags": {…}, "properties": {"desired": {…}}}`.
    #[arg(long, value_name = "JSON", value_parser = values::initial_twin)]
    pub(crate) initial_twin: Option<Value>,
}

/// What is to be otherwise.
#[derive(Debug, Args)]
pub(crate) struct RuleChanges {
    /// What a later registration does.
    #[arg(long, value_enum)]
    pub(crate) reprovision: Option<Reprovision>,
    /// What happens where the hub has a device of that id already, made by hand or by another enrollment.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) takeover: Option<Takeover>,
    /// Which hub it is given.
    #[arg(long, value_enum)]
    pub(crate) allocation: Option<Allocation>,
    /// A hub to choose from, instead of those so far; may be given several times.
    #[arg(long = "iot-hub", value_name = "HOST")]
    pub(crate) hubs: Vec<String>,
    /// Choose from all hubs.
    #[arg(long, conflicts_with = "hubs")]
    pub(crate) any_hub: bool,
    /// Whether certificates are made for devices that send a signing request: `true` or `false`.
    #[arg(long, value_name = "BOOL")]
    pub(crate) issue_certificates: Option<bool>,
    /// Who is asked, with `--allocation custom` alone.
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Option<String>,
    /// Tags and desired properties of a new device, as `{"tags": {…}, "properties": {"desired": {…}}}`.
    #[arg(long, value_name = "JSON", value_parser = values::initial_twin)]
    pub(crate) initial_twin: Option<Value>,
    /// Only if it still has this etag.
    #[arg(long, value_name = "ETAG")]
    pub(crate) etag: Option<String>,
}
