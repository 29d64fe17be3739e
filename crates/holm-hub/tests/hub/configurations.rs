//! Configurations and automatic deployments: rows 52 to 67, and what a fleet has.

use std::time::Duration;

use holm_gateway::{Subscriptions, Twins as _};
use serde_json::{Map, Value, json};

use crate::support::{TestHub, identity};

/// A module as a manifest describes it.
pub(crate) fn module(image: &str) -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}})
}

pub(crate) fn base(modules: &[(&str, &str)]) -> Value {
    let specs: Map<String, Value> = modules
        .iter()
        .map(|(name, image)| ((*name).to_owned(), module(image)))
        .collect();
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": specs,
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {}}},
    }})
}

pub(crate) fn layer(name: &str, image: &str) -> Value {
    json!({"modulesContent": {"$edgeAgent": {format!("properties.desired.modules.{name}"): module(image)}}})
}

/// A configuration in the form in which the command-line tool sends it.
fn body(id: &str, priority: u32, condition: &str, content: &Value) -> Value {
    json!({
        "id": id, "schemaVersion": "2.0", "labels": {}, "content": content, "targetCondition": condition,
        "priority": priority, "etag": "*", "metrics": {"queries": {}, "results": {}},
    })
}

impl TestHub {
    pub(crate) async fn configure(&self, id: &str, priority: u32, condition: &str, content: &Value) -> Value {
        let path = format!("/configurations/{id}");
        self.put(&path, body(id, priority, condition, content)).await.ok()
    }

    /// Waits until every twin has what configurations want.
    pub(crate) async fn settle(&self) {
        let settled = async {
            while !self.hub.configurations().is_settled().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), settled).await.unwrap();
    }

    pub(crate) async fn agent(&self, device: &str) -> Value {
        self.settle().await;
        self.get(&format!("/twins/{device}/modules/$edgeAgent")).await.ok()
    }

    /// The modules that an edge is to run, and what its configurations are.
    async fn has(&self, device: &str) -> (Vec<String>, Value) {
        let twin = self.agent(device).await;
        let modules = twin["properties"]["desired"]["modules"].as_object();
        let modules = modules.into_iter().flatten().map(|(name, _)| name.clone());
        (modules.collect(), statuses(&twin))
    }

    pub(crate) async fn results(&self, id: &str) -> Value {
        self.settle().await;
        self.get(&format!("/configurations/{id}")).await.ok()["systemMetrics"]["results"].clone()
    }
}

pub(crate) fn statuses(twin: &Value) -> Value {
    let all = twin["configurations"].as_object().unwrap();
    all.iter()
        .map(|(id, it)| (id.clone(), it["status"].clone()))
        .collect::<Map<_, _>>()
        .into()
}

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

/// Row 65.
#[tokio::test]
async fn what_the_edge_reports_of_this_version_is_counted() {
    let hub = TestHub::start().await;
    for id in ["e1", "e2", "e3"] {
        hub.edge_device(id).await;
    }
    hub.device("plain").await;
    hub.configure("v1", 1, "*", &base(&[])).await;
    let version = hub.agent("e1").await["properties"]["desired"]["$version"].clone();
    let reports = [
        ("e1", version.clone(), 200),
        ("e2", version, 400),
        ("e3", json!(1), 200),
    ];
    for (device, version, code) in reports {
        let mut client = hub.connect(device, Subscriptions::default()).await;
        client.admission.identity = identity(&format!("{device}/$edgeAgent"));
        let reported = json!({"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}});
        let reporting = hub.hub.backend().patch_reported(&client.admission, reported, None);
        reporting.await.unwrap();
    }

    let results = hub.results("v1").await;

    let expected =
        json!({"targetedCount": 3, "appliedCount": 3, "reportedSuccessfulCount": 1, "reportedFailedCount": 1});
    assert_eq!(results, expected);
}

#[tokio::test]
async fn metrics_count_the_rows_of_their_queries_and_the_published_ones_run_as_they_stand() {
    let hub = TestHub::start().await;
    for (id, site) in [("e1", "x"), ("e2", "x"), ("e3", "y")] {
        hub.edge_device(id).await;
        hub.patch(&format!("/twins/{id}"), json!({"tags": {"site": site}}))
            .await
            .ok();
    }
    let mut body = body("v1", 1, "tags.site = 'x'", &base(&[]));
    body["metrics"]["queries"] =
        json!({"all": "SELECT deviceId FROM devices", "y": "SELECT * FROM devices WHERE tags.site = 'y'"});
    hub.put("/configurations/v1", body).await.ok();
    hub.settle().await;

    let shown = hub.get("/configurations/v1").await.ok();

    assert_eq!(shown["metrics"]["results"], json!({"all": 3, "y": 1}));
    for (name, query) in shown["systemMetrics"]["queries"].as_object().unwrap() {
        let rows = hub.post("/devices/query", json!({ "query": query })).await.ok();
        let count = rows.as_array().unwrap().len();
        assert_eq!(json!(count), shown["systemMetrics"]["results"][name], "{name}: {query}");
    }
}

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
async fn a_fan_out_that_a_power_cut_has_ended_is_finished_at_the_next_start() {
    let hub = TestHub::start().await;
    for number in 0..60 {
        hub.edge_device(&format!("e{number}")).await;
    }
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;

    let hub = hub.cut_power().await;

    for number in 0..60 {
        assert_eq!(
            hub.has(&format!("e{number}")).await,
            (vec!["a".to_owned()], json!({"v1": "Applied"}))
        );
    }
    assert_eq!(hub.results("v1").await["appliedCount"], 60);
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
async fn what_no_twin_can_hold_is_told_and_harms_no_other_device() {
    let hub = TestHub::start().await;
    for id in ["e1", "e2"] {
        hub.edge_device(id).await;
    }
    hub.patch("/twins/e2", json!({"tags": {"big": true}})).await.ok();
    hub.configure("v1", 1, "*", &base(&[("a", "1")])).await;
    let text = "x".repeat(4000);
    for number in 0..9 {
        let content =
            json!({"modulesContent": {"$edgeAgent": {format!("properties.desired.modules.m{number}"): module(&text)}}});
        hub.configure(&format!("big{number}"), 2, "tags.big = true", &content)
            .await;
    }

    let (good, _) = hub.has("e1").await;
    let (bad, _) = hub.has("e2").await;
    let told = hub.get("/holm/v1/devices/e2/configurations").await.ok();

    assert_eq!(good, ["a"]);
    assert!(!bad.contains(&"m8".to_owned()), "{bad:?}");
    let part = &told["parts"][0];
    assert_eq!(part["inForce"], false);
    assert!(
        part["problem"].as_str().unwrap().contains("properties.desired"),
        "{part}"
    );
}

#[tokio::test]
async fn what_a_device_has_refused_does_not_keep_a_good_configuration_from_it() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2"] {
        hub.device(id).await;
    }
    let own: Map<String, Value> = (0..7).map(|n| (format!("p{n}"), json!("z".repeat(4000)))).collect();
    hub.patch("/twins/d1", json!({"properties": {"desired": own}}))
        .await
        .ok();
    let content = |value: &str| {
        let settings: Map<String, Value> = (0..3)
            .map(|n| (format!("properties.desired.c{n}"), json!(value)))
            .collect();
        json!({"deviceContent": settings})
    };

    hub.configure("big", 1, "*", &content(&"y".repeat(3000))).await;
    hub.settle().await;
    let refused = hub.get("/holm/v1/devices/d1/configurations").await.ok();
    hub.configure("good", 5, "*", &content("y")).await;
    hub.settle().await;
    let told = hub.get("/holm/v1/devices/d1/configurations").await.ok();

    assert_eq!(refused["parts"][0]["inForce"], false);
    assert_eq!(hub.get("/twins/d1").await.ok()["properties"]["desired"]["c0"], "y");
    assert_eq!(
        (&told["parts"][0]["inForce"], &told["parts"][0]["problem"]),
        (&json!(true), &Value::Null)
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
