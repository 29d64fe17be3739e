//! `az iot hub device-twin`, `module-twin`, `invoke-device-method`, `invoke-module-method`, `digital-twin`, `job`.

use serde_json::json;

use super::{Az, az, call, get, patch, post, put, query};
use hyper::Method;

pub(super) fn commands() -> Vec<Az> {
    let invoked = json!({
        "methodName": "reboot", "payload": {}, "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 30,
    });
    vec![
        az(
            "iot hub device-identity create --device-id d1",
            [put("/devices/d1", json!({"deviceId": "d1", "status": "enabled"}))],
        ),
        az(
            "iot hub module-identity create --device-id d1 --module-id m",
            [put("/devices/d1/modules/m", json!({"moduleId": "m", "deviceId": "d1"}))],
        ),
        az(
            "iot hub device-twin show --device-id d1",
            [get("/twins/d1")
                .reads("/deviceId", "d1")
                .needs("/properties/desired/$metadata")
                .reads("/properties/desired/$version", 1)
                .needs("/properties/reported/$metadata")
                .counts("/configurations", 0)],
        ),
        az(
            "iot hub device-twin list",
            [query("/devices/query", "select * from devices").at_most("1000").items("Twin").counts("", 1)],
        ),
        az(
            "iot hub device-twin update --device-id d1 --tags … --desired …",
            [patch(
                "/twins/d1",
                json!({"properties": {"desired": {"conditions": {"temp": 20}}}, "tags": {"country": "USA"}}),
            )
            .if_match("\"*\"")
            .reads("/tags", json!({"country": "USA"}))
            .reads("/properties/desired/conditions/temp", 20)
            .reads("/properties/desired/$version", 2)],
        ),
        az(
            "iot hub device-twin update --device-id d1 --set tags.country=null",
            // The whole twin goes back, with what only the hub writes in it.
            [
                get("/twins/d1").keep("twin", ""),
                patch("/twins/d1", json!({"tags": {"country": null, "site": "x"}}))
                    .over("twin")
                    .if_match("\"*\"")
                    .reads("/tags", json!({"site": "x"}))
                    .reads("/properties/desired/conditions/temp", 20),
            ],
        ),
        az(
            "iot hub device-twin update --device-id d1 --tags … --etag …",
            [
                get("/twins/d1").keep("etag", "/etag"),
                patch("/twins/d1", json!({"tags": {"n": 1}})).if_match("\"{etag}\""),
                patch("/twins/d1", json!({"tags": {"n": 2}}))
                    .if_match("\"{etag}\"")
                    .is(412)
                    .needs("/Message"),
            ],
        ),
        az(
            "iot hub device-twin replace --device-id d1 --json …",
            [put(
                "/twins/d1",
                json!({"tags": {"only": true}, "properties": {"desired": {"a": 1}}}),
            )
            .if_match("\"*\"")
            .reads("/tags", json!({"only": true}))
            .reads("/properties/desired/a", 1)],
        ),
        az(
            "iot hub module-twin show --device-id d1 --module-id m",
            [get("/twins/d1/modules/m")
                .reads("/moduleId", "m")
                .needs("/properties/desired/$metadata")],
        ),
        az(
            "iot hub module-twin update --device-id d1 --module-id m --desired …",
            [
                patch("/twins/d1/modules/m", json!({"properties": {"desired": {"level": "info"}}}))
                    .if_match("\"*\"")
                    .reads("/properties/desired/level", "info"),
                get("/twins/d1/modules/m").keep("twin", ""),
                patch("/twins/d1/modules/m", json!({"tags": {"t": 1}}))
                    .over("twin")
                    .if_match("\"*\"")
                    .reads("/tags", json!({"t": 1})),
            ],
        ),
        az(
            "iot hub module-twin replace --device-id d1 --module-id m --json …",
            [put("/twins/d1/modules/m", json!({"properties": {"desired": {"only": 1}}}))
                .if_match("\"*\"")
                .reads("/properties/desired/only", 1)
                .reads("/tags", json!({"t": 1}))],
        ),
        az(
            "iot hub invoke-device-method --device-id d1 --method-name reboot",
            [post("/twins/d1/methods", invoked.clone())
                .answered_by("d1", 404, json!({"e": 1}))
                .reads("", json!({"status": 404, "payload": {"e": 1}}))],
        ),
        az(
            "iot hub invoke-module-method --device-id d1 --module-id m --method-name reboot",
            [post("/twins/d1/modules/m/methods", invoked)
                .answered_by("d1/m", 200, json!(null))
                .reads("", json!({"status": 200, "payload": null}))],
        ),
        az(
            "iot hub digital-twin show --device-id d1",
            [get("/digitaltwins/d1").reads("/$dtId", "d1").needs("/$metadata")],
        ),
        az(
            "iot hub job create --job-id j --job-type scheduleUpdateTwin --query-condition \"*\" --twin-patch …",
            [put(
                "/jobs/v2/j",
                json!({
                    "jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": "*", "maxExecutionTimeInSeconds": 3600,
                    "updateTwin": {"tags": {"by": "job"}, "etag": "*"},
                }),
            )
            .reads("/jobId", "j")
            .needs("/status")
            .needs("/createdTime")],
        ),
        az(
            "iot hub job list",
            [
                call(Method::GET, "/jobs/v2/query")
                    .header("cache-control", "no-cache, must-revalidate")
                    .items("JobResponse")
                    .counts("", 1),
                get("/jobs").counts("", 0),
            ],
        ),
        az(
            "iot hub device-identity export --blob-container-uri …, job show, job cancel",
            [
                put("/holm/v1/containers/transfer", json!(null)).keep("container", "/uri"),
                post(
                    "/jobs/create",
                    json!({"type": "export", "outputBlobContainerUri": "{container}", "excludeKeysInExport": true,
                        "storageAuthenticationType": "keyBased"}),
                )
                .reads("/type", "export")
                .keep("job", "/jobId"),
                // It asks among the others first, and goes on when the status is `unknown`.
                get("/jobs/v2/{job}").reads("/status", "unknown"),
                get("/jobs/{job}").reads("/type", "export").needs("/startTimeUtc"),
                call(Method::DELETE, "/jobs/{job}").is(204),
            ],
        ),
    ]
}
