//! Entity tags: how a caller says "only if nobody changed it since I looked".
//!
//! Source: `hub-service-api.md` §2.1 and §2.4.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The etag of a counter: base64 of its eight bytes, big-endian, such as `AAAAAAAAAAc=`. Unquoted, as in bodies.
#[must_use]
pub fn of_counter(counter: u64) -> String {
    STANDARD.encode(counter.to_be_bytes())
}

/// Whether an `If-Match` value allows a change of what now has the unquoted etag `current`. Clients send `*`, `"*"`,
/// `etag`, `"etag"` and `W/"etag"`.
#[must_use]
pub fn matches(if_match: &str, current: &str) -> bool {
    let wanted = if_match.trim();
    let wanted = wanted.strip_prefix("W/").unwrap_or(wanted);
    let wanted = wanted
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(wanted);
    wanted == "*" || wanted == current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_eight_bytes_in_base64() {
        assert_eq!(of_counter(7), "AAAAAAAAAAc=");
        assert_eq!(of_counter(u64::MAX), "//////////8=");
    }

    #[test]
    fn every_form_of_if_match_is_understood() {
        for form in ["*", "\"*\"", "abc=", "\"abc=\"", "W/\"abc=\"", " \"abc=\" "] {
            assert!(matches(form, "abc="), "{form}");
        }
        for form in ["", "\"\"", "abd=", "\"abc", "ABC="] {
            assert!(!matches(form, "abc="), "{form}");
        }
    }
}
