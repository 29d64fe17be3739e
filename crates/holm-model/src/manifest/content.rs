//! A deployment: for each module, what to put in the desired section of its twin.
//!
//! ```text
//! {"modulesContent": {                                      also within "content"; also under the old name "moduleContent"
//!    "$edgeAgent": {"properties.desired": {…}},             whole: replaces the section
//!    "sensor": {"properties.desired.rate": 5, …}}}          paths: sets parts of it (a layer)
//! ```
//!
//! Source: `edge-agent.md` §1.1, `hub-service-api.md` §2.2 and §3.3.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::error::{ErrorCode, ServiceError};
use crate::{ModuleId, twin};

const DESIRED: &str = "properties.desired";

/// What a deployment says of each module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentContent {
    /// By module, system modules included.
    pub modules: BTreeMap<ModuleId, ModuleContent>,
}

/// What to do with the desired section of one module.
#[derive(Clone, Debug, PartialEq)]
pub enum ModuleContent {
    /// Replace it.
    Whole(Map<String, Value>),
    /// Set these parts of it, each a path below the section. None at all leaves the section alone.
    Paths(Vec<(Vec<String>, Value)>),
}

impl DeploymentContent {
    /// Reads the body of `applyConfigurationContent`, or a manifest file.
    ///
    /// # Errors
    /// `InvalidConfigurationContent` naming what is missing, repeated or of the wrong kind; `ArgumentInvalid` naming an integer
    /// that no twin can hold.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let document =
            parse_unique(body).map_err(|error| invalid(format!("the manifest is not valid JSON: {error}")))?;
        twin::rules::check_literals(body, "", |_| true)?;
        Self::from_value(&document)
    }

    /// Reads a manifest that is already parsed.
    ///
    /// # Errors
    /// As [`DeploymentContent::from_json`], but for repeated names, which a parsed value can't show.
    pub fn from_value(document: &Value) -> Result<Self, ServiceError> {
        let inner = document
            .get("content")
            .filter(|content| content.is_object())
            .unwrap_or(document);
        let modules = ["modulesContent", "moduleContent"]
            .iter()
            .find_map(|name| inner.get(*name).filter(|value| !value.is_null()))
            .ok_or_else(|| invalid("`modulesContent` is missing; give the desired properties of each module in it"))?;
        let modules = modules
            .as_object()
            .ok_or_else(|| invalid("`modulesContent` must be an object"))?;
        let mut content = Self::default();
        for (name, value) in modules {
            let id = ModuleId::new(name).map_err(|error| invalid(format!("`modulesContent.{name}`: {error}")))?;
            content.modules.insert(id, module(name, value)?);
        }
        Ok(content)
    }

    /// Whether this is a layer: the system modules, where named, are given by paths.
    #[must_use]
    pub fn is_layered(&self) -> bool {
        let is_whole = |id: &ModuleId| matches!(self.modules.get(id), Some(ModuleContent::Whole(_)));
        !is_whole(&ModuleId::edge_agent()) && !is_whole(&ModuleId::edge_hub())
    }

    /// The user's modules that need an identity: those with content, and those that `$edgeAgent` is to run.
    #[must_use]
    pub fn user_modules(&self) -> BTreeSet<ModuleId> {
        let mut ids: BTreeSet<ModuleId> = self.modules.keys().cloned().collect();
        match self.modules.get(&ModuleId::edge_agent()) {
            Some(ModuleContent::Whole(desired)) => {
                let modules = Fields::new("", "", desired).get("modules").and_then(Value::as_object);
                let names = modules.into_iter().flatten().map(|(name, _)| name);
                ids.extend(names.filter_map(|name| ModuleId::new(name).ok()));
            }
            Some(ModuleContent::Paths(paths)) => {
                let named = paths.iter().filter_map(|(path, _)| match path.as_slice() {
                    [first, name, ..] if first == "modules" => ModuleId::new(name).ok(),
                    _ => None,
                });
                ids.extend(named);
            }
            None => {}
        }
        ids.retain(|id| !id.is_system());
        ids
    }
}

impl ModuleContent {
    /// The desired section that results from applying this to `current`.
    #[must_use]
    pub fn applied_to(&self, current: &Map<String, Value>) -> Map<String, Value> {
        match self {
            Self::Whole(desired) => twin::patch::without_nulls(desired),
            Self::Paths(paths) => {
                let mut desired = current.clone();
                for (path, value) in paths {
                    set_path(&mut desired, path, value);
                }
                desired
            }
        }
    }
}

/// Sets what a path names; null removes it.
pub(crate) fn set_path(target: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {}
        [name] if value.is_null() => {
            target.remove(name);
        }
        [name] => {
            let value = match value {
                Value::Object(map) => Value::Object(twin::patch::without_nulls(map)),
                other => other.clone(),
            };
            target.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let slot = target.entry(name.as_str()).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(inner) = slot {
                set_path(inner, rest, value);
            }
        }
    }
}

/// Removes what a path names, and the objects around it that are empty then.
pub(crate) fn remove_path(target: &mut Map<String, Value>, path: &[String]) {
    match path {
        [] => {}
        [name] => {
            target.remove(name);
        }
        [name, rest @ ..] => {
            let Some(Value::Object(inner)) = target.get_mut(name) else {
                return;
            };
            remove_path(inner, rest);
            if inner.is_empty() {
                target.remove(name);
            }
        }
    }
}

/// Reads a key such as `properties.desired.a.b` as the path below the section; `None` where it is no such.
pub(crate) fn desired_path(key: &str) -> Option<Vec<String>> {
    let below = key.strip_prefix(DESIRED)?.strip_prefix('.')?;
    let path: Vec<String> = below.split('.').map(str::to_owned).collect();
    path.iter().all(|name| !name.is_empty()).then_some(path)
}

fn module(name: &str, value: &Value) -> Result<ModuleContent, ServiceError> {
    let entry = value
        .as_object()
        .ok_or_else(|| invalid(format!("`modulesContent.{name}` must be an object")))?;
    match entry.get(DESIRED) {
        Some(Value::Object(_)) if entry.len() > 1 => Err(invalid(format!(
            "`modulesContent.{name}` has `{DESIRED}` and other members; give the whole section or paths into it"
        ))),
        Some(Value::Object(desired)) => Ok(ModuleContent::Whole(desired.clone())),
        Some(_) => Err(invalid(format!("`modulesContent.{name}.{DESIRED}` must be an object"))),
        None => {
            let paths: Result<_, _> = entry
                .iter()
                .map(|(key, value)| Ok((path(name, key)?, value.clone())))
                .collect();
            Ok(ModuleContent::Paths(paths?))
        }
    }
}

fn path(module: &str, key: &str) -> Result<Vec<String>, ServiceError> {
    desired_path(key).ok_or_else(|| {
        invalid(format!(
            "`{key}` in `modulesContent.{module}` is not `{DESIRED}` or a path that begins with `{DESIRED}.`"
        ))
    })
}

fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidConfigurationContent, message)
}

/// Reads JSON in which no object names a member twice.
pub(crate) fn parse_unique(body: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(body).map(|Unique(value)| value)
}

/// A JSON value in which no object names a member twice: of two modules of one name the second would silently win.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Unique(Value::Array(array)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut object = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is given twice; keep one of them")));
            }
            object.insert(name, value);
        }
        Ok(Unique(Value::Object(object)))
    }
}

#[cfg(test)]
mod tests;
