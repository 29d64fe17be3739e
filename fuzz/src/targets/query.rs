//! Targets of `holm-query`.

use bytes::Bytes;
use holm_model::{Identity, Message, SystemProperty, Timestamp, Twin};
use holm_query::route_set::{RouteSet, RouteSpec};
use holm_query::twin::{Condition, Filter, Groups, Place, Query, Roots, json_path};
use holm_query::{HubCondition, HubFields, MessageSource, Route};
use serde_json::{Value, json};

use super::text;

pub(super) fn route(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let compiled = Route::compile(text);
    let set = RouteSet::compile([("r", RouteSpec::from(text))]);
    assert_eq!(
        compiled.is_ok(),
        set.is_ok(),
        "a route alone and in a set differ: {text}"
    );
    match set {
        // What compiles can be evaluated: for any message, without a failure.
        Ok(set) => {
            let sender: Identity = "dev1/mod1".parse().expect("an id of this program is one");
            for message in messages() {
                let source = MessageSource::of(&sender, &message);
                assert!(set.evaluate(&source, &message).count() <= 1);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What compiles can be evaluated: for any message, with a twin and without.
pub(super) fn hub_condition(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match HubCondition::compile(text) {
        Ok(condition) => {
            let twin = Twin::new("dev1".parse().expect("an id of this program is one"), Timestamp::NEVER);
            for message in messages() {
                let without = condition.truth(&HubFields::new(&message, None));
                let with = condition.truth(&HubFields::new(&message, Some(&twin)));
                assert!(condition.reads_twin() || with == without, "{text}");
            }
        }
        Err(problems) => assert!(problems.iter().all(|problem| !problem.remedy.is_empty())),
    }
}

/// What parses can be evaluated, and loses no match on its way through the filter.
pub(super) fn twin_query(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match Condition::parse(text) {
        Ok(condition) => {
            let filter = condition.filter();
            let sql = to_sql(&filter);
            for twin in twins() {
                assert!(
                    !condition.holds(&twin) || filter.passes(&twin),
                    "the filter loses a match: {text}"
                );
            }
            assert_eq!(sql.0.matches('?').count(), sql.1, "{text}");
        }
        Err(problem) => assert!(!problem.remedy.is_empty()),
    }
    let Ok(query) = Query::parse(text) else { return };
    let mut groups = Groups::new(&query, 8, 1 << 20);
    for twin in twins() {
        if query.matches(&twin) {
            assert!(query.is_grouped() || query.show(&twin).is_object(), "{text}");
            if query.is_grouped() {
                groups.add(&twin).expect("three twins are fewer than eight groups");
            }
            assert!(query.sort_key(&twin) == query.sort_key(&twin));
        }
    }
    assert!(groups.rows_after(None).count() <= 3 + 1);
    // What the condition reads, the whole query reads.
    if let (Roots::Some(all), Roots::Some(some)) = (query.roots(), query.condition_roots()) {
        assert!(some.is_subset(&all), "{text}");
    }
}

fn to_sql(filter: &Filter) -> (String, usize) {
    let sql = filter.to_sql(&|path| json_path(path.steps()).map_or(Place::Unknown, |path| Place::Json("d", path)));
    (sql.text, sql.parameters.len())
}

fn twins() -> [Value; 3] {
    [
        json!({"deviceId": "d1", "status": "enabled", "parentScopes": ["s"], "capabilities": {"iotEdge": true},
            "tags": {"a": "x", "n": 1.5, "z": null, "l": [1, {"b": "c"}]}, "properties": {"desired": {"$version": 1}}}),
        json!({"deviceId": "d2", "moduleId": "m", "tags": {"a": true, "n": "1"}, "jobId": "j"}),
        json!({}),
    ]
}

fn messages() -> [Message; 3] {
    let mut json = Message::new(Bytes::from_static(br#"{"a":{"b":[1,"x",null]},"temp":31.5,"on":true}"#));
    json.system.set(SystemProperty::ContentType, "application/json");
    json.system.set(SystemProperty::ContentEncoding, "utf-8");
    json.system.set(SystemProperty::OutputName, "out");
    json.properties.set("level", Some("critical".into()));
    json.properties.set("n", Some("12".into()));
    json.properties.set("none", None);
    let mut broken = json.clone();
    broken.body = Bytes::from_static(b"{\"a\":");
    [json, broken, Message::default()]
}
