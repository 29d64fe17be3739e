//! Desired properties of `$edgeAgent`: the modules that shall run.
//!
//! Source: `edge-agent.md` §1.2 and §1.4.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::fields::{Fields, collect, text_of};
use super::module::{ModuleSpec, Role};
use super::{ConfigError, is_empty, schema_version};
use crate::ModuleId;

/// What shall run on an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentDesired {
    /// As given: `1.0` or `1.1`.
    pub schema_version: String,
    /// How to reach registries, and what is only reported back.
    pub runtime: RuntimeSettings,
    /// The agent itself, where the manifest names it; it is built in.
    pub edge_agent: Option<ModuleSpec>,
    /// The broker, where the manifest names it; it is built in.
    pub edge_hub: Option<ModuleSpec>,
    /// The user's modules.
    pub modules: BTreeMap<ModuleId, ModuleSpec>,
}

/// `runtime` of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Reported back, never enforced.
    pub min_docker_version: String,
    /// Reported back, never used.
    pub logging_options: String,
    /// Who to be at which registry, by a name of the operator's.
    pub registry_credentials: BTreeMap<String, RegistryCredential>,
}

/// Who to be at a registry. The password is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryCredential {
    /// Host, and port if it is not the usual one; `$upstream:port` for the parent edge.
    pub address: String,
    /// Name of the account.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredential")
            .field("address", &self.address)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl AgentDesired {
    /// Reads the desired section of the twin of `$edgeAgent`, as the device gets it.
    ///
    /// # Errors
    /// [`ConfigError`] with the code to report; a refusal for format names every module that is wrong.
    pub fn parse(desired: &Map<String, Value>) -> Result<Self, ConfigError> {
        if is_empty(desired) {
            return Err(ConfigError::Empty);
        }
        let root = Fields::new("", "", desired);
        let schema_version = supported_schema(root)?;
        let mut problems = Vec::new();
        let runtime = collect(&mut problems, runtime(root)).unwrap_or_default();
        let system = collect(&mut problems, root.object("systemModules")).flatten();
        let mut system_module = |name: &str, role: Role| {
            let map = Fields::new("", "systemModules", system?).get(name)?;
            collect(&mut problems, module("systemModules", name, map, role))
        };
        let edge_agent = system_module("edgeAgent", Role::EdgeAgent);
        let edge_hub = system_module("edgeHub", Role::EdgeHub);
        let mut modules = BTreeMap::new();
        let given = collect(&mut problems, root.object("modules")).flatten();
        for (name, value) in given.into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            if let Some(id) = collect(&mut problems, user_module_id(name))
                && let Some(spec) = collect(&mut problems, module("modules", name, value, Role::User))
            {
                modules.insert(id, spec);
            }
        }
        if !problems.is_empty() {
            return Err(ConfigError::Agent(problems));
        }
        Ok(Self {
            schema_version,
            runtime,
            edge_agent,
            edge_hub,
            modules,
        })
    }
}

fn supported_schema(root: Fields<'_>) -> Result<String, ConfigError> {
    let text = match root.get("schemaVersion") {
        None => String::new(),
        Some(given) => text_of(given).map_or_else(|| given.to_string(), Cow::into_owned),
    };
    match schema_version(&text) {
        None => Err(ConfigError::SchemaVersion(text)),
        Some((1, 0 | 1)) => Ok(text),
        Some(_) => Err(ConfigError::SchemaTooNew(text)),
    }
}

fn module(group: &str, name: &str, value: &Value, role: Role) -> Result<ModuleSpec, String> {
    match value {
        Value::Object(map) => ModuleSpec::read(Fields::new(group, name, map), role),
        _ => Err(format!("`{group}.{name}` must be an object")),
    }
}

fn user_module_id(name: &str) -> Result<ModuleId, String> {
    match ModuleId::new(name) {
        Ok(id) if id.as_str().starts_with('$') => Err(format!(
            "`modules.{name}` is a name of the runtime; choose one without `$`"
        )),
        Ok(id) => Ok(id),
        Err(error) => Err(format!("`modules.{name}` has no valid name: {error}")),
    }
}

fn runtime(root: Fields<'_>) -> Result<RuntimeSettings, String> {
    let runtime = Fields::new("", "runtime", root.required_object("runtime")?);
    let kinds = [("docker", ()), ("process", ()), ("wasm", ())];
    if runtime.word("type", &kinds)?.is_none() {
        return Err("`runtime.type` is missing; give docker".to_owned());
    }
    let Some(settings) = runtime.object("settings")? else {
        return Ok(RuntimeSettings::default());
    };
    let settings = Fields::new("runtime", "settings", settings);
    let mut registry_credentials = BTreeMap::new();
    for (name, value) in settings.object("registryCredentials")?.into_iter().flatten() {
        let path = settings.path("registryCredentials");
        match value {
            Value::Null => {}
            Value::Object(map) => {
                registry_credentials.insert(name.clone(), credential(Fields::new(&path, name, map))?);
            }
            _ => return Err(format!("`{path}.{name}` must be an object")),
        }
    }
    Ok(RuntimeSettings {
        min_docker_version: settings.text("minDockerVersion")?.unwrap_or_default().into_owned(),
        logging_options: settings.text("loggingOptions")?.unwrap_or_default().into_owned(),
        registry_credentials,
    })
}

fn credential(fields: Fields<'_>) -> Result<RegistryCredential, String> {
    let member = |name: &str| {
        let text = fields.required_text(name)?;
        if text.is_empty() {
            return Err(format!("`{}` is empty", fields.path(name)));
        }
        Ok(text.into_owned())
    };
    let credential = RegistryCredential {
        address: member("address")?,
        username: member("username")?,
        password: member("password")?,
    };
    if credential.address.contains(char::is_whitespace) {
        return Err(format!("`{}` must not hold white space", fields.path("address")));
    }
    Ok(credential)
}

#[cfg(test)]
mod tests;
