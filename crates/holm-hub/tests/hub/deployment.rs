//! Row 66, and what a deployment to one device does.

use holm_gateway::Subscriptions;
use holm_gateway::session::Command;
use serde_json::{Value, json};

use crate::support::TestHub;

/// A module as a manifest describes it.
fn module() -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "busybox"}})
}

fn content(modules: &[&str], rate: u32) -> Value {
    let specs: serde_json::Map<String, Value> = modules.iter().map(|id| ((*id).to_owned(), module())).collect();
    let mut all = json!({
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {}},
            "modules": specs,
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    });
    for id in modules {
        all[*id] = json!({"properties.desired": {"rate": rate}});
    }
    json!({ "modulesContent": all })
}

const APPLY: &str = "/devices/e1/applyConfigurationContent";

async fn module_ids(hub: &TestHub) -> Vec<String> {
    let modules = hub.get("/devices/e1/modules").await.ok();
    modules
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["moduleId"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_deployment_makes_what_it_names_and_leaves_what_it_made_before_to_the_edge() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.put("/devices/e1/modules/mine", json!({})).await.ok();

    let first = hub.post(APPLY, content(&["a", "b"], 1)).await;
    assert_eq!((first.status, first.body.len()), (204, 0));
    assert_eq!(module_ids(&hub).await, ["$edgeAgent", "$edgeHub", "a", "b", "mine"]);
    let module = hub.get("/devices/e1/modules/a").await.ok();
    assert_eq!(
        (&module["managedBy"], &module["authentication"]["type"]),
        (&json!("iotEdge"), &json!("sas"))
    );
    assert_eq!(
        hub.get("/twins/e1/modules/a").await.ok()["properties"]["desired"]["rate"],
        1
    );

    assert_eq!(hub.post(APPLY, content(&["b"], 1)).await.status, 204);
    assert_eq!(module_ids(&hub).await, ["$edgeAgent", "$edgeHub", "a", "b", "mine"]);
}

#[tokio::test]
async fn the_same_deployment_again_changes_no_version() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.post(APPLY, content(&["a"], 1)).await;
    hub.patch("/twins/e1/modules/a", json!({"tags": {"kept": true}}))
        .await
        .ok();
    let before = hub.get("/twins/e1/modules/$edgeAgent").await.ok();

    assert_eq!(hub.post(APPLY, content(&["a"], 1)).await.status, 204);
    assert_eq!(hub.get("/twins/e1/modules/$edgeAgent").await.ok(), before);
    assert_eq!(hub.post(APPLY, content(&["a"], 2)).await.status, 204);

    let module = hub.get("/twins/e1/modules/a").await.ok();
    assert_eq!(module["properties"]["desired"]["$version"], 3);
    assert_eq!(module["tags"], json!({"kept": true}));
}

#[tokio::test]
async fn a_connected_module_is_told_of_its_new_properties() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.post(APPLY, content(&["a"], 1)).await;
    let mut client = hub.connect("e1/a", Subscriptions::DESIRED_PROPERTIES).await;

    hub.post(APPLY, content(&["a"], 2)).await;

    let Command::DesiredChanged(patch) = client.inbox.next().await else {
        panic!("no change");
    };
    assert_eq!(patch, json!({"rate": 2, "$version": 3}));
}

#[tokio::test]
async fn a_deployment_that_breaks_a_rule_changes_nothing() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.device("d1").await;
    let names: Vec<String> = (0..51).map(|n| format!("m{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    let plain = hub.post("/devices/d1/applyConfigurationContent", content(&[], 1)).await;
    let unknown = hub.post("/devices/no/applyConfigurationContent", content(&[], 1)).await;
    let many = hub.post(APPLY, content(&names, 1)).await;
    let mut bad = content(&["a"], 1);
    bad["modulesContent"]["a"] = json!({"properties.desired": {"x y": 1}});
    let bad = hub.post(APPLY, bad).await;
    let empty = hub.post(APPLY, json!({})).await;

    plain.assert_error(400, "InvalidOperation");
    unknown.assert_error(404, "DeviceNotFound");
    many.assert_error(413, "TooManyModulesOnDevice");
    bad.assert_error(400, "ArgumentInvalid");
    empty.assert_error(400, "InvalidConfigurationContent");
    assert_eq!(module_ids(&hub).await, ["$edgeAgent", "$edgeHub"]);
}
