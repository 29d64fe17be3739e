//! Commands on the files of devices.

use std::path::PathBuf;

use clap::Subcommand;

use super::HubAccess;

#[derive(Debug, Subcommand)]
pub(crate) enum File {
    /// List files that devices have uploaded.
    List {
        /// Only those of this device.
        #[arg(long, short)]
        device: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Fetch a file.
    Get {
        /// Its name as `holm file list` shows it, which begins with its device.
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
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}
