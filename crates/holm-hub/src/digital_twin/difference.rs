//! What has changed of a digital twin, as a JSON Patch (RFC 6902): one operation for each value that came, went or is another.
//!
//! ```text
//! {"limit":3, "pump":{"load":1}} -> {"pump":{"load":2,"speed":9}}
//! [{"op":"remove","path":"/limit"}, {"op":"replace","path":"/pump/load","value":2}, {"op":"add","path":"/pump/speed","value":9}]
//! ```

use serde_json::{Map, Value, json};

/// The patch that makes `after` of `before`, in order of the names; empty where they are the same.
pub(super) fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Value> {
    let mut patch = Vec::new();
    compare("", before, after, &mut patch);
    patch
}

fn compare(path: &str, before: &Map<String, Value>, after: &Map<String, Value>, patch: &mut Vec<Value>) {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        match (before.get(name), after.get(name)) {
            (Some(Value::Object(before)), Some(Value::Object(after))) => compare(&path, before, after, patch),
            (Some(before), Some(after)) if before != after => {
                patch.push(json!({ "op": "replace", "path": path, "value": after }));
            }
            (None, Some(value)) => patch.push(json!({ "op": "add", "path": path, "value": value })),
            (Some(_), None) => patch.push(json!({ "op": "remove", "path": path })),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_that_is_another_is_one_operation() {
        let before = json!({"same": [1], "gone": 1, "pump": {"load": 1, "a/b": {"c~d": 1}}, "kind": {"x": 1}});
        let after =
            json!({"same": [1], "pump": {"load": 2, "speed": 9, "a/b": {"c~d": 2}}, "kind": 7, "new": {"y": 1}});

        let patch = difference(before.as_object().unwrap(), after.as_object().unwrap());

        assert_eq!(
            json!(patch),
            json!([
                {"op": "remove", "path": "/gone"},
                {"op": "replace", "path": "/kind", "value": 7},
                {"op": "add", "path": "/new", "value": {"y": 1}},
                {"op": "replace", "path": "/pump/a~1b/c~0d", "value": 2},
                {"op": "replace", "path": "/pump/load", "value": 2},
                {"op": "add", "path": "/pump/speed", "value": 9},
            ])
        );
        assert!(difference(after.as_object().unwrap(), after.as_object().unwrap()).is_empty());
    }
}
