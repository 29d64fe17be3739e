//! What a configuration sets: exactly one of the three kinds of content. C# sends empty objects for the other two.
//!
//! Source: `hub-service-api.md` §3.1, §3.3.

use serde_json::{Map, Value};

use crate::ModuleId;
use crate::error::{ErrorCode, ServiceError};
use crate::manifest::{AgentDesired, ConfigError, DeploymentContent, ModuleContent, desired_path, set_path};
use crate::twin::rules::{self, Limit};

/// What a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigurationKind {
    /// Modules of edge devices: an automatic deployment.
    Edge,
    /// Desired properties of devices.
    Device,
    /// Desired properties of modules.
    Module,
}

impl ConfigurationKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Edge, Self::Device, Self::Module];

    /// The member of `content` that holds what this kind sets.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Edge => "modulesContent",
            Self::Device => "deviceContent",
            Self::Module => "moduleContent",
        }
    }
}

/// One desired property with its path below the section; null removes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Where.
    pub path: Vec<String>,
    /// What.
    pub value: Value,
}

/// What a configuration sets.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigurationContent {
    /// Of edge devices: modules, routes, desired properties of modules.
    Edge(DeploymentContent),
    /// Of devices. In order of their paths.
    Device(Vec<Setting>),
    /// Of modules. In order of their paths.
    Module(Vec<Setting>),
}

impl ConfigurationContent {
    /// Reads the member `content` of a configuration; `None` when it sets nothing.
    ///
    /// # Errors
    /// `InvalidConfigurationContent` naming what is wrong; `ArgumentInvalid` and `DeviceModelMaxPropertiesExceeded` for what no
    /// twin can hold.
    pub fn from_value(content: &Map<String, Value>) -> Result<Option<Self>, ServiceError> {
        let mut found = None;
        for kind in ConfigurationKind::ALL {
            let Some(value) = content.get(kind.member()) else {
                continue;
            };
            let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
            if is_empty {
                continue;
            }
            if let Some((other, _)) = found {
                let other: ConfigurationKind = other;
                return Err(invalid(format!(
                    "`content` has both `{}` and `{}`; a configuration is for one of them",
                    other.member(),
                    kind.member()
                )));
            }
            found = Some((kind, value));
        }
        let Some((kind, value)) = found else { return Ok(None) };
        let member = kind.member();
        let members = value
            .as_object()
            .ok_or_else(|| invalid(format!("`content.{member}` must be an object")))?;
        // The name under which deployments were first published.
        let is_deployment = kind == ConfigurationKind::Edge || members.contains_key(ModuleId::edge_agent().as_str());
        if is_deployment {
            return deployment(content).map(Self::Edge).map(Some);
        }
        let settings = settings(member, members)?;
        Ok(Some(match kind {
            ConfigurationKind::Module => Self::Module(settings),
            _ => Self::Device(settings),
        }))
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> ConfigurationKind {
        match self {
            Self::Edge(_) => ConfigurationKind::Edge,
            Self::Device(_) => ConfigurationKind::Device,
            Self::Module(_) => ConfigurationKind::Module,
        }
    }
}

fn deployment(content: &Map<String, Value>) -> Result<DeploymentContent, ServiceError> {
    let content = DeploymentContent::from_value(&Value::Object(content.clone()))?;
    let of = |id: &ModuleId| content.modules.get(id);
    let (agent, hub) = (ModuleId::edge_agent(), ModuleId::edge_hub());
    match (of(&agent), of(&hub)) {
        (None, _) => Err(invalid(
            "`$edgeAgent` is missing in `modulesContent`; a layer that sets nothing of it gives it as `{}`",
        )),
        (Some(ModuleContent::Whole(_)), Some(ModuleContent::Paths(_)))
        | (Some(ModuleContent::Paths(_)), Some(ModuleContent::Whole(_))) => Err(invalid(
            "one of `$edgeAgent` and `$edgeHub` is given whole and the other by paths; give both whole (a base), or both by paths (a layer)",
        )),
        (Some(ModuleContent::Whole(desired)), _) => match AgentDesired::parse(desired) {
            Err(ConfigError::Agent(problems)) => Err(invalid(format!(
                "the deployment of `$edgeAgent` is wrong: {}",
                problems.join("; ")
            ))),
            _ => check_sizes(content),
        },
        (Some(ModuleContent::Paths(paths)), _) => {
            if paths
                .iter()
                .any(|(path, _)| path.first().is_some_and(|first| first == "systemModules"))
            {
                return Err(invalid(
                    "a layer can't set `properties.desired.systemModules`; set them in the base deployment",
                ));
            }
            check_sizes(content)
        }
    }
}

/// Refuses, here where its author is told, what no twin could hold.
fn check_sizes(content: DeploymentContent) -> Result<DeploymentContent, ServiceError> {
    for (module, given) in &content.modules {
        let desired = given.applied_to(&Map::new());
        let told = |error: ServiceError| ServiceError::new(error.code, format!("of `{module}`: {}", error.message));
        rules::check(&desired, Limit::Desired).map_err(told)?;
        rules::check_size(&desired, Limit::Desired).map_err(told)?;
    }
    Ok(content)
}

fn settings(member: &str, members: &Map<String, Value>) -> Result<Vec<Setting>, ServiceError> {
    let mut settings = Vec::with_capacity(members.len());
    for (key, value) in members {
        let path = desired_path(key).ok_or_else(|| {
            invalid(format!(
                "`{key}` in `content.{member}` is no path that begins with `properties.desired.`"
            ))
        })?;
        let value = value.clone();
        settings.push(Setting { path, value });
    }
    settings.sort_by(|a, b| a.path.cmp(&b.path));
    let mut all = Map::new();
    for setting in &settings {
        set_path(&mut all, &setting.path, &setting.value);
    }
    rules::check(&all, Limit::Desired)?;
    rules::check_size(&all, Limit::Desired)?;
    Ok(settings)
}

fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidConfigurationContent, message)
}
