//! How long a hub knows who changed what.

use std::time::Duration;

use clap::Args;
use holm_hub::ChangeBounds;

use super::values;

/// What is kept of changes. Each time is a number with `s`, `m`, `h` or `d`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who changed what")]
pub(crate) struct Changes {
    /// How long it is known who changed what.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = values::duration)]
    audit_retention: Duration,
    /// The most records of that of each kind (of devices, of twins, …); the oldest go first.
    #[arg(long, value_name = "COUNT", default_value_t = ChangeBounds::AUDIT.records, value_parser = clap::value_parser!(u64).range(1..))]
    audit_records: u64,
    /// How long it is known what twins were; 0s keeps nothing.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = values::duration)]
    twin_history: Duration,
    /// The most changes of that, of all twins; the oldest go first.
    #[arg(long, value_name = "COUNT", default_value_t = ChangeBounds::TWINS.records, value_parser = clap::value_parser!(u64).range(1..))]
    twin_history_changes: u64,
}

impl Changes {
    /// Of the audit log.
    pub(crate) const fn audit(&self) -> ChangeBounds {
        ChangeBounds {
            age: self.audit_retention,
            records: self.audit_records,
        }
    }

    /// Of twins.
    pub(crate) const fn twins(&self) -> ChangeBounds {
        ChangeBounds {
            age: self.twin_history,
            records: self.twin_history_changes,
        }
    }
}
