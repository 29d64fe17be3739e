//! JSON merge patches (RFC 7396) over objects: null deletes, an object merges, anything else replaces.
//!
//! Laws, each a property test: `apply(old, diff(old, new))` gives `new`; applying `a` then `b` is applying `merge(a, b)`,
//! with the one exception that RFC 7396 leaves: where `a` deletes or overwrites an object and `b` puts an object there
//! again, members of the older object survive the merged patch. Who must not lose that deletion keeps what was last
//! acknowledged and takes [`diff`] to the present, instead of merging pending patches.

use serde_json::{Map, Value};

/// Applies a patch to an object in place.
pub fn apply(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(patch) => {
                let slot = target.entry(name.as_str()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(target) = slot {
                    apply(target, patch);
                }
            }
            _ => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The patch that makes `new` of `old`; empty when they are equal.
#[must_use]
pub fn diff(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in new {
        match (old.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let inner = diff(old, new);
                if !inner.is_empty() {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Some(old), new) if old == new => {}
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    patch
}

/// The patch that leads back over one: of what `undo` makes of `now`, to `now`. It is as large as what `undo` touches.
#[must_use]
pub fn invert(now: &Map<String, Value>, undo: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, undo) in undo {
        let back = match (now.get(name), undo) {
            (None, Value::Null) => continue,
            (None, _) => Value::Null,
            (Some(Value::Object(now)), Value::Object(undo)) => {
                let inner = invert(now, undo);
                if inner.is_empty() {
                    continue;
                }
                Value::Object(inner)
            }
            (Some(now), undo) if now == undo => continue,
            (Some(now), _) => now.clone(),
        };
        patch.insert(name.clone(), back);
    }
    patch
}

/// One patch for two that follow each other; nulls are kept, so that what they delete is still deleted.
#[must_use]
pub fn merge(first: &Map<String, Value>, second: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = first.clone();
    for (name, value) in second {
        let value = match (merged.get(name), value) {
            (Some(Value::Object(first)), Value::Object(second)) => Value::Object(merge(first, second)),
            _ => value.clone(),
        };
        merged.insert(name.clone(), value);
    }
    merged
}

/// The object that a patch makes of nothing: members that are null are left out, at every depth but within arrays.
#[must_use]
pub fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    let mut object = Map::new();
    apply(&mut object, patch);
    object
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    /// Objects over few names, so that they meet; with nulls they are patches.
    fn objects(with_nulls: bool) -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            2 => (0..3_i32).prop_map(|n| json!(n)),
            1 => Just(json!([1, null])),
            u32::from(with_nulls) => Just(Value::Null),
        ];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| json!(map))
        });
        proptest::collection::btree_map("[abc]", value, 0..4).prop_map(|map| map.into_iter().collect())
    }

    /// Whether `second` puts an object where `first` left something else.
    fn revives(first: &Map<String, Value>, second: &Map<String, Value>) -> bool {
        second.iter().any(|(name, value)| match (first.get(name), value) {
            (Some(Value::Object(first)), Value::Object(second)) => revives(first, second),
            (Some(_), Value::Object(_)) => true,
            _ => false,
        })
    }

    #[test]
    fn the_cases_of_rfc_7396_hold() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":1}), json!({"a":[null]}), json!({"e":1,"a":[null]})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut target = map(target);
            apply(&mut target, &map(patch));
            assert_eq!(Value::Object(target), result);
        }
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_old_to_new(old in objects(false), new in objects(false)) {
            let mut patched = old.clone();
            apply(&mut patched, &diff(&old, &new));
            prop_assert_eq!(patched, new);
        }

        #[test]
        fn what_leads_back_over_the_way_back_is_the_difference(old in objects(false), new in objects(false)) {
            prop_assert_eq!(invert(&new, &diff(&new, &old)), diff(&old, &new));
        }

        #[test]
        fn nothing_differs_from_itself(object in objects(false)) {
            prop_assert!(diff(&object, &object).is_empty());
        }

        #[test]
        fn applying_twice_is_applying_once(target in objects(false), patch in objects(true)) {
            let mut once = target;
            apply(&mut once, &patch);
            let mut twice = once.clone();
            apply(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn a_merged_patch_does_what_the_two_did(
            target in objects(false), first in objects(true), second in objects(true)
        ) {
            prop_assume!(!revives(&first, &second));
            let mut one_by_one = target.clone();
            apply(&mut one_by_one, &first);
            apply(&mut one_by_one, &second);
            let mut at_once = target;
            apply(&mut at_once, &merge(&first, &second));
            prop_assert_eq!(at_once, one_by_one);
        }
    }
}
