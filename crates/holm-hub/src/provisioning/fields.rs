//! Members of documents, read with errors that name them. Null counts as absent: SDKs send every member that they know.

use holm_model::ProvisioningError;
use serde_json::{Map, Value};

/// A document, and where it stands in the whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'d> {
    members: &'d Map<String, Value>,
    path: &'d str,
}

impl<'d> Fields<'d> {
    /// The members of a document that stands at `path`, such as `attestation.`; empty for the whole.
    pub(super) const fn new(members: &'d Map<String, Value>, path: &'d str) -> Self {
        Self { members, path }
    }

    pub(super) fn get(self, name: &str) -> Option<&'d Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(self, name: &str, expected: &str) -> ProvisioningError {
        ProvisioningError::argument_invalid(format!("`{}{name}` must be {expected}", self.path))
    }

    /// A text; an empty one counts as absent.
    pub(super) fn text(self, name: &str) -> Result<Option<&'d str>, ProvisioningError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(super) fn boolean(self, name: &str) -> Result<Option<bool>, ProvisioningError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    pub(super) fn object(self, name: &str) -> Result<Option<&'d Map<String, Value>>, ProvisioningError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    pub(super) fn texts(self, name: &str) -> Result<Vec<String>, ProvisioningError> {
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.wrong(name, "an array of strings")),
        };
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        texts
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong(name, "an array of strings"))
    }
}
