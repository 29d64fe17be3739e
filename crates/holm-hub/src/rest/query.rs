//! The part of a request's address behind `?`.

use super::target::decode;

/// Names and values; a repeated name counts once, the first time.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2`; what is not percent-encoded text is passed over. A `+` is a space, as in forms.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(&name.replace('+', " "))?, decode(&value.replace('+', " "))?))
        };
        Self(pairs.filter_map(read).collect())
    }

    /// The value of a name, compared without case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
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
}
