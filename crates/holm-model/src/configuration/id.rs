//! Names of configurations, by the published rules: lower case, and fewer signs than the ids of devices have.
//!
//! Source: `hub-service-api.md` §2.1.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most characters of an id.
const MAX_LENGTH: usize = 128;

/// Why a text is no id of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfigurationId {
    /// It has no character.
    #[error("the id of a configuration must not be empty; give 1 to {MAX_LENGTH} characters")]
    Empty,
    /// It has too many.
    #[error("the id of the configuration has {0} characters; at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    /// One of them is not allowed.
    #[error(
        "the id of the configuration holds `{character}` at position {position}; allowed are lower-case ASCII letters, digits and - + % _ * ! ' : . # ? ( ) , = @ ; $"
    )]
    Character {
        /// The first that is not allowed.
        character: char,
        /// Where it stands, from 1.
        position: usize,
    },
}

/// The id of a configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigurationId(Arc<str>);

impl ConfigurationId {
    /// Checks an id.
    ///
    /// # Errors
    /// [`InvalidConfigurationId`].
    pub fn new(id: &str) -> Result<Self, InvalidConfigurationId> {
        if id.is_empty() {
            return Err(InvalidConfigurationId::Empty);
        }
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-+%_*!':.#?(),=@;$".contains(c);
        if let Some((index, character)) = id.chars().enumerate().find(|(_, c)| !is_allowed(*c)) {
            let position = index + 1;
            return Err(InvalidConfigurationId::Character { character, position });
        }
        if id.len() > MAX_LENGTH {
            return Err(InvalidConfigurationId::TooLong(id.len()));
        }
        Ok(Self(id.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConfigurationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConfigurationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

impl FromStr for ConfigurationId {
    type Err = InvalidConfigurationId;
    fn from_str(id: &str) -> Result<Self, InvalidConfigurationId> {
        Self::new(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_lower_case_without_blanks_brackets_or_slashes() {
        for id in ["v1", "ring-0_a", "50%!*'+", &"x".repeat(128)] {
            assert!(ConfigurationId::new(id).is_ok(), "{id}");
        }
        for c in " &^[]{}\\|\"<>/Aä".chars() {
            let refused = ConfigurationId::new(&format!("a{c}")).unwrap_err();
            assert!(matches!(refused, InvalidConfigurationId::Character { position: 2, .. }));
        }
        assert_eq!(ConfigurationId::new(""), Err(InvalidConfigurationId::Empty));
        assert_eq!(
            ConfigurationId::new(&"x".repeat(129)),
            Err(InvalidConfigurationId::TooLong(129))
        );
    }
}
