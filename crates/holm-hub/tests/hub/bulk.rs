//! Rows 25 to 28: many identities in one request.

use holm_gateway::session::Command;
use holm_gateway::{CloseReason, Subscriptions};
use serde_json::{Value, json};

use crate::support::TestHub;

/// Errors as device and code.
fn codes(result: &Value) -> Vec<(&str, &str)> {
    let errors = result["errors"].as_array().unwrap().iter();
    errors
        .map(|error| {
            (
                error["deviceId"].as_str().unwrap(),
                error["errorCode"].as_str().unwrap(),
            )
        })
        .collect()
}

#[tokio::test]
async fn each_mode_does_what_it_says() {
    let hub = TestHub::start().await;
    let etag = hub.device("old").await["etag"].clone();
    hub.device("gone").await;
    hub.device("twin").await;

    let items = json!([
        {"id": "new", "importMode": "create", "tags": {"a": 1}, "properties": {"desired": {"b": 2}, "reported": {"c": 3}}},
        {"id": "new2", "importMode": "createOrUpdate", "capabilities": {"iotEdge": true}},
        {"id": "old", "importMode": "UpdateIfMatchETag", "eTag": etag, "status": "disabled"},
        {"id": "gone", "importMode": "Delete"},
        {"id": "twin", "importMode": "updateTwin", "tags": {"t": true}},
    ]);
    let result = hub.post("/devices", items).await.ok();

    assert_eq!(result, json!({"isSuccessful": true, "errors": [], "warnings": []}));
    let twin = hub.get("/twins/new").await.ok();
    assert_eq!(
        (&twin["tags"], &twin["properties"]["desired"]["b"]),
        (&json!({"a": 1}), &json!(2))
    );
    assert_eq!(twin["properties"]["reported"].get("c"), None);
    assert_eq!(hub.get("/devices/new2/modules").await.ok().as_array().unwrap().len(), 2);
    assert_eq!(hub.get("/devices/old").await.ok()["status"], "disabled");
    hub.get("/devices/gone").await.assert_error(404, "DeviceNotFound");
    assert_eq!(hub.get("/twins/twin").await.ok()["tags"], json!({"t": true}));
}

#[tokio::test]
async fn what_fails_is_told_and_the_others_are_done() {
    let hub = TestHub::start().await;
    hub.device("there").await;
    let large = "x".repeat(4000);

    let items = json!([
        {"id": "there", "importMode": "create"},
        {"id": "good", "importMode": "create"},
        {"id": "no", "importMode": "update"},
        {"id": "there2", "moduleId": "m", "importMode": "create"},
        {"id": "bad id", "importMode": "create"},
        {"id": "word", "importMode": "upsert"},
        {"id": "half", "importMode": "create", "tags": {"a": large, "b": large, "c": large}},
        {"id": "etagless", "importMode": "deleteIfMatchETag"},
        {"id": "twice", "importMode": "create"}, {"id": "twice", "importMode": "delete"},
    ]);
    let reply = hub.post("/devices", items).await;

    assert_eq!(
        (reply.status, reply.header("iothub-errorcode")),
        (400, Some("BulkRegistryOperationFailure"))
    );
    let result = reply.json();
    assert_eq!(result["isSuccessful"], false);
    assert_eq!(
        codes(&result),
        [
            ("there", "DeviceAlreadyExists"),
            ("no", "DeviceNotFound"),
            ("there2", "DeviceNotFound"),
            ("bad id", "ArgumentInvalid"),
            ("word", "ArgumentInvalid"),
            ("half", "DeviceModelMaxPropertiesExceeded"),
            ("etagless", "ArgumentInvalid"),
            ("twice", "DeviceDefinedMultipleTimes"),
            ("twice", "DeviceDefinedMultipleTimes"),
        ]
    );
    hub.get("/devices/good").await.ok();
    for id in ["half", "twice"] {
        hub.get(&format!("/devices/{id}"))
            .await
            .assert_error(404, "DeviceNotFound");
    }
}

#[tokio::test]
async fn stale_etags_of_device_and_twin_are_refused_by_themselves() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.patch("/twins/d1", json!({"tags": {"a": 1}})).await.ok();
    let change = |mode: &str, twin: &str| json!([{"id": "d1", "importMode": mode, "eTag": "*", "twinETag": twin, "tags": {"a": 2}}]);

    let stale = hub
        .post("/devices", change("createOrUpdateIfMatchETag", "AAAAAAAAAAI="))
        .await;
    let twin = hub
        .post("/devices", change("updateTwinIfMatchETag", "AAAAAAAAAAI="))
        .await;
    let before = hub.get("/twins/d1").await.ok();
    let good = hub
        .post("/devices", change("updateTwinIfMatchETag", "\"AAAAAAAAAAM=\""))
        .await;

    for refused in [stale, twin] {
        assert_eq!(codes(&refused.json()), [("d1", "PreconditionFailed")]);
    }
    assert_eq!(before["tags"], json!({"a": 1}));
    good.ok();
    assert_eq!(hub.get("/twins/d1").await.ok()["tags"], json!({"a": 2}));
}

#[tokio::test]
async fn a_hundred_items_are_taken_and_one_more_is_not() {
    let hub = TestHub::start().await;
    let items = |count: usize| -> Value { (0..count).map(|n| json!({"id": format!("d{n}")})).collect() };

    let most = hub.post("/devices", items(100)).await;
    let more = hub.post("/devices", items(101)).await;
    let none = hub.post("/devices", json!([])).await;
    let other = hub.post("/devices", json!({"id": "d"})).await;

    most.ok();
    more.assert_error(400, "ArgumentInvalid");
    none.ok();
    other.assert_error(400, "DeserializationError");
    assert_eq!(hub.get("/statistics/devices").await.ok()["totalDeviceCount"], 100);
}

#[tokio::test]
async fn new_keys_are_given_to_each_that_can_have_them() {
    let hub = TestHub::start().await;
    let before = hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    hub.put(
        "/devices/x",
        json!({"authentication": {"type": "certificateAuthority"}}),
    )
    .await
    .ok();
    let mut device = hub.connect("d1", Subscriptions::NONE).await;

    let body = json!({"policyKey": "primaryKey", "devices": [{"id": "d1"}, {"id": "d1", "moduleId": "m"}]});
    let both = hub.post("/devices/keys/regenerate", body).await.ok();
    let body = json!({"policyKey": "secondaryKey", "devices": [{"id": "d1"}, {"id": "x"}, {"id": "no"}]});
    let some = hub.post("/devices/keys/regenerate", body).await;
    let word = hub
        .post("/devices/keys/regenerate", json!({"policyKey": "third", "devices": []}))
        .await;

    let after = &both["rotatedKeys"][0];
    let old = &before["authentication"]["symmetricKey"];
    assert_eq!(
        (&after["id"], &after["secondaryKey"]),
        (&json!("d1"), &old["secondaryKey"])
    );
    assert_ne!(after["primaryKey"], old["primaryKey"]);
    assert_eq!(
        (&both["rotatedKeys"][1]["moduleId"], &both["errors"]),
        (&json!("m"), &json!([]))
    );
    assert!(matches!(
        device.inbox.next().await,
        Command::Close(CloseReason::Revoked)
    ));
    assert_eq!(some.status, 207);
    let some = some.json();
    let errors: Vec<_> = some["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| &error["errorCode"])
        .collect();
    assert_eq!(errors, ["InvalidOperation", "DeviceNotFound"]);
    assert_eq!(some["rotatedKeys"][0]["primaryKey"], after["primaryKey"]);
    assert_ne!(some["rotatedKeys"][0]["secondaryKey"], old["secondaryKey"]);
    word.assert_error(400, "InvalidPolicyKey");
    device.disconnect().await;
}

#[tokio::test]
async fn devices_are_listed_page_by_page_without_gap_or_repetition() {
    let hub = TestHub::start().await;
    let items: Value = (0..25).map(|n| json!({"id": format!("d{n:02}")})).collect();
    hub.post("/devices", items).await.ok();

    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = hub.get(&format!("/holm/v1/devices?top=10&after={after}")).await.ok();
        let ids: Vec<String> = page
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["deviceId"].as_str().unwrap().to_owned())
            .collect();
        let Some(last) = ids.last() else { break };
        after.clone_from(last);
        // One that comes behind the reader is seen, one before it is not.
        hub.device(&format!("a{}", seen.len())).await;
        seen.extend(ids);
    }

    let expected: Vec<_> = (0..25).map(|n| format!("d{n:02}")).collect();
    assert_eq!(seen, expected);
}
