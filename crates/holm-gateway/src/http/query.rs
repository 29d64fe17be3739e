//! The part of a request's address behind `?`.

use std::borrow::Cow;

use holm_model::error::{ErrorCode, ServiceError};
use holm_model::wire::percent;

/// Names and values; a repeated name counts once, the first time.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`; what is not percent-encoded text is passed over. A `+` is a space, as in forms.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let decode = |part: &str| percent::try_decode(&part.replace('+', " ")).map(Cow::into_owned);
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        };
        Self(pairs.filter_map(read).collect())
    }

    /// The value of a name, compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The `api-version`: any date, and no answer depends on it (`hub-device-protocols.md` §4, `hub-service-api.md` §2.1).
    ///
    /// # Errors
    /// `InvalidProtocolVersion` where it is missing or no date.
    pub fn api_version(&self) -> Result<&str, ServiceError> {
        let version = self.get("api-version").unwrap_or_default();
        let date = version.strip_suffix("-preview").unwrap_or(version);
        let shape = date.split('-').map(str::len).eq([4, 2, 2]);
        let digits = date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if shape && digits {
            return Ok(version);
        }
        Err(ServiceError::new(
            ErrorCode::InvalidProtocolVersion,
            "`api-version` is missing or not a date; send for example `?api-version=2021-04-12`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_without_case_and_values_decoded() {
        let query = Query::parse("Top=5&&a=x%20y&flag&b=1&b=2&bad=%ff");

        assert_eq!(query.get("top"), Some("5"));
        assert_eq!(query.get("a"), Some("x y"));
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("b"), Some("1"));
        assert_eq!(query.get("bad"), None);
    }

    #[test]
    fn any_date_is_an_api_version_and_nothing_else_is() {
        for good in ["api-version=2016-11-14", "API-Version=2020-06-30-preview"] {
            assert!(Query::parse(good).api_version().is_ok(), "{good}");
        }
        for bad in [
            "",
            "api-version=",
            "api-version=latest",
            "api-version=2020-6-30",
            "api-version=20-06-30",
        ] {
            let refused = Query::parse(bad).api_version().unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidProtocolVersion, "{bad}");
        }
    }
}
