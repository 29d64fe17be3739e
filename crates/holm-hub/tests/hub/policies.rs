//! Shared access policies: every call with every right, and how policies change.

use bytes::Bytes;
use futures_util::StreamExt as _;
use holm_gateway::{Credential, Service as _};
use holm_identity::{SasToken, SymmetricKey};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{HOST, Reply, TestHub};

const RIGHTS: [&str; 4] = ["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"];

async fn policy(hub: &TestHub, name: &str, rights: &[&str]) -> Value {
    let body = json!({ "rights": rights });
    hub.put(&format!("/holm/v1/policies/{name}"), body).await.ok()
}

fn token(hub: &TestHub, name: &str, key: &str) -> String {
    let key = SymmetricKey::from_base64(key).unwrap();
    let token = SasToken::sign(HOST, hub.now_seconds() + 3600, Some(name), &key);
    token.to_text().expose().to_owned()
}

async fn ask(hub: &TestHub, token: &str) -> Reply {
    let headers = [("authorization", token)];
    let path = "/devices/d1?api-version=2021-04-12";
    hub.raw(Method::GET, path, &headers, Bytes::new()).await
}

#[tokio::test]
async fn every_call_asks_for_its_right_and_no_other_opens_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    // What opens a call: any of these sets of rights.
    let read: &[&[&str]] = &[&["RegistryRead"]];
    let write: &[&[&str]] = &[&["RegistryWrite"]];
    let service: &[&[&str]] = &[&["ServiceConnect"]];
    let device: &[&[&str]] = &[&["DeviceConnect"]];
    let either: &[&[&str]] = &[&["RegistryRead"], &["ServiceConnect"]];
    let transfer: &[&[&str]] = &[&["RegistryRead", "RegistryWrite"]];
    let routing: &[&[&str]] = &[&["RegistryWrite", "ServiceConnect"]];
    let all: &[&[&str]] = &[&RIGHTS];
    let calls = [
        (Method::GET, "/devices", read),
        (Method::POST, "/devices", write),
        (Method::POST, "/devices/keys/regenerate", write),
        (Method::GET, "/devices/d1", read),
        (Method::PUT, "/devices/d1", write),
        (Method::DELETE, "/devices/no", write),
        (Method::GET, "/devices/d1/modules", read),
        (Method::GET, "/devices/d1/modules/m", read),
        (Method::PUT, "/devices/d1/modules/$edgeHub", write),
        (Method::DELETE, "/devices/d1/modules/m", write),
        (Method::POST, "/devices/d1/applyConfigurationContent", write),
        (Method::GET, "/statistics/devices", read),
        (Method::GET, "/statistics/service", read),
        (Method::GET, "/twins/d1", service),
        (Method::PATCH, "/twins/d1", service),
        (Method::POST, "/twins/d1", service),
        (Method::PUT, "/twins/d1", service),
        (Method::GET, "/twins/d1/modules/m", service),
        (Method::PATCH, "/twins/d1/modules/m", service),
        (Method::POST, "/twins/d1/methods", service),
        (Method::POST, "/twins/d1/modules/m/methods", service),
        (Method::GET, "/digitaltwins/d1", service),
        (Method::PATCH, "/digitaltwins/d1", service),
        (Method::POST, "/digitaltwins/d1/commands/c", service),
        (Method::POST, "/digitaltwins/d1/components/p/commands/c", service),
        (Method::POST, "/devices/query", service),
        (Method::PUT, "/jobs/v2/j", service),
        (Method::GET, "/jobs/v2/j", service),
        (Method::POST, "/jobs/v2/j/cancel", service),
        (Method::GET, "/jobs/v2/query", service),
        (Method::GET, "/configurations", either),
        (Method::GET, "/configurations/v1", either),
        (Method::PUT, "/configurations/v1", write),
        (Method::DELETE, "/configurations/v1", write),
        (Method::POST, "/configurations/testQueries", either),
        (Method::POST, "/holm/v1/configurations/plan", either),
        (Method::GET, "/holm/v1/devices/d1/configurations", either),
        (Method::GET, "/holm/v1/devices/d1/modules/m/configurations", either),
        (Method::GET, "/holm/v1/twins/d1/history", service),
        (Method::GET, "/holm/v1/twins/d1/history/at", service),
        (Method::GET, "/holm/v1/twins/d1/history/diff", service),
        (Method::POST, "/holm/v1/twins/d1/history/restore", service),
        (Method::GET, "/holm/v1/twins/d1/modules/m/history", service),
        (Method::POST, "/holm/v1/twins/d1/modules/m/history/restore", service),
        (Method::POST, "/devices/no/messages/deviceBound", service),
        (Method::DELETE, "/devices/d1/commands", service),
        (Method::GET, "/messages/serviceBound/feedback", service),
        (Method::GET, "/messages/serviceBound/filenotifications", service),
        (Method::DELETE, "/messages/serviceBound/feedback/x", service),
        (Method::POST, "/messages/serviceBound/feedback/x/abandon", service),
        (Method::GET, "/holm/v1/feedback", service),
        (Method::POST, "/devices/d1/files", device),
        (Method::POST, "/devices/d1/files/notifications", device),
        (Method::GET, "/jobs", read),
        (Method::GET, "/jobs/no", read),
        (Method::POST, "/jobs/create", transfer),
        (Method::DELETE, "/jobs/no", transfer),
        (Method::PUT, "/holm/v1/containers/some", transfer),
        (Method::GET, "/holm/v1/devices", read),
        (Method::GET, "/holm/v1/devices/d1/children", read),
        (Method::GET, "/holm/v1/audit", read),
        (Method::GET, "/holm/v1/files", service),
        (Method::GET, "/holm/v1/events", service),
        (Method::GET, "/holm/v1/partitions", service),
        (Method::GET, "/holm/v1/consumer-groups", service),
        (Method::PUT, "/holm/v1/consumer-groups/$Default", write),
        (Method::DELETE, "/holm/v1/consumer-groups/no", write),
        (Method::GET, "/holm/v1/policies", all),
        (Method::GET, "/holm/v1/policies/service", all),
        (Method::PUT, "/holm/v1/policies/service", all),
        (Method::DELETE, "/holm/v1/policies/no", all),
        (Method::POST, "/holm/v1/policies/no/rotate", all),
        (Method::GET, "/holm/v1/backup", all),
        (Method::GET, "/holm/v1/routing", either),
        (Method::GET, "/holm/v1/routing/routes", either),
        (Method::GET, "/holm/v1/routing/endpoints/events", either),
        (Method::POST, "/holm/v1/routing/test", either),
        (Method::PUT, "/holm/v1/routing/routes/r", routing),
        (Method::PUT, "/holm/v1/routing/endpoints/e", routing),
        (Method::PUT, "/holm/v1/routing/enrichments/e", routing),
        (Method::PUT, "/holm/v1/routing/fallback", routing),
        (Method::DELETE, "/holm/v1/routing/routes/no", routing),
        // The back side of the provisioning service, in whose process it is.
        (Method::GET, "/holm/v1/provisioning/policies", all),
        (
            Method::GET,
            "/holm/v1/provisioning/policies/provisioningserviceowner",
            all,
        ),
        (Method::PUT, "/holm/v1/provisioning/policies/p", all),
        (Method::DELETE, "/holm/v1/provisioning/policies/no", all),
        (Method::POST, "/holm/v1/provisioning/policies/no/rotate", all),
        (Method::GET, "/holm/v1/provisioning/hubs", all),
        (Method::PUT, "/holm/v1/provisioning/hubs/h", all),
        (Method::DELETE, "/holm/v1/provisioning/hubs/h", all),
        (Method::GET, "/enrollments/no", read),
        (Method::PUT, "/enrollments/no", write),
        (Method::DELETE, "/enrollments/no", write),
        (Method::POST, "/enrollments", write),
        (Method::POST, "/enrollments/query", read),
        (Method::POST, "/enrollments/no/attestationmechanism", write),
        (Method::GET, "/enrollmentGroups/no", read),
        (Method::PUT, "/enrollmentGroups/no", write),
        (Method::DELETE, "/enrollmentGroups/no", write),
        (Method::POST, "/enrollmentGroups", write),
        (Method::POST, "/enrollmentGroups/query", read),
        (Method::POST, "/enrollmentGroups/no/attestationmechanism", write),
        (Method::GET, "/registrations/no", read),
        (Method::DELETE, "/registrations/no", write),
        (Method::POST, "/registrations/no/query", read),
    ];
    let mut tokens = Vec::new();
    for right in RIGHTS {
        let made = policy(&hub, &format!("only-{right}"), &[right]).await;
        tokens.push((
            vec![right],
            token(&hub, &format!("only-{right}"), made["primaryKey"].as_str().unwrap()),
        ));
        let others: Vec<&str> = RIGHTS.into_iter().filter(|other| *other != right).collect();
        let made = policy(&hub, &format!("all-but-{right}"), &others).await;
        let key = made["primaryKey"].as_str().unwrap();
        tokens.push((others, token(&hub, &format!("all-but-{right}"), key)));
    }
    tokens.push((RIGHTS.to_vec(), hub.token_of("iothubowner").await));

    for (method, path, needed) in calls {
        for (rights, token) in &tokens {
            let full = if path.starts_with("/holm/") {
                path.to_owned()
            } else {
                format!("{path}?api-version=2021-04-12")
            };
            let headers = [("authorization", token.as_str())];
            let reply = hub.raw(method.clone(), &full, &headers, Bytes::new()).await;

            let is_allowed = needed.iter().any(|set| set.iter().all(|right| rights.contains(right)));
            assert_eq!(
                reply.status != 401,
                is_allowed,
                "{method} {path} by {rights:?}: {}",
                reply.status
            );
            if !is_allowed {
                // What devices ask is not told apart from a bad proof.
                let is_of_device = needed == device;
                assert_refused(
                    &reply,
                    path,
                    if is_of_device {
                        "IotHubUnauthorized"
                    } else {
                        "IotHubUnauthorizedAccess"
                    },
                );
            }
        }
        let full = format!("{path}?api-version=2021-04-12");
        let without = hub.raw(method, &full, &[], Bytes::new()).await;
        assert_refused(&without, path, "IotHubUnauthorized");
    }
}

/// The provisioning service has errors of its own.
#[track_caller]
fn assert_refused(reply: &Reply, path: &str, code: &str) {
    let roots = ["/enroll", "/registrations", "/holm/v1/provisioning"];
    if roots.iter().any(|root| path.starts_with(root)) {
        assert_eq!(
            (reply.status, &reply.json()["errorCode"]),
            (401, &json!(401_002)),
            "{path}"
        );
    } else {
        reply.assert_error(401, code);
    }
}

#[tokio::test]
async fn a_policy_is_made_changed_under_its_etag_and_deleted() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let made = policy(&hub, "reader", &["registryread"]).await;
    let asked = token(&hub, "reader", made["primaryKey"].as_str().unwrap());
    let first = ask(&hub, &asked).await;
    let path = "/holm/v1/policies/reader";
    let again = hub.put(path, json!({"rights": ["RegistryRead"]})).await;
    let stale = hub
        .update(path, "\"AAAAAAAAAAI=\"", json!({"rights": ["ServiceConnect"]}))
        .await;
    let etag = made["etag"].as_str().unwrap();
    let changed = hub.update(path, etag, json!({"rights": ["ServiceConnect"]})).await.ok();
    let second = ask(&hub, &asked).await;
    let listed = hub.get("/holm/v1/policies").await.ok();
    let gone = hub.delete(path).await;
    let third = ask(&hub, &asked).await;

    assert_eq!(made["rights"], json!(["RegistryRead"]));
    first.ok();
    again.assert_error(409, "InvalidOperation");
    stale.assert_error(412, "PreconditionFailed");
    assert_eq!(changed["primaryKey"], made["primaryKey"]);
    second.assert_error(401, "IotHubUnauthorizedAccess");
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 6);
    assert!(listed.iter().all(|policy| policy.get("primaryKey").is_none()));
    assert_eq!(gone.status, 204);
    third.assert_error(401, "IotHubUnauthorized");
    hub.get(path).await.assert_error(404, "InvalidOperation");
    hub.delete(path).await.assert_error(404, "InvalidOperation");
}

#[tokio::test]
async fn what_can_be_no_policy_is_refused() {
    let hub = TestHub::start().await;

    for (name, body) in [
        ("a;b", json!({"rights": ["RegistryRead"]})),
        ("none", json!({"rights": []})),
        ("missing", json!({})),
        ("unknown", json!({"rights": ["Everything"]})),
        ("key", json!({"rights": ["RegistryRead"], "primaryKey": "QUJD"})),
        ("member", json!({"rights": ["RegistryRead"], "colour": 1})),
    ] {
        let reply = hub.put(&format!("/holm/v1/policies/{name}"), body).await;
        reply.assert_error(400, "ArgumentInvalid");
    }
    for number in 5..16 {
        policy(&hub, &format!("p{number}"), &["RegistryRead"]).await;
    }
    let reply = hub
        .put("/holm/v1/policies/p16", json!({"rights": ["RegistryRead"]}))
        .await;
    reply.assert_error(400, "InvalidOperation");
}

#[tokio::test]
async fn rotating_keys_cuts_off_nobody_who_changes_in_time() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let made = policy(&hub, "reader", &["RegistryRead"]).await;
    let key = |document: &Value, name: &str| document[name].as_str().unwrap().to_owned();
    let old = token(&hub, "reader", &key(&made, "primaryKey"));
    let rotate = "/holm/v1/policies/reader/rotate";

    let rolled = hub.post(rotate, json!({})).await.ok();
    let with_old = ask(&hub, &old).await;
    let with_new = ask(&hub, &token(&hub, "reader", &key(&rolled, "primaryKey"))).await;
    let again = hub.post(rotate, json!({"key": "roll"})).await.ok();
    let too_late = ask(&hub, &old).await;
    let swapped = hub.post(rotate, json!({"key": "swap"})).await.ok();
    let second = hub.post(rotate, json!({"key": "secondary"})).await.ok();
    let word = hub.post(rotate, json!({"key": "third"})).await;

    assert_eq!(rolled["secondaryKey"], made["primaryKey"]);
    with_old.ok();
    with_new.ok();
    assert_eq!(again["secondaryKey"], rolled["primaryKey"]);
    too_late.assert_error(401, "IotHubUnauthorized");
    assert_eq!(swapped["primaryKey"], again["secondaryKey"]);
    assert_eq!(second["primaryKey"], swapped["primaryKey"]);
    assert_ne!(second["secondaryKey"], swapped["secondaryKey"]);
    word.assert_error(400, "InvalidPolicyKey");
}

#[tokio::test]
async fn each_change_of_a_policy_is_told_and_ends_what_its_old_keys_and_lost_rights_have_opened() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let made = policy(&hub, "both", &["ServiceConnect", "DeviceConnect"]).await;
    let old = token(&hub, "both", made["primaryKey"].as_str().unwrap());
    let backend = hub.hub.backend();
    let mut changes = backend.policy_changes().unwrap();
    let permitted = |token: &str| {
        let link = backend.permit_service(token, "messages/devicebound");
        (backend.permit_session(token).is_ok(), link.is_ok())
    };
    let path = "/holm/v1/policies/both";

    assert_eq!(permitted(&old), (true, true));
    // The first makes it the secondary.
    let mut rolled = Value::Null;
    for still_good in [true, false] {
        rolled = hub.post(&format!("{path}/rotate"), json!({})).await.ok();
        assert_eq!(changes.next().await, Some(()));
        assert_eq!(permitted(&old), (still_good, still_good));
    }
    let refused = hub.authenticate("d1", Credential::Token(old)).await;
    assert!(refused.is_err());

    let new = token(&hub, "both", rolled["primaryKey"].as_str().unwrap());
    assert_eq!(permitted(&new), (true, true));
    for (rights, left) in [("DeviceConnect", (true, false)), ("ServiceConnect", (false, true))] {
        hub.update(path, "*", json!({ "rights": [rights] })).await.ok();
        assert_eq!(changes.next().await, Some(()));
        assert_eq!(permitted(&new), left, "{rights}");
    }
    assert_eq!(hub.delete(path).await.status, 204);
    assert_eq!(changes.next().await, Some(()));
    assert_eq!(permitted(&new), (false, false));
}

#[tokio::test]
async fn the_last_policy_that_can_manage_stays_and_its_string_is_that_of_a_good_key() {
    let hub = TestHub::start().await;
    let owner = "/holm/v1/policies/iothubowner";

    let deleted = hub.delete(owner).await;
    let reduced = hub
        .update(owner, "*", json!({"rights": ["RegistryRead", "ServiceConnect"]}))
        .await;
    policy(&hub, "admin", &RIGHTS).await;
    let gone = hub.delete(owner).await;
    let string = hub.hub.connection_string();

    deleted.assert_error(409, "OperationNotAllowedInCurrentState");
    reduced.assert_error(409, "OperationNotAllowedInCurrentState");
    assert_eq!(gone.status, 204);
    assert!(
        string.expose().contains("SharedAccessKeyName=admin;"),
        "{}",
        string.expose()
    );
    let file = hub.directory.path().join("data/connection-string");
    let written = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while !std::fs::read_to_string(&file).unwrap().starts_with(string.expose()) {
            tokio::task::yield_now().await;
        }
    });
    written.await.unwrap();
    let hub = hub.restart().await;
    assert_eq!(hub.hub.connection_string().expose(), string.expose());
}
