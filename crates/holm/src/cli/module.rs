//! Commands on modules and their twins, and on whose twin or method it is.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{HubAccess, values};

/// Which key of an identity is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RenewedKey {
    /// A new primary key.
    Primary,
    /// A new secondary key.
    Secondary,
    /// Both anew.
    Both,
    /// Each becomes the other; none is new.
    Swap,
}

/// Which key of an identity or policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhichKey {
    /// The one in use.
    #[default]
    Primary,
    /// The one to change to.
    Secondary,
}

impl WhichKey {
    /// Its member in documents.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Self::Primary => "primaryKey",
            Self::Secondary => "secondaryKey",
        }
    }
}

/// A module of a device, which is the argument before it or given by its name. Its command allows a missing positional.
#[derive(Debug, Args)]
pub(crate) struct OneModule {
    #[command(flatten)]
    device: DeviceArgument,
    /// The module.
    #[arg(value_parser = values::id)]
    pub(crate) module: String,
}

impl OneModule {
    /// The id of the device.
    pub(crate) fn device(&self) -> &str {
        self.device.as_str()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Module {
    /// Register a module.
    #[command(allow_missing_positional = true)]
    Create {
        #[command(flatten)]
        which: OneModule,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a module, with its connection string.
    #[command(allow_missing_positional = true)]
    Show {
        #[command(flatten)]
        which: OneModule,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List the modules of a device.
    List {
        #[command(flatten)]
        device: DeviceArgument,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete a module with its twin.
    #[command(allow_missing_positional = true)]
    Delete {
        #[command(flatten)]
        which: OneModule,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Give a module a new key. Sessions that were opened by one that is gone end.
    #[command(allow_missing_positional = true)]
    RenewKey {
        #[command(flatten)]
        which: OneModule,
        /// Which key.
        #[arg(long, value_enum)]
        key: RenewedKey,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Print the connection string of a module, and nothing else.
    #[command(allow_missing_positional = true)]
    ConnectionString {
        #[command(flatten)]
        which: OneModule,
        /// By which key.
        #[arg(long, value_enum, default_value_t)]
        key: WhichKey,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// Whose twin or method.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The device.
    #[arg(long, short, value_parser = values::id)]
    pub(crate) device: String,
    /// The module; without it, the device itself.
    #[arg(long, short, value_parser = values::id)]
    pub(crate) module: Option<String>,
}

/// A device, as the argument or by its name, as commands say it whose argument is something else.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct DeviceArgument {
    /// The device.
    #[arg(value_name = "DEVICE", value_parser = values::id)]
    device: Option<String>,
    /// The device, as other commands name it.
    #[arg(id = "named", long = "device", short = 'd', value_name = "DEVICE", hide = true, value_parser = values::id)]
    named: Option<String>,
}

impl DeviceArgument {
    /// Its id.
    pub(crate) fn as_str(&self) -> &str {
        // One of them is there: the group wants it.
        self.device.as_deref().or(self.named.as_deref()).unwrap_or_default()
    }

    /// Its id.
    pub(crate) fn id(self) -> String {
        self.as_str().to_owned()
    }
}

/// A device or all of them, as the argument or by its name.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct DeviceFilter {
    /// Only of this device; without it, of all.
    #[arg(value_name = "DEVICE", value_parser = values::id)]
    device: Option<String>,
    /// The device, as other commands name it.
    #[arg(id = "named", long = "device", short = 'd', value_name = "DEVICE", hide = true, value_parser = values::id)]
    named: Option<String>,
}

impl DeviceFilter {
    /// Its id, if it is one.
    pub(crate) fn id(&self) -> Option<&str> {
        self.device.as_deref().or(self.named.as_deref())
    }
}

/// Whose twin, the device as the argument or by its name.
#[derive(Debug, Args)]
pub(crate) struct TargetArgument {
    #[command(flatten)]
    device: DeviceArgument,
    /// The module; without it, the device itself.
    #[arg(long, short, value_parser = values::id)]
    module: Option<String>,
}

impl TargetArgument {
    /// Whose twin it is.
    pub(crate) fn target(self) -> Target {
        Target {
            device: self.device.id(),
            module: self.module,
        }
    }
}

/// What of twins is written.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Properties {
    /// Desired properties, as JSON.
    #[arg(long, value_name = "JSON", value_parser = values::json)]
    pub(crate) desired: Option<Value>,
    /// Tags, as JSON.
    #[arg(long, value_name = "JSON", value_parser = values::json)]
    pub(crate) tags: Option<Value>,
}

/// A change of one twin.
#[derive(Debug, Args)]
pub(crate) struct TwinChange {
    #[command(flatten)]
    pub(crate) of: TargetArgument,
    #[command(flatten)]
    pub(crate) properties: Properties,
    /// Only if the twin still has this etag.
    #[arg(long, value_name = "ETAG")]
    pub(crate) etag: Option<String>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Twin {
    /// Show a twin.
    Show {
        #[command(flatten)]
        of: TargetArgument,
        /// As it was: a version of the twin, a time (2026-01-02T03:04:05Z), or how long ago (90s, 2h, 1d).
        #[arg(long, value_name = "POINT", value_parser = values::point)]
        at: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Merge a patch into a twin: null removes a key.
    Update(TwinChange),
    /// Replace tags or desired properties as wholes.
    Replace(TwinChange),
    /// Show who changed a twin, when and how, the newest first.
    History {
        #[command(flatten)]
        of: TargetArgument,
        /// At most so many changes.
        #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        max: u32,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show what differs between two points in a twin's history, as merge patches.
    Diff {
        #[command(flatten)]
        of: Target,
        /// From: a version of the twin, a time, or how long ago.
        #[arg(value_name = "FROM", value_parser = values::point)]
        from: String,
        /// To [default: now]
        #[arg(value_name = "TO", value_parser = values::point)]
        to: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Set tags and desired properties to what they were.
    #[command(allow_missing_positional = true)]
    Restore {
        #[command(flatten)]
        of: TargetArgument,
        /// When: a version of the twin, a time, or how long ago.
        #[arg(value_name = "POINT", value_parser = values::point)]
        point: String,
        /// Only if the twin still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
}
