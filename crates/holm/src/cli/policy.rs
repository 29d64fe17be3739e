//! Commands on shared access policies, and on who changed what.

use clap::{Args, Subcommand, ValueEnum};

use super::{HubAccess, values};

/// What a policy of a hub may allow.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HubRight {
    #[value(name = "RegistryRead")]
    RegistryRead,
    #[value(name = "RegistryWrite")]
    RegistryWrite,
    #[value(name = "ServiceConnect")]
    ServiceConnect,
    #[value(name = "DeviceConnect")]
    DeviceConnect,
}

/// What a policy of the provisioning service may allow.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DpsRight {
    #[value(name = "ServiceConfig")]
    ServiceConfig,
    #[value(name = "EnrollmentRead")]
    EnrollmentRead,
    #[value(name = "EnrollmentWrite")]
    EnrollmentWrite,
    #[value(name = "DeviceConnect")]
    DeviceConnect,
    #[value(name = "RegistrationStatusRead")]
    RegistrationStatusRead,
    #[value(name = "RegistrationStatusWrite")]
    RegistrationStatusWrite,
}

/// How the keys of a policy are rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rotated {
    /// The primary key becomes the secondary, and the primary is new: who holds the primary goes on by it until the next time.
    #[default]
    Roll,
    /// A new primary key.
    Primary,
    /// A new secondary key.
    Secondary,
    /// Each becomes the other; none is new.
    Swap,
}

/// What can be done with policies; `R` is what they may allow.
#[derive(Debug, Subcommand)]
pub(crate) enum Policy<R: ValueEnum + Clone + std::fmt::Debug + Send + Sync + 'static> {
    /// List policies, without keys.
    List {
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a policy, with its connection strings.
    Show {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Make a policy.
    Create {
        /// Its name: 1 to 64 letters, digits, `-`, `_` or `.`.
        #[arg(value_parser = values::id)]
        name: String,
        /// What its holder may do; several are separated by commas.
        #[arg(long, value_delimiter = ',', required = true, ignore_case = true, value_enum)]
        rights: Vec<R>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Change what the holder of a policy may do.
    Update {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        /// What its holder may do; several are separated by commas.
        #[arg(long, value_delimiter = ',', required = true, ignore_case = true, value_enum)]
        rights: Vec<R>,
        /// Only if the policy still has this etag.
        #[arg(long, value_name = "ETAG")]
        etag: Option<String>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Delete a policy.
    Delete {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Give a policy other keys.
    Rotate {
        /// Its name.
        #[arg(value_parser = values::id)]
        name: String,
        /// How.
        #[arg(long, value_enum, default_value_t)]
        key: Rotated,
        #[command(flatten)]
        hub: HubAccess,
    },
}

/// What was changed, as the argument or by its name.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct AuditTarget {
    /// Only changes of this device with its modules, module (`DEVICE/MODULE`), policy or job.
    #[arg(value_name = "TARGET", value_parser = values::id)]
    target: Option<String>,
    /// The same, by its name; of a device as other commands name it.
    #[arg(id = "named", long = "target", alias = "device", short_alias = 'd', value_name = "TARGET", hide = true, value_parser = values::id)]
    named: Option<String>,
}

impl AuditTarget {
    /// Its id, if only changes of one are asked for.
    pub(crate) fn id(&self) -> Option<&str> {
        self.target.as_deref().or(self.named.as_deref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) target: AuditTarget,
    /// Changes from then on: a time (2026-01-02T03:04:05Z), or how long ago (90s, 2h, 1d). Without it, the last ones.
    #[arg(long, value_name = "TIME", value_parser = values::since)]
    pub(crate) since: Option<String>,
    /// At most so many. Without `--since` 50, else all.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
