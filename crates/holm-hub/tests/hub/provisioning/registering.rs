//! Devices that register by keys, and what becomes of them.

use holm_gateway::Credential;
use holm_gateway::provisioning::Provisioning as _;
use holm_identity::SymmetricKey;
use serde_json::{Value, json};

use super::{Device, assert_refused, keys, symmetric, with};
use crate::support::{HOST, TestHub};

#[tokio::test]
async fn a_device_registers_by_its_own_key_and_is_a_device_of_the_hub() {
    let hub = TestHub::start().await;
    let twin = json!({ "tags": { "site": "a" }, "properties": { "desired": { "rate": 5 } } });
    let document = with(
        symmetric(),
        &json!({ "deviceId": "Dev-1", "initialTwin": twin, "capabilities": { "iotEdge": true } }),
    );
    hub.put("/enrollments/reg-1", document).await.ok();
    let (primary, secondary) = keys(&hub, "/enrollments/reg-1").await;

    let by_primary = Device::with_key(&hub, "reg-1", &primary).register().await.unwrap();
    let by_secondary = Device::with_key(&hub, "REG-1", &secondary).register().await.unwrap();
    let device = hub.get("/devices/Dev-1").await.ok();
    let twin = hub.get("/twins/Dev-1").await.ok();

    for state in [&by_primary, &by_secondary] {
        assert_eq!(
            (&state["assignedHub"], &state["deviceId"]),
            (&json!(HOST), &json!("Dev-1"))
        );
        assert_eq!(
            (&state["status"], &state["substatus"]),
            (&json!("assigned"), &json!("initialAssignment"))
        );
        assert_eq!(state["symmetricKey"], json!({}));
    }
    assert_eq!(
        device["authentication"]["symmetricKey"]["primaryKey"],
        primary.to_base64().expose()
    );
    assert_eq!(device["capabilities"]["iotEdge"], true);
    assert_eq!(
        (&twin["tags"]["site"], &twin["properties"]["desired"]["rate"]),
        (&json!("a"), &json!(5))
    );
    assert_eq!(hub.get("/devices/Dev-1/modules/$edgeHub").await.status, 200);
    let shown = hub.get("/enrollments/reg-1").await.ok();
    assert_eq!(shown["registrationState"]["deviceId"], "Dev-1");
}

#[tokio::test]
async fn a_device_of_a_group_registers_by_the_derived_key_and_one_of_its_own_enrollment_by_no_group() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/plant", symmetric()).await.ok();
    hub.put("/enrollments/member-2", symmetric()).await.ok();
    let (primary, secondary) = keys(&hub, "/enrollmentGroups/plant").await;
    let key = |id: &str, of: &SymmetricKey| of.derive_for_registration(id);

    let first = Device::with_key(&hub, "Member-1", &key("Member-1", &primary))
        .register()
        .await
        .unwrap();
    let lowered = Device::with_key(&hub, "Member-1", &key("member-1", &secondary))
        .register()
        .await
        .unwrap();
    let own = Device::with_key(&hub, "member-2", &key("member-2", &primary))
        .register()
        .await;
    let of_another = Device::with_key(&hub, "member-3", &key("Member-1", &primary))
        .register()
        .await;
    let group_key = Device::with_key(&hub, "member-3", &primary).register().await;
    let listed = hub.post("/registrations/plant/query", json!({})).await;

    assert_eq!(
        (&first["deviceId"], &first["symmetricKey"]),
        (&json!("Member-1"), &json!({ "enrollmentGroupId": "plant" }))
    );
    assert_eq!(lowered["deviceId"], "Member-1");
    for refused in [own, of_another, group_key] {
        assert_eq!(Device::refused(refused), 401_002);
    }
    assert_eq!(listed.header("x-ms-item-type"), Some("deviceRegistration"));
    let listed = listed.json();
    assert_eq!(
        (listed.as_array().map(Vec::len), &listed[0]["deviceId"]),
        (Some(1), &json!("Member-1"))
    );
}

#[tokio::test]
async fn what_is_disabled_or_deleted_counts_from_the_next_word() {
    let hub = TestHub::start().await;
    let made = hub.put("/enrollments/r", symmetric()).await.ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);
    let begun = device.begin().await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap();

    let disabled = with(made, &json!({ "provisioningStatus": "disabled" }));
    hub.update("/enrollments/r", "*", disabled.clone()).await.ok();
    let while_disabled = device.register().await.unwrap();
    let enabled = with(disabled, &json!({ "provisioningStatus": "enabled" }));
    hub.update("/enrollments/r", "*", enabled).await.ok();
    let again = device.register().await.unwrap();
    hub.delete("/enrollments/r").await;
    let (state, register) = (device.state(operation).await, device.register().await);

    assert_eq!(
        (&while_disabled["status"], &while_disabled["errorCode"]),
        (&json!("disabled"), &json!(401_002))
    );
    assert_eq!(
        (&while_disabled["assignedHub"], &while_disabled["substatus"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(again["status"], "assigned");
    assert_eq!(state.unwrap_err().code.number(), 401_002);
    assert_eq!(Device::refused(register), 401_002);
    assert_eq!(hub.get("/devices/r").await.status, 200, "the device stays");
}

#[tokio::test]
async fn a_proof_for_something_else_is_refused_and_an_unknown_operation_is_not_found() {
    let hub = TestHub::start().await;
    hub.put("/enrollments/r", symmetric()).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;
    let device = Device::with_key(&hub, "r", &key);
    let begun = device.begin().await.unwrap();

    let mut other_scope = Device::with_key(&hub, "r", &key);
    other_scope.applicant.registrant.id_scope = "0ne00000000".to_owned();
    let mut other_name = Device::with_key(&hub, "r", &key);
    other_name.applicant.registrant.registration_id = "s".to_owned();
    let nothing = Device::new(&hub, "r", Credential::None);
    for device in [other_scope, other_name, nothing] {
        assert_eq!(Device::refused(device.register().await), 401_002);
    }
    let unknown = device.state("4.0123456789abcdef.0").await.unwrap_err();
    let restarted = hub.restart().await;
    let device = Device::with_key(&restarted, "r", &key);
    let kept = device.state(begun.body["operationId"].as_str().unwrap()).await.unwrap();

    assert_eq!(unknown.code.number(), 404_201);
    assert_eq!(kept.body["status"], "assigned", "names of operations outlive a restart");
    restarted.turn_clock(3600 + 301);
    assert_eq!(Device::refused(device.register().await), 401_002);
}

#[tokio::test]
async fn a_later_registration_follows_the_policy_of_its_enrollment() {
    let hub = TestHub::start().await;
    let policy = |update: bool, migrate: bool| {
        json!({ "reprovisionPolicy": { "updateHubAssignment": update, "migrateDeviceData": migrate },
                "initialTwin": { "tags": { "from": "enrollment" } } })
    };
    hub.put("/enrollments/r", with(symmetric(), &policy(true, true)))
        .await
        .ok();
    let device = Device::with_key(&hub, "r", &keys(&hub, "/enrollments/r").await.0);
    let tag = async || hub.get("/twins/r").await.ok()["tags"]["from"].clone();

    device.register().await.unwrap();
    hub.patch("/twins/r", json!({ "tags": { "from": "operator" } }))
        .await
        .ok();
    let migrated = device.register().await.unwrap();
    let after_migrate = tag().await;
    hub.update("/enrollments/r", "*", policy(false, false)).await.ok();
    hub.delete("/devices/r").await;
    let repeated = device.register().await.unwrap();
    let after_never = hub.get("/devices/r").await.status;
    hub.update("/enrollments/r", "*", policy(true, false)).await.ok();
    let reset = device.register().await.unwrap();

    assert_eq!(
        (&migrated["substatus"], after_migrate),
        (&json!("initialAssignment"), json!("operator"))
    );
    assert_eq!((&repeated["status"], after_never), (&json!("assigned"), 404));
    assert_eq!(
        (&reset["substatus"], tag().await),
        (&json!("deviceDataReset"), json!("enrollment"))
    );
    assert_eq!(reset["createdDateTimeUtc"], migrated["createdDateTimeUtc"]);
    assert_eq!(hub.delete("/registrations/r").await.status, 204);
    assert_refused(&hub.get("/registrations/r").await, 404_201);
    let first = device.register().await.unwrap();
    assert_eq!(
        (&first["substatus"], tag().await),
        (&json!("initialAssignment"), json!("enrollment"))
    );
}

#[tokio::test]
async fn three_hundred_registrations_at_once_of_which_thirty_are_the_same_make_each_device_once() {
    let hub = TestHub::start().await;
    hub.put("/enrollmentGroups/g", symmetric()).await.ok();
    let key = keys(&hub, "/enrollmentGroups/g").await.0;
    let ids: Vec<String> = (0..300).map(|number| format!("d{}", number.max(29))).collect();

    let devices: Vec<_> = ids
        .iter()
        .map(|id| Device::with_key(&hub, id, &key.derive_for_registration(id)))
        .collect();
    let all = futures_util::future::join_all(devices.iter().map(Device::register)).await;

    for (id, outcome) in ids.iter().zip(all) {
        let state = outcome.unwrap();
        assert_eq!((&state["status"], &state["deviceId"]), (&json!("assigned"), &json!(id)));
    }
    let statistics = hub.get("/statistics/devices").await.ok();
    assert_eq!(statistics["totalDeviceCount"], 271);
}

#[tokio::test]
async fn files_in_the_data_directory_name_the_id_scope_and_the_connection_string() {
    let hub = TestHub::start().await;
    let data = hub.hub.config().data.clone();
    let scope = hub.hub.backend().id_scope().unwrap().to_owned();

    let restarted = hub.restart().await;

    assert!(scope.starts_with("0ne") && scope.len() == 11, "{scope}");
    assert_eq!(restarted.hub.backend().id_scope(), Some(scope.as_str()));
    assert_eq!(holm_hub::hub::id_scope(&data).unwrap(), scope);
    let text = holm_hub::hub::provisioning_connection_string(&data).unwrap();
    assert!(
        text.expose()
            .starts_with("HostName=hub.test;SharedAccessKeyName=provisioningserviceowner;SharedAccessKey=")
    );
}
