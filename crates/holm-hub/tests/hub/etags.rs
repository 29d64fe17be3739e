//! Etags wherever the service API has them: told in the header, quoted, as C# needs it; taken in every form; not needed to delete
//! (`hub-service-api.md` §2.1).

use hyper::Method;
use serde_json::{Value, json};

use crate::support::TestHub;

/// Everything that has an etag, made and ready: its path, what replaces it, and how it is replaced.
async fn all(hub: &TestHub) -> Vec<(&'static str, Method, Value)> {
    hub.device("d1").await;
    let configuration = json!({"targetCondition": "", "priority": 1,
        "content": {"deviceContent": {"properties.desired.a": 1}}});
    let enrollment = json!({"attestation": {"type": "symmetricKey", "symmetricKey": {}}});
    let policy = json!({"rights": ["RegistryRead"]});
    let made = [
        ("/devices/d1/modules/m", json!({})),
        ("/configurations/c1", configuration.clone()),
        ("/enrollments/r1", enrollment.clone()),
        ("/enrollmentGroups/g1", enrollment.clone()),
        ("/holm/v1/policies/p1", policy.clone()),
    ];
    for (path, body) in made {
        hub.put(path, body).await.ok();
    }
    vec![
        ("/devices/d1", Method::PUT, json!({"status": "enabled"})),
        ("/devices/d1/modules/m", Method::PUT, json!({})),
        ("/twins/d1", Method::PATCH, json!({"tags": {"a": 1}})),
        ("/twins/d1", Method::PUT, json!({"tags": {"a": 2}})),
        ("/twins/d1/modules/m", Method::PATCH, json!({"tags": {"a": 1}})),
        ("/configurations/c1", Method::PUT, configuration),
        ("/enrollments/r1", Method::PUT, enrollment.clone()),
        ("/enrollmentGroups/g1", Method::PUT, enrollment),
        ("/holm/v1/policies/p1", Method::PUT, policy),
    ]
}

#[tokio::test]
async fn every_etag_is_told_quoted_in_the_header_and_taken_in_every_form() {
    let hub = TestHub::start().await;

    // A policy that is written as it is keeps its etag: `policies.rs` changes one.
    let changed = all(&hub)
        .await
        .into_iter()
        .filter(|(path, ..)| !path.contains("/policies/"));
    for (path, method, body) in changed {
        for form in ["{}", "\"{}\"", "W/\"{}\"", "*", "\"*\""] {
            let before = hub.get(path).await;
            let header = before
                .header("etag")
                .unwrap_or_else(|| panic!("{path}: no etag"))
                .to_owned();
            let etag = before.ok()["etag"].as_str().unwrap().to_owned();
            let if_match = form.replace("{}", &etag);
            let text = body.to_string();
            let changed = hub
                .call(method.clone(), path, &[("if-match", &if_match)], text.clone())
                .await;
            let new = changed.header("etag").map(str::to_owned);
            let again = hub.call(method.clone(), path, &[("if-match", &header)], text).await;

            assert_eq!(header, format!("\"{etag}\""), "{path}");
            assert_eq!(changed.status, 200, "{method} {path} {if_match}: {:?}", changed.body);
            assert_eq!(
                new,
                Some(format!("\"{}\"", changed.json()["etag"].as_str().unwrap())),
                "{path}"
            );
            assert_eq!(again.status, 412, "{method} {path}: {header} is old");
        }
    }
}

#[tokio::test]
async fn deleting_needs_no_etag_and_an_old_one_deletes_nothing() {
    let hub = TestHub::start().await;
    let paths: Vec<&str> = all(&hub)
        .await
        .into_iter()
        .map(|(path, ..)| path)
        .filter(|path| !path.starts_with("/twins"))
        .collect();

    // The module before its device.
    for path in paths.into_iter().rev() {
        let old = hub
            .call(Method::DELETE, path, &[("if-match", "\"AAAAAAAAAAA=\"")], "")
            .await;
        let there = hub.get(path).await;
        let gone = hub.call(Method::DELETE, path, &[], "").await;
        let after = hub.get(path).await;

        assert_eq!((old.status, there.status), (412, 200), "{path}");
        assert_eq!((gone.status, gone.body.len(), after.status), (204, 0, 404), "{path}");
    }
}
