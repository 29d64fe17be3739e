//! Where a page of a query begins, as a text that callers keep and do not look into.
//!
//! ```text
//! base64url( {"q": hash of the query, "l": results still wanted, "k": [device, module] | "v", "h": group | "k" and "s": order} )
//! ```
//!
//! It says nothing that the caller may not know, and a forged one shows nothing but another page of the same query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holm_model::ServiceError;
use holm_query::twin::{Groups, Query, SortKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::storage::RowKey;

/// The longest continuation that is looked at: places in an order are texts of twins.
const MAX_TEXT: usize = 128 * 1024;
/// How much of what a group is known by stands in a continuation, in bytes: it is sent in a header.
const MAX_GROUP: usize = 512;

/// A group behind which a page begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupMark {
    /// What it is known by, or the beginning of that.
    text: String,
    /// Of a beginning: tells groups that begin so apart.
    hash: Option<u64>,
}

impl GroupMark {
    pub(super) fn of(key: &str) -> Self {
        let beginning = key.get(..key.floor_char_boundary(MAX_GROUP)).unwrap_or_default();
        Self {
            text: beginning.to_owned(),
            hash: (beginning.len() < key.len()).then(|| hash(key)),
        }
    }

    /// What the group is known by; where it is not there any more, what stands before all that begin so.
    pub(super) fn find(&self, groups: &Groups<'_>) -> String {
        let Some(wanted) = self.hash else {
            return self.text.clone();
        };
        let alike = groups
            .keys_after(&self.text)
            .take_while(|key| key.starts_with(&self.text));
        let found = alike.into_iter().find(|key| hash(key) == wanted);
        found.unwrap_or(&self.text).to_owned()
    }
}

/// Behind what a page begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Continuation {
    /// How many results are still wanted, where the query says how many at most.
    pub(super) left: Option<u64>,
    /// Behind which identity.
    pub(super) key: Option<RowKey>,
    /// Behind which group.
    pub(super) group: Option<GroupMark>,
    /// Behind which place in the order; then `key` tells identities in the same place apart.
    pub(super) sorted: Option<SortKey>,
}

// Marks of groups stood in `g` when groups came in another order; one from then is told to be none of this hub.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    q: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    l: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<RowKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    h: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<Vec<(Value, bool)>>,
}

impl Continuation {
    /// The beginning of a query.
    pub(super) fn start(query: &Query) -> Self {
        Self {
            left: query.top(),
            ..Self::default()
        }
    }

    /// Reads what an earlier page of the query `text` gave out.
    pub(super) fn parse(continuation: &str, text: &str) -> Result<Self, ServiceError> {
        let wrong = |why: &str| {
            ServiceError::argument_invalid(format!(
                "the header `x-ms-continuation` {why}; send it as the page before gave it, or leave it out to begin anew"
            ))
        };
        let bytes = Some(continuation)
            .filter(|continuation| continuation.len() <= MAX_TEXT)
            .and_then(|continuation| URL_SAFE_NO_PAD.decode(continuation).ok());
        let written = bytes.and_then(|bytes| serde_json::from_slice::<Written>(&bytes).ok());
        let written = written.ok_or_else(|| wrong("is not one of this hub"))?;
        if written.q != hash(text) {
            return Err(wrong("belongs to another query"));
        }
        let sorted = match written.s {
            None => None,
            Some(values) => Some(SortKey::from_json(values).ok_or_else(|| wrong("is not one of this hub"))?),
        };
        Ok(Self {
            left: written.l,
            key: written.k,
            group: written.v.map(|text| GroupMark { text, hash: written.h }),
            sorted,
        })
    }

    pub(super) fn to_text(&self, text: &str) -> String {
        let written = Written {
            q: hash(text),
            l: self.left,
            k: self.key.clone(),
            v: self.group.as_ref().map(|group| group.text.clone()),
            h: self.group.as_ref().and_then(|group| group.hash),
            s: self.sorted.as_ref().map(SortKey::to_json),
        };
        // Text, numbers and JSON values have no form that can't be written.
        let json = serde_json::to_vec(&written).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }
}

/// FNV-1a: tells queries apart, and is the same in every release.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_reads_back_for_its_own_query_only() {
        let query = Query::parse("SELECT TOP 5 * FROM devices ORDER BY tags.a DESC, deviceId").unwrap();
        let document = serde_json::json!({"deviceId": "d1", "tags": {"a": 0.1}});
        let continuation = Continuation {
            key: Some(("d1".into(), String::new())),
            group: Some(GroupMark::of(&"\u{0}\"ü\"".repeat(1000))),
            sorted: Some(query.sort_key(&document)),
            ..Continuation::start(&query)
        };

        let text = continuation.to_text("the query");
        let earlier = format!(r#"{{"q":{},"g":"20"}}"#, hash("the query"));
        let earlier = URL_SAFE_NO_PAD.encode(earlier);

        assert_eq!(Continuation::parse(&text, "the query").unwrap(), continuation);
        assert_eq!(continuation.left, Some(5));
        assert!(text.len() < 2000, "{}", text.len());
        for (continuation, query) in [
            (text.as_str(), "another"),
            ("", "the query"),
            ("%%%", "the query"),
            ("e30", "the query"),
            (earlier.as_str(), "the query"),
        ] {
            assert!(Continuation::parse(continuation, query).is_err(), "{continuation}");
        }
    }

    #[test]
    fn a_page_begins_behind_the_group_that_is_meant_however_long_what_they_have_in_common() {
        let query = Query::parse("SELECT tags.a, COUNT() FROM devices GROUP BY tags.a").unwrap();
        let mut groups = Groups::new(&query, 10, usize::MAX);
        let name = |end: &str| format!("{}{end}", "x".repeat(5000));
        for end in ["a", "b", "c"] {
            groups.add(&serde_json::json!({"tags": {"a": name(end)}})).unwrap();
        }
        let (second, _) = groups.rows_after(None).nth(1).unwrap();

        let found = GroupMark::of(second).find(&groups);
        let gone = GroupMark::of(&second.replace('b', "bb")).find(&groups);

        assert_eq!(groups.rows_after(Some(&found)).count(), 1);
        assert_eq!(groups.rows_after(Some(&gone)).count(), 3);
    }
}
