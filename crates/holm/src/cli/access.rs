//! How a hub is reached.

use std::path::PathBuf;

use clap::Args;

use super::values;

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
