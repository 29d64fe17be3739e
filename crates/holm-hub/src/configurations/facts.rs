//! What conditions know of a twin: the values of the columns that they read, and nothing else.
//!
//! The stored document is read once; parts that no condition reads are passed over without being parsed.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::terms::{Terms, UNDEFINED};
use crate::storage::Candidate;

/// A place in a twin's document, by its names. Not empty.
pub(super) type Column = Vec<String>;

#[derive(Deserialize)]
struct Stored<'d> {
    #[serde(borrow)]
    tags: &'d RawValue,
    #[serde(borrow)]
    reported: StoredSection<'d>,
}

#[derive(Deserialize)]
struct StoredSection<'d> {
    #[serde(borrow)]
    properties: &'d RawValue,
}

/// The terms of a candidate, one for each column. A document that can't be read has nothing in it.
pub(super) fn terms_of(candidate: &Candidate<'_>, columns: &[Column], terms: &mut Terms, into: &mut Vec<u32>) {
    let reads = |root: &str| {
        columns
            .iter()
            .any(|column| column.first().is_some_and(|first| first == root))
    };
    let stored: Option<Stored<'_>> = if reads("tags") || reads("properties") {
        serde_json::from_str(candidate.document).ok()
    } else {
        None
    };
    let parsed = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
    let tags = stored
        .as_ref()
        .filter(|_| reads("tags"))
        .map(|stored| parsed(stored.tags));
    let reported = stored
        .as_ref()
        .filter(|_| reads("properties"))
        .map(|stored| parsed(stored.reported.properties));
    into.extend(columns.iter().map(|column| {
        let names: Vec<&str> = column.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["tags", rest @ ..] => tags
                .as_ref()
                .and_then(|tags| find(tags, rest))
                .map_or(UNDEFINED, |it| terms.intern(it)),
            ["properties", _, rest @ ..] => {
                let found = reported.as_ref().and_then(|reported| find(reported, rest));
                found.map_or(UNDEFINED, |it| terms.intern(it))
            }
            [root, rest @ ..] => {
                let value = member(candidate, root);
                let found = value.as_ref().and_then(|value| find(value, rest));
                found.map_or(UNDEFINED, |it| terms.intern(it))
            }
            [] => UNDEFINED,
        }
    }));
}

/// The document of a candidate as conditions read it.
pub(super) fn document_of(candidate: &Candidate<'_>) -> Value {
    let stored: Option<Stored<'_>> = serde_json::from_str(candidate.document).ok();
    let parsed = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
    let mut document = Map::new();
    if let Some(stored) = stored {
        document.insert("tags".to_owned(), parsed(stored.tags));
        document.insert(
            "properties".to_owned(),
            json!({ "reported": parsed(stored.reported.properties) }),
        );
    }
    for root in [
        "deviceId",
        "moduleId",
        "status",
        "capabilities",
        "deviceScope",
        "parentScopes",
    ] {
        if let Some(value) = member(candidate, root) {
            document.insert(root.to_owned(), value);
        }
    }
    Value::Object(document)
}

fn member(candidate: &Candidate<'_>, root: &str) -> Option<Value> {
    Some(match root {
        "deviceId" => json!(candidate.device),
        "moduleId" if candidate.module.is_empty() => return None,
        "moduleId" => json!(candidate.module),
        "status" => json!(if candidate.enabled { "enabled" } else { "disabled" }),
        "capabilities" => json!({ "iotEdge": candidate.edge }),
        "deviceScope" => json!(candidate.device_scope),
        "parentScopes" => serde_json::from_str(candidate.parent_scopes).unwrap_or_default(),
        _ => return None,
    })
}

fn find<'v>(value: &'v Value, names: &[&str]) -> Option<&'v Value> {
    names
        .iter()
        .try_fold(value, |value, name| value.as_object()?.get(*name))
}

/// Puts a value at a column's place of a document.
pub(super) fn put(document: &mut Value, column: &[String], value: Value) {
    let Some((name, rest)) = column.split_first() else {
        *document = value;
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    if let Value::Object(members) = document {
        put(members.entry(name.as_str()).or_insert(Value::Null), rest, value);
    }
}
