//! Commands on shared access policies, and on who changed what.

use clap::builder::NonEmptyStringValueParser;
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
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Make a policy.
    Create {
        /// Its name: 1 to 64 letters, digits, `-`, `_` or `.`.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
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
        #[arg(value_parser = NonEmptyStringValueParser::new())]
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
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Give a policy other keys.
    Rotate {
        /// Its name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// How.
        #[arg(long, value_enum, default_value_t)]
        key: Rotated,
        #[command(flatten)]
        hub: HubAccess,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only changes of this device with its modules, module (`DEVICE/MODULE`), policy or job.
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Changes from then on: a time (2026-01-02T03:04:05Z), or how long ago (90s, 2h, 1d). Without it, the last ones.
    #[arg(long, value_name = "TIME", value_parser = values::since)]
    pub(crate) since: Option<String>,
    /// At most so many. Without `--since` 50, else all.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    #[command(flatten)]
    pub(crate) hub: HubAccess,
}
