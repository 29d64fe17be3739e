//! Commands for many devices at once: automatic deployments, and configurations of devices and modules. They differ in what their
//! content is for, and in nothing else.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{self, Property};
use super::{DeviceArgument, HubAccess};

/// Whom it is for and which of several wins.
#[derive(Clone, Debug, Args)]
pub(crate) struct Aim {
    /// Whom it is for, such as `tags.site = 'mine'`; `*` is everybody, an empty one nobody.
    #[arg(long, short = 't', value_name = "CONDITION")]
    pub(crate) target_condition: Option<String>,
    /// Of two, the greater wins; of two equal ones the newer.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(0..=i64::from(i32::MAX)))]
    pub(crate) priority: Option<u32>,
    /// A note of yours; several may be given.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = values::property)]
    pub(crate) labels: Vec<Property>,
    /// A figure of its own: a query whose rows are counted; several may be given.
    #[arg(long = "metric", value_name = "NAME=QUERY", value_parser = values::property)]
    pub(crate) metrics: Vec<Property>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Configuration {
    /// Make one. Its content can't be changed afterwards.
    Create {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// What it sets: a manifest (whole, or a layer of paths), or `deviceContent` or `moduleContent`.
        #[arg(long, value_name = "FILE")]
        content: PathBuf,
        #[command(flatten)]
        aim: Aim,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List them with their figures.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show one with its figures.
    Show {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change whom one is for, its priority, labels or figures.
    Update {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        aim: Aim,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete one; the next best takes its place.
    Delete {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Tell what making, changing or deleting one would do, to how many and to whom for example. Nothing is changed.
    Plan {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// What it would set, if it is not there yet.
        #[arg(long, value_name = "FILE")]
        content: Option<PathBuf>,
        #[command(flatten)]
        aim: Aim,
        /// It would be deleted.
        #[arg(long, conflicts_with_all = ["content", "target_condition", "priority", "labels", "metrics"])]
        delete: bool,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Tell why a device has what it has: who won, who lost, and why.
    Explain {
        #[command(flatten)]
        device: DeviceArgument,
        /// The module, for configurations of modules.
        #[arg(long, short, value_parser = values::id)]
        module: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
}
