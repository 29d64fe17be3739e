//! Jobs: one thing for many devices.

use clap::{Args, Subcommand, ValueEnum};
use holm_model::Timestamp;
use serde_json::Value;

use super::{HubAccess, Properties, Timeouts, values};

/// For whom and when.
#[derive(Debug, Args)]
pub(crate) struct Schedule {
    /// The job's id, another for each job.
    #[arg(value_parser = values::id)]
    pub(crate) id: String,
    /// For whom: what may stand behind WHERE in a query, such as "tags.site = 'north'"; `*` for all devices; for modules with
    /// "FROM devices.modules WHERE" before it.
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: String,
    /// When it begins, such as 2026-01-02T03:04:05Z; without it, now.
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    pub(crate) start: Option<Timestamp>,
    /// How long it may go on, in seconds, up to 30 days.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub(crate) max_seconds: u64,
}

/// What a job can be, in the published words.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum JobStatus {
    Scheduled,
    Queued,
    Running,
    Completed,
    Failed,
    #[value(alias = "canceled")]
    Cancelled,
}

/// What a device of a job can be, in the published words.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DeviceJobStatus {
    Pending,
    Running,
    Completed,
    Failed,
    #[value(alias = "cancelled")]
    Canceled,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Merge a patch into the twins of all devices that meet a condition.
    UpdateTwins {
        #[command(flatten)]
        schedule: Schedule,
        #[command(flatten)]
        properties: Properties,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Call a method of all devices that meet a condition.
    Call {
        #[command(flatten)]
        schedule: Schedule,
        /// Which method.
        #[arg(value_parser = values::id)]
        name: String,
        /// Its argument, as JSON.
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = values::json)]
        payload: Value,
        #[command(flatten)]
        timeouts: Timeouts,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Show a job and how far it is.
    Show {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List jobs.
    List {
        /// Those in this state alone.
        #[arg(long, value_enum, ignore_case = true)]
        status: Option<JobStatus>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// List the devices of a job, and what became of each.
    Devices {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        /// Those in this state alone.
        #[arg(long, value_enum, ignore_case = true)]
        status: Option<DeviceJobStatus>,
        #[command(flatten)]
        hub: HubAccess,
    },
    /// Cancel a job: devices that it has not begun with are left alone.
    Cancel {
        /// Its id.
        #[arg(value_parser = values::id)]
        id: String,
        #[command(flatten)]
        hub: HubAccess,
    },
}
