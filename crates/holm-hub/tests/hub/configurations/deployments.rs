//! What edge devices have of automatic deployments: rows 58 to 64, and what becomes of their modules.

use serde_json::json;

use super::{base, layer};
use crate::support::TestHub;

/// Rows 58 to 64.
#[tokio::test]
async fn the_best_base_applies_with_the_layers_above_it_and_the_last_one_stays() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;

    hub.configure("nobody", 99, "", &base(&[("x", "1")])).await;
    hub.configure("v10", 10, "*", &base(&[("a", "1")])).await;
    hub.configure("l5", 5, "*", &layer("low", "1")).await;
    hub.configure("l15", 15, "*", &layer("high", "1")).await;
    let first = hub.has("e1").await;
    hub.configure("v20", 20, "*", &base(&[("b", "1")])).await;
    let second = hub.has("e1").await;
    hub.configure("w20", 20, "*", &base(&[("c", "1")])).await;
    let newer = hub.has("e1").await;
    for id in ["w20", "v20"] {
        assert_eq!(hub.delete(&format!("/configurations/{id}")).await.status, 204);
    }
    let back = hub.has("e1").await;
    for id in ["v10", "l5", "l15"] {
        assert_eq!(hub.delete(&format!("/configurations/{id}")).await.status, 204);
    }
    let last = hub.has("e1").await;

    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let of_first = json!({"v10": "Applied", "l15": "Applied", "l5": "Targeted"});
    assert_eq!(first, (names(&["a", "high"]), of_first));
    let of_second = json!({"v20": "Applied", "v10": "Targeted", "l15": "Targeted", "l5": "Targeted"});
    assert_eq!(second, (names(&["b"]), of_second));
    assert_eq!((newer.0, &newer.1["w20"]), (names(&["c"]), &json!("Applied")));
    assert_eq!(back, first);
    // The modules stay; the configurations do not.
    assert_eq!(last, (names(&["a", "high"]), json!({})));
    assert_eq!(
        hub.get("/configurations/nobody").await.ok()["systemMetrics"]["queries"]["targetedCount"],
        ""
    );
}

#[tokio::test]
async fn what_somebody_writes_over_a_deployment_is_put_right_and_an_unchanged_twin_keeps_its_version() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let before = hub.agent("e1").await;

    hub.post("/devices/e1/applyConfigurationContent", base(&[("mine", "1")]))
        .await;
    let (modules, _) = hub.has("e1").await;
    let after = hub.agent("e1").await;
    hub.configure("v2", 0, "tags.nobody = 1", &base(&[])).await;
    let hub = hub.restart().await;
    let restarted = hub.agent("e1").await;

    assert_eq!(modules, ["a"]);
    assert_eq!(
        after["properties"]["desired"]["modules"],
        before["properties"]["desired"]["modules"]
    );
    assert_eq!(restarted["version"], after["version"]);
}

#[tokio::test]
async fn a_section_that_no_deployment_gives_any_more_is_emptied() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let content = json!({"modulesContent": {"$edgeAgent": {}, "a": {"properties.desired.rate": 5}}});
    hub.configure("l2", 2, "*", &content).await;

    hub.settle().await;
    let with = hub.get("/twins/e1/modules/a").await.ok();
    hub.delete("/configurations/l2").await;
    hub.settle().await;
    let without = hub.get("/twins/e1/modules/a").await.ok();

    assert_eq!(with["properties"]["desired"]["rate"], 5);
    assert_eq!(without["properties"]["desired"].get("rate"), None);
}

#[tokio::test]
async fn an_edge_device_that_becomes_a_plain_one_is_for_no_deployment_until_it_is_an_edge_device_again() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let before = hub.has("e1").await;
    let becomes = async |edge: bool| {
        let body = json!({"capabilities": {"iotEdge": edge}});
        hub.update("/devices/e1", "*", body).await.ok();
        hub.has("e1").await
    };

    let plain = becomes(false).await;
    let counted = hub.results("v1").await;
    hub.patch(
        "/twins/e1/modules/$edgeAgent",
        json!({"properties": {"desired": {"modules": null}}}),
    )
    .await
    .ok();
    let again = becomes(true).await;

    let modules = vec!["a".to_owned()];
    assert_eq!(before, (modules.clone(), json!({"v1": "Applied"})));
    assert_eq!(plain, (modules, json!({})));
    assert_eq!(
        (&counted["targetedCount"], &counted["appliedCount"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(again, before);
}

#[tokio::test]
async fn a_module_that_is_deleted_or_made_by_hand_has_what_its_deployment_gives_it() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    let mut content = base(&[("m", "1")]);
    content["modulesContent"]["m"] = json!({"properties.desired": {"rate": 1}});
    hub.configure("base", 1, "*", &content).await;
    hub.settle().await;

    hub.delete("/devices/e1/modules/m").await;
    hub.settle().await;
    let again = hub.get("/twins/e1/modules/m").await.ok();

    assert_eq!(again["properties"]["desired"]["rate"], 1);
    let told = hub.get("/holm/v1/devices/e1/configurations").await.ok();
    assert_eq!(told["parts"][0]["inForce"], true);
    assert_eq!(hub.get("/devices/e1/modules/m").await.ok()["managedBy"], "iotEdge");
}
