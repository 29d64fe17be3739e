//! What callers send to make or change a configuration. Tools send back the whole document that they read, so what only the hub
//! may write is passed over in silence: times, the etag, system metrics, results.
//!
//! Source: `hub-service-api.md` §3.1, §2.1.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::metrics::MAX_CUSTOM_METRICS;
use super::{ConfigurationContent, ConfigurationId};
use crate::error::{ErrorCode, ServiceError};
use crate::manifest::parse_unique;
use crate::twin::rules;

/// The longest name of a metric or label, in characters.
const MAX_NAME: usize = 128;
/// The greatest priority: that of clients that count in 32 bits.
const MAX_PRIORITY: u32 = i32::MAX.unsigned_abs();

/// A configuration as a caller describes it; `None` leaves a part as it is, or gives a new one what is usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigurationWish {
    /// Echoed.
    pub schema_version: Option<String>,
    /// Notes of the operator's: texts by name.
    pub labels: Option<Map<String, Value>>,
    /// What it sets, and the same as it was written.
    pub content: Option<(ConfigurationContent, Map<String, Value>)>,
    /// Echoed.
    pub content_type: Option<String>,
    /// Whom it is for.
    pub target_condition: Option<String>,
    /// The greater wins.
    pub priority: Option<u32>,
    /// Queries of its own, by name.
    pub metrics: Option<BTreeMap<String, String>>,
}

impl ConfigurationWish {
    /// Reads the body of a PUT.
    ///
    /// # Errors
    /// `ArgumentInvalid` naming the member that is of the wrong kind; `InvalidConfigurationContent` and
    /// `InvalidConfigurationCustomMetricsQuery` for those parts.
    pub fn from_json(id: &ConfigurationId, body: &[u8]) -> Result<Self, ServiceError> {
        let document =
            parse_unique(body).map_err(|error| invalid(format!("the configuration is not valid JSON: {error}")))?;
        rules::check_literals(body, "", |path| path.first() == Some(&"content"))?;
        let Value::Object(document) = document else {
            return Err(invalid("the configuration must be a JSON object"));
        };
        if let Some(named) = text(&document, "id")?
            && named != id.as_str()
        {
            return Err(invalid(format!(
                "`id` is `{named}` and the path says `{id}`; give the same"
            )));
        }
        Self::from_members(&document)
    }

    /// Reads the members that a caller may write.
    pub(super) fn from_members(document: &Map<String, Value>) -> Result<Self, ServiceError> {
        let content = object(document, "content")?;
        let content = match content {
            None => None,
            Some(content) => ConfigurationContent::from_value(content)?.map(|read| (read, written(content))),
        };
        Ok(Self {
            schema_version: text(document, "schemaVersion")?.map(str::to_owned),
            labels: labels(document)?,
            content,
            content_type: text(document, "contentType")?.map(str::to_owned),
            target_condition: text(document, "targetCondition")?.map(str::to_owned),
            priority: priority(document)?,
            metrics: metrics(document)?,
        })
    }
}

/// The content without the kinds that it does not use.
fn written(content: &Map<String, Value>) -> Map<String, Value> {
    let is_used = |value: &Value| !value.is_null() && value.as_object().is_none_or(|inner| !inner.is_empty());
    let used = content.iter().filter(|(_, value)| is_used(value));
    used.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn labels(document: &Map<String, Value>) -> Result<Option<Map<String, Value>>, ServiceError> {
    let Some(labels) = object(document, "labels")? else {
        return Ok(None);
    };
    for (name, value) in labels {
        if !value.is_string() || name.chars().count() > MAX_NAME {
            return Err(invalid(format!(
                "the label `{name}` must be a text under a name of at most {MAX_NAME} characters"
            )));
        }
    }
    Ok(Some(labels.clone()))
}

fn priority(document: &Map<String, Value>) -> Result<Option<u32>, ServiceError> {
    let Some(given) = document.get("priority").filter(|given| !given.is_null()) else {
        return Ok(None);
    };
    let number = given.as_u64().and_then(|number| u32::try_from(number).ok());
    match number.filter(|number| *number <= MAX_PRIORITY) {
        Some(number) => Ok(Some(number)),
        None => Err(invalid(format!(
            "`priority` is {given}; give a whole number from 0 to {MAX_PRIORITY}"
        ))),
    }
}

fn metrics(document: &Map<String, Value>) -> Result<Option<BTreeMap<String, String>>, ServiceError> {
    let refused = |message: String| ServiceError::new(ErrorCode::InvalidConfigurationCustomMetricsQuery, message);
    let Some(metrics) = object(document, "metrics")? else {
        return Ok(None);
    };
    let Some(queries) = object(metrics, "queries")? else {
        return Ok(None);
    };
    if queries.len() > MAX_CUSTOM_METRICS {
        return Err(refused(format!(
            "`metrics.queries` has {} queries; at most {MAX_CUSTOM_METRICS} are allowed",
            queries.len()
        )));
    }
    let mut all = BTreeMap::new();
    for (name, query) in queries {
        let query = query.as_str().filter(|query| !query.trim().is_empty());
        let is_named = !name.is_empty() && name.chars().count() <= MAX_NAME;
        let Some(query) = query.filter(|_| is_named) else {
            return Err(refused(format!(
                "the metric `{name}` must be a query under a name of 1 to {MAX_NAME} characters"
            )));
        };
        all.insert(name.clone(), query.to_owned());
    }
    Ok(Some(all))
}

fn object<'d>(document: &'d Map<String, Value>, name: &str) -> Result<Option<&'d Map<String, Value>>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(_) => Err(invalid(format!("`{name}` must be an object"))),
    }
}

fn text<'d>(document: &'d Map<String, Value>, name: &str) -> Result<Option<&'d str>, ServiceError> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("`{name}` must be a text"))),
    }
}

fn invalid(message: impl Into<String>) -> ServiceError {
    ServiceError::argument_invalid(message)
}
