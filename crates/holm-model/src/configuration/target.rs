//! Whom a target condition means, as far as that is said without the condition itself.
//!
//! ```text
//! ""                                nobody
//! "*"                               all
//! from devices.modules where …      modules; for moduleContent
//! …                                 devices
//! ```
//!
//! Source: `hub-service-api.md` §3.1, §3.2.

use super::ConfigurationKind;
use crate::error::{ErrorCode, ServiceError};

/// The longest condition, in characters: that of a query.
const MAX_CHARACTERS: usize = 8192;

/// Whom a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'t> {
    /// Nobody: the configuration waits.
    Nobody,
    /// All of its kind.
    All,
    /// Those for whom this holds.
    Where(&'t str),
}

impl<'t> Target<'t> {
    /// Reads a target condition of a configuration of a kind.
    ///
    /// # Errors
    /// `InvalidConfigurationTargetCondition` when it is for another kind, or too long.
    pub fn parse(kind: ConfigurationKind, text: &'t str) -> Result<Self, ServiceError> {
        let invalid = |message: String| ServiceError::new(ErrorCode::InvalidConfigurationTargetCondition, message);
        if text.chars().count() > MAX_CHARACTERS {
            let message = format!("the target condition has more than {MAX_CHARACTERS} characters; shorten it");
            return Err(invalid(message));
        }
        let text = text.trim();
        match text {
            "" => return Ok(Self::Nobody),
            "*" => return Ok(Self::All),
            _ => {}
        }
        let Some((collection, condition)) = from(text) else {
            return match kind {
                ConfigurationKind::Module => Err(invalid(
                    "the target condition of `moduleContent` begins with `from devices.modules where`".to_owned(),
                )),
                _ => Ok(Self::Where(text)),
            };
        };
        let wanted = match kind {
            ConfigurationKind::Module => "devices.modules",
            _ => "devices",
        };
        if !collection.eq_ignore_ascii_case(wanted) {
            return Err(invalid(format!(
                "the target condition is over `{collection}`; that of `{}` is over `{wanted}`",
                kind.member()
            )));
        }
        Ok(if condition.is_empty() {
            Self::All
        } else {
            Self::Where(condition)
        })
    }
}

/// Splits `from COLLECTION [where CONDITION]`.
fn from(text: &str) -> Option<(&str, &str)> {
    let rest = after_word(text, "from")?;
    let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (collection, rest) = rest.split_at(end);
    let rest = rest.trim_start();
    Some((collection, after_word(rest, "where").unwrap_or(rest)))
}

fn after_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let head = text.get(..word.len())?;
    let rest = text.get(word.len()..)?;
    let is_word = head.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace);
    is_word.then(|| rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_names_its_collection_or_has_that_of_its_kind() {
        let read = |kind, text| Target::parse(kind, text);
        use ConfigurationKind::{Device, Edge, Module};

        assert_eq!(read(Edge, " "), Ok(Target::Nobody));
        assert_eq!(read(Module, "*"), Ok(Target::All));
        assert_eq!(read(Device, " tags.a = 1 "), Ok(Target::Where("tags.a = 1")));
        assert_eq!(
            read(Edge, "from devices where tags.a = 1"),
            Ok(Target::Where("tags.a = 1"))
        );
        assert_eq!(
            read(Module, "FROM devices.modules  WHERE moduleId='m'"),
            Ok(Target::Where("moduleId='m'"))
        );
        assert_eq!(read(Module, "from devices.modules"), Ok(Target::All));
        // A property that begins like the word.
        assert_eq!(read(Device, "fromage = 1"), Ok(Target::Where("fromage = 1")));
    }

    #[test]
    fn a_condition_for_another_kind_is_refused_with_what_it_is_over() {
        let refused = |kind, text| Target::parse(kind, text).unwrap_err();

        let modules = refused(ConfigurationKind::Module, "tags.a = 1");
        let devices = refused(ConfigurationKind::Edge, "from devices.modules where a = 1");
        let long = refused(ConfigurationKind::Device, &"x".repeat(8193));

        assert!(modules.message.contains("`from devices.modules where`"), "{modules}");
        assert!(devices.message.contains("`devices.modules`"), "{devices}");
        assert_eq!(long.code, ErrorCode::InvalidConfigurationTargetCondition);
    }
}
