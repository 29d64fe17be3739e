//! Reads members of a JSON object and names their whole path when they are not what they should be.

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

    /// A member that is neither absent nor null.
    pub(super) fn get(&self, member: &str) -> Option<&'v Value> {
        self.map.get(member).filter(|value| !value.is_null())
    }

    /// All members.
    pub(super) const fn map(&self) -> &'v Map<String, Value> {
        self.map
    }

    /// A member that must be a string where it is given.
    pub(super) fn text(&self, member: &str) -> Result<Option<&'v str>, String> {
        match self.get(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{}` must be a string", self.path(member))),
        }
    }

    /// A member that must be there and a string.
    pub(super) fn required_text(&self, member: &str) -> Result<&'v str, String> {
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
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("`{}` is `{text}`; give one of {}", self.path(member), known.join(", "))
        })
    }

    fn missing(&self, member: &str) -> String {
        format!("`{}` is missing", self.path(member))
    }
}

/// Takes what is good and keeps what is wrong with the rest.
pub(super) fn collect<T>(problems: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
