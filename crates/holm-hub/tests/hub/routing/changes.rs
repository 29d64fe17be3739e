//! How routing is changed, and by whom.

use bytes::Bytes;
use hyper::Method;
use serde_json::json;

use super::{ROUTING, Receiver};
use crate::support::TestHub;

#[tokio::test]
async fn a_change_is_checked_guarded_recorded_and_in_force_at_once() {
    let (hub, receiver) = (TestHub::start().await, Receiver::start().await);
    let route = format!("{ROUTING}/routes/r");
    let missing = hub.put(&route, json!({ "endpoint": "hot" })).await;
    hub.endpoint("hot", &receiver, json!({})).await;
    let made = hub.put(&route, json!({ "endpoint": "hot" })).await.ok();
    let again = hub.put(&route, json!({ "endpoint": "hot" })).await;
    let stale = hub.update(&route, "\"AAAA\"", json!({ "endpoint": "events" })).await;
    let etag = format!("\"{}\"", made["etag"].as_str().unwrap());
    let changed = hub
        .update(&route, &etag, json!({ "endpoint": "hot", "enabled": false }))
        .await;
    let wrong = hub
        .put(
            &format!("{ROUTING}/routes/w"),
            json!({ "endpoint": "hot", "condition": "a = = 1" }),
        )
        .await;
    let in_use = hub.delete(&format!("{ROUTING}/endpoints/hot")).await;
    let deleted = hub.delete(&route).await;
    let free = hub.delete(&format!("{ROUTING}/endpoints/hot")).await;

    assert_eq!((missing.status, again.status, stale.status), (400, 409, 412));
    assert_eq!(changed.json()["enabled"], false);
    assert_ne!(changed.json()["etag"], made["etag"]);
    assert_eq!(wrong.status, 400);
    assert!(
        String::from_utf8_lossy(&wrong.body).contains("line 1, column 5"),
        "{:?}",
        wrong.body
    );
    assert_eq!((in_use.status, deleted.status, free.status), (409, 204, 204));
    assert!(
        String::from_utf8_lossy(&in_use.body).contains("the route `r`"),
        "{:?}",
        in_use.body
    );
    assert_eq!(hub.get(&route).await.status, 404);
    let audit = hub.get("/holm/v1/audit").await.ok();
    let operations: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["operation"].clone())
        .collect();
    assert_eq!(
        operations,
        [
            "endpoint.create",
            "route.create",
            "route.update",
            "route.delete",
            "endpoint.delete"
        ]
    );
}

#[tokio::test]
async fn who_may_not_read_messages_may_not_say_where_they_go() {
    let hub = TestHub::start().await;
    let path = format!("{ROUTING}/fallback");
    let mut answers = Vec::new();
    for (policy, method) in [
        ("service", Method::GET),
        ("registryRead", Method::GET),
        ("device", Method::GET),
        ("service", Method::PUT),
        ("registryReadWrite", Method::PUT),
        ("iothubowner", Method::PUT),
    ] {
        let token = hub.token_of(policy).await;
        let body = Bytes::from(json!({ "enabled": false }).to_string());
        let reply = hub.raw(method, &path, &[("authorization", &token)], body).await;
        answers.push(reply.status);
    }

    assert_eq!(answers, [200, 200, 401, 401, 401, 200]);
}
