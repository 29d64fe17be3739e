//! Commands on the files of devices.

use std::path::PathBuf;

use clap::Subcommand;

use super::{DeviceFilter, HubAccess, values};

#[derive(Debug, Subcommand)]
pub(crate) enum File {
    /// List files that devices have uploaded.
    List {
        #[command(flatten)]
        device: DeviceFilter,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Fetch a file.
    Get {
        /// Its name as `holm file list` shows it, which begins with its device.
        #[arg(value_parser = values::id)]
        name: String,
        /// Where to write it; `-` is standard output [default: the last part of its name, in this directory]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete a file. Files stay until somebody deletes them.
    Delete {
        /// Its name as `holm file list` shows it.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}
