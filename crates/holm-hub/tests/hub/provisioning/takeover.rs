//! Devices that are at the hub already, made by hand or by another enrollment.

use holm_identity::SymmetricKey;
use serde_json::{Value, json};

use super::{Device, assert_refused, keys, symmetric, with};
use crate::support::TestHub;

fn refusing() -> Value {
    with(symmetric(), &json!({ "deviceTakeover": "refuse" }))
}

async fn group_key(hub: &TestHub, group: &str, device: &str) -> SymmetricKey {
    let key = keys(hub, &format!("/enrollmentGroups/{group}")).await.0;
    key.derive_for_registration(device)
}

async fn key_at_hub(hub: &TestHub, device: &str) -> Value {
    let device = hub.get(&format!("/devices/{device}")).await.ok();
    device["authentication"]["symmetricKey"]["primaryKey"].clone()
}

/// Who has taken a device over, the last first.
async fn takeovers(hub: &TestHub, device: &str) -> Vec<Value> {
    let audit = hub.get(&format!("/holm/v1/audit?target={device}")).await.ok();
    let records = audit.as_array().unwrap().iter();
    let taken = records.filter(|record| record["operation"] == "device.takeover");
    taken.map(|record| record["actor"].clone()).collect()
}

#[track_caller]
fn assert_not_taken(state: &Value, device: &str, enrollment: &str) {
    assert_eq!(
        (&state["status"], &state["errorCode"], &state["assignedHub"]),
        (&json!("failed"), &json!(409_201), &Value::Null)
    );
    let text = state["errorMessage"].as_str().unwrap();
    assert!(
        text.contains(&format!("`{device}`")) && text.contains(&format!("`{enrollment}`")),
        "{text}"
    );
}

#[tokio::test]
async fn a_device_that_was_made_by_hand_is_taken_over_in_sight_of_all_or_not_at_all() {
    let hub = TestHub::start().await;
    for device in ["d1", "d2"] {
        hub.device(device).await;
        hub.patch(&format!("/twins/{device}"), json!({ "tags": { "by": "hand" } }))
            .await
            .ok();
    }
    let before = key_at_hub(&hub, "d2").await;
    hub.put("/enrollmentGroups/open", symmetric()).await.ok();
    let made = hub.put("/enrollmentGroups/shut", refusing()).await.ok();
    let (open, shut) = (group_key(&hub, "open", "d1").await, group_key(&hub, "shut", "d2").await);

    let taken = Device::with_key(&hub, "d1", &open).register().await.unwrap();
    let refused = Device::with_key(&hub, "d2", &shut).register().await.unwrap();
    let fresh = group_key(&hub, "shut", "d3").await;
    let fresh = Device::with_key(&hub, "d3", &fresh).register().await.unwrap();

    assert_eq!(made["deviceTakeover"], "refuse");
    assert_eq!(
        (&taken["status"], &fresh["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
    assert_eq!(key_at_hub(&hub, "d1").await, open.to_base64().expose());
    assert_eq!(
        hub.get("/twins/d1").await.ok()["tags"]["by"],
        "hand",
        "it keeps its twin"
    );
    assert_eq!(takeovers(&hub, "d1").await, ["enrollment:open"]);
    assert_not_taken(&refused, "d2", "shut");
    assert_eq!(key_at_hub(&hub, "d2").await, before);
    assert!(takeovers(&hub, "d2").await.is_empty() && takeovers(&hub, "d3").await.is_empty());
    // The way out: the device goes, or the enrollment may.
    hub.update("/enrollmentGroups/shut", "*", json!({ "deviceTakeover": "allow" }))
        .await
        .ok();
    let allowed = Device::with_key(&hub, "d2", &shut).register().await.unwrap();
    assert_eq!(
        (&allowed["status"], takeovers(&hub, "d2").await.len()),
        (&json!("assigned"), 1)
    );
}

#[tokio::test]
async fn a_device_of_one_group_is_not_had_by_the_key_of_another_that_takes_over_none() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/a", refusing()).await.ok();
    hub.put("/enrollmentGroups/b", refusing()).await.ok();
    let (by_a, by_b) = (group_key(&hub, "a", "d1").await, group_key(&hub, "b", "d1").await);
    Device::with_key(&hub, "d1", &by_a).register().await.unwrap();

    let thief = Device::with_key(&hub, "d1", &by_b);
    let first = thief.register().await.unwrap();
    let again = thief.register().await.unwrap();
    let anew = json!({ "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false } });
    hub.update("/enrollmentGroups/b", "*", anew).await.ok();
    let reset = thief.register().await.unwrap();
    let owner = Device::with_key(&hub, "d1", &by_a).register().await.unwrap();

    for refused in [first, again, reset] {
        assert_not_taken(&refused, "d1", "b");
    }
    assert_eq!(
        (&owner["status"], &owner["deviceId"]),
        (&json!("assigned"), &json!("d1"))
    );
    assert_eq!(key_at_hub(&hub, "d1").await, by_a.to_base64().expose());
    let listed = hub.post("/registrations/a/query", json!({})).await.ok();
    assert_eq!(listed[0]["registrationId"], "d1");
    assert!(takeovers(&hub, "d1").await.is_empty());
}

#[tokio::test]
async fn a_group_that_reprovisions_none_tells_nothing_of_a_device_of_another() {
    let hub = TestHub::start().await;
    let stays = json!({ "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false } });
    hub.put("/enrollmentGroups/a", with(symmetric(), &stays)).await.ok();
    hub.put("/enrollmentGroups/b", with(refusing(), &stays)).await.ok();
    hub.put("/enrollmentGroups/open", with(symmetric(), &stays)).await.ok();
    let (by_a, by_b) = (group_key(&hub, "a", "d1").await, group_key(&hub, "b", "d1").await);
    let by_open = group_key(&hub, "open", "d1").await;
    Device::with_key(&hub, "d1", &by_a).register().await.unwrap();

    let thief = Device::with_key(&hub, "d1", &by_b);
    let (first, again) = (thief.register().await.unwrap(), thief.register().await.unwrap());
    let of_a = hub.post("/registrations/a/query", json!({})).await.ok();
    let of_b = hub.post("/registrations/b/query", json!({})).await.ok();
    let owner = Device::with_key(&hub, "d1", &by_a).register().await.unwrap();
    let allowed = Device::with_key(&hub, "d1", &by_open).register().await.unwrap();

    for refused in [first, again] {
        assert_not_taken(&refused, "d1", "b");
        assert_eq!(refused["deviceId"], Value::Null);
    }
    assert_eq!((&of_a[0]["registrationId"], &of_b), (&json!("d1"), &json!([])));
    assert_eq!(
        (&owner["status"], &allowed["status"]),
        (&json!("assigned"), &json!("assigned"))
    );
}

#[tokio::test]
async fn a_device_stays_its_enrollments_with_a_new_key_until_it_is_made_anew_by_hand() {
    let hub = TestHub::start().await;
    hub.put("/enrollments/r", refusing()).await.ok();
    Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0)
        .register()
        .await
        .unwrap();
    let other = json!({ "primaryKey": "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=",
        "secondaryKey": "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=" });
    let other = json!({ "attestation": { "type": "symmetricKey", "symmetricKey": other } });
    // What the SDKs do not know they do not write back: it stays.
    let changed = hub.update("/enrollments/r", "*", other).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;

    let with_new_key = Device::with_key(&hub, "r", &key).register().await.unwrap();
    let forgotten = hub.delete("/registrations/r").await;
    let first_again = Device::with_key(&hub, "r", &key).register().await.unwrap();
    hub.delete("/devices/r").await;
    hub.device("r").await;
    let by_hand = Device::with_key(&hub, "r", &key).register().await.unwrap();
    let wrong = hub
        .put(
            "/enrollments/s",
            with(symmetric(), &json!({ "deviceTakeover": "maybe" })),
        )
        .await;

    assert_eq!((&changed["deviceTakeover"], forgotten.status), (&json!("refuse"), 204));
    assert_eq!(with_new_key["status"], "assigned");
    assert_eq!(first_again["status"], "assigned", "the device is still its own");
    assert_not_taken(&by_hand, "r", "r");
    assert_refused(&wrong, 400_004);
    assert!(wrong.json()["message"].as_str().unwrap().contains("`deviceTakeover`"));
}

#[tokio::test]
async fn whose_a_device_was_is_forgotten_with_the_device_and_its_last_registration_and_not_before() {
    let hub = TestHub::start().await;
    let database = rusqlite::Connection::open(hub.directory.path().join("data/hub.db")).unwrap();
    let known = |device: &str| {
        let sql = "SELECT count(*) FROM provisioned WHERE device = ?1";
        database.query_row(sql, [device], |row| row.get::<_, u32>(0)).unwrap()
    };
    for id in ["first", "second", "third"] {
        hub.put(&format!("/enrollments/{id}"), refusing()).await.ok();
        let key = keys(&hub, &format!("/enrollments/{id}")).await.0;
        Device::with_key(&hub, id, &key).register().await.unwrap();
    }

    hub.delete("/devices/first").await;
    let without_device = known("first");
    hub.device("first").await;
    let key = keys(&hub, "/enrollments/first").await.0;
    let by_hand = Device::with_key(&hub, "first", &key).register().await.unwrap();
    hub.delete("/devices/first").await;
    hub.delete("/registrations/first").await;
    let without_both = known("first");
    hub.delete("/registrations/second").await;
    let without_registration = known("second");
    hub.delete("/devices/second").await;
    let last = known("second");
    let renamed = json!({ "deviceId": "fourth" });
    hub.update("/enrollments/third", "*", renamed).await.ok();
    hub.delete("/devices/third").await;
    let key = keys(&hub, "/enrollments/third").await.0;
    Device::with_key(&hub, "third", &key).register().await.unwrap();
    let as_another = (known("third"), known("fourth"));

    assert_not_taken(&by_hand, "first", "first");
    assert_eq!((without_device, without_both), (1, 0));
    assert_eq!((without_registration, last), (1, 0));
    assert_eq!(as_another, (0, 1));
}
