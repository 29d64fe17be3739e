//! Enrollments over REST.

use bytes::Bytes;
use holm_identity::{SasToken, ServiceConnectionString, SymmetricKey};
use hyper::Method;
use serde_json::json;

use super::{assert_refused, keys, symmetric, with};
use crate::support::{HOST, TestHub};

#[tokio::test]
async fn keys_are_made_where_none_are_given_and_shown_only_by_the_attestation_mechanism() {
    let hub = TestHub::start().await;

    let made = hub.put("/enrollments/Reg-1", symmetric()).await.ok();
    let read = hub.get("/enrollments/reg-1").await;
    let mechanism = hub
        .post("/enrollments/reg-1/attestationmechanism", json!({}))
        .await
        .ok();

    assert_eq!(made["registrationId"], "Reg-1");
    assert_eq!(
        read.header("etag"),
        Some(format!("\"{}\"", made["etag"].as_str().unwrap()).as_str())
    );
    assert_eq!(
        read.json()["attestation"],
        json!({ "type": "symmetricKey", "symmetricKey": {} })
    );
    for (name, value) in [
        ("provisioningStatus", json!("enabled")),
        ("allocationPolicy", json!("hashed")),
        (
            "reprovisionPolicy",
            json!({ "updateHubAssignment": true, "migrateDeviceData": true }),
        ),
        ("capabilities", json!({ "iotEdge": false })),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    assert_eq!(mechanism["symmetricKey"]["primaryKey"].as_str().map(str::len), Some(44));
}

#[tokio::test]
async fn an_enrollment_is_made_once_and_changed_only_with_its_etag() {
    let hub = TestHub::start().await;
    let made = hub.put("/enrollments/r", symmetric()).await.ok();
    let before = keys(&hub, "/enrollments/r").await;

    let again = hub.put("/enrollments/R", symmetric()).await;
    let stale = hub.update("/enrollments/r", "AAAA", made.clone()).await;
    let absent = hub.update("/enrollments/other", "*", symmetric()).await;
    // What was read is written back: keys are not in it, and stay.
    let disabled = with(made.clone(), &json!({ "provisioningStatus": "disabled" }));
    let changed = hub
        .update("/enrollments/r", made["etag"].as_str().unwrap(), disabled)
        .await
        .ok();
    let edge = hub
        .update(
            "/enrollments/r",
            "\"*\"",
            json!({ "capabilities": { "iotEdge": true } }),
        )
        .await;

    assert_refused(&again, 409_201);
    assert_refused(&stale, 412_201);
    assert_refused(&absent, 404_201);
    assert_refused(&edge, 400_004);
    assert_eq!(changed["provisioningStatus"], "disabled");
    assert_eq!(changed["createdDateTimeUtc"], made["createdDateTimeUtc"]);
    assert_ne!(changed["etag"], made["etag"]);
    assert_eq!(keys(&hub, "/enrollments/r").await, before);
    assert_eq!(hub.delete("/enrollments/r").await.status, 204);
    assert_refused(&hub.get("/enrollments/r").await, 404_201);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_member_named() {
    let hub = TestHub::start().await;
    for (document, member) in [
        (json!({}), "attestation"),
        (json!({ "attestation": { "type": "none" } }), "attestation.type"),
        (
            json!({ "attestation": { "type": "tpm", "tpm": {} } }),
            "attestation.tpm.endorsementKey",
        ),
        (
            json!({ "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": "AAAA" } } }),
            "symmetricKey",
        ),
        (
            json!({ "attestation": { "type": "x509", "x509": {} } }),
            "attestation.x509",
        ),
        (
            json!({ "attestation": { "x509": { "clientCertificates": { "primary": { "certificate": "nonsense!" } } } } }),
            "attestation.x509.clientCertificates.primary.certificate",
        ),
        (
            with(symmetric(), &json!({ "registrationId": "other" })),
            "registrationId",
        ),
        (
            with(symmetric(), &json!({ "provisioningStatus": "maybe" })),
            "provisioningStatus",
        ),
        (with(symmetric(), &json!({ "allocationPolicy": "static" })), "iotHubs"),
        (
            with(symmetric(), &json!({ "allocationPolicy": "custom" })),
            "customAllocationDefinition",
        ),
        (with(symmetric(), &json!({ "iotHubs": ["elsewhere.test"] })), "iotHubs"),
        (
            with(symmetric(), &json!({ "initialTwin": { "tags": 7 } })),
            "initialTwin",
        ),
        (with(symmetric(), &json!({ "deviceId": "a b" })), "deviceId"),
    ] {
        let refused = hub.put("/enrollments/r", document.clone()).await;

        assert_refused(&refused, 400_004);
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(
            text.contains(&format!("`{member}")) || text.contains(&format!("{member}`")),
            "{document}: {text}"
        );
    }
    assert_refused(&hub.put("/enrollments/a%20b", symmetric()).await, 400_004);
    assert_refused(&hub.call(Method::PATCH, "/enrollments/r", &[], "").await, 405_001);
    assert_refused(
        &hub.raw(Method::GET, "/enrollments/r?api-version=2021-10-01", &[], Bytes::new())
            .await,
        401_002,
    );
}

#[tokio::test]
async fn the_provisioning_policy_opens_the_service_and_a_policy_without_the_right_does_not() {
    let hub = TestHub::start().await;
    let text = hub.hub.backend().provisioning().connection_string().unwrap();
    let string = ServiceConnectionString::parse(text.expose()).unwrap();
    let holm_identity::Credential::Key { key, policy } = &string.credential else {
        panic!("no key");
    };
    let token = |name: &str, key: &SymmetricKey| {
        let token = SasToken::sign(HOST, hub.now_seconds() + 600, Some(name), key);
        token.to_text().expose().to_owned()
    };
    let put = async |token: &str, id: &str| {
        let path = format!("/enrollments/{id}?api-version=2018-09-01-preview");
        let body = Bytes::from(symmetric().to_string());
        hub.raw(Method::PUT, &path, &[("authorization", token)], body)
            .await
            .status
    };

    let owner = put(&token(policy.as_deref().unwrap(), key), "a").await;
    let other_key = put(
        &token("provisioningserviceowner", &hub.policy_key("service").await),
        "b",
    )
    .await;
    let service = put(&hub.token_of("service").await, "c").await;
    let registry = put(&hub.token_of("registryReadWrite").await, "d").await;

    assert_eq!(
        (string.host_name.as_str(), policy.as_deref()),
        (HOST, Some("provisioningserviceowner"))
    );
    assert_eq!((owner, other_key, service, registry), (200, 401, 401, 200));
}

#[tokio::test]
async fn pages_of_enrollments_neither_repeat_nor_miss_one() {
    let hub = TestHub::start().await;
    assert_eq!(hub.post("/enrollmentGroups/query", json!({})).await.body, "[]");
    for number in 0..5 {
        hub.put(&format!("/enrollments/r{number}"), symmetric()).await.ok();
    }

    let (mut seen, mut next) = (Vec::new(), String::new());
    let everything = json!({ "query": "SELECT * FROM enrollments" }).to_string();
    loop {
        let headers = [("x-ms-max-item-count", "2"), ("x-ms-continuation", next.as_str())];
        let page = hub
            .call(Method::POST, "/enrollments/query", &headers, everything.clone())
            .await;
        assert_eq!(page.header("x-ms-item-type"), Some("enrollment"));
        seen.extend(
            page.json()
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["registrationId"].clone()),
        );
        match page.header("x-ms-continuation") {
            Some(more) => next = more.to_owned(),
            None => break,
        }
    }
    let other = hub
        .post("/enrollments/query", json!({ "query": "SELECT a FROM b" }))
        .await;

    assert_eq!(seen, ["r0", "r1", "r2", "r3", "r4"]);
    assert_refused(&other, 400_004);
}

#[tokio::test]
async fn a_bulk_does_what_it_can_and_tells_the_rest() {
    let hub = TestHub::start().await;
    let many = |mode: &str, ids: &[&str]| {
        let item = |id: &&str| with(symmetric(), &json!({ "registrationId": id }));
        json!({ "mode": mode, "enrollments": ids.iter().map(item).collect::<Vec<_>>() })
    };
    hub.put("/enrollments/b", symmetric()).await.ok();

    let made = hub.post("/enrollments", many("create", &["a", "b", "c"])).await.ok();
    let eleven = hub.post("/enrollments", many("create", &["x"; 11])).await;
    let gone = hub.post("/enrollments", many("delete", &["a", "b", "c"])).await.ok();
    let mode = hub.post("/enrollments", many("replace", &["a"])).await;

    assert_eq!(made["isSuccessful"], false);
    let errors = made["errors"].as_array().unwrap();
    assert_eq!(
        (errors.len(), &errors[0]["registrationId"], &errors[0]["errorCode"]),
        (1, &json!("b"), &json!(409_201))
    );
    assert!(errors[0]["errorStatus"].is_string());
    assert_refused(&eleven, 400_004);
    assert_refused(&mode, 400_004);
    assert_eq!(gone, json!({ "isSuccessful": true, "errors": [] }));
}

#[tokio::test]
async fn what_could_be_lost_in_reading_is_refused_with_the_member_named_and_nothing_is_made() {
    let hub = TestHub::start().await;
    let by_keys = r#""attestation": { "type": "symmetricKey" }"#;
    let bulk = |item: &str| format!(r#"{{ "mode": "create", "enrollments": [{item}] }}"#);
    let one = |more: &str| format!(r#"{{ {by_keys}, {more} }}"#);
    let huge = r#""initialTwin": { "properties": { "desired": { "limit": 92233720368547758080 } } }"#;
    let cases = [
        (
            Method::PUT,
            "/enrollments/r",
            one(r#""provisioningStatus": "disabled", "provisioningStatus": "enabled""#),
            "provisioningStatus",
        ),
        (
            Method::PUT,
            "/enrollments/r",
            one(r#""initialTwin": { "tags": { "a": 1, "a": 2 } }"#),
            "a",
        ),
        (
            Method::PUT,
            "/enrollments/r",
            one(huge),
            "initialTwin.properties.desired.limit",
        ),
        (Method::PUT, "/enrollmentGroups/r", one(by_keys), "attestation"),
        (
            Method::POST,
            "/enrollments",
            bulk(&one(r#""registrationId": "r", "registrationId": "s""#)),
            "registrationId",
        ),
        (
            Method::POST,
            "/enrollments",
            bulk(&one(&format!(r#""registrationId": "r", {huge}"#))),
            "enrollments.initialTwin.properties.desired.limit",
        ),
    ];

    for (method, path, body, member) in cases {
        let refused = hub.call(method, path, &[], body).await;

        assert_refused(&refused, 400_004);
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(&format!("`{member}`")), "{member}: {text}");
    }
    for path in ["/enrollments/r", "/enrollments/s", "/enrollmentGroups/r"] {
        assert_refused(&hub.get(path).await, 404_201);
    }
}

#[tokio::test]
async fn an_initial_twin_that_no_twin_can_hold_is_refused_with_its_path() {
    let hub = TestHub::start().await;
    let nested = (0..12).fold(json!(1), |inner, _| json!({ "a": inner }));
    let large: serde_json::Map<_, _> = (0..3).map(|n| (format!("n{n}"), json!("x".repeat(4000)))).collect();
    let desired = |desired: serde_json::Value| json!({ "properties": { "desired": desired } });
    let cases = [
        (
            desired(json!({ "a": { "b.c": 1 } })),
            "initialTwin.properties.desired.a`",
        ),
        (
            desired(json!({ "a": { "$b": 1 } })),
            "initialTwin.properties.desired.a`",
        ),
        (
            desired(json!({ "a": { "b": "x".repeat(4097) } })),
            "initialTwin.properties.desired.a.b`",
        ),
        (desired(nested), "initialTwin.properties.desired.a.a.a.a.a.a.a.a.a.a.a`"),
        (json!({ "tags": large }), "initialTwin.tags`"),
    ];
    let good = with(
        symmetric(),
        &json!({ "initialTwin": { "tags": { "site": "north", "none": null } } }),
    );
    let made = hub.put("/enrollments/there", good.clone()).await.ok();
    hub.put("/enrollmentGroups/there", good).await.ok();

    let mut told = Vec::new();
    for (twin, path) in &cases {
        let bad = with(symmetric(), &json!({ "registrationId": "r", "initialTwin": twin }));
        let bulk = json!({ "mode": "create", "enrollments": [bad.clone()] });
        let of_group = with(symmetric(), &json!({ "initialTwin": twin }));
        let bulk = hub.post("/enrollments", bulk).await.ok();
        for reply in [
            hub.put("/enrollments/r", bad).await,
            hub.put("/enrollmentGroups/g", of_group.clone()).await,
            hub.update("/enrollments/there", "*", of_group.clone()).await,
            hub.update("/enrollmentGroups/there", "*", of_group).await,
        ] {
            assert_refused(&reply, 400_004);
            told.push((reply.json()["message"].as_str().unwrap().to_owned(), *path));
        }
        assert_eq!(bulk["errors"][0]["errorCode"], 400_004, "{bulk}");
        told.push((bulk["errors"][0]["errorStatus"].as_str().unwrap().to_owned(), *path));
    }

    for (text, path) in told {
        assert!(text.contains(path), "{path}: {text}");
    }
    assert_refused(&hub.get("/enrollments/r").await, 404_201);
    assert_refused(&hub.get("/enrollmentGroups/g").await, 404_201);
    let unchanged = hub.get("/enrollments/there").await.ok();
    assert_eq!(
        (&unchanged["etag"], &unchanged["initialTwin"]),
        (&made["etag"], &made["initialTwin"])
    );
}
