//! Settings of devices and modules, and of modules over the sections of their deployments.

use serde_json::{Value, json};

use super::{base, layer, statuses};
use crate::support::TestHub;

#[tokio::test]
async fn settings_of_devices_and_modules_come_with_the_match_and_go_with_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    hub.patch(
        "/twins/d1",
        json!({"tags": {"site": "x"}, "properties": {"desired": {"own": 1}}}),
    )
    .await
    .ok();
    hub.configure(
        "adm",
        1,
        "tags.site = 'x'",
        &json!({"deviceContent": {"properties.desired.net.proxy": "p", "properties.desired.rate": 5}}),
    )
    .await;
    hub.configure(
        "mod",
        1,
        "from devices.modules where moduleId = 'm'",
        &json!({"moduleContent": {"properties.desired.level": "info"}}),
    )
    .await;

    hub.settle().await;
    let with = hub.get("/twins/d1").await.ok();
    let of_module = hub.get("/twins/d1/modules/m").await.ok();
    hub.patch("/twins/d1", json!({"properties": {"desired": {"rate": 9}}}))
        .await
        .ok();
    hub.settle().await;
    let overwritten = hub.get("/twins/d1").await.ok();
    hub.patch("/twins/d1", json!({"tags": {"site": "y"}})).await.ok();
    hub.settle().await;
    let without = hub.get("/twins/d1").await.ok();

    let desired = |twin: &Value| {
        let mut desired = twin["properties"]["desired"].as_object().unwrap().clone();
        desired.retain(|name, _| !name.starts_with('$'));
        Value::Object(desired)
    };
    assert_eq!(desired(&with), json!({"own": 1, "net": {"proxy": "p"}, "rate": 5}));
    assert_eq!(statuses(&with), json!({"adm": "Applied"}));
    assert_eq!(
        (desired(&of_module), statuses(&of_module)),
        (json!({"level": "info"}), json!({"mod": "Applied"}))
    );
    assert_eq!(desired(&overwritten)["rate"], 5);
    assert_eq!((desired(&without), statuses(&without)), (json!({"own": 1}), json!({})));
}

#[tokio::test]
async fn a_condition_that_names_modules_and_nothing_else_is_for_all_of_them() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    let content = json!({"moduleContent": {"properties.desired.level": "info"}});

    hub.configure("mod", 1, "from devices.modules", &content).await;
    let results = hub.results("mod").await;

    assert_eq!(results, json!({"targetedCount": 1, "appliedCount": 1}));
    assert_eq!(
        hub.get("/twins/d1/modules/m").await.ok()["properties"]["desired"]["level"],
        "info"
    );
}

/// What becomes of an item: each claim's configuration and verdict.
fn verdicts(told: &Value, content: &str, item: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let parts = told["parts"].as_array().unwrap().iter();
    let items = parts
        .filter(|part| part["content"] == content)
        .flat_map(|part| part["items"].as_array().unwrap());
    let claims = items
        .filter(|it| it["item"] == item)
        .flat_map(|it| it["claims"].as_array().unwrap());
    claims
        .map(|claim| (text(&claim["configuration"]), text(&claim["verdict"])))
        .collect()
}

#[tokio::test]
async fn settings_of_a_module_lie_over_the_section_of_its_deployment_and_both_come_to_rest() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    let mut content = base(&[("m", "1")]);
    content["modulesContent"]["m"] = json!({"properties.desired": {"rate": 1, "level": "info", "old": true}});
    let desired = async |hub: &TestHub| {
        hub.settle().await;
        let twin = hub.get("/twins/e1/modules/m").await.ok();
        let mut desired = twin["properties"]["desired"].as_object().unwrap().clone();
        desired.retain(|name, _| !name.starts_with('$'));
        (Value::Object(desired), twin["version"].as_u64().unwrap())
    };
    let settings = json!({"moduleContent": {"properties.desired.level": "debug", "properties.desired.old": null}});

    hub.configure("base", 9, "*", &content).await;
    hub.settle().await;
    hub.configure("mod", 1, "from devices.modules where moduleId = 'm'", &settings)
        .await;
    let (both, version) = desired(&hub).await;
    hub.configure("more", 10, "*", &layer("n", "1")).await;
    let (same, later) = desired(&hub).await;
    let of_device = hub.get("/holm/v1/devices/e1/configurations").await.ok();
    let of_module = hub.get("/holm/v1/devices/e1/modules/m/configurations").await.ok();
    hub.patch(
        "/twins/e1/modules/m",
        json!({"properties": {"desired": {"level": "x", "own": 1}}}),
    )
    .await
    .ok();
    let (put_right, _) = desired(&hub).await;
    hub.delete("/configurations/mod").await;
    let (without, last) = desired(&hub).await;

    let merged = json!({"rate": 1, "level": "debug"});
    assert_eq!((&both, &same, &put_right), (&merged, &merged, &merged));
    assert_eq!(later, version, "another module is no reason to write this one");
    assert_eq!(without, json!({"rate": 1, "level": "info", "old": true}));
    assert!(last < 12, "{last} versions");
    let told = |configuration: &str, verdict: &str| (configuration.to_owned(), verdict.to_owned());
    let level = [told("base", "replaced"), told("mod", "in force")];
    for explained in [&of_device, &of_module] {
        assert_eq!(verdicts(explained, "modulesContent", "setting m: level"), level);
        assert_eq!(
            verdicts(explained, "modulesContent", "setting m: rate"),
            [told("base", "in force")]
        );
    }
    assert_eq!(
        verdicts(&of_module, "moduleContent", "setting level"),
        [told("mod", "in force")]
    );
    assert!(
        of_module["parts"]
            .as_array()
            .unwrap()
            .iter()
            .all(|part| part["inForce"] == true),
        "{of_module}"
    );
}
