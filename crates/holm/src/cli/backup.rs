//! Backups of a hub.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::HubAccess;

/// Which hub, and where the backup goes.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Backup {
    #[command(subcommand)]
    pub(crate) verb: Option<BackupVerb>,
    /// A file, which is replaced if it is there; a directory, in which it gets a name with hub and time; or `-` for standard output.
    #[arg(long, value_name = "FILE|DIR", required = true)]
    pub(crate) to: Option<PathBuf>,
    /// The data directory of a hub of this machine, whether it runs or not; else the hub of a connection string is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["hub", "hub_file"])]
    pub(crate) data: Option<PathBuf>,
    /// Where files of devices are, if the hub does not run and was told `--blobs`.
    #[arg(long, value_name = "DIR", requires = "data")]
    pub(crate) blobs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupVerb {
    /// Read a backup to its end: whether it is as it was written.
    Verify {
        /// The backup; `-` is standard input.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What is restored to where.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The backup; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// The new data directory: empty, or not there yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Where files of devices go [default: blobs in the data directory]; the hub is then started with the same `--blobs`.
    #[arg(long, value_name = "DIR")]
    pub(crate) blobs: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
