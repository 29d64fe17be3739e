//! What the engine tells of a container, as this crate tells it.

use std::collections::BTreeMap;

use holm_model::{ModuleId, Timestamp};
use serde_json::Value;

use super::body::{INSTANCE, ORIGINAL_IMAGE, OWNER, SPEC_DIGEST};
use crate::spec::RuntimeKind;
use crate::state::{Health, ModuleState, ModuleStats, RuntimeStatus};

/// One container that is a module of this edge.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) container_id: String,
    pub(super) state: ModuleState,
    /// Whether it has a terminal, and so only one stream without framing.
    pub(super) tty: bool,
    memory_limit: Option<u64>,
}

impl Container {
    /// Reads the answer to an inspect request; `None` when the container is not a module of this edge.
    pub(super) fn read(found: &Value, instance: Option<&str>) -> Option<Self> {
        let text = |path: &str| found.pointer(path).and_then(Value::as_str);
        let labels: BTreeMap<String, String> = found
            .pointer("/Config/Labels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        let label = |name: &str| labels.get(name).cloned();
        if label(OWNER.0).as_deref() != Some(OWNER.1) {
            return None;
        }
        // A container without this label was made by the original runtime, or by an edge that has the engine for itself.
        if label(INSTANCE).is_some_and(|theirs| Some(theirs.as_str()) != instance) {
            return None;
        }
        let id = ModuleId::new(text("/Name")?.trim_start_matches('/')).ok()?;
        let number = |path: &str| found.pointer(path).and_then(Value::as_i64);
        let exit_code = number("/State/ExitCode").unwrap_or(0);
        let status = RuntimeStatus::from_docker(
            text("/State/Status").unwrap_or_default(),
            exit_code,
            text("/State/Health/Status"),
        );
        let time = |path: &str| {
            text(path)
                .and_then(Timestamp::parse)
                .filter(|time| *time > Timestamp::NEVER)
        };
        let exited_at = time("/State/FinishedAt");
        let pid = number("/State/Pid")
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|pid| *pid > 0);
        let state = ModuleState {
            id,
            kind: RuntimeKind::Docker,
            status,
            health: text("/State/Health/Status")
                .and_then(Health::from_docker)
                .filter(|_| status.is_up()),
            description: describe(found),
            exit_code: exited_at
                .filter(|_| !status.is_up())
                .and_then(|_| i32::try_from(exit_code).ok()),
            started_at: time("/State/StartedAt"),
            exited_at,
            image: label(ORIGINAL_IMAGE)
                .or_else(|| text("/Config/Image").map(str::to_owned))
                .unwrap_or_default(),
            image_hash: text("/Image").map(str::to_owned),
            pid: pid.filter(|_| status.is_up()),
            spec_digest: label(SPEC_DIGEST),
            labels,
            is_from_before_boot: None,
        };
        Some(Self {
            container_id: text("/Id")?.to_owned(),
            state,
            tty: found.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or(false),
            memory_limit: number("/HostConfig/Memory")
                .and_then(|bytes| u64::try_from(bytes).ok())
                .filter(|bytes| *bytes > 0),
        })
    }

    /// Reads the answer to a stats request.
    pub(super) fn stats(&self, stats: Value) -> ModuleStats {
        ModuleStats {
            memory_limit_bytes: self.memory_limit,
            ..read_stats(stats)
        }
    }
}

/// A running module in the engine's list: its container and its name; `None` when it is none of this edge.
pub(super) fn listed(entry: &Value, instance: Option<&str>) -> Option<(String, ModuleId)> {
    let theirs = entry
        .pointer("/Labels")
        .and_then(|labels| labels.get(INSTANCE))
        .and_then(Value::as_str);
    if theirs.is_some_and(|theirs| Some(theirs) != instance) {
        return None;
    }
    let name = entry.pointer("/Names/0")?.as_str()?.trim_start_matches('/');
    Some((entry.get("Id")?.as_str()?.to_owned(), ModuleId::new(name).ok()?))
}

/// Reads the answer to a stats request; of limits it tells only what the whole device has.
pub(super) fn read_stats(stats: Value) -> ModuleStats {
    let number = |path: &str| stats.pointer(path).and_then(Value::as_u64);
    let usage = number("/memory_stats/usage").unwrap_or(0);
    // Version 1 of control groups tells the page cache, version 2 the part of it that can be taken back.
    let cache = number("/memory_stats/stats/cache").or_else(|| number("/memory_stats/stats/inactive_file"));
    let networks = || stats.get("networks").and_then(Value::as_object);
    let network = |name: &str| networks().map(|all| sum(all.values().filter_map(|one| one.get(name))));
    let disk = |operation: &str| {
        let entries = stats
            .pointer("/blkio_stats/io_service_bytes_recursive")
            .and_then(Value::as_array);
        let matching = entries.into_iter().flatten().filter(|entry| {
            entry
                .get("op")
                .and_then(Value::as_str)
                .is_some_and(|op| op.eq_ignore_ascii_case(operation))
        });
        sum(matching.filter_map(|entry| entry.get("value")))
    };
    ModuleStats {
        memory_bytes: usage.saturating_sub(cache.unwrap_or(0)),
        memory_limit_bytes: number("/memory_stats/limit").filter(|bytes| *bytes > 0),
        cpu_nanos: number("/cpu_stats/cpu_usage/total_usage").unwrap_or(0),
        pids: number("/pids_stats/current").unwrap_or(0),
        network_in_bytes: network("rx_bytes"),
        network_out_bytes: network("tx_bytes"),
        disk_read_bytes: disk("read"),
        disk_write_bytes: disk("write"),
        docker_json: stats,
    }
}

fn sum<'a>(values: impl Iterator<Item = &'a Value>) -> u64 {
    values.filter_map(Value::as_u64).fold(0, u64::saturating_add)
}

fn describe(found: &Value) -> Option<String> {
    if found.pointer("/State/OOMKilled").and_then(Value::as_bool) == Some(true) {
        return Some("it used more memory than `HostConfig.Memory` allows".to_owned());
    }
    let error = found
        .pointer("/State/Error")
        .and_then(Value::as_str)
        .filter(|error| !error.is_empty());
    let health = found
        .pointer("/State/Health/Log")
        .and_then(Value::as_array)
        .and_then(|log| log.last());
    let unhealthy = found.pointer("/State/Health/Status").and_then(Value::as_str) == Some("unhealthy");
    let check = health
        .filter(|_| unhealthy)
        .and_then(|last| last.get("Output"))
        .and_then(Value::as_str);
    error
        .map(str::to_owned)
        .or_else(|| check.map(|output| format!("its health check fails: {}", output.trim())))
}

/// The processes in the answer to a top request: the column called PID.
pub(super) fn pids(top: &Value) -> Option<Vec<u32>> {
    let titles = top.get("Titles")?.as_array()?;
    let column = titles.iter().position(|title| title.as_str() == Some("PID"))?;
    let rows = top.get("Processes")?.as_array()?;
    rows.iter().map(|row| row.get(column)?.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(labels: &Value, state: &Value) -> Value {
        json!({"Id": "c1", "Name": "/pump", "Image": "sha256:ab", "Config": {"Image": "sha256:ab", "Labels": labels},
            "HostConfig": {"Memory": 1000}, "State": state})
    }

    fn ours() -> Value {
        json!({OWNER.0: OWNER.1, ORIGINAL_IMAGE: "pump:1", SPEC_DIGEST: "d"})
    }

    #[test]
    fn a_container_that_never_ran_has_neither_times_nor_exit_code() {
        let never = "0001-01-01T00:00:00Z";
        let state = json!({"Status": "created", "ExitCode": 0, "Pid": 0, "StartedAt": never, "FinishedAt": never});

        let read = Container::read(&container(&ours(), &state), None).unwrap().state;

        assert_eq!(read.status, RuntimeStatus::Stopped);
        assert_eq!(
            (read.exit_code, read.started_at, read.exited_at, read.pid),
            (None, None, None, None)
        );
        assert_eq!(
            (read.image.as_str(), read.image_hash.as_deref()),
            ("pump:1", Some("sha256:ab"))
        );
        assert_eq!(read.spec_digest.as_deref(), Some("d"));
    }

    #[test]
    fn a_container_that_was_killed_for_memory_says_so() {
        let state = json!({"Status": "exited", "ExitCode": 137, "OOMKilled": true, "Error": "",
            "StartedAt": "2026-01-02T03:04:05.123456789Z", "FinishedAt": "2026-01-02T03:05:05Z"});

        let read = Container::read(&container(&ours(), &state), None).unwrap().state;

        assert_eq!((read.status, read.exit_code), (RuntimeStatus::Failed, Some(137)));
        assert!(read.description.unwrap().contains("memory"));
        assert!(read.started_at < read.exited_at);
    }

    #[test]
    fn containers_of_others_are_not_modules() {
        let state = json!({"Status": "running"});
        let mut labels = ours();
        assert!(Container::read(&container(&json!({}), &state), None).is_none());
        assert!(Container::read(&container(&labels, &state), Some("here")).is_some());
        labels[INSTANCE] = "there".into();
        assert!(Container::read(&container(&labels, &state), Some("here")).is_none());
        assert!(Container::read(&container(&labels, &state), None).is_none());
        assert!(Container::read(&container(&labels, &state), Some("there")).is_some());
    }

    #[test]
    fn page_cache_is_not_counted_as_memory() {
        let module = Container::read(&container(&ours(), &json!({"Status": "running"})), None).unwrap();
        let v1 = json!({"memory_stats": {"usage": 100, "stats": {"cache": 30, "inactive_file": 20}},
            "networks": {"eth0": {"rx_bytes": 1, "tx_bytes": 2}, "eth1": {"rx_bytes": 10, "tx_bytes": 20}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 6}]}});
        let v2 = json!({"memory_stats": {"usage": 100, "stats": {"inactive_file": 20}}});

        let (first, second) = (module.stats(v1), module.stats(v2));

        assert_eq!((first.memory_bytes, second.memory_bytes), (70, 80));
        assert_eq!((first.network_in_bytes, first.network_out_bytes), (Some(11), Some(22)));
        assert_eq!((first.disk_read_bytes, first.disk_write_bytes), (5, 6));
        assert_eq!(second.network_in_bytes, None);
        assert_eq!(first.memory_limit_bytes, Some(1000));
    }

    #[test]
    fn pids_are_taken_from_their_column() {
        let top = json!({"Titles": ["UID", "PID", "PPID"], "Processes": [["root", "12", "1"], ["root", "34", "12"]]});
        assert_eq!(pids(&top), Some(vec![12, 34]));
        assert_eq!(pids(&json!({"Titles": ["UID"], "Processes": []})), None);
    }
}
