//! Who may call the REST interface, and what errors look like: rows of `hub-service-api.md` §11, by number.

use anyhow::Result;
use holm_e2e::sas::{Token, encode, part, spoiled};
use holm_e2e::wire::http::Answer;
use holm_e2e::{Hub, Need};
use serde_json::{Value, json};

const DEVICE: &str = "/devices/d1?api-version=2021-04-12";

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(
        (answer.status, answer.header("iothub-errorcode")),
        (status, Some(code)),
        "{text}"
    );
    let body = answer.json();
    let message = body["Message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with(&format!("ErrorCode:{code};")) && message.len() > code.len() + 11,
        "{text}"
    );
    assert!(
        body["ExceptionMessage"]
            .as_str()
            .is_some_and(|it| it.starts_with("Tracking ID:")),
        "{text}"
    );
}

#[test]
fn only_a_token_that_proves_a_policy_is_let_in() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let device = hub.create_device("d1");
    let owner = hub.service().connection_string().to_owned();
    let (key, host) = (part(&owner, "SharedAccessKey"), part(&owner, "HostName"));
    let get = |token: &str| hub.service().send("GET", DEVICE, &[("Authorization", token)], b"");
    let signed =
        |key: &str, resource: &str, seconds| Token::sign(key, resource, seconds).of_policy("iothubowner").text();

    // Rows 1 to 5.
    assert_refused(&hub.service().send("GET", DEVICE, &[], b"")?, 401, "IotHubUnauthorized");
    assert_eq!(get(&signed(key, host, 3600))?.status, 200);
    assert_eq!(
        get(&signed(
            key,
            &encode(&format!("{host}/devices")).replace("%2F", "%2f"),
            3600
        ))?
        .status,
        200
    );
    assert_refused(&get(&signed(key, host, -600))?, 401, "IotHubUnauthorized");
    assert_refused(&get(&signed(&spoiled(key), host, 3600))?, 401, "IotHubUnauthorized");
    assert_eq!(get(&signed(key, "elsewhere.test", 3600))?.status, 401);
    assert_eq!(get("Bearer abc")?.status, 401);
    // A device's key opens no registry.
    let own = Token::sign(&device.primary_key, &encode(&format!("{host}/devices/d1")), 3600);
    assert_eq!(
        hub.service()
            .send(
                "GET",
                "/devices?api-version=2021-04-12",
                &[("Authorization", &own.text())],
                b""
            )?
            .status,
        401
    );
    Ok(())
}

#[test]
fn a_request_that_can_not_be_served_says_which_part_is_wrong() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let service = hub.service();
    let token = service.token();
    let put = |path: &str, headers: &[(&str, &str)], body: Value| service.try_call("PUT", path, headers, Some(&body));

    // Rows 7, 8 and 10 to 16.
    assert_refused(
        &service.send("GET", "/devices/d1", &[("Authorization", &token)], b"")?,
        400,
        "InvalidProtocolVersion",
    );
    for version in ["2018-06-30", "2021-04-12", "2024-03-31"] {
        let target = format!("/devices/d1?api-version={version}");
        assert_eq!(
            service.send("GET", &target, &[("Authorization", &token)], b"")?.status,
            200,
            "{version}"
        );
    }
    assert_refused(
        &put("/devices/d1", &[], json!({"deviceId": "d1"}))?,
        409,
        "DeviceAlreadyExists",
    );
    let stale = [("If-Match", "\"x\"")];
    assert_refused(
        &put("/devices/d1", &stale, json!({"deviceId": "d1"}))?,
        412,
        "PreconditionFailed",
    );
    let any = [("If-Match", "\"*\"")];
    assert_refused(
        &put("/devices/zz", &any, json!({"deviceId": "zz"}))?,
        404,
        "DeviceNotFound",
    );
    let spaced = put("/devices/dev%201", &[], json!({"deviceId": "dev 1"}))?;
    assert_eq!(spaced.status, 400, "{}", String::from_utf8_lossy(&spaced.body));
    let long = "x".repeat(129);
    assert_eq!(
        put(&format!("/devices/{long}"), &[], json!({"deviceId": long}))?.status,
        400
    );
    let half =
        json!({"deviceId": "d2", "authentication": {"symmetricKey": {"primaryKey": "MDEyMzQ1Njc4OWFiY2RlZg=="}}});
    assert_eq!(put("/devices/d2", &[], half)?.status, 400);
    // Broken JSON, an unknown path.
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    let broken = service.send("PUT", "/devices/d3?api-version=2021-04-12", &headers, b"{\"deviceId\":")?;
    assert_eq!(broken.status, 400);
    assert!(broken.header("iothub-errorcode").is_some());
    assert_eq!(
        service
            .send("GET", "/nothing/here?api-version=2021-04-12", &headers, b"")?
            .status,
        404
    );
    Ok(())
}

#[test]
fn a_bad_manifest_is_refused_by_name_and_changes_nothing() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let _edge = hub.create_edge_device("e1");
    let _plain = hub.create_device("d1");
    let before = hub.service().call("GET", "/twins/e1/modules/$edgeAgent", None);
    let apply = |device: &str, content: &Value| {
        hub.service().try_call(
            "POST",
            &format!("/devices/{device}/applyConfigurationContent"),
            &[],
            Some(content),
        )
    };
    let modules = |agent: Value| json!({"modulesContent": {"$edgeAgent": {"properties.desired": agent}}});

    let bad = [
        json!({}),
        json!({"modulesContent": []}),
        modules(json!({"schemaVersion": "1.1", "modules": {"a b": {}}})),
        modules(json!({"schemaVersion": "1.1", "modules": []})),
    ];
    for content in &bad {
        let answer = apply("e1", content)?;
        assert_eq!(
            answer.status,
            400,
            "{content}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        assert!(answer.header("iothub-errorcode").is_some(), "{content}");
    }
    assert_eq!(apply("d1", &modules(json!({})))?.status, 400);

    let after = hub.service().call("GET", "/twins/e1/modules/$edgeAgent", None);
    assert_eq!(before["properties"], after["properties"]);
    Ok(())
}

#[test]
fn methods_that_can_not_be_called_are_told_apart() -> Result<()> {
    if !Need::all(&[Need::LowPorts]) {
        return Ok(());
    }
    let hub = Hub::start();
    let _device = hub.create_device("d1");
    let invoke = |device: &str, timeout: u32| {
        let body = json!({"methodName": "reboot", "payload": null, "responseTimeoutInSeconds": timeout});
        hub.service()
            .try_call("POST", &format!("/twins/{device}/methods"), &[], Some(&body))
    };

    // Rows 43 and 45.
    let offline = invoke("d1", 30)?;
    assert_eq!(
        (offline.status, offline.header("iothub-errorcode")),
        (404, Some("DeviceNotOnline"))
    );
    let inner: Value = serde_json::from_str(offline.json()["Message"].as_str().unwrap_or_default())?;
    assert_eq!(inner["errorCode"], 404_103);
    assert_refused(&invoke("nobody", 30)?, 404, "DeviceNotFound");
    for timeout in [4, 301] {
        assert_eq!(invoke("d1", timeout)?.status, 400, "{timeout}");
    }
    Ok(())
}
