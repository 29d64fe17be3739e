//! What is really there: the state of one module, in the vocabulary that is published to the hub.

use std::collections::BTreeMap;
use std::fmt;

use holm_model::{ModuleId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::RuntimeKind;

/// `runtimeStatus` as it is reported to the hub (`edge-agent.md` §2.4).
///
/// `Backoff` is never found by a runtime: it is a decision of whoever restarts modules, and stands here because it
/// belongs to the same published vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeStatus {
    /// The state cannot be told.
    #[default]
    Unknown,
    /// It runs.
    Running,
    /// It runs, but its own health check fails.
    Unhealthy,
    /// It has not been started, or ended with exit code 0.
    Stopped,
    /// It waits to be restarted.
    Backoff,
    /// It ended with another exit code than 0, or could not be started.
    Failed,
    /// The engine gave it up; it can only be removed.
    Dead,
}

impl RuntimeStatus {
    /// The published word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
            Self::Backoff => "backoff",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }

    /// Whether the module's program is there, healthy or not.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Unhealthy)
    }

    /// The status for a state of the Docker engine (table of `edge-agent.md` §2.4).
    #[must_use]
    pub fn from_docker(state: &str, exit_code: i64, health: Option<&str>) -> Self {
        match state {
            "created" | "paused" | "restarting" => Self::Stopped,
            "running" if health == Some("unhealthy") => Self::Unhealthy,
            "running" => Self::Running,
            "exited" | "removing" if exit_code == 0 => Self::Stopped,
            "exited" | "removing" => Self::Failed,
            "dead" => Self::Dead,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for RuntimeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a module's health check says while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has not passed yet since the start, and has not failed often enough to count.
    Starting,
    /// It passed.
    Healthy,
    /// It failed as often as is tolerated.
    Unhealthy,
}

impl Health {
    /// Reads the Docker engine's word; `None` when there is no health check.
    #[must_use]
    pub fn from_docker(word: &str) -> Option<Self> {
        match word {
            "starting" => Some(Self::Starting),
            "healthy" => Some(Self::Healthy),
            "unhealthy" => Some(Self::Unhealthy),
            _ => None,
        }
    }
}

/// One module as its runtime finds it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleState {
    /// The module.
    pub id: ModuleId,
    /// The runtime that it was found in.
    pub kind: RuntimeKind,
    /// What it does.
    pub status: RuntimeStatus,
    /// What its health check says; `None` when it has none or does not run.
    pub health: Option<Health>,
    /// More about the status when there is more to say, such as why it failed.
    pub description: Option<String>,
    /// How it last ended; `None` before it ended for the first time. 128 + n means: ended by signal n.
    pub exit_code: Option<i32>,
    /// When it was last started; `None` when it never was.
    pub started_at: Option<Timestamp>,
    /// When it last ended; `None` when it never did.
    pub exited_at: Option<Timestamp>,
    /// The image as the manifest named it.
    pub image: String,
    /// What the image's content is, `sha256:…` where it is known.
    pub image_hash: Option<String>,
    /// The main process, in the device's own numbering, while it runs.
    pub pid: Option<u32>,
    /// [`crate::ModuleSpec::digest`] of what it was created from; `None` when somebody else created it.
    pub spec_digest: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its last run was in an earlier life of the device; `None` when the runtime can't tell, and only the times
    /// can be compared.
    pub is_from_before_boot: Option<bool>,
}

/// What one module uses, as totals since its start unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModuleStats {
    /// Memory in use now, in bytes, without reclaimable page cache.
    pub memory_bytes: u64,
    /// The limit on it, in bytes; `None` when there is none.
    pub memory_limit_bytes: Option<u64>,
    /// Processor time used, in nanoseconds, all processors together.
    pub cpu_nanos: u64,
    /// Processes and threads now.
    pub pids: u64,
    /// Received from the network, in bytes; `None` where a module has no network of its own.
    pub network_in_bytes: Option<u64>,
    /// Sent to the network, in bytes.
    pub network_out_bytes: Option<u64>,
    /// Read from disks, in bytes.
    pub disk_read_bytes: u64,
    /// Written to disks, in bytes.
    pub disk_write_bytes: u64,
    /// The same in the shape of the Docker engine's stats, as the management API shows it in `docker_stats`.
    pub docker_json: Value,
}

/// Whether a port of the device can be reached from where a module runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// A TCP connection was made.
    Reachable,
    /// It was tried and failed.
    Unreachable {
        /// What was tried and what the network answered.
        reason: String,
    },
    /// It could not be tried.
    NotChecked {
        /// What is in the way.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_states_map_to_the_published_words() {
        let rows = [
            ("created", 0, None, "stopped"),
            ("paused", 0, None, "stopped"),
            ("restarting", 1, None, "stopped"),
            ("running", 0, None, "running"),
            ("running", 0, Some("healthy"), "running"),
            ("running", 0, Some("starting"), "running"),
            ("running", 0, Some("unhealthy"), "unhealthy"),
            ("exited", 0, None, "stopped"),
            ("exited", 137, None, "failed"),
            ("exited", 0, Some("unhealthy"), "stopped"),
            ("removing", 0, None, "stopped"),
            ("removing", 1, None, "failed"),
            ("dead", 0, None, "dead"),
            ("something new", 0, None, "unknown"),
        ];
        for (state, exit_code, health, word) in rows {
            let status = RuntimeStatus::from_docker(state, exit_code, health);
            assert_eq!(status.as_str(), word, "{state} {exit_code} {health:?}");
            assert_eq!(serde_json::to_value(status).unwrap(), word);
        }
    }
}
