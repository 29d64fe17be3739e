//! A configuration as a hub keeps it: its published form, its stored form, and what may change in it.
//!
//! ```text
//! changed by PUT        labels, targetCondition, priority, metrics
//! never changed         content, schemaVersion, createdTimeUtc
//! ```
//!
//! Source: `hub-service-api.md` §3.1.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::metrics::{MetricResults, system_queries};
use super::{ConfigurationContent, ConfigurationId, ConfigurationKind, ConfigurationWish, Target};
use crate::error::{ErrorCode, ServiceError};
use crate::{Timestamp, etag};

/// The schema version of a configuration that names none.
const SCHEMA_VERSION: &str = "1.0";

/// A configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    id: ConfigurationId,
    schema_version: String,
    labels: Option<Map<String, Value>>,
    content: ConfigurationContent,
    /// The content as it was written, for those who read it back.
    written: Map<String, Value>,
    content_type: Option<String>,
    target_condition: String,
    priority: u32,
    metrics: BTreeMap<String, String>,
    created: Timestamp,
    updated: Timestamp,
    etag: u64,
}

impl Configuration {
    /// A new configuration. `etag` differs for another of the same id.
    ///
    /// # Errors
    /// `InvalidConfigurationContent` when it sets nothing; `InvalidConfigurationTargetCondition` when its condition is for
    /// another kind.
    pub fn create(
        id: ConfigurationId,
        wish: ConfigurationWish,
        now: Timestamp,
        etag: u64,
    ) -> Result<Self, ServiceError> {
        let Some((content, written)) = wish.content else {
            return Err(ServiceError::new(
                ErrorCode::InvalidConfigurationContent,
                "`content` is missing or empty; give `modulesContent`, `deviceContent` or `moduleContent`",
            ));
        };
        let target_condition = wish.target_condition.unwrap_or_default();
        Target::parse(content.kind(), &target_condition)?;
        Ok(Self {
            id,
            schema_version: wish.schema_version.unwrap_or_else(|| SCHEMA_VERSION.to_owned()),
            labels: wish.labels,
            content,
            written,
            content_type: wish.content_type,
            target_condition,
            priority: wish.priority.unwrap_or(0),
            metrics: wish.metrics.unwrap_or_default(),
            created: now,
            updated: now,
            etag,
        })
    }

    /// This configuration as a caller wants it now.
    ///
    /// # Errors
    /// `CannotModifyImmutableConfigurationContent` when content or schema version differ;
    /// `InvalidConfigurationTargetCondition` when the condition is for another kind.
    pub fn changed(&self, wish: ConfigurationWish, now: Timestamp, etag: u64) -> Result<Self, ServiceError> {
        let is_other_schema = wish
            .schema_version
            .is_some_and(|version| version != self.schema_version);
        let is_other_content = wish.content.is_some_and(|(content, _)| content != self.content);
        if is_other_schema || is_other_content {
            let part = if is_other_content { "content" } else { "schemaVersion" };
            return Err(ServiceError::new(
                ErrorCode::CannotModifyImmutableConfigurationContent,
                format!(
                    "`{part}` of configuration `{}` can't be changed; make another configuration with a higher priority",
                    self.id
                ),
            ));
        }
        let mut changed = self.clone();
        changed.labels = wish.labels;
        if let Some(condition) = wish.target_condition {
            Target::parse(self.kind(), &condition)?;
            changed.target_condition = condition;
        }
        if let Some(priority) = wish.priority {
            changed.priority = priority;
        }
        if let Some(metrics) = wish.metrics {
            changed.metrics = metrics;
        }
        changed.updated = now;
        changed.etag = etag;
        Ok(changed)
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &ConfigurationId {
        &self.id
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> ConfigurationKind {
        self.content.kind()
    }

    /// What it sets.
    #[must_use]
    pub const fn content(&self) -> &ConfigurationContent {
        &self.content
    }

    /// Whom it is for, as text.
    #[must_use]
    pub fn target_condition(&self) -> &str {
        &self.target_condition
    }

    /// Whom it is for.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        // Read before it was kept.
        Target::parse(self.kind(), &self.target_condition).unwrap_or(Target::Nobody)
    }

    /// The greater wins.
    #[must_use]
    pub const fn priority(&self) -> u32 {
        self.priority
    }

    /// When it was made; of two with one priority the newer wins.
    #[must_use]
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// When it was last changed.
    #[must_use]
    pub const fn updated(&self) -> Timestamp {
        self.updated
    }

    /// The queries of its own, by name.
    #[must_use]
    pub const fn metrics(&self) -> &BTreeMap<String, String> {
        &self.metrics
    }

    /// Whether it is a layer: merged over a base deployment, nothing by itself.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        matches!(&self.content, ConfigurationContent::Edge(content) if content.is_layered())
    }

    /// What decides between configurations: of two, the greater wins. The id settles what is equal in all that is published.
    #[must_use]
    pub const fn rank(&self) -> (u32, Timestamp, &ConfigurationId) {
        (self.priority, self.created, &self.id)
    }

    /// The etag as a number, for storage.
    #[must_use]
    pub const fn etag_number(&self) -> u64 {
        self.etag
    }

    /// The etag as it stands in bodies.
    #[must_use]
    pub fn etag(&self) -> String {
        etag::of_counter(self.etag)
    }

    /// The published form.
    #[must_use]
    pub fn to_json(&self, results: &MetricResults) -> Value {
        let mut content: Map<String, Value> = ConfigurationKind::ALL
            .iter()
            .map(|kind| (kind.member().to_owned(), Value::Null))
            .collect();
        content.extend(self.written.clone());
        json!({
            "id": self.id.as_str(),
            "schemaVersion": self.schema_version,
            "labels": self.labels,
            "content": content,
            "contentType": self.content_type.as_deref().unwrap_or("assignment"),
            "targetCondition": self.target_condition,
            "createdTimeUtc": self.created,
            "lastUpdatedTimeUtc": self.updated,
            "priority": self.priority,
            "systemMetrics": {
                "results": results.system,
                "queries": system_queries(self.kind(), &self.id, self.target()),
            },
            "metrics": { "results": results.custom, "queries": self.metrics },
            "etag": self.etag(),
        })
    }

    /// The stored form, beside which id, etag and times are kept.
    #[must_use]
    pub fn to_stored(&self) -> Value {
        json!({
            "schemaVersion": self.schema_version,
            "labels": self.labels,
            "content": self.written,
            "contentType": self.content_type,
            "targetCondition": self.target_condition,
            "priority": self.priority,
            "metrics": { "queries": self.metrics },
        })
    }

    /// Reads the stored form; `None` when it is damaged.
    #[must_use]
    pub fn from_stored(
        id: ConfigurationId,
        stored: &Value,
        created: Timestamp,
        updated: Timestamp,
        etag: u64,
    ) -> Option<Self> {
        let wish = ConfigurationWish::from_members(stored.as_object()?).ok()?;
        let mut configuration = Self::create(id, wish, created, etag).ok()?;
        configuration.updated = updated;
        Some(configuration)
    }
}
