//! Members of a document, taken one by one with errors that name them. Null counts as absent; what nobody took is unknown.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use holm_identity::Secret;
use serde_json::{Map, Value};

/// What in a definition can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{member}`: {text}")]
pub struct DefinitionError {
    /// The member.
    pub member: String,
    /// What is wrong with it, and the way out.
    pub text: String,
}

impl DefinitionError {
    /// An error in a member.
    pub fn new(member: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            member: member.into(),
            text: text.into(),
        }
    }
}

/// The members of a document that are left to take.
#[derive(Debug)]
pub struct Members {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Members {
    /// All members of a document.
    #[must_use]
    pub const fn new(document: Map<String, Value>) -> Self {
        Self {
            left: document,
            known: Vec::new(),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// Takes what only answers have, and forgets it.
    pub fn ignore(&mut self, name: &'static str) {
        drop(self.take(name));
    }

    /// A text that is not empty.
    ///
    /// # Errors
    /// When it is something else, or longer than `longest` bytes.
    pub fn text(&mut self, name: &'static str, longest: usize) -> Result<Option<String>, DefinitionError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => {
                Err(DefinitionError::new(name, "is empty; leave it out, or give a value"))
            }
            Some(Value::String(text)) if text.len() > longest => {
                let length = text.len();
                Err(DefinitionError::new(
                    name,
                    format!("has {length} bytes; at most {longest} are allowed"),
                ))
            }
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(DefinitionError::new(name, "must be a string")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// As [`Members::text`], and when it is missing.
    pub fn required_text(&mut self, name: &'static str, longest: usize) -> Result<String, DefinitionError> {
        let text = self.text(name, longest)?;
        text.ok_or_else(|| DefinitionError::new(name, "is missing"))
    }

    /// A text that answers never show.
    ///
    /// # Errors
    /// As [`Members::text`].
    pub fn secret(&mut self, name: &'static str) -> Result<Option<Secret>, DefinitionError> {
        Ok(self.text(name, 16 * 1024)?.map(Secret::new))
    }

    /// True or false.
    ///
    /// # Errors
    /// When it is something else.
    pub fn boolean(&mut self, name: &'static str, otherwise: bool) -> Result<bool, DefinitionError> {
        match self.take(name) {
            None => Ok(otherwise),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(DefinitionError::new(name, "must be true or false")),
        }
    }

    /// A whole number in a range.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&mut self, name: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, DefinitionError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            DefinitionError::new(
                name,
                format!("must be a whole number of {} to {}", range.start(), range.end()),
            )
        })
    }

    /// A time in whole seconds.
    ///
    /// # Errors
    /// As [`Members::number`].
    pub fn seconds(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<Duration>, DefinitionError> {
        Ok(self.number(name, range)?.map(Duration::from_secs))
    }

    /// One of a few words.
    ///
    /// # Errors
    /// When it is something else.
    pub fn choice<T: Copy>(&mut self, name: &'static str, of: &[(&str, T)]) -> Result<Option<T>, DefinitionError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let chosen = of.iter().find(|(word, _)| value.as_str() == Some(word));
        chosen.map(|(_, chosen)| Some(*chosen)).ok_or_else(|| {
            let words: Vec<_> = of.iter().map(|(word, _)| format!("`{word}`")).collect();
            DefinitionError::new(name, format!("must be {}", words.join(" or ")))
        })
    }

    /// An object of texts.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&mut self, name: &'static str) -> Result<BTreeMap<String, String>, DefinitionError> {
        let wrong = || DefinitionError::new(name, "must be an object whose values are strings");
        match self.take(name) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(object)) => {
                let pairs = object.into_iter().map(|(key, value)| match value {
                    Value::String(value) => Ok((key, value)),
                    _ => Err(wrong()),
                });
                pairs.collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is something else, or one is longer than `longest` bytes.
    pub fn words(&mut self, name: &'static str, longest: usize) -> Result<Vec<String>, DefinitionError> {
        let wrong = || DefinitionError::new(name, format!("must be an array of strings of at most {longest} bytes"));
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() <= 1000 => {
                let texts = items.into_iter().map(|item| match item {
                    Value::String(text) if text.len() <= longest => Ok(text),
                    _ => Err(wrong()),
                });
                texts.collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// With the name of the first member that nobody knows.
    pub fn finish(mut self) -> Result<(), DefinitionError> {
        let Some(unknown) = self.left.keys().next() else {
            return Ok(());
        };
        self.known.sort_unstable();
        let text = format!("is unknown here; known are {}", self.known.join(", "));
        Err(DefinitionError::new(unknown.clone(), text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn members(document: Value) -> Members {
        Members::new(document.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_wrong_is_named_with_the_way_out() {
        let mut all = members(json!({ "a": 7, "b": "x", "c": "other", "d": { "e": 1 }, "f": "", "g": 3 }));

        assert_eq!(all.text("a", 9).unwrap_err().to_string(), "`a`: must be a string");
        assert_eq!(
            all.number("b", 1..=9).unwrap_err().to_string(),
            "`b`: must be a whole number of 1 to 9"
        );
        assert_eq!(
            all.choice("c", &[("one", 1), ("two", 2)]).unwrap_err().to_string(),
            "`c`: must be `one` or `two`"
        );
        assert!(all.texts("d").is_err() && all.text("f", 9).is_err());
        assert_eq!(all.required_text("h", 9).unwrap_err().to_string(), "`h`: is missing");
        assert_eq!(
            all.finish().unwrap_err().to_string(),
            "`g`: is unknown here; known are a, b, c, d, f, h"
        );
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let mut all = members(json!({ "a": null, "b": null }));

        assert_eq!(all.text("a", 9), Ok(None));
        assert_eq!(all.boolean("b", true), Ok(true));
        assert_eq!(all.finish(), Ok(()));
    }
}
