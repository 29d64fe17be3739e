//! What a change would do.

use serde_json::json;

use super::{base, body};
use crate::support::TestHub;

#[tokio::test]
async fn a_plan_tells_what_a_change_would_do_and_does_nothing() {
    let hub = TestHub::start().await;
    for number in 0..6 {
        let id = format!("e{number}");
        hub.edge_device(&id).await;
        hub.patch(&format!("/twins/{id}"), json!({"tags": {"ring": number % 2}}))
            .await
            .ok();
    }
    hub.configure("v1", 1, "*", &base(&[("a", "1"), ("b", "1")])).await;
    let before = hub.agent("e0").await;
    let mut content = base(&[("b", "2"), ("c", "1")]);
    content["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] = json!({"up": "FROM /* INTO $upstream"});

    let planned = json!({"configuration": body("v2", 2, "tags.ring = 0", &content)});
    let put = hub.post("/holm/v1/configurations/plan", planned).await.ok();
    let remove = hub
        .post("/holm/v1/configurations/plan", json!({"remove": "v1"}))
        .await
        .ok();
    let unknown = hub.post("/holm/v1/configurations/plan", json!({"remove": "v9"})).await;

    assert_eq!(
        (&put["targeted"], &put["applied"], &put["changed"]),
        (&json!(3), &json!(3), &json!(3))
    );
    let group = &put["groups"][0];
    assert_eq!((&group["from"], &group["to"]), (&json!(["v1"]), &json!(["v2"])));
    assert_eq!(group["added"], json!(["module c", "route up"]));
    assert_eq!(
        (&group["removed"], &group["changed"]),
        (&json!(["module a"]), &json!(["module b"]))
    );
    assert_eq!(group["examples"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&remove["changed"], &remove["groups"][0]["kept"]),
        (&json!(6), &json!(true))
    );
    unknown.assert_error(404, "ConfigurationNotFound");
    assert_eq!(hub.agent("e0").await, before);
    assert_eq!(hub.get("/configurations").await.ok().as_array().unwrap().len(), 1);
}
