use serde_json::json;

use super::*;

fn read(document: &Value) -> Result<DeploymentContent, ServiceError> {
    DeploymentContent::from_json(document.to_string().as_bytes())
}

fn id(name: &str) -> ModuleId {
    ModuleId::new(name).unwrap()
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn three_envelopes_carry_the_same_content() {
    let modules = json!({"sensor": {"properties.desired": {"rate": 5}}});

    let plain = read(&json!({ "modulesContent": modules })).unwrap();
    let wrapped = read(&json!({"id": "d", "content": {"modulesContent": modules, "deviceContent": null}})).unwrap();
    let old = read(&json!({ "moduleContent": modules })).unwrap();

    assert_eq!(
        plain.modules[&id("sensor")],
        ModuleContent::Whole(object(json!({"rate": 5})))
    );
    assert_eq!(wrapped, plain);
    assert_eq!(old, plain);
}

#[test]
fn a_layer_sets_parts_and_leaves_the_rest() {
    let content = read(&json!({"modulesContent": {
        "$edgeAgent": {"properties.desired.modules.sensor": {"type": "docker", "x": null}},
        "sensor": {"properties.desired.a.b": 1, "properties.desired.gone": null},
    }}))
    .unwrap();

    let agent = content.modules[&ModuleId::edge_agent()].applied_to(&object(json!({"modules": {"old": 1}, "s": 2})));
    let sensor = content.modules[&id("sensor")].applied_to(&object(json!({"a": 3, "gone": 4})));

    assert!(content.is_layered());
    assert_eq!(
        agent,
        object(json!({"modules": {"old": 1, "sensor": {"type": "docker"}}, "s": 2}))
    );
    assert_eq!(sensor, object(json!({"a": {"b": 1}})));
    assert_eq!(content.user_modules(), BTreeSet::from([id("sensor")]));
}

#[test]
fn modules_without_content_of_their_own_still_need_an_identity() {
    let content = read(&json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"modules": {"a": {}, "b": {}}}},
        "$edgeHub": {"properties.desired": {}},
        "c": {"properties.desired": {}},
    }}))
    .unwrap();

    assert!(!content.is_layered());
    assert_eq!(content.user_modules(), BTreeSet::from([id("a"), id("b"), id("c")]));
}

#[test]
fn a_whole_section_replaces_everything() {
    let content = ModuleContent::Whole(object(json!({"a": {"n": null, "k": 1}})));

    assert_eq!(
        content.applied_to(&object(json!({"b": 1}))),
        object(json!({"a": {"k": 1}}))
    );
}

#[test]
fn what_is_missing_repeated_or_of_the_wrong_kind_is_named() {
    for (body, named) in [
        ("{", "not valid JSON"),
        ("{}", "`modulesContent` is missing"),
        (r#"{"modulesContent":[]}"#, "`modulesContent` must be an object"),
        (r#"{"modulesContent":{"a b":{}}}"#, "`modulesContent.a b`"),
        (r#"{"modulesContent":{"m":1}}"#, "`modulesContent.m` must be an object"),
        (
            r#"{"modulesContent":{"m":{"properties.desired":1}}}"#,
            "`modulesContent.m.properties.desired`",
        ),
        (
            r#"{"modulesContent":{"m":{"properties.desired":{},"x":1}}}"#,
            "and other members",
        ),
        (
            r#"{"modulesContent":{"m":{"properties.reported.x":1}}}"#,
            "`properties.reported.x`",
        ),
        (
            r#"{"modulesContent":{"m":{"properties.desired.a..b":1}}}"#,
            "`properties.desired.a..b`",
        ),
        (r#"{"modulesContent":{"m":{},"m":{}}}"#, "`m` is given twice"),
    ] {
        let error = DeploymentContent::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfigurationContent);
        assert!(error.message.contains(named), "{error}");
    }
}

#[test]
fn the_whole_of_json_survives_the_check_for_repeats() {
    let desired = json!({"a": [1, -2, 1.5, "x\n", true, null, {"b": {}}]});

    let content = read(&json!({"modulesContent": {"m": {"properties.desired": desired}}})).unwrap();

    assert_eq!(content.modules[&id("m")], ModuleContent::Whole(object(desired)));
}

#[test]
fn an_integer_of_more_than_64_bits_is_refused_by_its_path() {
    let body = br#"{"modulesContent":{"m":{"properties.desired":{"n":99999999999999999999}}}}"#;

    let refused = DeploymentContent::from_json(body).unwrap_err();

    assert!(refused.message.contains("n` is 99999999999999999999"), "{refused}");
}
