//! `az iot hub device-identity`, `module-identity`, `query`, and edges with children.

use serde_json::{Value, json};

use super::{Az, az, delete, get, post, put, query};

/// A device as `_assemble_device` makes it, for a key that the hub is to make.
fn new_device(id: &str, edge: bool) -> Value {
    let mut device = json!({
        "deviceId": id,
        "authentication": {"symmetricKey": {}, "type": "sas"},
        "capabilities": {"iotEdge": edge},
        "status": "enabled",
    });
    if edge {
        device["parentScopes"] = json!([]);
    }
    device
}

pub(super) fn commands() -> Vec<Az> {
    let print = "ab".repeat(20);
    let module = json!({"moduleId": "m", "deviceId": "d1", "authentication": {"symmetricKey": {}, "type": "sas"}});
    vec![
        az(
            "iot hub device-identity create --device-id d1",
            [put("/devices/d1", new_device("d1", false))
                .reads("/status", "enabled")
                .needs("/authentication/symmetricKey/primaryKey")],
        ),
        az(
            "iot hub device-identity create --device-id e1 --edge-enabled",
            [put("/devices/e1", new_device("e1", true))
                .reads("/capabilities/iotEdge", true)
                .keep("scope", "/deviceScope")],
        ),
        az(
            "iot hub device-identity create --device-id x1 --auth-method x509_thumbprint --primary-thumbprint …",
            [put(
                "/devices/x1",
                json!({
                    "deviceId": "x1",
                    "authentication": {"x509Thumbprint": {"primaryThumbprint": print}, "type": "selfSigned"},
                    "capabilities": {"iotEdge": false},
                    "status": "enabled",
                }),
            )
            .reads("/authentication/x509Thumbprint/primaryThumbprint", print)],
        ),
        az(
            "iot hub device-identity create --device-id leaf --device-scope …",
            [put("/devices/leaf", {
                let mut leaf = new_device("leaf", false);
                leaf["deviceScope"] = json!("{scope}");
                leaf
            })
            .reads("/parentScopes/0", "{scope}")],
        ),
        az(
            "iot hub device-identity create --device-id d1",
            [put("/devices/d1", new_device("d1", false))
                .is(409)
                .needs("/Message")
                .needs("/ExceptionMessage")],
        ),
        az(
            "iot hub device-identity show --device-id d1",
            [get("/devices/d1")
                .reads("/deviceId", "d1")
                .keep("primary", "/authentication/symmetricKey/primaryKey")
                .keep("secondary", "/authentication/symmetricKey/secondaryKey")],
        ),
        az(
            "iot hub device-identity connection-string show --device-id d1",
            // It compares the type in lower case and takes the key of the symmetric one.
            [get("/devices/d1")
                .reads("/authentication/type", "sas")
                .reads("/deviceId", "d1")
                .reads("/authentication/symmetricKey/primaryKey", "{primary}")],
        ),
        az(
            "iot hub device-identity connection-string show --device-id x1",
            [get("/devices/x1").reads("/authentication/type", "selfSigned")],
        ),
        az(
            "iot hub device-identity list --top 1000",
            [query("/devices/query", "select * from devices")
                .at_most("1000")
                .items("Twin")
                .counts("", 4)],
        ),
        az(
            "iot hub device-identity list --edge-enabled",
            [query(
                "/devices/query",
                "select * from devices where capabilities.iotEdge = true",
            )
            .at_most("1000")
            .counts("", 1)
            .reads("/0/deviceId", "e1")],
        ),
        az(
            "iot hub device-identity update --device-id d1 --status disabled --status-reason lost",
            [
                get("/devices/d1").needs("/capabilities").needs("/authentication/type"),
                // It sends what it has read of keys, and the etag `*` in the body as well.
                put(
                    "/devices/d1",
                    json!({
                        "deviceId": "d1",
                        "etag": "*",
                        "status": "disabled",
                        "statusReason": "lost",
                        "authentication": {
                            "symmetricKey": {"primaryKey": "{primary}", "secondaryKey": "{secondary}"}, "type": "sas",
                        },
                        "capabilities": {"iotEdge": false},
                    }),
                )
                .if_match("\"*\"")
                .reads("/status", "disabled")
                .reads("/statusReason", "lost")
                .reads("/authentication/symmetricKey/primaryKey", "{primary}"),
            ],
        ),
        az(
            "iot hub device-identity renew-key --device-id d1 --key-type primary",
            [post(
                "/devices/keys/regenerate",
                json!({"policyKey": "primaryKey", "devices": [{"id": "d1"}]}),
            )
            .reads("/policyKey", "primaryKey")
            .counts("/errors", 0)
            .reads("/rotatedKeys/0/id", "d1")
            .reads("/rotatedKeys/0/secondaryKey", "{secondary}")],
        ),
        az(
            "iot hub device-identity renew-key --device-id d1 --key-type swap",
            [
                get("/devices/d1")
                    .reads("/authentication/type", "sas")
                    .keep("device", "")
                    .keep("primary", "/authentication/symmetricKey/primaryKey"),
                put(
                    "/devices/d1",
                    json!({"authentication": {
                        "symmetricKey": {"primaryKey": "{secondary}", "secondaryKey": "{primary}"}, "type": "sas",
                    }}),
                )
                .over("device")
                .if_match("\"*\"")
                .reads("/authentication/symmetricKey/primaryKey", "{secondary}")
                .reads("/authentication/symmetricKey/secondaryKey", "{primary}"),
            ],
        ),
        az(
            "iot hub device-identity parent show --device-id leaf",
            // The parent's id is what stands between `//` and the last `-`.
            [
                get("/devices/leaf").counts("/parentScopes", 1),
                get("/devices/e1").reads("/deviceId", "e1"),
            ],
        ),
        az(
            "iot hub device-identity parent set --device-id d1 --parent-device-id e1",
            [
                get("/devices/e1")
                    .reads("/capabilities/iotEdge", true)
                    .keep("scope", "/deviceScope"),
                get("/devices/d1")
                    .counts("/parentScopes", 0)
                    .keep("child", "")
                    .keep("etag", "/etag"),
                put("/devices/d1", json!({"deviceScope": "{scope}"}))
                    .over("child")
                    .if_match("\"{etag}\"")
                    .reads("/parentScopes/0", "{scope}"),
            ],
        ),
        az(
            "iot hub device-identity create --device-id e2 --edge-enabled",
            [put("/devices/e2", new_device("e2", true))],
        ),
        az(
            "iot hub device-identity children add --device-id e1 --child-list e2",
            [
                get("/devices/e1").keep("scope", "/deviceScope"),
                get("/devices/e2")
                    .reads("/capabilities/iotEdge", true)
                    .keep("child", "")
                    .keep("etag", "/etag"),
                put("/devices/e2", json!({"parentScopes": ["{scope}"]}))
                    .over("child")
                    .if_match("\"{etag}\""),
            ],
        ),
        az(
            "iot hub device-identity children list --device-id e1",
            [
                get("/devices/e1").keep("scope", "/deviceScope"),
                query(
                    "/devices/query",
                    "select deviceId from devices where array_contains(parentScopes, '{scope}')",
                )
                .items("Raw")
                .reads(
                    "",
                    json!([{"deviceId": "d1"}, {"deviceId": "e2"}, {"deviceId": "leaf"}]),
                ),
            ],
        ),
        az(
            "iot hub device-identity children remove --device-id e1 --child-list d1",
            [
                get("/devices/e1").keep("scope", "/deviceScope"),
                get("/devices/d1")
                    .reads("/parentScopes", json!(["{scope}"]))
                    .keep("child", "")
                    .keep("etag", "/etag"),
                // The scopes of parents go back as they were read.
                put("/devices/d1", json!({"deviceScope": ""}))
                    .over("child")
                    .if_match("\"{etag}\"")
                    .counts("/parentScopes", 0),
            ],
        ),
        az(
            "iot hub module-identity create --device-id d1 --module-id m",
            [put("/devices/d1/modules/m", module)
                .reads("/moduleId", "m")
                .needs("/authentication/symmetricKey/primaryKey")],
        ),
        az(
            "iot hub module-identity show --device-id d1 --module-id m",
            [get("/devices/d1/modules/m").needs("/etag").reads("/deviceId", "d1")],
        ),
        az(
            "iot hub module-identity connection-string show --device-id d1 --module-id m",
            [get("/devices/d1/modules/m")
                .reads("/authentication/type", "sas")
                .reads("/moduleId", "m")
                .needs("/authentication/symmetricKey/secondaryKey")],
        ),
        az(
            "iot hub module-identity list --device-id e1",
            [get("/devices/e1/modules")
                .counts("", 2)
                .reads("/0/moduleId", "$edgeAgent")],
        ),
        az(
            "iot hub module-identity delete --device-id d1 --module-id m",
            [delete("/devices/d1/modules/m").if_match("\"*\"")],
        ),
        az(
            "iot hub query --query-command … --top 3",
            // A token and fewer than were asked for: it goes on with what is left.
            [
                query("/devices/query", "select deviceId from devices")
                    .at_most("3")
                    .items("Raw")
                    .counts("", 3),
                query("/devices/query", "select count() as n from devices").reads("", json!([{"n": 5}])),
                query("/devices/query", "select * from devices where")
                    .is(400)
                    .needs("/Message"),
            ],
        ),
        az(
            "iot hub device-identity delete --device-id d1",
            [
                delete("/devices/d1").if_match("\"*\""),
                delete("/devices/d1").if_match("\"*\"").is(404).needs("/Message"),
            ],
        ),
        az(
            "iot edge devices create --clean --device id=gw --device id=below parent=gw deployment=layer.json",
            [
                query("/devices/query", "SELECT deviceId FROM devices").counts("", 4),
                delete("/devices/e2").if_match("*"),
                delete("/devices/leaf").if_match("*"),
                delete("/devices/x1").if_match("*"),
                delete("/devices/e1").if_match("*"),
                get("/devices").counts("", 0),
                put("/devices/gw", new_device("gw", true)).needs("/authentication/symmetricKey/primaryKey"),
                put("/devices/below", new_device("below", true)),
                query("/devices/query", "SELECT deviceId, deviceScope FROM devices")
                    .reads("/1/deviceId", "gw")
                    .keep("scope", "/1/deviceScope"),
                get("/devices/below").keep("device", ""),
                put("/devices/below", json!({"parentScopes": ["{scope}"]}))
                    .over("device")
                    .if_match("*")
                    .reads("/parentScopes/0", "{scope}"),
                post(
                    "/devices/below/applyConfigurationContent",
                    json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.m": {
                        "type": "docker", "settings": {"image": "m:1"},
                    }}}}),
                )
                .is(204),
            ],
        ),
    ]
}
