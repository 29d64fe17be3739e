//! The create options of a container, read for a process: one table says for each of them whether it is honoured, has no
//! effect, or is refused.
//!
//! The rule: what a process cannot honour is refused by name, never ignored, unless it is empty or says what is so anyway.
//! So a manifest that is accepted means on a process what it means on a container. `docs/modules.md` is made from
//! [`OPTIONS`].
//!
//! Names are compared without regard to case, as the Docker engine does.

mod read;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::UnsupportedOption;
use crate::logs::LogLimits;
use crate::process::cgroup::{ControlGroups, Limits};
use crate::process::record::{ResourceLimit, UserIds};

/// What the create options ask of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ProcessOptions {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<UserIds>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) limits: Limits,
    pub(crate) resource_limits: Vec<ResourceLimit>,
    pub(crate) oom_score_adjust: Option<i32>,
    pub(crate) stop_signal: Option<i32>,
    pub(crate) stop_grace: Option<Duration>,
    pub(crate) log: LogLimits,
    pub(crate) health: Option<HealthOption>,
}

/// A health check as it is asked for, with the engine's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthOption {
    /// A program and its arguments.
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: u32,
}

/// What of the device decides whether an option can be honoured.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    pub(crate) groups: &'a ControlGroups,
    /// Whether the edge runs as root and can become somebody else.
    pub(crate) is_root: bool,
    /// How much output is kept where the options don't say.
    pub(crate) log: LogLimits,
}

type Honour = fn(&Value, &mut ProcessOptions, &Device<'_>) -> Result<(), String>;

#[derive(Clone, Copy, Debug)]
enum Rule {
    Honoured(Honour),
    Harmless,
    /// Accepted where it says what is so for a process anyway.
    SameOnly(fn(&Value) -> Result<(), String>),
    /// Refused, unless empty or one of these.
    Refused(&'static [&'static str]),
}

/// What becomes of an option of a container when the module is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It does for a process what it does for a container.
    Honoured,
    /// It is accepted and changes nothing, for a container neither or because it is so anyway.
    NoEffect,
    /// It is accepted only in the form that the note tells.
    SameOnly,
    /// It is refused by name unless it is empty or has its default value.
    Refused,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// The option's path in `createOptions`.
    pub option: &'static str,
    /// How it is honoured, or why not; reads on after the option's name.
    pub note: &'static str,
    rule: Rule,
}

impl OptionRow {
    /// What becomes of the option.
    #[must_use]
    pub const fn handling(&self) -> Handling {
        match self.rule {
            Honoured(_) => Handling::Honoured,
            Harmless => Handling::NoEffect,
            SameOnly(_) => Handling::SameOnly,
            Refused(_) => Handling::Refused,
        }
    }
}

const fn row(option: &'static str, rule: Rule, note: &'static str) -> OptionRow {
    OptionRow { option, note, rule }
}

use Rule::{Harmless, Honoured, Refused, SameOnly};

const NO_NAMESPACE: &str =
    "has no meaning for a process, which shares the device's namespaces; take it away or use a container";
const NO_FILE_SYSTEM: &str =
    "has no meaning for a process, which sees the device's own file system; take it away or use a container";
const NO_NETWORK: &str =
    "has no meaning for a process, which uses the device's own network; take it away or use a container";
const NO_SANDBOX: &str = "cannot be honoured for a process; take it away or use a container";
const NO_DEVICE_LIMIT: &str = "cannot be limited for a process; take it away or use a container";

/// Every create option, top level first, then `HostConfig`.
pub const OPTIONS: &[OptionRow] = &[
    row(
        "Entrypoint",
        Honoured(read::entrypoint),
        "is run instead of the image's program; a name without `/` is looked for beside it, then in PATH",
    ),
    row("Cmd", Honoured(read::command), "gives the program its arguments"),
    row(
        "Env",
        Honoured(read::env),
        "is set last, so it wins over every other source, `IOTEDGE_…` included",
    ),
    row(
        "WorkingDir",
        Honoured(read::working_dir),
        "must be an absolute path that exists; else it is the image's directory, or one of the module's own",
    ),
    row(
        "User",
        Honoured(read::user),
        "is a user or `user:group`, each a name or a number; supplementary groups are dropped; needs an edge that runs as root",
    ),
    row("Labels", Honoured(read::labels), "are kept and shown"),
    row(
        "StopSignal",
        Honoured(read::stop_signal),
        "asks the program to end, by name or number; SIGTERM if not given",
    ),
    row(
        "StopTimeout",
        Honoured(read::stop_timeout),
        "is how many seconds the program has to end; 10 if not given",
    ),
    row(
        "Image",
        Harmless,
        "is replaced by `settings.image`, for a container too",
    ),
    row("AttachStdin", Harmless, "concerns the program that creates a container"),
    row(
        "AttachStdout",
        Harmless,
        "concerns the program that creates a container",
    ),
    row(
        "AttachStderr",
        Harmless,
        "concerns the program that creates a container",
    ),
    row("StdinOnce", Harmless, "concerns the program that creates a container"),
    row(
        "ExposedPorts",
        Harmless,
        "only documents ports; those of a process are the device's own",
    ),
    row("ArgsEscaped", Harmless, "concerns Windows"),
    row("OnBuild", Harmless, "concerns the building of images"),
    row("Shell", Harmless, "concerns the building of images"),
    row("Hostname", Refused(&[]), NO_NAMESPACE),
    row("Domainname", Refused(&[]), NO_NAMESPACE),
    row("Tty", Refused(&[]), NO_SANDBOX),
    row("OpenStdin", Refused(&[]), NO_SANDBOX),
    row(
        "Healthcheck",
        Honoured(read::health_check),
        "is run by the supervisor as the module's user, with its environment and in its directory; `Test` is `[\"CMD\", …]`, `[\"CMD-SHELL\", line]` or `[\"NONE\"]`, durations are nanoseconds, defaults are the engine's",
    ),
    row("Volumes", Refused(&[]), NO_FILE_SYSTEM),
    row("NetworkDisabled", Refused(&[]), NO_NETWORK),
    row("MacAddress", Refused(&[]), NO_NETWORK),
    row("Platform", Refused(&[]), NO_SANDBOX),
    row(
        "NetworkingConfig",
        SameOnly(read::same_networks),
        "may name the networks `azure-iot-edge` and `host`, without settings: a process is reached on the device's own network",
    ),
    row(
        "HostConfig.Memory",
        Honoured(read::memory),
        "limits the module as a whole, in bytes; needs the `memory` control group",
    ),
    row(
        "HostConfig.NanoCpus",
        Honoured(read::nano_cpus),
        "limits processor time, in billionths of a processor; needs the `cpu` control group",
    ),
    row(
        "HostConfig.PidsLimit",
        Honoured(read::pids_limit),
        "limits processes and threads; needs the `pids` control group",
    ),
    row(
        "HostConfig.Ulimits",
        Honoured(read::ulimits),
        "sets limits of setrlimit(2)",
    ),
    row(
        "HostConfig.OomScoreAdj",
        Honoured(read::oom_score),
        "is set on the program",
    ),
    row(
        "HostConfig.LogConfig",
        Honoured(read::log_config),
        "`json-file` and `local` with `max-size` and `max-file` bound the files of the supervisor; other drivers are refused",
    ),
    row(
        "HostConfig.Init",
        Harmless,
        "is so anyway: the supervisor collects what the program leaves behind",
    ),
    row("HostConfig.ConsoleSize", Harmless, "concerns Windows"),
    row("HostConfig.Isolation", Harmless, "concerns Windows"),
    row(
        "HostConfig.NetworkMode",
        SameOnly(read::same_network_mode),
        "may be `host`, `default`, `bridge` or `azure-iot-edge`: a process always uses the device's own network",
    ),
    row(
        "HostConfig.PortBindings",
        SameOnly(read::same_ports),
        "may only bind a port to the same port of the device, which is where a process listens anyway",
    ),
    row(
        "HostConfig.Binds",
        SameOnly(read::same_binds),
        "may only bind a path to itself, writable: a process sees the device's own file system",
    ),
    row("HostConfig.Mounts", Refused(&[]), NO_FILE_SYSTEM),
    row(
        "HostConfig.RestartPolicy",
        SameOnly(read::same_restart_policy),
        "may only be `no`: modules are restarted as `restartPolicy` of the manifest says",
    ),
    row("HostConfig.AutoRemove", Refused(&[]), NO_SANDBOX),
    row("HostConfig.Privileged", Refused(&[]), NO_SANDBOX),
    row("HostConfig.CapAdd", Refused(&[]), NO_SANDBOX),
    row("HostConfig.CapDrop", Refused(&[]), NO_SANDBOX),
    row("HostConfig.Capabilities", Refused(&[]), NO_SANDBOX),
    row("HostConfig.SecurityOpt", Refused(&[]), NO_SANDBOX),
    row("HostConfig.GroupAdd", Refused(&[]), NO_SANDBOX),
    row("HostConfig.ReadonlyRootfs", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.Runtime", Refused(&["runc"]), NO_SANDBOX),
    row("HostConfig.Sysctls", Refused(&[]), NO_NAMESPACE),
    row("HostConfig.CgroupParent", Refused(&[]), NO_SANDBOX),
    row("HostConfig.Cgroup", Refused(&[]), NO_SANDBOX),
    row("HostConfig.CgroupnsMode", Refused(&["host", "private"]), NO_NAMESPACE),
    row(
        "HostConfig.IpcMode",
        Refused(&["host", "private", "shareable"]),
        NO_NAMESPACE,
    ),
    row("HostConfig.PidMode", Refused(&["host"]), NO_NAMESPACE),
    row("HostConfig.UTSMode", Refused(&["host"]), NO_NAMESPACE),
    row("HostConfig.UsernsMode", Refused(&["host"]), NO_NAMESPACE),
    row("HostConfig.Dns", Refused(&[]), NO_NETWORK),
    row("HostConfig.DnsOptions", Refused(&[]), NO_NETWORK),
    row("HostConfig.DnsSearch", Refused(&[]), NO_NETWORK),
    row("HostConfig.ExtraHosts", Refused(&[]), NO_NETWORK),
    row("HostConfig.Links", Refused(&[]), NO_NETWORK),
    row("HostConfig.PublishAllPorts", Refused(&[]), NO_NETWORK),
    row("HostConfig.ContainerIDFile", Refused(&[]), NO_SANDBOX),
    row("HostConfig.VolumeDriver", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.VolumesFrom", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.StorageOpt", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.Tmpfs", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.ShmSize", Refused(&["67108864"]), NO_FILE_SYSTEM),
    row("HostConfig.MaskedPaths", Refused(&[]), NO_FILE_SYSTEM),
    row("HostConfig.ReadonlyPaths", Refused(&[]), NO_FILE_SYSTEM),
    row(
        "HostConfig.Annotations",
        Harmless,
        "concerns the container runtime below the engine",
    ),
    row(
        "HostConfig.Devices",
        Refused(&[]),
        "cannot be given to a process; it may use the device files that its user may use; take it away",
    ),
    row("HostConfig.DeviceCgroupRules", Refused(&[]), NO_SANDBOX),
    row("HostConfig.DeviceRequests", Refused(&[]), NO_SANDBOX),
    row("HostConfig.MemoryReservation", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.MemorySwap", Refused(&["-1"]), NO_DEVICE_LIMIT),
    row("HostConfig.MemorySwappiness", Refused(&["-1"]), NO_DEVICE_LIMIT),
    row("HostConfig.KernelMemory", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.KernelMemoryTCP", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.OomKillDisable", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.CpuShares", Refused(&[]), NO_DEVICE_LIMIT),
    row(
        "HostConfig.CpuPeriod",
        Refused(&[]),
        "cannot be limited for a process; use `HostConfig.NanoCpus`",
    ),
    row(
        "HostConfig.CpuQuota",
        Refused(&[]),
        "cannot be limited for a process; use `HostConfig.NanoCpus`",
    ),
    row("HostConfig.CpuRealtimePeriod", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.CpuRealtimeRuntime", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.CpusetCpus", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.CpusetMems", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.CpuCount", Harmless, "concerns Windows"),
    row("HostConfig.CpuPercent", Harmless, "concerns Windows"),
    row("HostConfig.IOMaximumIOps", Harmless, "concerns Windows"),
    row("HostConfig.IOMaximumBandwidth", Harmless, "concerns Windows"),
    row("HostConfig.BlkioWeight", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.BlkioWeightDevice", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.BlkioDeviceReadBps", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.BlkioDeviceWriteBps", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.BlkioDeviceReadIOps", Refused(&[]), NO_DEVICE_LIMIT),
    row("HostConfig.BlkioDeviceWriteIOps", Refused(&[]), NO_DEVICE_LIMIT),
];

impl ProcessOptions {
    /// Reads create options.
    ///
    /// # Errors
    /// Every option that cannot be honoured, in the order of the manifest.
    pub(crate) fn read(create_options: &Value, device: &Device<'_>) -> Result<Self, Vec<UnsupportedOption>> {
        let mut options = Self {
            log: device.log,
            ..Self::default()
        };
        let mut refused = Vec::new();
        let empty = Map::new();
        let map = match create_options {
            Value::Null => &empty,
            Value::Object(map) => map,
            _ => return Err(vec![UnsupportedOption::new("createOptions", "must be a JSON object")]),
        };
        for (name, value) in map {
            if !name.eq_ignore_ascii_case("HostConfig") {
                options.read_one(name, value, device, &mut refused);
                continue;
            }
            match value {
                Value::Null => {}
                Value::Object(host) => {
                    for (name, value) in host {
                        options.read_one(&format!("HostConfig.{name}"), value, device, &mut refused);
                    }
                }
                _ => refused.push(UnsupportedOption::new("HostConfig", "must be a JSON object")),
            }
        }
        if refused.is_empty() { Ok(options) } else { Err(refused) }
    }

    fn read_one(&mut self, name: &str, value: &Value, device: &Device<'_>, refused: &mut Vec<UnsupportedOption>) {
        let result = match OPTIONS.iter().find(|row| row.option.eq_ignore_ascii_case(name)) {
            _ if value.is_null() => Ok(()),
            Some(row) => row.apply(value, self, device),
            None if is_empty(value) => Ok(()),
            None => Err("is not an option that a process knows; take it away or use a container".to_owned()),
        };
        if let Err(reason) = result {
            refused.push(UnsupportedOption::new(name, reason));
        }
    }
}

impl OptionRow {
    fn apply(&self, value: &Value, options: &mut ProcessOptions, device: &Device<'_>) -> Result<(), String> {
        match self.rule {
            Honoured(read) => read(value, options, device),
            Harmless => Ok(()),
            SameOnly(_) if is_empty(value) => Ok(()),
            SameOnly(check) => check(value).map_err(|found| format!("{}; found {found}", self.note)),
            Refused(defaults) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if is_empty(value) || defaults.contains(&text.as_str()) {
                    Ok(())
                } else {
                    Err(self.note.to_owned())
                }
            }
        }
    }
}

/// Whether a value says nothing: null, false, 0, or an empty text, list or object, or one of such values only.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(create_options: &Value) -> Result<ProcessOptions, Vec<UnsupportedOption>> {
        let device = Device {
            groups: &ControlGroups::default(),
            is_root: false,
            log: LogLimits::default(),
        };
        ProcessOptions::read(create_options, &device)
    }

    #[test]
    fn a_health_check_is_read_in_the_engines_form_with_its_defaults() {
        let options =
            read(&json!({"Healthcheck": {"Test": ["CMD-SHELL", "true && true"], "interval": 2_000_000_000_u64}}));

        let health = options.unwrap().health.unwrap();

        assert_eq!(health.command, ["/bin/sh", "-c", "true && true"]);
        let seconds = [
            health.interval,
            health.timeout,
            health.start_period,
            health.start_interval,
        ];
        assert_eq!(seconds.map(|duration| duration.as_secs()), [2, 30, 0, 5]);
        assert_eq!(health.retries, 3);
    }

    #[test]
    fn honoured_options_are_read() {
        let options = read(&json!({
            "Entrypoint": "run", "Cmd": ["a", "b"], "Env": ["A=1", "B=x=y"], "WorkingDir": "/srv",
            "Labels": {"l": "v"}, "StopSignal": "INT", "StopTimeout": 3,
            "HostConfig": {
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}],
                "OomScoreAdj": 100,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "64k", "max-file": "2"}}
            }
        }))
        .unwrap();

        assert_eq!(options.entrypoint, ["run"]);
        assert_eq!(options.command, ["a", "b"]);
        assert_eq!(options.env["B"], "x=y");
        assert_eq!(options.working_dir.as_deref(), Some("/srv"));
        assert_eq!(options.labels["l"], "v");
        assert_eq!(
            (options.stop_signal, options.stop_grace),
            (Some(2), Some(Duration::from_secs(3)))
        );
        assert_eq!(options.resource_limits[0].soft, Some(10));
        assert_eq!(options.resource_limits[0].hard, None);
        assert_eq!(options.oom_score_adjust, Some(100));
        assert_eq!(
            options.log,
            LogLimits {
                max_bytes: 65536,
                files: 2
            }
        );
    }

    #[test]
    fn every_option_that_cannot_be_honoured_is_named() {
        let refused = read(&json!({
            "Hostname": "pump", "NoSuchThing": 1,
            "HostConfig": {"Privileged": true, "CapAdd": ["NET_ADMIN"], "Devices": [{"PathOnHost": "/dev/x"}],
                "LogConfig": {"Type": "syslog"}}
        }))
        .unwrap_err();

        let mut names: Vec<&str> = refused.iter().map(|option| option.option.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "HostConfig.CapAdd",
                "HostConfig.Devices",
                "HostConfig.LogConfig",
                "HostConfig.Privileged",
                "Hostname",
                "NoSuchThing"
            ]
        );
    }

    #[test]
    fn defaults_are_accepted_for_every_row_that_refuses() {
        for row in OPTIONS.iter().filter(|row| row.handling() == Handling::Refused) {
            let name = row.option.trim_start_matches("HostConfig.");
            for empty in [json!(null), json!(""), json!(0), json!(false), json!([]), json!({})] {
                let options = if row.option.contains('.') {
                    json!({"HostConfig": {name: empty}})
                } else {
                    json!({name: empty})
                };
                assert_eq!(read(&options).err(), None, "{options}");
            }
        }
        let engine_defaults = json!({"HostConfig": {
            "NetworkMode": "default", "IpcMode": "private", "Runtime": "runc", "ShmSize": 67_108_864,
            "MemorySwappiness": -1, "PidsLimit": 0, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "ConsoleSize": [0, 0], "LogConfig": {"Type": "json-file", "Config": {}}
        }});
        assert_eq!(read(&engine_defaults).err(), None);
    }

    #[test]
    fn what_is_so_anyway_is_accepted_and_anything_else_is_not() {
        let rows = [
            (json!({"HostConfig": {"NetworkMode": "host"}}), true),
            (json!({"HostConfig": {"NetworkMode": "plant-lan"}}), false),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {}}}}),
                true,
            ),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {"azure-iot-edge": {"Aliases": ["x"]}}}}),
                false,
            ),
            (
                json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}}),
                true,
            ),
            (
                json!({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}}),
                false,
            ),
            (json!({"HostConfig": {"Binds": ["/data:/data"]}}), true),
            (json!({"HostConfig": {"Binds": ["/data:/data:ro"]}}), false),
            (json!({"HostConfig": {"Binds": ["/srv/data:/data"]}}), false),
            (json!({"HostConfig": {"RestartPolicy": {"Name": "always"}}}), false),
            (json!({"Healthcheck": {"Test": ["NONE"]}}), true),
            (json!({"Healthcheck": {"Test": ["CMD", "true"], "Retries": 0}}), true),
            (json!({"Healthcheck": {"Test": []}}), true),
            (json!({"Healthcheck": {"Test": ["CMD"]}}), false),
            (json!({"Healthcheck": {"Test": "true"}}), false),
            (json!({"Healthcheck": {"Test": ["CMD", "true"], "Interval": 30}}), false),
            (json!({"Healthcheck": {"Test": ["CMD", "true"], "Period": 1}}), false),
            (json!({"Healthcheck": {"Test": ["CMD", "true"], "Retries": -1}}), false),
        ];
        for (options, accepted) in rows {
            assert_eq!(read(&options).is_ok(), accepted, "{options}");
        }
    }

    #[test]
    fn names_are_compared_without_case() {
        assert_eq!(read(&json!({"cmd": ["x"]})).unwrap().command, ["x"]);
        assert!(read(&json!({"hostconfig": {"privileged": true}})).is_err());
    }

    #[test]
    fn user_is_refused_when_the_edge_is_not_root() {
        let refused = read(&json!({"User": "4242"})).unwrap_err();

        assert_eq!(refused[0].option, "User");
        assert!(refused[0].reason.contains("4242"), "{}", refused[0].reason);
    }

    #[test]
    fn table_names_each_option_once() {
        let mut names: Vec<String> = OPTIONS.iter().map(|row| row.option.to_ascii_lowercase()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
