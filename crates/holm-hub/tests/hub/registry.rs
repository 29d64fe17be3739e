//! Rows 9 to 31.

use bytes::Bytes;
use holm_gateway::session::Command;
use holm_gateway::{CloseReason, Subscriptions};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::TestHub;

#[tokio::test]
async fn a_device_is_made_with_keys_twin_and_no_null_times() {
    let hub = TestHub::start().await;

    let body = json!({"deviceId": "d2", "authentication": {"type": "sas", "symmetricKey": {}}, "etag": "*"});
    let reply = hub.put("/devices/d2", body).await;

    let etag = reply.header("etag").unwrap().to_owned();
    let device = reply.ok();
    let keys = &device["authentication"]["symmetricKey"];
    assert_eq!(keys["primaryKey"].as_str().unwrap().len(), 44);
    assert_ne!(keys["primaryKey"], keys["secondaryKey"]);
    assert_eq!(device["status"], "enabled");
    assert_eq!(device["connectionState"], "Disconnected");
    assert_eq!(etag, format!("\"{}\"", device["etag"].as_str().unwrap()));
    for time in ["connectionStateUpdatedTime", "statusUpdatedTime", "lastActivityTime"] {
        assert_eq!(device[time], "0001-01-01T00:00:00Z");
    }
    let prints = &device["authentication"]["x509Thumbprint"];
    assert!(prints["primaryThumbprint"].is_null() && prints["secondaryThumbprint"].is_null());
    assert!(
        device["generationId"]
            .as_str()
            .unwrap()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
    );
    hub.get("/twins/d2").await.ok();
}

#[tokio::test]
async fn put_creates_without_and_updates_with_if_match() {
    let hub = TestHub::start().await;
    let before = hub.device("d2").await;

    hub.put("/devices/d2", json!({}))
        .await
        .assert_error(409, "DeviceAlreadyExists");
    let body = json!({"status": "disabled", "statusReason": "stolen",
        "authentication": {"symmetricKey": {"primaryKey": "", "secondaryKey": null}}});
    let after = hub.update("/devices/d2", "\"*\"", body).await.ok();
    let bare = hub
        .update(
            "/devices/d2",
            after["etag"].as_str().unwrap(),
            json!({"status": "enabled"}),
        )
        .await;
    hub.update("/devices/d2", "\"eA==\"", json!({}))
        .await
        .assert_error(412, "PreconditionFailed");
    hub.update("/devices/zz", "\"*\"", json!({}))
        .await
        .assert_error(404, "DeviceNotFound");

    assert_eq!(after["authentication"], before["authentication"]);
    assert_eq!(
        (&after["status"], &after["statusReason"]),
        (&json!("disabled"), &json!("stolen"))
    );
    assert_ne!(after["etag"], before["etag"]);
    assert_ne!(after["statusUpdatedTime"], "0001-01-01T00:00:00Z");
    assert_eq!(bare.ok()["statusReason"], "stolen");
}

#[tokio::test]
async fn bad_ids_keys_and_bodies_are_named() {
    let hub = TestHub::start().await;
    let key = "A".repeat(43) + "=";
    let only_one = json!({"authentication": {"symmetricKey": {"primaryKey": key}}});
    let short = json!({"authentication": {"symmetricKey": {"primaryKey": "QUJD", "secondaryKey": "QUJD"}}});
    let no_print = json!({"authentication": {"type": "selfSigned"}});

    hub.put("/devices/dev%201", json!({}))
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.put(&format!("/devices/{}", "x".repeat(129)), json!({}))
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.put("/devices/d", only_one)
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.put("/devices/d", short).await.assert_error(400, "ArgumentInvalid");
    hub.put("/devices/d", no_print)
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.put("/devices/d", json!({"deviceId": "e"}))
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.put("/devices/d", json!({"status": "asleep"}))
        .await
        .assert_error(400, "ArgumentInvalid");
    hub.call(Method::PUT, "/devices/d", &[], "{")
        .await
        .assert_error(400, "DeserializationError");
    hub.get("/devices/d").await.assert_error(404, "DeviceNotFound");
}

#[tokio::test]
async fn one_thumbprint_is_enough_and_separators_are_taken_off() {
    let hub = TestHub::start().await;
    let print = vec!["ab"; 20].join(":");

    let body = json!({"authentication": {"x509Thumbprint": {"primaryThumbprint": print}}});
    let device = hub.put("/devices/d", body).await.ok();

    assert_eq!(device["authentication"]["type"], "selfSigned");
    assert_eq!(
        device["authentication"]["x509Thumbprint"]["primaryThumbprint"],
        "ab".repeat(20)
    );
    assert!(device["authentication"]["symmetricKey"]["primaryKey"].is_null());
}

#[tokio::test]
async fn an_edge_device_has_a_scope_of_its_own_and_two_modules() {
    let hub = TestHub::start().await;

    let edge = hub.edge_device("e1").await;

    let scope = edge["deviceScope"].as_str().unwrap();
    assert_eq!(
        scope,
        format!("ms-azure-iot-edge://e1-{}", edge["generationId"].as_str().unwrap())
    );
    let modules = hub.get("/devices/e1/modules").await.ok();
    let ids: Vec<&str> = modules
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["moduleId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["$edgeAgent", "$edgeHub"]);
    assert_eq!(modules[0]["authentication"]["type"], "none");
    hub.get("/twins/e1/modules/%24edgeAgent").await.ok();
    let changed = hub.update("/devices/e1", "*", json!({"deviceScope": "x"})).await.ok();
    assert_eq!(changed["deviceScope"], scope);
}

#[tokio::test]
async fn a_leaf_follows_the_scope_of_an_edge_device_that_exists() {
    let hub = TestHub::start().await;
    let scope = hub.edge_device("e1").await["deviceScope"].clone();

    let leaf = hub.put("/devices/leaf", json!({"deviceScope": scope})).await.ok();
    let unknown = hub
        .put("/devices/l2", json!({"deviceScope": "ms-azure-iot-edge://no-1"}))
        .await;
    let child = json!({"capabilities": {"iotEdge": true}, "parentScopes": [scope]});
    let child = hub.put("/devices/e2", child).await.ok();
    let freed = hub
        .update("/devices/leaf", "*", json!({"deviceScope": "", "parentScopes": []}))
        .await
        .ok();

    assert_eq!(leaf["parentScopes"], json!([scope]));
    unknown.assert_error(400, "InvalidDeviceScope");
    assert_eq!(child["parentScopes"], json!([scope]));
    assert_ne!(child["deviceScope"], scope);
    assert_eq!(
        (&freed["deviceScope"], &freed["parentScopes"]),
        (&Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn the_spellings_of_real_clients_reach_the_device() {
    let hub = TestHub::start().await;
    for id in ["d1", "d2", "d3"] {
        hub.device(id).await;
    }

    for path in ["/devices%2Fd1", "/devices/d1/"] {
        assert_eq!(hub.get(path).await.ok()["deviceId"], "d1");
    }
    assert_eq!(hub.get("/devices/?top=1").await.ok().as_array().unwrap().len(), 1);
    assert_eq!(hub.get("/devices").await.ok().as_array().unwrap().len(), 3);
    hub.get("/devices?top=1001").await.assert_error(400, "ArgumentInvalid");
    for etag in ["*", "\"*\""] {
        hub.update("/devices/d1", etag, json!({})).await.ok();
    }
    let etag = hub.get("/devices/d1").await.ok()["etag"].as_str().unwrap().to_owned();
    hub.update("/devices/d1", &format!("W/\"{etag}\""), json!({}))
        .await
        .ok();
}

#[tokio::test]
async fn a_deleted_device_is_gone_with_its_twin_and_modules() {
    let hub = TestHub::start().await;
    let before = hub.edge_device("d2").await;
    hub.put("/devices/d2/modules/m", json!({})).await.ok();

    let reply = hub.delete("/devices/d2").await;

    assert_eq!((reply.status, reply.body), (204, Bytes::new()));
    for path in [
        "/devices/d2",
        "/twins/d2",
        "/devices/d2/modules",
        "/devices/d2/modules/m",
    ] {
        hub.get(path).await.assert_error(404, "DeviceNotFound");
    }
    hub.delete("/devices/d2").await.assert_error(404, "DeviceNotFound");
    let again = hub.device("d2").await;
    assert_ne!(again["generationId"], before["generationId"]);
    assert_eq!(hub.get("/devices/d2/modules").await.ok(), json!([]));
}

#[tokio::test]
async fn modules_are_made_changed_and_limited() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;

    hub.put("/devices/none/modules/m", json!({}))
        .await
        .assert_error(404, "DeviceNotFound");
    let module = hub.put("/devices/e1/modules/m0", json!({"managedBy": "me"})).await.ok();
    assert_eq!(
        (&module["managedBy"], &module["moduleId"]),
        (&json!("me"), &json!("m0"))
    );
    hub.put("/devices/e1/modules/m0", json!({}))
        .await
        .assert_error(409, "ModuleAlreadyExistsOnDevice");
    hub.get("/devices/e1/modules/no")
        .await
        .assert_error(404, "ModuleNotFound");
    for number in 1..50 {
        hub.put(&format!("/devices/e1/modules/m{number}"), json!({})).await.ok();
    }
    hub.put("/devices/e1/modules/m50", json!({}))
        .await
        .assert_error(413, "TooManyModulesOnDevice");
    assert_eq!(hub.delete("/devices/e1/modules/m7").await.status, 204);
    hub.put("/devices/e1/modules/m50", json!({})).await.ok();
}

#[tokio::test]
async fn the_runtimes_own_modules_are_neither_made_nor_deleted_by_the_service() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.device("d1").await;

    let deleted = hub.delete("/devices/e1/modules/$edgeAgent").await;
    let made = hub.put("/devices/d1/modules/$edgeAgent", json!({})).await;

    deleted.assert_error(403, "SystemModuleModifyUnauthorizedAccess");
    made.assert_error(403, "SystemModuleModifyUnauthorizedAccess");
    hub.get("/devices/e1/modules/$edgeAgent").await.ok();
}

#[tokio::test]
async fn an_edge_device_looks_after_its_own_modules_with_its_own_key() {
    let hub = TestHub::start().await;
    hub.edge_device("e1").await;
    hub.edge_device("e2").await;
    let token = hub.device_token("e1").await;
    let headers = [("authorization", token.as_str()), ("if-match", "*")];
    let version = "?api-version=2017-11-08-preview";
    let key = "A".repeat(43) + "=";
    let body = json!({"moduleId": "$edgeAgent", "deviceId": "e1", "managedBy": "IotEdge",
        "authentication": {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}});

    let listed = hub
        .raw(
            Method::GET,
            &format!("/devices/e1/modules{version}"),
            &headers,
            Bytes::new(),
        )
        .await;
    let path = format!("/devices/e1/modules/$edgeAgent{version}");
    let set = hub.raw(Method::PUT, &path, &headers, body.to_string().into()).await;
    let path = format!("/devices/e1/modules/mine{version}");
    let made = hub
        .raw(Method::PUT, &path, &headers[..1], Bytes::from_static(b"{}"))
        .await;
    let foreign = hub
        .raw(
            Method::GET,
            &format!("/devices/e2/modules{version}"),
            &headers,
            Bytes::new(),
        )
        .await;
    let device = hub
        .raw(Method::GET, &format!("/devices/e1{version}"), &headers, Bytes::new())
        .await;

    assert_eq!(listed.ok().as_array().unwrap().len(), 2);
    assert_eq!(set.ok()["authentication"]["symmetricKey"]["primaryKey"], key);
    made.ok();
    foreign.assert_error(401, "IotHubUnauthorized");
    device.assert_error(401, "IotHubUnauthorized");
}

#[tokio::test]
async fn statistics_count_devices() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.edge_device("e1").await;
    hub.update("/devices/d1", "*", json!({"status": "disabled"})).await.ok();
    let client = hub.connect("e1", Subscriptions::NONE).await;

    let devices = hub.get("/statistics/devices").await.ok();
    let service = hub.get("/statistics/service").await.ok();

    assert_eq!(
        devices,
        json!({"totalDeviceCount": 2, "enabledDeviceCount": 1, "disabledDeviceCount": 1})
    );
    assert_eq!(service, json!({"connectedDeviceCount": 1}));
    client.disconnect().await;
}

#[tokio::test]
async fn a_new_key_a_disabling_and_a_deletion_end_the_session() {
    let hub = TestHub::start().await;
    let key = format!("B{}=", "A".repeat(42));
    let new_key = json!({"authentication": {"symmetricKey": {"primaryKey": key, "secondaryKey": key}}});

    for change in [Some(new_key), Some(json!({"status": "disabled"})), None] {
        hub.device("d1").await;
        hub.put("/devices/d1/modules/m", json!({})).await.ok();
        let mut device = hub.connect("d1", Subscriptions::NONE).await;
        let mut module = hub.connect("d1/m", Subscriptions::NONE).await;
        let whole = change.as_ref().is_none_or(|change| change.get("status").is_some());
        match change {
            Some(change) => drop(hub.update("/devices/d1", "*", change).await.ok()),
            None => assert_eq!(hub.delete("/devices/d1").await.status, 204),
        }
        assert!(matches!(
            device.inbox.next().await,
            Command::Close(CloseReason::Revoked)
        ));
        if whole {
            assert!(matches!(
                module.inbox.next().await,
                Command::Close(CloseReason::Revoked)
            ));
        }
        device.disconnect().await;
        module.disconnect().await;
        hub.delete("/devices/d1").await;
    }
}

#[tokio::test]
async fn who_is_connected_and_since_when_is_shown_and_survives_a_restart() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let client = hub.connect("d1", Subscriptions::NONE).await;
    let connected = hub.get("/devices/d1").await.ok();
    hub.turn_clock(60);
    client.disconnect().await;
    let left = hub.get("/twins/d1").await.ok();
    let hub = hub.restart().await;
    let after = hub.get("/devices/d1").await.ok();

    assert_eq!(connected["connectionState"], "Connected");
    assert_eq!(connected["connectionStateUpdatedTime"], "2027-01-15T08:00:00.0000000Z");
    assert_eq!(left["connectionState"], "Disconnected");
    assert_eq!(after["connectionState"], "Disconnected");
    assert_eq!(after["lastActivityTime"], "2027-01-15T08:01:00.0000000Z");
}
