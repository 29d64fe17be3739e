//! What a manifest says of agent and broker and nothing obeys here: they are parts of this process, and not containers with an
//! environment and create options. Its author may rely on it, so it is told: in the log when it comes into force, and in the
//! status for as long as it is.
//!
//! A setting that asks for what is so anyway is not told; the create options of every portal's and tool's manifest are such
//! ones. One that is not in the table below has to do with the insides of the original's containers; it is told by its name.
//!
//! Source: `edge-broker.md` §8, `edge-agent.md` §10.

use holm_client::Transport;
use holm_model::manifest::{AgentDesired, ModuleSpec, ModuleStatus};
use serde::Serialize;
use serde_json::{Map, Value};

/// A setting without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Unheeded {
    /// Its path in the desired properties of `$edgeAgent`.
    setting: String,
    /// What is so instead, or does it here.
    why: &'static str,
}

impl std::fmt::Display for Unheeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ({})", self.setting, self.why)
    }
}

/// A variable of the original: its name in lower case, the values that ask for what is so anyway, and why it has no effect.
type Variable = (&'static str, &'static [&'static str], &'static str);

const INSIDES: &str = "concerns the original's container";
const PROXY: &str = "the edge connects to the hub directly; a proxy is not yet supported";
const TELEMETRY: &str = "nothing is ever sent to a maker";
const METRICS: &str = "`holm.metrics_bind` says where metrics are served";
const STORAGE: &str = "all that the edge keeps is below `holm.data`";

const OF_BOTH: &[Variable] = &[
    ("https_proxy", &[""], PROXY),
    ("http_proxy", &[""], PROXY),
    ("all_proxy", &[""], PROXY),
    (
        UPSTREAM_PROTOCOL,
        &[],
        "`holm.hub_protocol` says what the edge speaks with the hub",
    ),
    (
        "runtimeloglevel",
        &["info"],
        "`holm edge system set-log-level` or `HOLM_LOG` sets the level",
    ),
    (
        "optimizeforperformance",
        &[],
        "there is one profile, and its memory is bounded",
    ),
    ("storagefolder", &[], STORAGE),
    ("backupfolder", &[], STORAGE),
    ("sendruntimequalitytelemetry", &["false"], TELEMETRY),
    ("disabledeviceanalyticsmetadata", &["true"], TELEMETRY),
    ("disabledeviceanalyticstelemetry", &["true"], TELEMETRY),
    ("metricsenabled", &["true"], METRICS),
    ("collectmetrics", &["true"], METRICS),
    ("metrics__listener__metricsenabled", &["true"], METRICS),
    // Alone it opens a gate to others, which are told by themselves.
    ("experimentalfeatures__enabled", &["true", "false"], INSIDES),
    ("experimentalfeatures__enablemetrics", &["true"], METRICS),
    (
        "experimentalfeatures__enableuploadlogs",
        &["true"],
        "the method is always there",
    ),
    (
        "experimentalfeatures__enablegetlogs",
        &["true"],
        "the method is always there",
    ),
    (
        "experimentalfeatures__nestededgeenabled",
        &["false"],
        "edges behind an edge are not yet supported",
    ),
    (
        "nestededgeenabled",
        &["false"],
        "edges behind an edge are not yet supported",
    ),
    (
        "experimentalfeatures__mqttbrokerenabled",
        &["false"],
        "topics of one's own are not yet supported",
    ),
];

const OF_THE_BROKER: &[Variable] = &[
    (
        "usepersistentstorage",
        &["true"],
        "messages are kept on disk; `holm.messages_in_memory_bytes` keeps them in memory",
    ),
    ("mqttsettings__enabled", &["true"], "MQTT is always served"),
    ("amqpsettings__enabled", &["true"], "AMQP is always served"),
    (
        "httpsettings__enabled",
        &["true"],
        "HTTPS is always served, at `holm.https_port`",
    ),
    ("httpsettings__port", &["443"], "`holm.https_port` says it"),
    ("httpsettings__metrics_port", &["9600"], METRICS),
    (
        "storeandforwardenabled",
        &["true"],
        "messages are always stored until they are delivered",
    ),
    (
        "storeandforward__timetolivesecs",
        &[],
        "`storeAndForwardConfiguration` of `$edgeHub` says it",
    ),
    (
        "authenticationmode",
        &["scope", "cloudandscope"],
        "devices are let in that the hub has made this edge's children",
    ),
    (
        "clientcertauthenabled",
        &["true"],
        "clients may always show a certificate",
    ),
    ("encrypttwinstore", &["true"], "twins are always encrypted at rest"),
    ("maxconnectedclients", &[], "how many clients there may be can't be set"),
];

/// It says nothing new when it names what is spoken anyway.
const UPSTREAM_PROTOCOL: &str = "upstreamprotocol";

/// Everything without effect in a deployment, for an edge that speaks this with its hub.
pub(super) fn of(desired: &AgentDesired, protocol: Transport) -> Vec<Unheeded> {
    let mut all = Vec::new();
    for (name, spec, variables) in [
        ("edgeAgent", &desired.edge_agent, &[OF_BOTH][..]),
        ("edgeHub", &desired.edge_hub, &[OF_BOTH, OF_THE_BROKER][..]),
    ] {
        if let Some(spec) = spec {
            let mut tell = |what: &str, why: &'static str| {
                let setting = format!("systemModules.{name}.{what}");
                all.push(Unheeded { setting, why });
            };
            of_module(spec, variables, protocol, &mut tell);
        }
    }
    all
}

fn of_module(
    spec: &ModuleSpec,
    variables: &[&[Variable]],
    protocol: Transport,
    tell: &mut impl FnMut(&str, &'static str),
) {
    for (name, value) in &spec.env {
        // Sections are written both ways.
        let plain = name.to_ascii_lowercase().replace(':', "__");
        let known = variables.iter().copied().flatten().find(|(known, ..)| *known == plain);
        match known {
            Some((UPSTREAM_PROTOCOL, ..)) if value.parse() == Ok(protocol) => {}
            Some((_, anyway, _)) if anyway.iter().any(|so| so.eq_ignore_ascii_case(value.trim())) => {}
            Some((_, _, why)) => tell(&format!("env.{name}"), why),
            None => tell(&format!("env.{name}"), INSIDES),
        }
    }
    if spec.status == ModuleStatus::Stopped {
        tell("status", "it is a part of the edge, and runs as long as that does");
    }
    of_options(&spec.create_options, "settings.createOptions", tell);
}

fn of_options(options: &Map<String, Value>, path: &str, tell: &mut impl FnMut(&str, &'static str)) {
    for (name, value) in options.iter().filter(|(_, value)| !is_empty(value)) {
        let inner = format!("{path}.{name}");
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match value {
            Value::Object(members) if is("HostConfig") => of_options(members, &inner, tell),
            Value::Object(ports) if is("PortBindings") => of_ports(ports, &inner, tell),
            _ if is("ExposedPorts") => {}
            _ if is("LogConfig") => tell(&inner, "it writes into the edge's own log"),
            _ if is("Binds") || is("Mounts") => tell(&inner, STORAGE),
            _ => tell(&inner, INSIDES),
        }
    }
}

/// A port that is bound to the same one of the device is where it is anyway.
fn of_ports(ports: &Map<String, Value>, path: &str, tell: &mut impl FnMut(&str, &'static str)) {
    for (port, bindings) in ports {
        let number = port.split('/').next().unwrap_or_default();
        let elsewhere = bindings.as_array().into_iter().flatten().any(|binding| {
            let bound = match binding.get("HostPort") {
                Some(Value::String(port)) => port.clone(),
                Some(Value::Number(port)) => port.to_string(),
                _ => String::new(),
            };
            !bound.is_empty() && bound != number
        });
        let why = match number {
            "8883" => "`holm.mqtt_port` says it",
            "5671" => "`holm.amqp_port` says it",
            "443" => "`holm.https_port` says it",
            "9600" => METRICS,
            _ => INSIDES,
        };
        if elsewhere {
            tell(&format!("{path}.{port}"), why);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(agent: Value, hub: Value) -> Vec<String> {
        let desired = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"},
            "systemModules": {"edgeAgent": agent, "edgeHub": hub}, "modules": {}});
        let desired = AgentDesired::parse(desired.as_object().unwrap()).unwrap();
        of(&desired, Transport::AmqpWebSocket)
            .into_iter()
            .map(|one| one.setting)
            .collect()
    }

    fn module(env: Value, options: Value) -> Value {
        json!({"type": "docker", "status": "running", "restartPolicy": "always", "env": env,
            "settings": {"image": "a:1", "createOptions": options}})
    }

    #[test]
    fn what_every_tool_writes_is_so_anyway() {
        let ports = json!({"ExposedPorts": {"9600/tcp": {}}, "HostConfig": {"PortBindings": {"443/tcp": [{"HostPort": "443"}],
            "5671/tcp": [{"HostPort": "5671"}], "8883/tcp": [{"HostPort": 8883}], "9600/tcp": null}, "Binds": []}});
        let env = json!({"UpstreamProtocol": {"value": "AmqpWs"}, "usePersistentStorage": {"value": true},
            "amqpSettings:enabled": {"value": true}, "experimentalFeatures__enabled": {"value": "true"}});

        assert_eq!(told(module(json!({}), json!("")), module(env, ports)), [""; 0]);
    }

    #[test]
    fn a_setting_that_nothing_obeys_is_told_with_its_path() {
        let agent = module(json!({"https_proxy": {"value": "http://192.0.2.1:3128"}}), json!({}));
        let env = json!({"UpstreamProtocol": {"value": "Mqtt"}, "UsePersistentStorage": {"value": "false"}, "mqttSettings__enabled": {"value": false},
            "RocksDB_MaxOpenFiles": {"value": 10}});
        let options = json!({"User": "1000", "HostConfig": {"Memory": 1, "Binds": ["/a:/b"], "LogConfig": {"Type": "local"},
            "PortBindings": {"8883/tcp": [{"HostPort": "18883"}]}}});
        let mut hub = module(env, options);
        hub["status"] = json!("stopped");

        let expected = [
            "edgeAgent.env.https_proxy",
            "edgeHub.env.RocksDB_MaxOpenFiles",
            "edgeHub.env.UpstreamProtocol",
            "edgeHub.env.UsePersistentStorage",
            "edgeHub.env.mqttSettings__enabled",
            "edgeHub.status",
            "edgeHub.settings.createOptions.HostConfig.Binds",
            "edgeHub.settings.createOptions.HostConfig.LogConfig",
            "edgeHub.settings.createOptions.HostConfig.Memory",
            "edgeHub.settings.createOptions.HostConfig.PortBindings.8883/tcp",
            "edgeHub.settings.createOptions.User",
        ];
        assert_eq!(told(agent, hub), expected.map(|path| format!("systemModules.{path}")));
    }
}
