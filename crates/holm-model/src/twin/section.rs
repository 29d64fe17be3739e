//! One half of a twin: properties, when each was last set, and a version.
//!
//! ```text
//! properties  {"fan":{"rpm":950}}
//! metadata    {"$lastUpdated":T, "$lastUpdatedVersion":8, "fan":{"$lastUpdated":T, …, "rpm":{"$lastUpdated":T, …}}}
//! ```
//!
//! Metadata nodes sit beside the properties' own names; no clash is possible because no property name holds `$`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::patch;
use super::rules::{self, Limit};
use crate::Timestamp;
use crate::error::ServiceError;

/// Desired or reported properties.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    properties: Map<String, Value>,
    metadata: Map<String, Value>,
    version: u64,
}

impl Section {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            properties: Map::new(),
            metadata: Map::from_iter([("$lastUpdated".to_owned(), json!(now))]),
            version: 1,
        }
    }

    pub(super) fn adopted(properties: Map<String, Value>, limit: Limit, version: u64, now: Timestamp) -> Self {
        let mut metadata = Map::new();
        Stamp::new(limit, now, version).put_tree(&mut metadata, &properties);
        Self {
            properties,
            metadata,
            version,
        }
    }

    /// The properties alone.
    #[must_use]
    pub const fn properties(&self) -> &Map<String, Value> {
        &self.properties
    }

    /// The `$metadata` tree.
    #[must_use]
    pub const fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// The `$version`.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// This section after a merge patch.
    pub(super) fn patched(
        &self,
        patch: &Map<String, Value>,
        limit: Limit,
        now: Timestamp,
    ) -> Result<Self, ServiceError> {
        rules::check(patch, limit)?;
        let mut new = self.clone();
        new.version += 1;
        patch::apply(&mut new.properties, patch);
        rules::check_size(&new.properties, limit)?;
        Stamp::new(limit, now, new.version).merge(&mut new.metadata, patch);
        Ok(new)
    }

    /// This section with other properties.
    pub(super) fn replaced(
        &self,
        all: &Map<String, Value>,
        limit: Limit,
        now: Timestamp,
    ) -> Result<Self, ServiceError> {
        rules::check(all, limit)?;
        let mut new = Self {
            properties: patch::without_nulls(all),
            metadata: Map::new(),
            version: self.version + 1,
        };
        rules::check_size(&new.properties, limit)?;
        Stamp::new(limit, now, new.version).put_tree(&mut new.metadata, &new.properties);
        Ok(new)
    }

    /// What a change has made of this section, for those who follow it: the changed keys as given (null for what is gone), the
    /// `$metadata` of those that are there, and `$version`.
    #[must_use]
    pub fn changed(&self, keys: &Map<String, Value>) -> Map<String, Value> {
        let mut changed = self.with_version(keys);
        changed.insert("$metadata".to_owned(), Value::Object(metadata_of(&self.metadata, keys)));
        changed
    }

    /// `properties` with this section's `$version` beside them.
    pub(super) fn with_version(&self, properties: &Map<String, Value>) -> Map<String, Value> {
        let mut with_version = properties.clone();
        with_version.insert("$version".to_owned(), json!(self.version));
        with_version
    }
}

/// The part of a metadata tree that is about these keys.
fn metadata_of(node: &Map<String, Value>, keys: &Map<String, Value>) -> Map<String, Value> {
    let mut part: Map<String, Value> = node
        .iter()
        .filter(|(name, _)| name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in keys.iter().filter(|(name, _)| !name.starts_with('$')) {
        let child = match (node.get(name), value) {
            (None, _) => continue,
            (Some(Value::Object(child)), Value::Object(keys)) => Value::Object(metadata_of(child, keys)),
            (Some(child), _) => child.clone(),
        };
        part.insert(name.clone(), child);
    }
    part
}

/// When a change was made, and in desired sections by which version.
#[derive(Clone, Copy)]
struct Stamp {
    now: Timestamp,
    version: Option<u64>,
}

impl Stamp {
    fn new(limit: Limit, now: Timestamp, version: u64) -> Self {
        let version = (limit == Limit::Desired).then_some(version);
        Self { now, version }
    }

    fn put(self, node: &mut Map<String, Value>) {
        node.insert("$lastUpdated".to_owned(), json!(self.now));
        if let Some(version) = self.version {
            node.insert("$lastUpdatedVersion".to_owned(), json!(version));
        }
    }

    fn put_tree(self, node: &mut Map<String, Value>, properties: &Map<String, Value>) {
        self.put(node);
        for (name, value) in properties {
            let mut child = Map::new();
            match value {
                Value::Object(properties) => self.put_tree(&mut child, properties),
                _ => self.put(&mut child),
            }
            node.insert(name.clone(), Value::Object(child));
        }
    }

    /// Follows what a merge patch does to properties.
    fn merge(self, node: &mut Map<String, Value>, patch: &Map<String, Value>) {
        self.put(node);
        for (name, value) in patch {
            match value {
                Value::Null => {
                    node.remove(name);
                }
                Value::Object(patch) => {
                    if let Value::Object(child) = node.entry(name.as_str()).or_insert_with(|| json!({})) {
                        self.merge(child, patch);
                    }
                }
                _ => {
                    let mut leaf = Map::new();
                    self.put(&mut leaf);
                    node.insert(name.clone(), Value::Object(leaf));
                }
            }
        }
    }
}
