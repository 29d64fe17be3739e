//! What is sent to create a container: the manifest's create options as they are, with what every module gets merged in.
//!
//! [`ADDED`] says what is merged in, option by option; `docs/modules.md` is made from it.
//!
//! Everything else, known or not, goes to the engine untouched, but for [`crate::conversions`]. Names are found without regard
//! to case, as the engine does.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::runtime::DockerConfig;
use crate::conversions;
use crate::error::UnsupportedOption;
use crate::logs::LogLimits;
use crate::spec::ModuleSpec;

/// What is added to the create options of a container: the option, and how.
pub const ADDED: &[(&str, &str)] = &[
    ("Image", "is `settings.image`"),
    (
        "Env",
        "gets the module's environment, first; a name that is set here wins, `IOTEDGE_…` included",
    ),
    (
        "Labels",
        "get the owner, the image as named and the digest of the module's settings; these win",
    ),
    (
        "HostConfig.Binds",
        "get the module's directory on `/var/run/iotedge`, read-only",
    ),
    (
        "HostConfig.NetworkMode",
        "is `azure-iot-edge`, unless it or `NetworkingConfig.EndpointsConfig` chooses a network",
    ),
    (
        "HostConfig.ExtraHosts",
        "get the edge's host name, `edgeHub` and `edgeAgent` at the gateway of that network, unless they have them, or the module is on the host's or another container's network",
    ),
    (
        "HostConfig.LogConfig",
        "gets `max-size` and `max-file` from `holm.log_max_bytes` and `holm.log_max_files`, unless it is given, or the engine's own driver is neither `json-file` nor `local`",
    ),
    (
        "HostConfig.Privileged, CapAdd, CapDrop",
        "are false, empty and `CHOWN`, `SETUID` more, where `allow_elevated_docker_permissions` is false",
    ),
];

/// The label by which a container is known as a module, with the value that the original runtime gives it.
pub(super) const OWNER: (&str, &str) = ("net.azure-devices.edge.owner", "Microsoft.Azure.Devices.Edge.Agent");
/// The label with the image as the manifest named it.
pub(super) const ORIGINAL_IMAGE: &str = "net.azure-devices.edge.original-image";
/// The label with the digest of the spec.
pub(super) const SPEC_DIGEST: &str = "holm.spec-digest";
/// The label with the name of the edge, where several share an engine.
pub(super) const INSTANCE: &str = "holm.instance";

/// Where a module finds its directory.
pub(super) const MODULE_DIRECTORY: &str = "/var/run/iotedge";
/// What manifests call the runtime, where the original has containers of these names: `http://edgeHub:9600/metrics`.
const RUNTIME_HOSTS: [&str; 2] = ["edgeHub", "edgeAgent"];

/// Makes the body of the create request.
///
/// # Errors
/// Options that have another form than the engine expects, where ours must be merged in.
pub(super) fn make(
    spec: &ModuleSpec,
    config: &DockerConfig,
    gateway: Option<IpAddr>,
) -> Result<Value, Vec<UnsupportedOption>> {
    let mut body = match conversions::converted(&spec.create_options) {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        _ => return Err(vec![UnsupportedOption::new("createOptions", "must be a JSON object")]),
    };
    let mut wrong = check_name(spec);
    let mut note = |result: Result<(), UnsupportedOption>| wrong.extend(result.err());
    *slot(&mut body, "Image") = Value::from(spec.image.as_str());
    note(merge_env(&mut body, spec));
    note(merge_labels(&mut body, spec, config));
    let chosen = chooses_network(&body);
    let own_hosts = has_own_hosts(&body);
    match object(slot(&mut body, "HostConfig"), "HostConfig") {
        Err(error) => note(Err(error)),
        Ok(host) => {
            note(add_bind(host, &spec.module_dir));
            if !chosen {
                *slot(host, "NetworkMode") = Value::from(config.network.name.as_str());
            }
            if let (Some(gateway), false) = (gateway, own_hosts) {
                let names = config.edge_hostname.iter().map(String::as_str);
                note(add_hosts(host, names.chain(RUNTIME_HOSTS), gateway));
            }
            if !config.allow_elevated {
                note(take_elevation(host));
            }
        }
    }
    if wrong.is_empty() {
        Ok(Value::Object(body))
    } else {
        Err(wrong)
    }
}

/// Whether the manifest says how the log is kept. A driver that is named has the engine's own settings beside the manifest's.
pub(super) fn names_log_driver(body: &Value) -> bool {
    let host = body
        .as_object()
        .and_then(|body| find(body, "HostConfig"))
        .and_then(Value::as_object);
    let log = host.and_then(|host| find(host, "LogConfig"));
    log.is_some_and(|log| !crate::process::options::is_empty(log))
}

/// Bounds the log, where the engine's own driver keeps it in files; other drivers know no such settings.
pub(super) fn limit_log(body: &mut Value, driver: &str, log: LogLimits) {
    let Some(body) = body
        .as_object_mut()
        .filter(|_| ["json-file", "local"].contains(&driver))
    else {
        return;
    };
    if let Some(host) = slot(body, "HostConfig").as_object_mut() {
        let config = json!({"max-size": log.max_bytes.to_string(), "max-file": log.files.to_string()});
        *slot(host, "LogConfig") = json!({"Type": driver, "Config": config});
    }
}

/// The engine takes fewer names than a module id may have; refused here, the reason names the module and the rule.
fn check_name(spec: &ModuleSpec) -> Vec<UnsupportedOption> {
    let id = spec.id.as_str();
    let good = id.len() >= 2
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if good {
        return Vec::new();
    }
    let reason =
        "cannot name a container; use two or more letters, digits, `_`, `.` or `-`, with a letter or digit first";
    vec![UnsupportedOption::new(id, reason)]
}

fn merge_env(body: &mut Map<String, Value>, spec: &ModuleSpec) -> Result<(), UnsupportedOption> {
    let own = texts(slot(body, "Env"), "Env")?;
    let is_set = |name: &str| own.iter().any(|text| text.split('=').next() == Some(name));
    let ours = spec
        .env
        .iter()
        .filter(|(name, _)| !is_set(name))
        .map(|(name, value)| format!("{name}={value}"));
    let all: Vec<Value> = ours.chain(own.iter().cloned()).map(Value::from).collect();
    *slot(body, "Env") = Value::from(all);
    Ok(())
}

fn merge_labels(
    body: &mut Map<String, Value>,
    spec: &ModuleSpec,
    config: &DockerConfig,
) -> Result<(), UnsupportedOption> {
    let labels = object(slot(body, "Labels"), "Labels")?;
    labels.extend(
        spec.labels
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str()))),
    );
    labels.insert(OWNER.0.to_owned(), OWNER.1.into());
    labels.insert(ORIGINAL_IMAGE.to_owned(), spec.image.as_str().into());
    labels.insert(SPEC_DIGEST.to_owned(), spec.digest().into());
    if let Some(instance) = &config.instance {
        labels.insert(INSTANCE.to_owned(), instance.as_str().into());
    }
    Ok(())
}

fn add_bind(host: &mut Map<String, Value>, module_dir: &Path) -> Result<(), UnsupportedOption> {
    let mut binds = texts(slot(host, "Binds"), "HostConfig.Binds")?;
    binds.push(format!("{}:{MODULE_DIRECTORY}:ro", module_dir.display()));
    *slot(host, "Binds") = json!(binds);
    Ok(())
}

fn add_hosts<'a>(
    host: &mut Map<String, Value>,
    names: impl Iterator<Item = &'a str>,
    gateway: IpAddr,
) -> Result<(), UnsupportedOption> {
    let mut hosts = texts(slot(host, "ExtraHosts"), "HostConfig.ExtraHosts")?;
    for name in names {
        // An address needs no entry, and what the manifest says of the name is meant.
        let said = hosts.iter().any(|entry| entry.split([':', '=']).next() == Some(name));
        if !said && name.parse::<IpAddr>().is_err() {
            hosts.push(format!("{name}:{gateway}"));
        }
    }
    *slot(host, "ExtraHosts") = json!(hosts);
    Ok(())
}

/// What `allow_elevated_docker_permissions = false` means (`edge-agent.md` §4).
fn take_elevation(host: &mut Map<String, Value>) -> Result<(), UnsupportedOption> {
    *slot(host, "Privileged") = Value::Bool(false);
    *slot(host, "CapAdd") = json!([]);
    let mut dropped = texts(slot(host, "CapDrop"), "HostConfig.CapDrop")?;
    for capability in ["CHOWN", "SETUID"] {
        if !dropped.iter().any(|known| known == capability) {
            dropped.push(capability.to_owned());
        }
    }
    *slot(host, "CapDrop") = json!(dropped);
    Ok(())
}

fn network_mode(body: &Map<String, Value>) -> &str {
    let host = find(body, "HostConfig").and_then(Value::as_object);
    host.and_then(|host| find(host, "NetworkMode"))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn endpoints(body: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let networking = find(body, "NetworkingConfig")?.as_object()?;
    find(networking, "EndpointsConfig")?
        .as_object()
        .filter(|endpoints| !endpoints.is_empty())
}

fn chooses_network(body: &Map<String, Value>) -> bool {
    !["", "default"].contains(&network_mode(body)) || endpoints(body).is_some()
}

/// Whether the container resolves names as something else does: the device, or another container.
fn has_own_hosts(body: &Map<String, Value>) -> bool {
    let mode = network_mode(body);
    let host_endpoint = endpoints(body).is_some_and(|endpoints| endpoints.contains_key("host"));
    mode == "host" || mode.starts_with("container:") || host_endpoint
}

pub(super) fn find<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The place of an option, under the name that the manifest wrote; null when it has none.
fn slot<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    let key = map.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
    map.entry(key.unwrap_or_else(|| name.to_owned())).or_insert(Value::Null)
}

fn object<'a>(value: &'a mut Value, option: &str) -> Result<&'a mut Map<String, Value>, UnsupportedOption> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value
        .as_object_mut()
        .ok_or_else(|| UnsupportedOption::new(option, "must be a JSON object"))
}

fn texts(value: &Value, option: &str) -> Result<Vec<String>, UnsupportedOption> {
    let wrong = || UnsupportedOption::new(option, "must be a list of texts");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use holm_model::ModuleId;

    use super::*;
    use crate::spec::RuntimeKind;

    fn spec(create_options: Value) -> ModuleSpec {
        let mut spec = ModuleSpec::new(
            ModuleId::new("pump").unwrap(),
            RuntimeKind::Docker,
            "vendor/pump:1",
            "/run/m/1",
        );
        spec.create_options = create_options;
        spec.env = [("A", "1"), ("B", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        spec
    }

    fn body(create_options: Value) -> Value {
        let config = DockerConfig {
            edge_hostname: Some("edge.plant".into()),
            instance: Some("here".into()),
            ..DockerConfig::default()
        };
        make(&spec(create_options), &config, Some([172, 18, 0, 1].into())).unwrap()
    }

    #[test]
    fn a_module_without_options_gets_what_every_module_gets() {
        assert_eq!(
            body(Value::Null),
            json!({
                "Image": "vendor/pump:1",
                "Env": ["A=1", "B=2"],
                "Labels": {
                    "net.azure-devices.edge.owner": "Microsoft.Azure.Devices.Edge.Agent",
                    "net.azure-devices.edge.original-image": "vendor/pump:1",
                    "holm.spec-digest": spec(Value::Null).digest(),
                    "holm.instance": "here"
                },
                "HostConfig": {
                    "Binds": ["/run/m/1:/var/run/iotedge:ro"],
                    "NetworkMode": "azure-iot-edge",
                    "ExtraHosts": ["edge.plant:172.18.0.1", "edgeHub:172.18.0.1", "edgeAgent:172.18.0.1"]
                }
            })
        );
    }

    #[test]
    fn what_the_manifest_says_is_kept_known_or_not() {
        let body = body(json!({
            "Future": {"x": [1, 2.5]}, "Env": ["B=mine"], "Labels": {"l": "v", "holm.instance": "forged"},
            "HostConfig": {"Binds": ["/data:/data"], "FutureToo": true,
                "ExtraHosts": ["edge.plant:10.0.0.1", "edgeHub=10.0.0.2"]}
        }));

        assert_eq!(body["Future"], json!({"x": [1, 2.5]}));
        assert_eq!(body["HostConfig"]["FutureToo"], true);
        assert_eq!(body["Env"], json!(["A=1", "B=mine"]));
        assert_eq!(body["Labels"]["l"], "v");
        assert_eq!(body["Labels"]["holm.instance"], "here");
        assert_eq!(
            body["HostConfig"]["Binds"],
            json!(["/data:/data", "/run/m/1:/var/run/iotedge:ro"])
        );
        assert_eq!(
            body["HostConfig"]["ExtraHosts"],
            json!(["edge.plant:10.0.0.1", "edgeHub=10.0.0.2", "edgeAgent:172.18.0.1"])
        );
    }

    #[test]
    fn a_chosen_network_is_kept_and_host_networks_get_no_extra_host() {
        let rows = [
            (json!({"HostConfig": {"NetworkMode": "host"}}), Some("host"), false),
            (json!({"HostConfig": {"NetworkMode": "plant"}}), Some("plant"), true),
            (
                json!({"HostConfig": {"NetworkMode": "container:x"}}),
                Some("container:x"),
                false,
            ),
            (
                json!({"HostConfig": {"NetworkMode": "default"}}),
                Some("azure-iot-edge"),
                true,
            ),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {"plant": {}}}}),
                None,
                true,
            ),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {"host": {}}}}),
                None,
                false,
            ),
            (
                json!({"NetworkingConfig": {"EndpointsConfig": {}}}),
                Some("azure-iot-edge"),
                true,
            ),
        ];
        for (options, mode, extra_host) in rows {
            let body = body(options.clone());
            assert_eq!(body["HostConfig"]["NetworkMode"].as_str(), mode, "{options}");
            assert_eq!(body["HostConfig"]["ExtraHosts"].is_array(), extra_host, "{options}");
        }
    }

    #[test]
    fn names_are_found_without_case_and_not_doubled() {
        let body = body(json!({"hostConfig": {"binds": ["/a:/a"]}, "env": ["C=3"]}));

        assert_eq!(body["hostConfig"]["binds"][0], "/a:/a");
        assert_eq!(body["env"], json!(["A=1", "B=2", "C=3"]));
        assert!(body.get("HostConfig").is_none() && body.get("Env").is_none());
    }

    #[test]
    fn a_log_is_bounded_where_the_engine_keeps_it_in_files_and_nobody_said_how() {
        let log = LogLimits {
            max_bytes: 5000,
            files: 2,
        };
        let limited = |options: Value, driver: &str| {
            let mut body = body(options);
            if !names_log_driver(&body) {
                limit_log(&mut body, driver, log);
            }
            body["HostConfig"]["LogConfig"].clone()
        };
        let bounded = |driver: &str| json!({"Type": driver, "Config": {"max-size": "5000", "max-file": "2"}});
        let own = json!({"Type": "", "Config": {"max-size": "1m"}});

        assert_eq!(limited(Value::Null, "json-file"), bounded("json-file"));
        assert_eq!(limited(Value::Null, "local"), bounded("local"));
        assert_eq!(limited(json!({"hostconfig": {}}), "journald"), Value::Null);
        assert_eq!(limited(json!({"HostConfig": {"LogConfig": own}}), "json-file"), own);
        assert_eq!(
            limited(json!({"HostConfig": {"LogConfig": {"Type": ""}}}), "local"),
            bounded("local")
        );
    }

    #[test]
    fn scalars_that_the_engine_would_refuse_are_converted() {
        let body = body(json!({"Env": [1], "HostConfig": {"LogConfig": {"Config": {"max-file": 3}}}}));

        assert_eq!(body["Env"], json!(["A=1", "B=2", "1"]));
        assert_eq!(body["HostConfig"]["LogConfig"]["Config"]["max-file"], "3");
    }

    #[test]
    fn elevation_is_taken_away_where_it_is_not_allowed() {
        let config = DockerConfig {
            allow_elevated: false,
            ..DockerConfig::default()
        };
        let options = json!({"HostConfig": {"Privileged": true, "CapAdd": ["ALL"], "CapDrop": ["CHOWN", "KILL"]}});

        let body = make(&spec(options), &config, None).unwrap();

        assert_eq!(body["HostConfig"]["Privileged"], false);
        assert_eq!(body["HostConfig"]["CapAdd"], json!([]));
        assert_eq!(body["HostConfig"]["CapDrop"], json!(["CHOWN", "KILL", "SETUID"]));
    }

    #[test]
    fn options_of_a_wrong_form_are_all_named() {
        let options = json!({"Env": "A=1", "Labels": [], "HostConfig": {"Binds": [1]}});

        let wrong = make(&spec(options), &DockerConfig::default(), None).unwrap_err();

        let names: Vec<&str> = wrong.iter().map(|option| option.option.as_str()).collect();
        assert_eq!(names, ["Env", "Labels", "HostConfig.Binds"]);
    }

    #[test]
    fn an_id_that_cannot_name_a_container_is_refused() {
        for id in ["x", "_pump", "a:b"] {
            let mut spec = spec(Value::Null);
            spec.id = ModuleId::new(id).unwrap();
            let wrong = make(&spec, &DockerConfig::default(), None).unwrap_err();
            assert_eq!(wrong[0].option, id);
        }
    }
}
