//! What callers send to change a twin. Tools send the whole twin back that they read, so everything that only the hub may
//! write is passed over in silence: `reported`, `$metadata`, `$version`, the etag and the identity's own fields.

use serde_json::{Map, Value};

use super::patch;
use super::rules::{self, Limit};
use crate::error::ServiceError;
use crate::strict_json;

/// A change of tags and desired properties; `None` leaves that part alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TwinUpdate {
    /// What to do with tags.
    pub tags: Option<Map<String, Value>>,
    /// What to do with desired properties.
    pub desired: Option<Map<String, Value>>,
}

impl TwinUpdate {
    /// Reads `{"tags": {…}, "properties": {"desired": {…}}}`. A part that is null counts as absent.
    ///
    /// # Errors
    /// `ArgumentInvalid` when the body is not JSON, a part is not an object, or an integer has more than 64 bits.
    pub fn from_json(body: &[u8]) -> Result<Self, ServiceError> {
        let mut document = object(parse(body, "the twin")?, "the twin")?.unwrap_or_default();
        rules::check_literals(body, "", |path| {
            matches!(path, ["tags", ..] | ["properties", "desired", ..])
        })?;
        let tags = object(document.remove("tags").unwrap_or_default(), "tags")?;
        let properties = object(document.remove("properties").unwrap_or_default(), "properties")?;
        let desired = properties.unwrap_or_default().remove("desired").unwrap_or_default();
        let desired = object(desired, "properties.desired")?;
        Ok(Self {
            tags: tags.map(settable),
            desired: desired.map(settable),
        })
    }

    /// Checks that a twin with nothing in it yet can hold this, which stands in the member `root` of a larger document.
    ///
    /// # Errors
    /// As [`Twin::patch`](super::Twin::patch), naming the path from `root` on.
    pub fn check_initial(&self, root: &str) -> Result<(), ServiceError> {
        for (section, limit) in [(&self.tags, Limit::Tags), (&self.desired, Limit::Desired)] {
            if let Some(section) = section {
                rules::check_within(root, section, limit)?;
                rules::check_size_within(root, &patch::without_nulls(section), limit)?;
            }
        }
        Ok(())
    }

    /// A change of desired properties alone.
    #[must_use]
    pub fn of_desired(desired: Map<String, Value>) -> Self {
        Self {
            tags: None,
            desired: Some(settable(desired)),
        }
    }
}

/// Reads a patch of reported properties, as devices send it.
///
/// # Errors
/// `ArgumentInvalid` when the body is not a JSON object, or an integer in it has more than 64 bits.
pub fn reported_from_json(body: &[u8]) -> Result<Map<String, Value>, ServiceError> {
    match parse(body, "the reported properties")? {
        Value::Object(patch) => {
            rules::check_literals(body, "properties.reported", |_| true)?;
            Ok(settable(patch))
        }
        _ => Err(ServiceError::argument_invalid(
            "the reported properties must be a JSON object",
        )),
    }
}

fn parse(body: &[u8], what: &str) -> Result<Value, ServiceError> {
    strict_json::parse(body).map_err(|error| ServiceError::argument_invalid(format!("{what} can't be read: {error}")))
}

fn object(value: Value, what: &str) -> Result<Option<Map<String, Value>>, ServiceError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        _ => Err(ServiceError::argument_invalid(format!(
            "`{what}` must be a JSON object"
        ))),
    }
}

fn settable(mut section: Map<String, Value>) -> Map<String, Value> {
    section.remove("$metadata");
    section.remove("$version");
    section
}
