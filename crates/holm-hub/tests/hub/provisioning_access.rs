//! Who may use the provisioning service, and what is recorded of what they do.

use bytes::Bytes;
use futures_util::StreamExt as _;
use holm_identity::{SasToken, SymmetricKey};
use hyper::Method;
use serde_json::{Value, json};

use crate::provisioning::{Device, assert_refused, keys, symmetric, with};
use crate::support::{HOST, TestHub};

const POLICIES: &str = "/holm/v1/provisioning/policies";

fn token(hub: &TestHub, policy: &Value, key: &str) -> String {
    let (name, key) = (policy["name"].as_str().unwrap(), policy[key].as_str().unwrap());
    let key = SymmetricKey::from_base64(key).unwrap();
    let token = SasToken::sign(HOST, hub.now_seconds() + 3600, Some(name), &key);
    token.to_text().expose().to_owned()
}

async fn policy(hub: &TestHub, name: &str, rights: &[&str]) -> Value {
    hub.put(&format!("{POLICIES}/{name}"), json!({ "rights": rights }))
        .await
        .ok()
}

/// Whether the token opens the call, whatever comes of it then.
async fn opens(hub: &TestHub, token: &str, method: Method, path: &str) -> bool {
    let full = if path.starts_with("/holm/") {
        path.to_owned()
    } else {
        format!("{path}?api-version=2021-10-01")
    };
    let headers = [("authorization", token)];
    hub.raw(method, &full, &headers, Bytes::new()).await.status != 401
}

#[tokio::test]
async fn every_call_asks_for_its_permission_and_no_other_opens_it() {
    let hub = TestHub::start().await;
    let all = [
        "ServiceConfig",
        "EnrollmentRead",
        "EnrollmentWrite",
        "DeviceConnect",
        "RegistrationStatusRead",
        "RegistrationStatusWrite",
    ];
    let calls = [
        (Method::GET, "/enrollments/r", &["EnrollmentRead"][..]),
        (Method::PUT, "/enrollments/r", &["EnrollmentWrite"]),
        (Method::DELETE, "/enrollments/no", &["EnrollmentWrite"]),
        (Method::POST, "/enrollments", &["EnrollmentWrite"]),
        (Method::POST, "/enrollments/query", &["EnrollmentRead"]),
        (
            Method::POST,
            "/enrollments/r/attestationmechanism",
            &["EnrollmentWrite"],
        ),
        (Method::GET, "/enrollmentGroups/g", &["EnrollmentRead"]),
        (Method::PUT, "/enrollmentGroups/g", &["EnrollmentWrite"]),
        (Method::DELETE, "/enrollmentGroups/no", &["EnrollmentWrite"]),
        (Method::POST, "/enrollmentGroups/query", &["EnrollmentRead"]),
        (Method::GET, "/registrations/r", &["RegistrationStatusRead"]),
        (Method::POST, "/registrations/g/query", &["RegistrationStatusRead"]),
        (Method::DELETE, "/registrations/no", &["RegistrationStatusWrite"]),
        (Method::GET, "/holm/v1/provisioning/policies", &all),
        (
            Method::GET,
            "/holm/v1/provisioning/policies/provisioningserviceowner",
            &all,
        ),
        (Method::POST, "/holm/v1/provisioning/policies/no/rotate", &all),
        (Method::DELETE, "/holm/v1/provisioning/policies/no", &all),
    ];
    let mut tokens = Vec::new();
    for right in all {
        let only = policy(&hub, &format!("only-{right}"), &[right]).await;
        tokens.push((vec![right], token(&hub, &only, "primaryKey")));
        let others: Vec<&str> = all.into_iter().filter(|other| *other != right).collect();
        let rest = policy(&hub, &format!("not-{right}"), &others).await;
        tokens.push((others, token(&hub, &rest, "primaryKey")));
    }

    for (method, path, needed) in calls {
        for (rights, token) in &tokens {
            let is_allowed = needed.iter().all(|right| rights.contains(right));
            let is_open = opens(&hub, token, method.clone(), path).await;
            assert_eq!(is_open, is_allowed, "{method} {path} by {rights:?}");
        }
    }
    // None of them is a policy of the hub.
    for (rights, token) in &tokens {
        let headers = [("authorization", token.as_str())];
        let asked = hub.raw(Method::GET, "/devices?api-version=2021-04-12", &headers, Bytes::new());
        assert_eq!(asked.await.status, 401, "{rights:?}");
    }
    let writer = hub.token_of("registryReadWrite").await;
    assert!(opens(&hub, &writer, Method::GET, "/enrollments/r").await);
    assert!(
        !opens(&hub, &writer, Method::GET, POLICIES).await,
        "it could make itself an owner"
    );
}

#[tokio::test]
async fn keys_of_the_service_are_rotated_without_cutting_off_who_changes_in_time() {
    let hub = TestHub::start().await;
    let path = format!("{POLICIES}/provisioningserviceowner");
    let before = hub.get(&path).await.ok();
    let old = token(&hub, &before, "primaryKey");

    let rolled = hub.post(&format!("{path}/rotate"), json!({})).await.ok();
    let with_old = opens(&hub, &old, Method::GET, "/enrollments/r").await;
    let with_new = opens(&hub, &token(&hub, &rolled, "primaryKey"), Method::GET, "/enrollments/r").await;
    hub.post(&format!("{path}/rotate"), json!({ "key": "roll" })).await.ok();
    let too_late = opens(&hub, &old, Method::GET, "/enrollments/r").await;
    let last = hub.delete(&path).await;
    let data = hub.hub.config().data.clone();
    let now = hub.get(&path).await.ok();
    let hub = hub.restart().await;

    assert_eq!(rolled["secondaryKey"], before["primaryKey"]);
    assert_eq!((with_old, with_new, too_late), (true, true, false));
    assert_eq!(last.status, 400, "the last one with all rights stays: {:?}", last.body);
    let kept = hub.get(&path).await.ok();
    assert_eq!(kept["primaryKey"], now["primaryKey"]);
    let file = holm_hub::hub::provisioning_connection_string(&data).unwrap();
    assert!(file.expose().contains(now["primaryKey"].as_str().unwrap()));
}

#[tokio::test]
async fn a_policy_of_the_service_may_have_the_name_of_one_of_the_hub() {
    let hub = TestHub::start().await;
    let own = policy(&hub, "registryRead", &["EnrollmentWrite"]).await;
    let of_hub = hub.token_of("registryRead").await;

    let by_own = opens(&hub, &token(&hub, &own, "secondaryKey"), Method::PUT, "/enrollments/r").await;
    let reads = opens(&hub, &of_hub, Method::GET, "/enrollments/r").await;
    let writes = opens(&hub, &of_hub, Method::PUT, "/enrollments/r").await;
    let unknown = hub.get(&format!("{POLICIES}/nobody")).await;
    let again = hub
        .put(
            &format!("{POLICIES}/registryRead"),
            json!({ "rights": ["EnrollmentRead"] }),
        )
        .await;
    let wrong = hub
        .put(&format!("{POLICIES}/x"), json!({ "rights": ["RegistryRead"] }))
        .await;

    assert_eq!((by_own, reads, writes), (true, true, false));
    assert_refused(&unknown, 404_201);
    assert_refused(&again, 409_201);
    assert_refused(&wrong, 400_004);
}

/// Records as `actor operation target`, of everybody.
async fn recorded(hub: &TestHub) -> Vec<String> {
    let records = hub.get("/holm/v1/audit").await.ok();
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let records = records.as_array().unwrap().iter();
    records
        .map(|record| {
            format!(
                "{} {} {}",
                text(record, "actor"),
                text(record, "operation"),
                text(record, "target")
            )
        })
        .collect()
}

#[tokio::test]
async fn what_is_done_to_enrollments_and_what_they_do_to_devices_is_recorded() {
    let hub = TestHub::start().await;
    let owner = hub.get(&format!("{POLICIES}/provisioningserviceowner")).await.ok();
    let owner = token(&hub, &owner, "primaryKey");
    let group = json!({ "attestation": { "type": "symmetricKey" }, "initialTwin": { "tags": { "site": "north" } } });
    let headers = [("authorization", owner.as_str())];
    let body = Bytes::from(group.to_string());
    hub.raw(
        Method::PUT,
        "/enrollmentGroups/Plant?api-version=2021-10-01",
        &headers,
        body,
    )
    .await
    .ok();
    let key = keys(&hub, "/enrollmentGroups/plant").await.0;
    let device = Device::with_key(&hub, "d1", &key.derive_for_registration("d1"));

    device.register().await.unwrap();
    let renewed = json!({ "attestation": { "type": "symmetricKey", "symmetricKey": {
        "primaryKey": SymmetricKey::from_bytes([7; 32]).unwrap().to_base64().expose(),
        "secondaryKey": SymmetricKey::from_bytes([8; 32]).unwrap().to_base64().expose() } } });
    hub.update("/enrollmentGroups/plant", "*", renewed).await.ok();
    let key = SymmetricKey::from_bytes([7; 32]).unwrap();
    let device = Device::with_key(&hub, "d1", &key.derive_for_registration("d1"));
    device.register().await.unwrap();
    hub.put("/enrollments/r", symmetric()).await.ok();
    hub.delete("/enrollments/r").await;
    hub.delete("/registrations/d1").await;
    hub.delete("/enrollmentGroups/plant").await;

    assert_eq!(
        recorded(&hub).await,
        [
            "provisioningPolicy:provisioningserviceowner enrollmentGroup.create Plant",
            "enrollment:Plant device.create d1",
            "enrollment:Plant twin.update d1",
            "policy:iothubowner enrollmentGroup.update plant",
            "enrollment:plant device.update d1",
            "policy:iothubowner enrollment.create r",
            "policy:iothubowner enrollment.delete r",
            "policy:iothubowner registration.delete d1",
            "policy:iothubowner enrollmentGroup.delete plant",
        ]
    );
    let history = hub.get("/holm/v1/twins/d1/history").await.ok();
    assert_eq!(history[0]["actor"], "enrollment:Plant", "{history}");
}

#[tokio::test]
async fn a_group_that_is_disabled_while_three_hundred_register_makes_no_device_of_who_is_told_so() {
    let hub = TestHub::start().await;
    let made = hub.put("/enrollmentGroups/g", symmetric()).await.ok();
    let key = keys(&hub, "/enrollmentGroups/g").await.0;
    let ids: Vec<String> = (0..300).map(|number| format!("d{number}")).collect();
    let devices: Vec<_> = ids
        .iter()
        .map(|id| Device::with_key(&hub, id, &key.derive_for_registration(id)))
        .collect();

    let disabling = async {
        // When some are through and some are not.
        while hub.get("/statistics/devices").await.ok()["totalDeviceCount"].as_u64() < Some(20) {
            tokio::task::yield_now().await;
        }
        let disabled = with(made, &json!({ "provisioningStatus": "disabled" }));
        hub.update("/enrollmentGroups/g", "*", disabled).await.ok();
    };
    // Twenty at a time, as a plant that starts.
    let all = futures_util::stream::iter(devices.iter().map(Device::register))
        .buffered(20)
        .collect::<Vec<_>>();
    let (all, ()) = tokio::join!(all, disabling);

    let (mut assigned, mut disabled) = (0, 0);
    for (id, outcome) in ids.iter().zip(all) {
        // What registered before and asks after is told what it is now.
        let status = outcome.unwrap()["status"].clone();
        let is_there = hub.get(&format!("/devices/{id}")).await.status == 200;
        match status.as_str() {
            Some("assigned") => assigned += 1,
            Some("disabled") => disabled += 1,
            _ => panic!("{id}: {status}"),
        }
        assert_eq!(is_there, status == "assigned", "{id}");
    }
    assert!(
        assigned >= 20 && disabled > 0,
        "{assigned} assigned, {disabled} disabled"
    );
}

#[tokio::test]
async fn who_registers_or_asks_too_fast_is_told_when_to_come_again() {
    let hub = TestHub::start_with(|config| config.registrations_per_minute = std::num::NonZeroU32::new(6)).await;
    hub.put("/enrollments/r", symmetric()).await.ok();
    let key = keys(&hub, "/enrollments/r").await.0;
    let device = Device::with_key(&hub, "r", &key);
    let wrong = Device::with_key(&hub, "r", &SymmetricKey::from_bytes([7; 32]).unwrap());

    // Who proves nothing uses nothing up.
    for _ in 0..3 {
        assert_eq!(wrong.begin().await.unwrap_err().code.number(), 401_002);
    }
    let begun = device.begin().await.unwrap();
    let operation = begun.body["operationId"].as_str().unwrap();
    let (second, asked) = (
        device.begin().await.unwrap_err(),
        device.state(operation).await.unwrap(),
    );
    let again = device.state(operation).await.unwrap_err();

    assert_eq!(asked.status, 200);
    for (refused, least) in [(second, 5), (again, 1)] {
        let wait = refused.retry_after.unwrap().as_secs();
        assert_eq!(refused.code.number(), 429_001);
        assert!((least..=10).contains(&wait), "{wait} s");
    }
}
