//! `az iot edge deployment`, `set-modules`, `export-modules`, and `az iot hub configuration`.

use serde_json::{Value, json};

use super::{Az, az, delete, get, post, put, query};

fn module(image: &str) -> Value {
    json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}})
}

fn manifest(image: &str) -> Value {
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1", "runtime": {"type": "docker", "settings": {}}, "modules": {"sensor": module(image)},
        }},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {"up": "FROM /* INTO $upstream"}}},
        "sensor": {"properties.desired": {"rate": 5}},
    }})
}

/// A configuration as `_iot_hub_configuration_create` makes it: the etag in the body is no condition.
fn configuration(id: &str, condition: &str, content: &Value) -> Value {
    json!({
        "id": id, "schemaVersion": "2.0", "content": content, "metrics": {}, "targetCondition": condition,
        "etag": "*", "priority": 0,
    })
}

pub(super) fn commands() -> Vec<Az> {
    let edge = json!({"deviceId": "e1", "capabilities": {"iotEdge": true}, "status": "enabled", "parentScopes": []});
    let mut with_metric = configuration("v1", "tags.site='x'", &manifest("s:1"));
    with_metric["metrics"] = json!({"queries": {"all": "select deviceId from devices"}});
    with_metric["labels"] = json!({"app": "demo"});
    vec![
        az(
            "iot hub device-identity create --device-id e1 --edge-enabled",
            [put("/devices/e1", edge)],
        ),
        az(
            "iot edge set-modules --device-id e1 --content manifest.json",
            // What is answered is nothing, and then it lists the modules.
            [
                post("/devices/e1/applyConfigurationContent", manifest("s:0")).is(204),
                get("/devices/e1/modules").counts("", 3).reads("/2/moduleId", "sensor"),
            ],
        ),
        az(
            "iot edge export-modules --device-id e1",
            // It takes `$metadata` and `$version` out of each without asking whether they are there.
            [
                get("/devices/e1/modules").counts("", 3),
                get("/twins/e1/modules/$edgeAgent")
                    .reads("/moduleId", "$edgeAgent")
                    .needs("/properties/desired/$metadata")
                    .needs("/properties/desired/$version"),
                get("/twins/e1/modules/%24edgeHub").needs("/properties/desired/$metadata"),
                get("/twins/e1/modules/sensor")
                    .reads("/properties/desired/rate", 5)
                    .needs("/properties/desired/$metadata"),
            ],
        ),
        az(
            "iot edge deployment create --deployment-id V1 --content … --target-condition \"tags.site='x'\" --metrics … --labels …",
            [
                put("/configurations/v1", with_metric.clone())
                    .reads("/id", "v1")
                    .reads("/labels", json!({"app": "demo"}))
                    .counts("/systemMetrics/queries", 4)
                    .counts("/metrics/queries", 1)
                    .needs("/metrics/results"),
                put("/configurations/v1", with_metric).is(409).needs("/Message"),
            ],
        ),
        az(
            "iot edge deployment show --deployment-id v1",
            [get("/configurations/v1")
                .reads("/schemaVersion", "2.0")
                .reads(
                    "/content/modulesContent/sensor",
                    json!({"properties.desired": {"rate": 5}}),
                )
                .keep("deployment", "")
                .needs("/etag")],
        ),
        az(
            "iot hub configuration create --config-id adm --content … --target-condition \"tags.site='x'\"",
            [put(
                "/configurations/adm",
                configuration(
                    "adm",
                    "tags.site='x'",
                    &json!({"deviceContent": {"properties.desired.rate": 1}}),
                ),
            )
            .counts("/systemMetrics/queries", 2)
            .reads("/metrics/queries", json!({}))],
        ),
        az(
            "iot hub configuration show --config-id adm",
            [get("/configurations/adm")
                .reads("/content/deviceContent", json!({"properties.desired.rate": 1}))
                .reads("/content/modulesContent", Value::Null)
                .reads("/metrics/queries", json!({}))
                .reads("/metrics/results", json!({}))],
        ),
        az(
            "iot edge deployment list",
            // It sorts what is what by which kind of content is not null.
            [get("/configurations")
                .counts("", 2)
                .reads("/0/content/modulesContent", Value::Null)
                .needs("/1/content/modulesContent")
                .reads("/1/content/deviceContent", Value::Null)],
        ),
        az(
            "iot edge deployment update --deployment-id v1 --set priority=7 targetCondition=\"*\"",
            // The content as it was shown, without what is null.
            [put(
                "/configurations/v1",
                json!({
                    "id": "v1", "schemaVersion": "2.0", "labels": {"app": "demo"}, "content": manifest("s:1"),
                    "metrics": {"results": {"all": 1}, "queries": {"all": "select deviceId from devices"}},
                    "targetCondition": "*", "priority": 7,
                }),
            )
            .if_match("\"*\"")
            .reads("/priority", 7)
            .reads("/targetCondition", "*")],
        ),
        az(
            "iot edge deployment show-metric --deployment-id v1 --metric-id targetedCount --metric-type system",
            [
                get("/configurations/v1")
                    .when_settled()
                    .reads("/systemMetrics/results/targetedCount", 1)
                    .keep("targeted", "/systemMetrics/queries/targetedCount")
                    .keep("applied", "/systemMetrics/queries/appliedCount")
                    .keep("successful", "/systemMetrics/queries/reportedSuccessfulCount")
                    .keep("failed", "/systemMetrics/queries/reportedFailedCount")
                    .keep("all", "/metrics/queries/all"),
                query("/devices/query", "{targeted}").reads("", json!([{"deviceId": "e1"}])),
                query("/devices/query", "{applied}").reads("", json!([{"deviceId": "e1"}])),
                query("/devices/query", "{successful}").reads("", json!([])),
                query("/devices/query", "{failed}").reads("", json!([])),
                query("/devices/query", "{all}").reads("", json!([{"deviceId": "e1"}])),
            ],
        ),
        az(
            "iot hub configuration delete --config-id adm",
            [delete("/configurations/adm").if_match("\"*\"")],
        ),
        az(
            "iot edge deployment delete --deployment-id v1",
            [
                delete("/configurations/v1").if_match("\"*\""),
                get("/configurations/v1").is(404).needs("/Message"),
            ],
        ),
    ]
}
