//! What endpoints are called.

use std::fmt;
use std::str::FromStr;

use super::DefinitionError;

/// The name of an endpoint of the operator's: 1 to 64 of `A-Z a-z 0-9 - _ .`, and none of the names that the hub's own have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName(String);

impl EndpointName {
    /// The most characters.
    pub const LONGEST: usize = 64;
    /// The endpoint that every hub has.
    pub const EVENTS: &'static str = "events";
    /// Names that no endpoint may be given.
    const TAKEN: [&'static str; 3] = [Self::EVENTS, "fileNotifications", "$default"];

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointName {
    type Err = DefinitionError;

    fn from_str(text: &str) -> Result<Self, DefinitionError> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > Self::LONGEST || !text.bytes().all(is_good) {
            let rule = format!("must be 1 to {} of A-Z, a-z, 0-9, `-`, `_`, `.`", Self::LONGEST);
            return Err(DefinitionError::new("name", rule));
        }
        if Self::TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken)) {
            let text = format!("`{text}` is a name of the hub's own; choose another");
            return Err(DefinitionError::new("name", text));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_not_those_of_the_hub() {
        for good in ["a", "hot-path_2.x", &"n".repeat(64)] {
            assert!(good.parse::<EndpointName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "a b",
            "ü",
            "Events",
            "fileNotifications",
            "$default",
            &"n".repeat(65),
        ] {
            assert!(bad.parse::<EndpointName>().is_err(), "{bad}");
        }
    }
}
