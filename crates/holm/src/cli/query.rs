//! Queries over the fleet.

use clap::Args;

use super::HubAccess;

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The query, such as "SELECT deviceId, tags.site FROM devices WHERE properties.reported.battery < 20".
    pub(crate) text: String,
    /// How many results at most.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
