use proptest::prelude::*;
use serde_json::json;

use super::*;

const T0: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);
const T1: Timestamp = Timestamp::from_unix_millis(1_800_000_001_000);

fn twin() -> Twin {
    Twin::new("d1".parse().unwrap(), T0)
}

fn update(body: Value) -> TwinUpdate {
    TwinUpdate::from_json(body.to_string().as_bytes()).unwrap()
}

fn desired(body: Value) -> TwinUpdate {
    update(json!({ "properties": { "desired": body } }))
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Acceptance rows 43 (device) and 32 (service).
#[test]
fn a_new_twin_has_versions_and_metadata_and_nothing_else() {
    let twin = twin();

    assert_eq!(
        twin.device_view(),
        json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
    );
    let view = twin.service_view(&TwinFacts::default());
    assert_eq!(view["version"], 2);
    assert_eq!(view["etag"], "AAAAAAAAAAI=");
    assert_eq!(
        view["properties"]["desired"],
        json!({"$version": 1, "$metadata": {"$lastUpdated": T0}})
    );
    assert_eq!(
        view["properties"]["reported"],
        json!({"$version": 1, "$metadata": {"$lastUpdated": T0}})
    );
    assert_eq!(view["configurations"], json!({}));
    assert_eq!(view["statusUpdateTime"], "0001-01-01T00:00:00Z");
    assert!(view.get("moduleId").is_none());
}

#[test]
fn what_changed_is_told_with_the_metadata_of_what_is_there() {
    let mut twin = twin();
    twin.patch(&desired(json!({"a": 1, "b": {"c": 2, "d": 3}})), T0)
        .unwrap();

    let change = twin.patch(&desired(json!({"a": null, "b": {"c": 4}})), T1).unwrap();
    let told = twin.desired().changed(&change.desired.unwrap());

    let at = json!({"$lastUpdated": T1, "$lastUpdatedVersion": 3});
    let of_b = json!({"$lastUpdated": T1, "$lastUpdatedVersion": 3, "c": at});
    assert_eq!(
        Value::Object(told),
        json!({
            "a": null,
            "b": {"c": 4},
            "$version": 3,
            "$metadata": {"$lastUpdated": T1, "$lastUpdatedVersion": 3, "b": of_b},
        })
    );
    assert!(twin.whole_view().get("tags").is_none());
}

/// Acceptance rows 33 and 36.
#[test]
fn tags_merge_and_move_version_and_etag_but_no_section() {
    let mut twin = twin();

    let set = twin
        .patch(&update(json!({"tags": {"a": 1, "b": {"c": 2}}})), T1)
        .unwrap();
    let etag = twin.etag();
    let removed = twin.patch(&update(json!({"tags": {"a": null}})), T1).unwrap();

    assert_eq!(
        set,
        TwinChange {
            version: 3,
            desired: None,
            tags: true
        }
    );
    assert_eq!(removed.version, 4);
    assert_ne!(twin.etag(), etag);
    assert_eq!(*twin.tags(), object(json!({"b": {"c": 2}})));
    assert_eq!((twin.desired().version(), twin.reported().version()), (1, 1));
}

/// Acceptance row 37.
#[test]
fn a_patch_of_desired_tells_the_device_just_the_patch() {
    let mut twin = twin();
    twin.patch(&desired(json!({"x": {"y": 1, "z": 2}, "w": 3})), T0)
        .unwrap();

    let change = twin.patch(&desired(json!({"x": {"y": null}})), T1).unwrap();

    assert_eq!(change.desired, Some(object(json!({"x": {"y": null}, "$version": 3}))));
    assert_eq!(*twin.desired().properties(), object(json!({"x": {"z": 2}, "w": 3})));
    assert_eq!(twin.version(), 4);
}

#[test]
fn metadata_mirrors_the_tree_and_tells_what_changed_when() {
    let mut twin = twin();
    twin.patch(&desired(json!({"x": {"y": 1, "z": [{"a": 1}]}, "w": 3})), T0)
        .unwrap();
    twin.patch(&desired(json!({"x": {"y": 2}, "w": null})), T1).unwrap();

    let old = json!({"$lastUpdated": T0, "$lastUpdatedVersion": 2});
    let new = json!({"$lastUpdated": T1, "$lastUpdatedVersion": 3});
    assert_eq!(
        Value::Object(twin.desired().metadata().clone()),
        json!({
            "$lastUpdated": T1, "$lastUpdatedVersion": 3,
            "x": {"$lastUpdated": T1, "$lastUpdatedVersion": 3, "y": new, "z": old},
        })
    );
}

#[test]
fn an_object_that_replaces_a_value_has_fresh_metadata() {
    let mut twin = twin();
    twin.patch_reported(&object(json!({"a": {"b": {"c": 1}}})), None, T0)
        .unwrap();
    twin.patch_reported(&object(json!({"a": 1})), None, T1).unwrap();
    twin.patch_reported(&object(json!({"a": {"d": {}}})), None, T1).unwrap();

    let node = json!({"$lastUpdated": T1});
    assert_eq!(
        Value::Object(twin.reported().metadata().clone()),
        json!({"$lastUpdated": T1, "a": {"$lastUpdated": T1, "d": node}})
    );
}

/// Acceptance row 35.
#[test]
fn the_whole_twin_sent_back_changes_no_reported_property() {
    let mut twin = twin();
    twin.patch(
        &update(json!({"tags": {"t": 1}, "properties": {"desired": {"a": 1}}})),
        T0,
    )
    .unwrap();
    twin.patch_reported(&object(json!({"r": 1})), None, T0).unwrap();
    let mut sent_back = twin.service_view(&TwinFacts::default());
    sent_back["properties"]["reported"]["r"] = json!(2);
    let before = twin.clone();

    twin.patch(&update(sent_back), T1).unwrap();

    assert_eq!(twin.reported(), before.reported());
    assert_eq!(twin.desired().properties(), before.desired().properties());
    assert_eq!(twin.version(), before.version() + 1);
}

/// Acceptance row 39.
#[test]
fn a_replacement_empties_what_is_given_and_leaves_the_rest() {
    let mut twin = twin();
    twin.patch(
        &update(json!({"tags": {"t": 1}, "properties": {"desired": {"a": 1}}})),
        T0,
    )
    .unwrap();

    let change = twin.replace(&update(json!({"tags": {}})), T1).unwrap();

    assert!(twin.tags().is_empty());
    assert_eq!(change.desired, None);
    assert_eq!(*twin.desired().properties(), object(json!({"a": 1})));
}

#[test]
fn a_replacement_of_desired_tells_the_complete_set_and_what_is_gone() {
    let mut twin = twin();
    twin.patch(&desired(json!({"a": 1, "b": {"c": 1, "d": 2}, "same": 1})), T0)
        .unwrap();

    let change = twin
        .replace(&desired(json!({"b": {"d": 2}, "same": 1, "none": null})), T1)
        .unwrap();

    assert_eq!(
        change.desired,
        Some(object(
            json!({"a": null, "b": {"c": null, "d": 2}, "same": 1, "$version": 3})
        ))
    );
    assert_eq!(*twin.desired().properties(), object(json!({"b": {"d": 2}, "same": 1})));
    assert_eq!(twin.desired().metadata().len(), 4);
}

/// Acceptance row 44 (device).
#[test]
fn a_reported_patch_deletes_by_null_and_counts_its_section_alone() {
    let mut twin = twin();
    twin.patch_reported(&object(json!({"a": {"b": 1}})), None, T0).unwrap();

    let change = twin
        .patch_reported(&object(json!({"a": {"b": null}})), None, T1)
        .unwrap();

    assert_eq!(change.version, 3);
    assert_eq!(change.reported, Some(object(json!({"a": {"b": null}, "$version": 3}))));
    assert_eq!(*twin.reported().properties(), object(json!({"a": {}})));
    assert_eq!(twin.version(), 2);
}

#[test]
fn an_empty_patch_changes_nothing() {
    let mut twin = twin();
    let before = twin.clone();

    let reported = twin.patch_reported(&Map::new(), None, T1).unwrap();
    let change = twin.patch(&desired(json!({})), T1).unwrap();

    assert_eq!(
        reported,
        ReportedChange {
            version: 1,
            reported: None
        }
    );
    assert_eq!(
        change,
        TwinChange {
            version: 2,
            desired: None,
            tags: false
        }
    );
    assert_eq!(twin, before);
}

#[test]
fn a_stale_expected_version_is_412() {
    let mut twin = twin();
    let patch = object(json!({"a": 1}));

    assert!(twin.patch_reported(&patch, Some(1), T0).is_ok());
    let error = twin.patch_reported(&patch, Some(1), T0).unwrap_err();

    assert_eq!(error.code, ErrorCode::PreconditionFailed);
    assert_eq!(twin.reported().version(), 2);
}

/// Acceptance rows 40 (service) and 46 (device).
#[test]
fn too_large_a_section_is_403_to_a_service_and_413_to_a_device() {
    let large: Map<String, Value> = (0..9).map(|i| (i.to_string(), json!("x".repeat(4000)))).collect();
    let mut twin = twin();
    let before = twin.clone();

    let service = twin.patch(&desired(json!(large)), T0).unwrap_err();
    let device = twin.patch_reported(&large, None, T0).unwrap_err();

    assert_eq!(service.code, ErrorCode::DeviceModelMaxPropertiesExceeded);
    assert!(service.message.contains("`properties.desired`"));
    assert_eq!(device.code, ErrorCode::MessageTooLarge);
    assert_eq!(twin, before);
}

#[test]
fn one_bad_part_refuses_the_whole_update() {
    let mut twin = twin();
    let before = twin.clone();

    let error = twin
        .patch(
            &update(json!({"tags": {"good": 1}, "properties": {"desired": {"a.b": 1}}})),
            T0,
        )
        .unwrap_err();

    assert_eq!(error.code, ErrorCode::ArgumentInvalid);
    assert_eq!(twin, before);
}

#[test]
fn a_body_that_is_no_twin_is_refused() {
    for body in [
        "",
        "[]",
        "{\"tags\":1}",
        "{\"properties\":[]}",
        "{\"properties\":{\"desired\":\"x\"}}",
    ] {
        let error = TwinUpdate::from_json(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::ArgumentInvalid, "{body}");
    }
    for body in ["{", "null", "3"] {
        assert_eq!(
            reported_from_json(body.as_bytes()).unwrap_err().code,
            ErrorCode::ArgumentInvalid
        );
    }
    assert_eq!(
        reported_from_json(br#"{"$version":3,"a":null}"#),
        Ok(object(json!({"a": null})))
    );
}

#[test]
fn the_stored_form_reads_back() {
    let mut twin = Twin::new("d1/$edgeHub".parse().unwrap(), T0);
    twin.patch(
        &update(json!({"tags": {"t": [1, null]}, "properties": {"desired": {"a": 1.5}}})),
        T1,
    )
    .unwrap();

    let stored = serde_json::to_string(&twin).unwrap();

    assert_eq!(serde_json::from_str::<Twin>(&stored).unwrap(), twin);
}

#[test]
fn an_adopted_section_tells_only_the_difference() {
    let mut twin = twin();
    twin.adopt_desired(object(json!({"a": 1, "b": 2})), 7, T0);

    let told = twin.adopt_desired(object(json!({"a": 1, "c": 3})), 9, T1);
    let again = twin.adopt_desired(object(json!({"a": 1, "c": 3})), 9, T1);

    assert_eq!(told, Some(object(json!({"b": null, "c": 3, "$version": 9}))));
    assert_eq!(again, None);
}

proptest! {
    #[test]
    fn a_device_that_applies_what_it_is_told_holds_the_desired_section(
        steps in proptest::collection::vec((any::<bool>(), "[ab]", proptest::option::of(0..3_u8), any::<bool>()), 1..12)
    ) {
        let mut twin = twin();
        let mut device = Map::new();
        let mut version = twin.desired().version();

        for (is_replacement, name, value, is_nested) in steps {
            let leaf = value.map_or(Value::Null, |value| json!(value));
            let body = if is_nested { json!({"o": {name: leaf}}) } else { json!({name: leaf}) };
            let change = if is_replacement { twin.replace(&desired(body), T1) } else { twin.patch(&desired(body), T1) };
            let mut told = change.unwrap().desired.unwrap();
            let new_version = told.remove("$version").unwrap().as_u64().unwrap();
            prop_assert!(new_version > version);
            version = new_version;
            patch::apply(&mut device, &told);
        }

        prop_assert_eq!(&device, twin.desired().properties());
    }
}
