//! What the edge reports: the published names exactly, since hubs query them (`lastDesiredStatus.code`) and tools show
//! them.
//!
//! The original reports registry passwords; this one does not.
//!
//! Source: `edge-agent.md` §2.5, `edge-broker.md` §6.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ConfigError, ImagePullPolicy, LAST_STARTUP_ORDER, ModuleSpec, ModuleStatus, ModuleType, RestartPolicy};
use crate::{Identity, ModuleId, Timestamp};

/// Whether the last desired properties are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DesiredStatus {
    /// 200 in force, 400 not valid, 406 not running, 412 foreign schema, 417 empty, 500 failed.
    pub code: u16,
    /// Why not; empty with 200.
    pub description: String,
}

impl DesiredStatus {
    /// They are in force.
    #[must_use]
    pub const fn applied() -> Self {
        Self {
            code: 200,
            description: String::new(),
        }
    }

    /// They are valid, and carrying them out failed.
    #[must_use]
    pub fn failed(description: impl Into<String>) -> Self {
        Self {
            code: 500,
            description: description.into(),
        }
    }

    /// The agent is not running.
    #[must_use]
    pub fn not_running() -> Self {
        Self {
            code: 406,
            description: "Agent is not running".to_owned(),
        }
    }
}

impl From<&ConfigError> for DesiredStatus {
    fn from(error: &ConfigError) -> Self {
        Self {
            code: error.code(),
            description: error.to_string(),
        }
    }
}

/// What is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BuildVersion {
    /// The release.
    pub version: String,
    /// The build.
    pub build: String,
    /// The commit.
    pub commit: String,
}

/// Reported properties of `$edgeAgent`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentReported {
    /// Always `1.0`.
    pub schema_version: String,
    /// What is installed.
    pub version: BuildVersion,
    /// The version of the desired properties that `last_desired_status` speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_desired_version: Option<u64>,
    /// Whether they are in force.
    pub last_desired_status: DesiredStatus,
    /// Where modules run.
    pub runtime: RuntimeReported,
    /// Agent and broker.
    pub system_modules: SystemModulesReported,
    /// The user's modules.
    pub modules: BTreeMap<ModuleId, ModuleReported>,
}

/// Where modules run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeReported {
    /// As deployed.
    #[serde(rename = "type")]
    pub kind: ModuleType,
    /// As deployed.
    pub settings: RuntimeSettingsReported,
    /// The machine.
    pub platform: Platform,
}

/// What is only reported back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeSettingsReported {
    /// As deployed.
    pub min_docker_version: String,
    /// As deployed.
    pub logging_options: String,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `x86_64`.
    pub architecture: String,
    /// Of the engine or runtime.
    pub version: String,
}

/// Agent and broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemModulesReported {
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_agent: Option<ModuleReported>,
    /// The broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_hub: Option<ModuleReported>,
}

/// How a module fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeStatus {
    /// Nobody can tell.
    Unknown,
    /// It runs.
    Running,
    /// It runs and says that it is not well.
    Unhealthy,
    /// It ended well, or was never started.
    Stopped,
    /// It failed and waits for its next start.
    Backoff,
    /// It failed and is not started again.
    Failed,
    /// The engine gave it up.
    Dead,
}

/// A module as it is. Members that the agent does not have are `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleReported {
    /// How it is run.
    #[serde(rename = "type")]
    pub kind: ModuleType,
    /// Whether it shall run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ModuleStatus>,
    /// When it is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// When its image is pulled.
    pub image_pull_policy: ImagePullPolicy,
    /// Left out when it is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_order: Option<u32>,
    /// As deployed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How it fares.
    pub runtime_status: RuntimeStatus,
    /// Of its last end; 0 before the first.
    pub exit_code: i64,
    /// More about how it fares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_description: Option<String>,
    /// When it last started.
    pub last_start_time_utc: Timestamp,
    /// When it last ended.
    pub last_exit_time_utc: Timestamp,
    /// How often it was started again since it last ran well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
    /// When it was last started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart_time_utc: Option<Timestamp>,
    /// Image, its hash, create options in chunks.
    pub settings: Map<String, Value>,
    /// Variables, each `{"value": …}`.
    pub env: Map<String, Value>,
}

impl ModuleReported {
    /// A user's module, or the broker, that was never started.
    #[must_use]
    pub fn of_spec(spec: &ModuleSpec, image_hash: &str) -> Self {
        let mut settings = Map::from_iter([
            ("image".to_owned(), json!(spec.image)),
            ("imageHash".to_owned(), json!(image_hash)),
        ]);
        settings.extend(
            super::create_options_chunks(&spec.create_options)
                .into_iter()
                .map(|(name, text)| (name, json!(text))),
        );
        Self {
            kind: spec.kind,
            status: Some(spec.status),
            restart_policy: Some(spec.restart_policy),
            image_pull_policy: spec.image_pull_policy,
            startup_order: (spec.startup_order != LAST_STARTUP_ORDER).then_some(spec.startup_order),
            version: Some(spec.version.clone()),
            runtime_status: RuntimeStatus::Unknown,
            exit_code: 0,
            status_description: None,
            last_start_time_utc: Timestamp::NEVER,
            last_exit_time_utc: Timestamp::NEVER,
            restart_count: Some(0),
            last_restart_time_utc: Some(Timestamp::NEVER),
            settings,
            env: spec
                .env
                .iter()
                .map(|(name, value)| (name.clone(), json!({ "value": value })))
                .collect(),
        }
    }

    /// The agent itself, which has no status, restart policy, version or restarts of its own.
    #[must_use]
    pub fn of_agent(spec: &ModuleSpec, image_hash: &str) -> Self {
        Self {
            status: None,
            restart_policy: None,
            startup_order: None,
            version: None,
            restart_count: None,
            last_restart_time_utc: None,
            ..Self::of_spec(spec, image_hash)
        }
    }
}

/// Reported properties of `$edgeHub`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeHubReported {
    /// Always `1.0`.
    pub schema_version: String,
    /// What is installed.
    pub version: BuildVersion,
    /// The version of the desired properties that `last_desired_status` speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_desired_version: Option<u64>,
    /// Whether they are in force.
    pub last_desired_status: DesiredStatus,
    /// By [`client_key`]. The caller bounds how many: a twin has room for a few hundred.
    pub clients: BTreeMap<String, ClientReported>,
}

/// A client of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientReported {
    /// `Connected` or `Disconnected`.
    pub status: String,
    /// When it last connected.
    pub last_connected_time_utc: Timestamp,
    /// When it last went.
    pub last_disconnected_time_utc: Timestamp,
}

/// The name of a client in reported properties: `device` or `device/module`, with what no twin name may hold escaped.
#[must_use]
pub fn client_key(client: &Identity) -> String {
    client
        .to_string()
        .replace('.', "%2E")
        .replace('$', "%24")
        .replace(' ', "%20")
}

#[cfg(test)]
mod tests {
    use super::super::AgentDesired;
    use super::*;
    use crate::twin::rules::{Limit, check};

    fn spec(body: Value) -> ModuleSpec {
        let manifest = json!({"schemaVersion": "1.1", "runtime": {"type": "docker"}, "modules": {"m": body}});
        let desired = AgentDesired::parse(manifest.as_object().unwrap()).unwrap();
        desired.modules.into_values().next().unwrap()
    }

    #[test]
    fn a_module_is_reported_under_the_published_names() {
        let spec = spec(
            json!({"type": "docker", "status": "running", "restartPolicy": "on-failure", "version": "1",
            "settings": {"image": "a:1", "createOptions": "{\"Env\":[]}"}, "env": {"A": {"value": 1}}}),
        );

        let reported = serde_json::to_value(ModuleReported::of_spec(&spec, "sha256:00")).unwrap();

        assert_eq!(
            reported,
            json!({
                "type": "docker", "status": "running", "restartPolicy": "on-failure", "imagePullPolicy": "on-create",
                "version": "1", "runtimeStatus": "unknown", "exitCode": 0,
                "lastStartTimeUtc": "0001-01-01T00:00:00Z", "lastExitTimeUtc": "0001-01-01T00:00:00Z",
                "restartCount": 0, "lastRestartTimeUtc": "0001-01-01T00:00:00Z",
                "settings": {"image": "a:1", "imageHash": "sha256:00", "createOptions": "{\"Env\":[]}"},
                "env": {"A": {"value": "1"}},
            })
        );
    }

    #[test]
    fn a_report_of_the_agent_is_a_valid_twin_section() {
        let spec = spec(json!({"type": "process", "status": "stopped", "startupOrder": 1, "settings": {"image": "x"}}));
        let report = AgentReported {
            schema_version: "1.0".to_owned(),
            version: BuildVersion::default(),
            last_desired_version: Some(4),
            last_desired_status: DesiredStatus::from(&ConfigError::Empty),
            runtime: RuntimeReported {
                kind: ModuleType::Docker,
                settings: RuntimeSettingsReported::default(),
                platform: Platform::default(),
            },
            system_modules: SystemModulesReported {
                edge_agent: Some(ModuleReported::of_agent(&spec, "")),
                edge_hub: None,
            },
            modules: BTreeMap::from([(ModuleId::new("m").unwrap(), ModuleReported::of_spec(&spec, ""))]),
        };

        let json = serde_json::to_value(report).unwrap();

        assert_eq!(json["lastDesiredVersion"], 4);
        assert_eq!(json["lastDesiredStatus"]["code"], 417);
        assert_eq!(json["runtime"]["type"], "docker");
        assert_eq!(json["modules"]["m"]["startupOrder"], 1);
        assert!(json["systemModules"]["edgeAgent"].get("restartPolicy").is_none());
        assert_eq!(check(json.as_object().unwrap(), Limit::Reported), Ok(()));
    }

    #[test]
    fn a_report_of_the_broker_escapes_its_clients() {
        let key = client_key(&"pump.1/$edgeAgent".parse().unwrap());
        let client = ClientReported {
            status: "Connected".to_owned(),
            last_connected_time_utc: Timestamp::NEVER,
            last_disconnected_time_utc: Timestamp::NEVER,
        };
        let report = EdgeHubReported {
            schema_version: "1.0".to_owned(),
            version: BuildVersion::default(),
            last_desired_version: None,
            last_desired_status: DesiredStatus::applied(),
            clients: BTreeMap::from([(key.clone(), client)]),
        };

        let json = serde_json::to_value(report).unwrap();

        assert_eq!(key, "pump%2E1/%24edgeAgent");
        assert_eq!(json["clients"][&key]["status"], "Connected");
        assert_eq!(json["lastDesiredStatus"], json!({"code": 200, "description": ""}));
        assert_eq!(check(json.as_object().unwrap(), Limit::Reported), Ok(()));
    }
}
