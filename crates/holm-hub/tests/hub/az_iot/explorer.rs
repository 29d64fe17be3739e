//! The screens of IoT Explorer (`hub-service-api.md` §8). It encodes the whole path, leaves out `If-Match` where it changes a twin,
//! and gives columns other names.

use hyper::Method;
use serde_json::json;

use super::{Az, Call, call, delete, get, patch, post, put};

/// The columns of the list of devices, as it asks for them.
const LIST: &str = "
    SELECT deviceId as DeviceId,
    status as Status,
    lastActivityTime as LastActivityTime,
    statusUpdatedTime as StatusUpdatedTime,
    authenticationType as AuthenticationType,
    cloudToDeviceMessageCount as CloudToDeviceMessageCount,
    connectionState as ConnectionState,
    capabilities.iotEdge as IotEdge,
    modelId as ModelId
    FROM devices";

fn screen(line: &'static str, calls: impl Into<Vec<Call>>) -> Az {
    Az {
        line,
        version: Some("2020-09-30"),
        calls: calls.into(),
    }
}

fn list(condition: &str) -> Call {
    post("/devices%2Fquery", json!({ "query": format!("{LIST}{condition}") })).at_most("100")
}

pub(super) fn screens() -> Vec<Az> {
    let device = json!({
        "authentication": {
            "symmetricKey": {"primaryKey": null, "secondaryKey": null}, "type": "sas",
            "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null},
        },
        "capabilities": {"iotEdge": false}, "cloudToDeviceMessageCount": null, "deviceId": "d1", "etag": null,
        "lastActivityTime": null, "status": "enabled", "statusReason": null, "statusUpdatedTime": null,
    });
    vec![
        screen("add a device", [put("/devices%2Fd1", device).reads("/status", "enabled")]),
        screen(
            "the list of devices",
            [
                list("")
                    .items("Raw")
                    .counts("", 1)
                    .reads("/0/DeviceId", "d1")
                    .reads("/0/Status", "enabled")
                    .reads("/0/StatusUpdatedTime", "0001-01-01T00:00:00Z")
                    .reads("/0/ConnectionState", "Disconnected")
                    .reads("/0/AuthenticationType", "sas")
                    .reads("/0/IotEdge", false),
                list(" WHERE (STARTSWITH(devices.deviceId, 'd')) AND (status = 'enabled')").counts("", 1),
                list(" WHERE (capabilities.iotEdge=true)").counts("", 0),
            ],
        ),
        screen(
            "identity, with another status",
            [
                get("/devices%2Fd1").keep("device", "").keep("etag", "/etag"),
                put("/devices%2Fd1", json!({"status": "disabled"}))
                    .over("device")
                    .if_match("\"{etag}\"")
                    .reads("/status", "disabled"),
                put("/devices%2Fd1", json!({"status": "enabled"})).if_match("*"),
            ],
        ),
        screen(
            "twin, changed as a whole and without an etag",
            [
                get("/twins%2Fd1").keep("twin", ""),
                patch("/twins%2Fd1", json!({"tags": {"site": "x"}}))
                    .over("twin")
                    .reads("/tags/site", "x"),
            ],
        ),
        screen(
            "direct method",
            [post(
                "/twins%2Fd1%2Fmethods",
                json!({"connectTimeoutInSeconds": 0, "methodName": "reboot", "payload": "", "responseTimeoutInSeconds": 30}),
            )
            .answered_by("d1", 200, json!([1]))
            .reads("", json!({"status": 200, "payload": [1]}))],
        ),
        screen(
            "cloud-to-device message",
            [
                call(Method::POST, "/devices/d1/messages/deviceBound")
                    .header("iothub-app-level", "high")
                    .sends(json!("hello"))
                    .is(204),
                list("").reads("/0/CloudToDeviceMessageCount", 1),
            ],
        ),
        screen(
            "modules and their twins",
            [
                put("/devices%2Fd1%2Fmodules%2Fm", json!({
                    "authentication": {"symmetricKey": {"primaryKey": null, "secondaryKey": null}, "type": "sas",
                        "x509Thumbprint": {"primaryThumbprint": null, "secondaryThumbprint": null}},
                    "deviceId": "d1", "moduleId": "m",
                })),
                get("/devices%2Fd1%2Fmodules").counts("", 1),
                get("/devices%2Fd1%2Fmodules%2Fm").reads("/moduleId", "m"),
                get("/twins%2Fd1%2Fmodules%2Fm").reads("/moduleId", "m"),
                delete("/devices%2Fd1%2Fmodules%2Fm").if_match("*"),
            ],
        ),
        screen(
            "plug and play",
            // Its path begins with a slash, and that is encoded too.
            [
                get("/%2FdigitalTwins%2Fd1").reads("/$dtId", "d1"),
                patch(
                    "/%2FdigitalTwins%2Fd1",
                    json!([{"op": "add", "path": "/rate", "value": 5}]),
                )
                .is(202),
                post(
                    "/%2FdigitalTwins%2Fd1%2Fcomponents%2Fpump%2Fcommands%2Fstart?connectTimeoutInSeconds=20&responseTimeoutInSeconds=20",
                    json!({"now": true}),
                )
                .answered_by("d1", 200, json!("on"))
                .reads("", "on"),
            ],
        ),
        screen(
            "delete devices",
            [
                post("/devices", json!([{"etag": "*", "id": "d1", "importMode": "deleteIfMatchEtag"}]))
                    .reads("/isSuccessful", true),
                get("/devices%2Fd1").is(404).needs("/Message"),
            ],
        ),
    ]
}
