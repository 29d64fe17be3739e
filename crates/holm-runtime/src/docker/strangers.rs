//! Create options that no engine has.
//!
//! They go to the engine like all others, which passes over what it does not know, without a word: an option that stands in
//! the wrong place, or is misspelt, looks as if it were in force. So they are told. What begins with `_`, `$` or `x-` is
//! somebody's remark.

use serde_json::{Map, Value};

use crate::process::options::{OPTIONS, is_empty};

const HOST: &str = "HostConfig";

/// What is to be said of create options; nothing where all are known.
pub(super) fn note(create_options: &Value) -> Option<String> {
    let options = create_options.as_object()?;
    let mut found = among(options, "", HOST);
    for (name, inner) in options.iter().filter(|(name, _)| name.eq_ignore_ascii_case(HOST)) {
        found.extend(among(inner.as_object()?, name, ""));
    }
    if found.is_empty() {
        return None;
    }
    Some(format!(
        "no engine has these create options, so they do nothing: {}",
        found.join(", ")
    ))
}

/// Those that are not known `within` this place, with a word about those that are known within the `other` one.
fn among(options: &Map<String, Value>, within: &str, other: &str) -> Vec<String> {
    options
        .iter()
        .filter(|(name, value)| !is_empty(value) && !name.starts_with(['_', '$']) && !name.starts_with("x-"))
        .filter(|(name, _)| !name.eq_ignore_ascii_case(HOST) && !is_known(name, within))
        .map(|(name, _)| match (is_known(name, other), within) {
            (false, "") => format!("`{name}`"),
            (true, "") => format!("`{name}` (it belongs into `{HOST}`)"),
            (false, _) => format!("`{within}.{name}`"),
            (true, _) => format!("`{within}.{name}` (it belongs beside `{HOST}`)"),
        })
        .collect()
}

fn is_known(name: &str, within: &str) -> bool {
    OPTIONS.iter().any(|row| {
        let (place, option) = row.option.split_once('.').unwrap_or(("", row.option));
        place.eq_ignore_ascii_case(within) && option.eq_ignore_ascii_case(name)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_that_every_engine_has_are_not_told() {
        let options = json!({"Hostname": "a", "env": ["A=1"], "_comment": "b", "NetworkingConfig": {"EndpointsConfig": {}},
            "hostconfig": {"Binds": [], "runtime": "nvidia", "NanoCPUs": 5, "DeviceRequests": [{}], "Unknown": null}});

        assert_eq!(note(&options), None);
        assert_eq!(note(&Value::Null), None);
    }

    #[test]
    fn a_misplaced_option_is_told_with_its_place() {
        let options = json!({"CapAdd": ["SYS_ADMIN"], "k8s-experimental": {"volumes": [1]},
            "HostConfig": {"Env": ["A=1"], "PortBinding": {"80/tcp": [{"HostPort": "80"}]}}});

        let expected = "no engine has these create options, so they do nothing: `CapAdd` (it belongs into `HostConfig`), \
                        `k8s-experimental`, `HostConfig.Env` (it belongs beside `HostConfig`), `HostConfig.PortBinding`";
        assert_eq!(note(&options).as_deref(), Some(expected));
    }
}
