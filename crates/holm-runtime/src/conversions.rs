//! Gives scalars of create options the type that the engine wants.
//!
//! ```text
//!   "max-file": 3, "compress": true   ->   "max-file": "3", "compress": "true"
//!   "HostPort": 8080                  ->   "HostPort": "8080"
//!   "Memory": "536870912"             ->   "Memory": 536870912
//! ```
//!
//! The original reads these options into types of its own, which converts them, and writes them anew for the engine; so
//! manifests are published that give them as any scalar, and the engine itself refuses them. Only options that are typed there
//! are in the table. A value that can't be converted stays: what reads it then says what is wrong with it.

use serde_json::Value;

/// What the engine wants in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scalar {
    Text,
    Number,
    Flag,
}

use Scalar::{Flag, Number, Text};

/// Places by their names from the outside; `*` is every member of an object and every item of a list.
const PLACES: &[(Scalar, &[&str])] = &[
    (Text, &["Env", "*"]),
    (Text, &["Labels", "*"]),
    (Text, &["HostConfig", "LogConfig", "Config", "*"]),
    (Text, &["HostConfig", "PortBindings", "*", "*", "HostPort"]),
    (Text, &["HostConfig", "Sysctls", "*"]),
    (Text, &["HostConfig", "StorageOpt", "*"]),
    (Text, &["HostConfig", "Tmpfs", "*"]),
    (Text, &["HostConfig", "GroupAdd", "*"]),
    (Text, &["HostConfig", "CpusetCpus"]),
    (Text, &["HostConfig", "CpusetMems"]),
    (Number, &["HostConfig", "BlkioWeight"]),
    (Number, &["HostConfig", "CpuPeriod"]),
    (Number, &["HostConfig", "CpuQuota"]),
    (Number, &["HostConfig", "CpuRealtimePeriod"]),
    (Number, &["HostConfig", "CpuRealtimeRuntime"]),
    (Number, &["HostConfig", "CpuShares"]),
    (Number, &["HostConfig", "KernelMemory"]),
    (Number, &["HostConfig", "Memory"]),
    (Number, &["HostConfig", "MemoryReservation"]),
    (Number, &["HostConfig", "MemorySwap"]),
    (Number, &["HostConfig", "MemorySwappiness"]),
    (Number, &["HostConfig", "NanoCpus"]),
    (Number, &["HostConfig", "OomScoreAdj"]),
    (Number, &["HostConfig", "PidsLimit"]),
    (Number, &["HostConfig", "ShmSize"]),
    (Number, &["HostConfig", "Ulimits", "*", "Soft"]),
    (Number, &["HostConfig", "Ulimits", "*", "Hard"]),
    (Number, &["HostConfig", "RestartPolicy", "MaximumRetryCount"]),
    (Flag, &["HostConfig", "Privileged"]),
    (Flag, &["HostConfig", "AutoRemove"]),
    (Flag, &["HostConfig", "Init"]),
    (Flag, &["HostConfig", "OomKillDisable"]),
    (Flag, &["HostConfig", "PublishAllPorts"]),
    (Flag, &["HostConfig", "ReadonlyRootfs"]),
    (Flag, &["HostConfig", "Mounts", "*", "ReadOnly"]),
];

/// The create options with their scalars as the engine wants them.
pub(crate) fn converted(create_options: &Value) -> Value {
    let mut converted = create_options.clone();
    for (wanted, place) in PLACES {
        convert(&mut converted, *wanted, place);
    }
    converted
}

fn convert(value: &mut Value, wanted: Scalar, place: &[&str]) {
    let Some((name, inner)) = place.split_first() else {
        if let Some(scalar) = as_wanted(value, wanted) {
            *value = scalar;
        }
        return;
    };
    match value {
        Value::Object(members) => {
            let found = members
                .iter_mut()
                .filter(|(member, _)| *name == "*" || member.eq_ignore_ascii_case(name));
            found.for_each(|(_, member)| convert(member, wanted, inner));
        }
        Value::Array(items) if *name == "*" => items.iter_mut().for_each(|item| convert(item, wanted, inner)),
        _ => {}
    }
}

fn as_wanted(value: &Value, wanted: Scalar) -> Option<Value> {
    match (wanted, value) {
        (Text, Value::Number(_) | Value::Bool(_)) => Some(value.to_string().into()),
        (Number, Value::String(text)) => text.trim().parse::<i64>().ok().map(Value::from),
        (Flag, Value::String(text)) => text.trim().to_ascii_lowercase().parse::<bool>().ok().map(Value::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_given_as_the_engine_wants_them() {
        let options = json!({
            "Env": ["A=1", 2], "Labels": {"build": 7, "kept": "x"}, "env": "not a list",
            "hostconfig": {
                "LogConfig": {"Type": "json-file", "Config": {"max-file": 3, "compress": true, "max-size": "4m"}},
                "PortBindings": {"80/tcp": [{"HostPort": 8080}, {"hostport": "81"}], "81/tcp": null},
                "Memory": "536870912", "CpuShares": 5, "ShmSize": "64m", "Privileged": "True", "Init": "maybe",
                "Ulimits": [{"Name": "nofile", "Soft": "10", "Hard": -1}],
                "Mounts": [{"Type": "bind", "ReadOnly": "false"}],
                "DeviceRequests": [{"Count": "-1"}],
            },
        });

        let expected = json!({
            "Env": ["A=1", "2"], "Labels": {"build": "7", "kept": "x"}, "env": "not a list",
            "hostconfig": {
                "LogConfig": {"Type": "json-file", "Config": {"max-file": "3", "compress": "true", "max-size": "4m"}},
                "PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"hostport": "81"}], "81/tcp": null},
                "Memory": 536_870_912, "CpuShares": 5, "ShmSize": "64m", "Privileged": true, "Init": "maybe",
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": -1}],
                "Mounts": [{"Type": "bind", "ReadOnly": false}],
                "DeviceRequests": [{"Count": "-1"}],
            },
        });
        assert_eq!(converted(&options), expected);
        assert_eq!(converted(&Value::Null), Value::Null);
    }
}
