//! Reads members of a JSON object and names their whole path when they are not what they should be.
//!
//! As lenient as the original's reader, since published manifests lean on it: a member's name is found whatever its case, a
//! number or boolean stands for its text, and a text for its number.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// An object and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Fields<'v> {
    path: Path<'v>,
    map: &'v Map<String, Value>,
}

#[derive(Clone, Copy)]
struct Path<'v> {
    before: &'v str,
    name: &'v str,
}

impl<'v> Fields<'v> {
    /// `map`, which stands as `name` within `before` (empty at the root).
    pub(super) const fn new(before: &'v str, name: &'v str, map: &'v Map<String, Value>) -> Self {
        Self {
            path: Path { before, name },
            map,
        }
    }

    /// The path of a member.
    pub(super) fn path(&self, member: &str) -> String {
        [self.path.before, self.path.name, member]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(".")
    }

    /// A member that is neither absent nor null. One of exactly this name comes before those that differ in case.
    pub(super) fn get(&self, member: &str) -> Option<&'v Value> {
        let any_case = || self.map.iter().find(|(name, _)| name.eq_ignore_ascii_case(member));
        let found = self.map.get(member).or_else(|| any_case().map(|(_, value)| value));
        found.filter(|value| !value.is_null())
    }

    /// All members.
    pub(super) const fn map(&self) -> &'v Map<String, Value> {
        self.map
    }

    /// A member that must be a text where it is given.
    pub(super) fn text(&self, member: &str) -> Result<Option<Cow<'v, str>>, String> {
        let Some(value) = self.get(member) else {
            return Ok(None);
        };
        let text = text_of(value).ok_or_else(|| format!("`{}` must be a string", self.path(member)))?;
        Ok(Some(text))
    }

    /// A member that must be there and a text.
    pub(super) fn required_text(&self, member: &str) -> Result<Cow<'v, str>, String> {
        self.text(member)?.ok_or_else(|| self.missing(member))
    }

    /// A member that must be an object where it is given.
    pub(super) fn object(&self, member: &str) -> Result<Option<&'v Map<String, Value>>, String> {
        match self.get(member) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(format!("`{}` must be an object", self.path(member))),
        }
    }

    /// A member that must be there and an object.
    pub(super) fn required_object(&self, member: &str) -> Result<&'v Map<String, Value>, String> {
        self.object(member)?.ok_or_else(|| self.missing(member))
    }

    /// A member that must be one of a few words, whatever their case.
    pub(super) fn word<T: Copy>(&self, member: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(text) = self.text(member)? else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("`{}` is `{text}`; give one of {}", self.path(member), known.join(", "))
        })
    }

    fn missing(&self, member: &str) -> String {
        format!("`{}` is missing", self.path(member))
    }
}

/// The text of a value that is one, or a number or boolean.
pub(super) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(_) | Value::Bool(_) => Some(Cow::Owned(value.to_string())),
        _ => None,
    }
}

/// The whole number that a value is, or that its text gives.
pub(super) fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        _ => value.as_i64(),
    }
}

/// Takes what is good and keeps what is wrong with the rest.
pub(super) fn collect<T>(problems: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_is_found_whatever_its_case_and_the_exact_name_first() {
        let map = json!({"startupORDER": 1, "Image": "a", "image": "b", "gone": null});
        let fields = Fields::new("", "", map.as_object().unwrap());

        assert_eq!(fields.get("startupOrder"), Some(&json!(1)));
        assert_eq!(fields.text("image"), Ok(Some("b".into())));
        assert_eq!(fields.text("GONE"), Ok(None));
    }

    #[test]
    fn numbers_and_texts_stand_for_each_other() {
        let map = json!({"version": 1.5, "flag": true, "list": []});
        let fields = Fields::new("modules", "m", map.as_object().unwrap());

        assert_eq!(fields.text("version"), Ok(Some("1.5".into())));
        assert_eq!(fields.text("flag"), Ok(Some("true".into())));
        assert_eq!(fields.text("list"), Err("`modules.m.list` must be a string".to_owned()));
        assert_eq!(whole_number(&json!(" 7200 ")), Some(7200));
        assert_eq!(whole_number(&json!(-1)), Some(-1));
        for value in [json!("7d"), json!(""), json!(1.5), json!(true), json!(null)] {
            assert_eq!(whole_number(&value), None, "{value}");
        }
    }
}
