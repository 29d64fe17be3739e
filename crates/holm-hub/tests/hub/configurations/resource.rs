//! Configurations as resources: rows 52 to 57 and 67.

use serde_json::{Value, json};

use super::{base, body};
use crate::support::TestHub;

/// Rows 52 to 55 and 67.
#[tokio::test]
async fn a_configuration_is_made_changed_and_kept_as_published() {
    let hub = TestHub::start().await;
    let content = base(&[("a", "1")]);

    let made = hub.configure("v1", 10, "tags.a = 1", &content).await;
    let again = hub
        .put("/configurations/v1", body("v1", 10, "tags.a = 1", &content))
        .await;
    let changed = hub
        .update("/configurations/v1", "\"*\"", body("v1", 11, "tags.a = 1", &content))
        .await
        .ok();
    let other = hub
        .update("/configurations/v1", "*", body("v1", 11, "*", &base(&[("b", "1")])))
        .await;
    let stale = hub
        .update(
            "/configurations/v1",
            made["etag"].as_str().unwrap(),
            body("v1", 1, "*", &content),
        )
        .await;
    let missing = hub
        .update("/configurations/v2", "*", body("v2", 1, "*", &content))
        .await;
    let bad = hub
        .put("/configurations/v3", body("v3", 1, "tags.a = ", &content))
        .await;
    let desired = hub
        .put(
            "/configurations/v3",
            body("v3", 1, "properties.desired.a = 1", &content),
        )
        .await;

    assert_eq!(made["systemMetrics"]["queries"].as_object().unwrap().len(), 4);
    again.assert_error(409, "ConfigurationAlreadyExists");
    assert_eq!(
        (&changed["priority"], &changed["content"]),
        (&json!(11), &made["content"])
    );
    other.assert_error(400, "CannotModifyImmutableConfigurationContent");
    stale.assert_error(412, "PreconditionFailed");
    missing.assert_error(404, "ConfigurationNotFound");
    bad.assert_error(400, "InvalidConfigurationTargetCondition");
    desired.assert_error(400, "InvalidConfigurationTargetCondition");
    hub.configure("v0", 1, "", &content).await;
    let ids = |all: Value| {
        all.as_array()
            .unwrap()
            .iter()
            .map(|it| it["id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(hub.get("/configurations").await.ok()), ["v0", "v1"]);
    assert_eq!(ids(hub.get("/configurations/?top=1").await.ok()), ["v0"]);
    assert_eq!(hub.delete("/configurations/v0").await.status, 204);
    hub.get("/configurations/v0")
        .await
        .assert_error(404, "ConfigurationNotFound");
}

/// Row 57, and its like for conditions.
#[tokio::test]
async fn queries_are_tested_without_being_kept() {
    let hub = TestHub::start().await;
    let asked = json!({"targetCondition": "tags.a = 1", "customMetricQueries": {
        "good": "SELECT deviceId FROM devices WHERE tags.a = 1", "bad": "SELECT FROM",
    }});

    let told = hub.post("/configurations/testQueries", asked).await.ok();
    let wrong = hub
        .post("/configurations/testQueries", json!({"targetCondition": "tags.a ="}))
        .await
        .ok();

    assert_eq!(told["targetConditionError"], Value::Null);
    let errors = told["customMetricQueryErrors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["bad"]);
    assert!(wrong["targetConditionError"].is_string());
    assert_eq!(wrong["customMetricQueryErrors"], json!({}));
}

#[tokio::test]
async fn policies_open_what_they_are_published_to_open() {
    let hub = TestHub::start().await;
    let content = base(&[]).to_string();
    let path = "/configurations/v1?api-version=2021-04-12";
    for (policy, reads, writes) in [
        ("service", 404, 401),
        ("registryRead", 404, 401),
        ("registryReadWrite", 404, 400),
        ("device", 401, 401),
    ] {
        let token = hub.token_of(policy).await;
        let headers = [("authorization", token.as_str())];

        let read = hub.raw(hyper::Method::GET, path, &headers, "".into()).await;
        let written = hub
            .raw(hyper::Method::PUT, path, &headers, content.clone().into())
            .await;

        assert_eq!((read.status, written.status), (reads, writes), "{policy}");
    }
}
