//! What each kind of the hub's own events says: the published schemas of non-telemetry events, and ours where only the name of the
//! source is published.

use holm_gateway::session::Command;
use holm_gateway::{Subscriptions, Twins};
use holm_hub::EventSources;
use holm_model::MethodResponse;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::TestHub;

const MODEL: &str = "dtmi:com:example:Pump;1";

/// A hub that tells of nothing unless a route is about it.
async fn silent() -> TestHub {
    TestHub::start_with(|config| {
        config.event_sources = EventSources {
            twin_changes: false,
            lifecycle: false,
            ..EventSources::default()
        };
    })
    .await
}

/// From now on events of a source go to where they are read here.
async fn route(hub: &TestHub, source: &str) {
    let document = json!({ "source": source, "endpoint": "events" });
    hub.put(&format!("/holm/v1/routing/routes/{source}"), document)
        .await
        .ok();
}

#[tokio::test]
async fn an_event_has_the_published_properties_and_one_of_a_module_names_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let identity = json!({ "deviceId": "d1", "moduleId": "m1" });
    hub.put("/devices/d1/modules/m1", identity).await.ok();
    hub.delete("/devices/d1/modules/m1").await;

    let all = hub.told_of("d1", 3).await;

    let told: Vec<_> = all
        .iter()
        .map(|event| (&event["connectionModuleId"], &event["properties"]["opType"]))
        .collect();
    let (created, deleted) = (json!("createDeviceIdentity"), json!("deleteDeviceIdentity"));
    assert_eq!(
        told,
        [
            (&Value::Null, &created),
            (&json!("m1"), &created),
            (&json!("m1"), &deleted)
        ]
    );
    let event = &all[1];
    assert_eq!(
        event["properties"],
        json!({
            "hubName": "hub",
            "deviceId": "d1",
            "moduleId": "m1",
            "opType": "createDeviceIdentity",
            "operationTimestamp": "2027-01-15T08:00:00.0000000Z",
            "iothub-message-schema": "deviceLifecycleNotification",
        })
    );
    let system = &event["systemProperties"];
    assert_eq!(
        (&system["userId"], &system["contentType"], &system["contentEncoding"]),
        (&json!("hub"), &json!("application/json"), &json!("utf-8"))
    );
    assert_ne!(system["cid"], all[2]["systemProperties"]["cid"]);
    let empty = json!({ "$version": 1, "$metadata": { "$lastUpdated": "2027-01-15T08:00:00.0000000Z" } });
    assert_eq!(
        event["body"],
        json!({
            "deviceId": "d1",
            "moduleId": "m1",
            "etag": "AAAAAAAAAAI=",
            "version": 2,
            "properties": { "desired": empty, "reported": empty },
        })
    );
}

#[tokio::test]
async fn a_module_connects_by_the_same_words_as_a_device() {
    let hub = silent().await;
    route(&hub, "DeviceConnectionStateEvents").await;
    hub.device("d1").await;
    let identity = json!({ "deviceId": "d1", "moduleId": "m1" });
    hub.put("/devices/d1/modules/m1", identity).await.ok();

    let client = hub.connect("d1/m1", Subscriptions::NONE).await;
    let event = hub.told_of("d1", 1).await.remove(0);

    let properties = &event["properties"];
    assert_eq!(
        (
            &properties["opType"],
            &properties["moduleId"],
            &properties["iothub-message-schema"]
        ),
        (
            &json!("deviceConnected"),
            &json!("m1"),
            &json!("deviceConnectionStateNotification")
        )
    );
    // A number of 256 bits.
    assert_eq!(event["body"]["sequenceNumber"].as_str().unwrap().len(), 64);
    client.disconnect().await;
}

#[tokio::test]
async fn a_replaced_twin_is_told_whole_and_an_updated_one_by_what_changed() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let backend = hub.hub.backend();
    backend
        .patch_reported(&client.admission, json!({"fw": "1"}), None)
        .await
        .unwrap();
    let desired = json!({"properties": {"desired": {"a": 1, "b": {"c": 2, "d": 3}}}});
    hub.patch("/twins/d1", desired).await.ok();
    hub.patch(
        "/twins/d1",
        json!({"properties": {"desired": {"a": null, "b": {"c": 4}}}}),
    )
    .await
    .ok();
    hub.put(
        "/twins/d1",
        json!({"tags": {"site": "x"}, "properties": {"desired": {"b": 1}}}),
    )
    .await
    .ok();

    let all = hub.told_of("d1", 5).await;

    let reported = &all[1]["body"]["properties"]["reported"];
    assert_eq!((&reported["fw"], &reported["$version"]), (&json!("1"), &json!(2)));
    assert!(reported["$metadata"]["fw"]["$lastUpdated"].is_string());
    let changed = &all[3]["body"]["properties"]["desired"];
    assert_eq!(
        (&changed["a"], &changed["b"], &changed["$version"]),
        (&Value::Null, &json!({"c": 4}), &json!(3))
    );
    let metadata = &changed["$metadata"];
    assert_eq!(metadata.get("a"), None);
    assert_eq!(
        (&metadata["b"]["c"]["$lastUpdatedVersion"], metadata["b"].get("d")),
        (&json!(3), None)
    );
    let whole = &all[4]["body"];
    assert_eq!(all[4]["properties"]["opType"], "replaceTwin");
    assert_eq!(
        (
            &whole["deviceId"],
            &whole["version"],
            &whole["tags"],
            &whole["properties"]["reported"]["fw"]
        ),
        (&json!("d1"), &json!(5), &json!({"site": "x"}), &json!("1"))
    );
    assert_eq!(whole["properties"]["desired"]["b"], 1);
    assert!(whole["etag"].is_string() && whole["properties"]["desired"]["$metadata"]["b"].is_object());
    client.disconnect().await;
}

#[tokio::test]
async fn a_changed_digital_twin_is_told_as_a_patch_where_a_route_is_about_it() {
    let hub = silent().await;
    hub.device("d1").await;
    let client = hub.connect_as("d1", Subscriptions::NONE, Some(MODEL)).await;
    let report = async |patch: Value| {
        let backend = hub.hub.backend();
        backend.patch_reported(&client.admission, patch, None).await.unwrap();
    };
    report(json!({"before": 1})).await;
    route(&hub, "DigitalTwinChangeEvents").await;

    report(json!({"max": 42.1, "pump": {"__t": "c", "load": 0.5}})).await;
    report(json!({"max": 16.9})).await;
    hub.patch("/twins/d1", json!({"tags": {"a": 1}})).await.ok();
    let patch = json!([{"op": "add", "path": "/pump/speed", "value": 9}]).to_string();
    let patched = hub.call(Method::PATCH, "/digitaltwins/d1", &[], patch).await;
    hub.put("/twins/d1", json!({"properties": {"desired": {"limit": 3}}}))
        .await
        .ok();
    let told = hub.told_of("d1", 4).await;

    let at = "2027-01-15T08:00:00.0000000Z";
    assert_eq!(patched.status, 202);
    let properties = |event: &Value| (event["messageSource"].clone(), event["properties"]["opType"].clone());
    let updated = (json!("digitalTwinChangeEvents"), json!("updateTwin"));
    let replaced = (json!("digitalTwinChangeEvents"), json!("replaceTwin"));
    assert_eq!(
        told.iter().map(properties).collect::<Vec<_>>(),
        [&updated, &updated, &updated, &replaced].map(Clone::clone)
    );
    assert_eq!(
        told[0]["properties"]["iothub-message-schema"],
        "digitalTwinChangeNotification"
    );
    assert_eq!(
        told[0]["systemProperties"]["contentType"],
        "application/json-patch+json"
    );
    assert_eq!(
        told[0]["body"],
        json!([
            {"op": "add", "path": "/$metadata/max", "value": {"lastUpdateTime": at}},
            {"op": "add", "path": "/max", "value": 42.1},
            {"op": "add", "path": "/pump", "value": {"$metadata": {"load": {"lastUpdateTime": at}}, "load": 0.5}},
        ])
    );
    assert_eq!(
        told[1]["body"],
        json!([{"op": "replace", "path": "/max", "value": 16.9}])
    );
    assert_eq!(
        told[2]["body"],
        json!([{"op": "add", "path": "/pump/$metadata/speed",
            "value": {"desiredValue": 9, "desiredVersion": 2, "lastUpdateTime": at}}])
    );
    assert_eq!(
        told[3]["body"],
        json!([
            {"op": "add", "path": "/$metadata/limit",
                "value": {"desiredValue": 3, "desiredVersion": 3, "lastUpdateTime": at}},
            {"op": "remove", "path": "/pump/$metadata/speed"},
        ])
    );
    client.disconnect().await;
}

#[tokio::test]
async fn a_device_without_a_model_has_no_digital_twin_to_tell_of() {
    let hub = silent().await;
    route(&hub, "DigitalTwinChangeEvents").await;
    route(&hub, "DeviceLifecycleEvents").await;
    hub.device("d1").await;

    hub.patch("/twins/d1", json!({"properties": {"desired": {"a": 1}}}))
        .await
        .ok();
    hub.delete("/devices/d1").await;
    let told = hub.told_of("d1", 2).await;

    let operations: Vec<_> = told
        .iter()
        .map(|event| event["properties"]["opType"].as_str().unwrap())
        .collect();
    assert_eq!(operations, ["createDeviceIdentity", "deleteDeviceIdentity"]);
}

#[tokio::test]
async fn what_a_job_does_with_each_device_is_told_where_a_route_is_about_it() {
    let hub = silent().await;
    route(&hub, "DeviceJobLifecycleEvents").await;
    for id in ["good", "away"] {
        hub.device(id).await;
    }
    let mut good = hub.connect("good", Subscriptions::METHODS).await;
    let method = json!({"methodName": "reboot", "responseTimeoutInSeconds": 30});
    let job = json!({"type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": method});

    hub.put("/jobs/v2/m", job).await.ok();
    let Command::Invoke(_, reply) = good.inbox.next().await else {
        panic!("no call");
    };
    let answer = MethodResponse {
        status: 200,
        payload: json!({"done": true}),
    };
    reply.send(Ok(answer)).unwrap();
    let of_good = hub.told_of("good", 3).await;
    let of_away = hub.told_of("away", 3).await;
    let update = json!({"etag": "*", "tags": {"a": 1}});
    let job = json!({"type": "scheduleUpdateTwin", "queryCondition": "deviceId = 'away'", "updateTwin": update});
    hub.put("/jobs/v2/t", job).await.ok();
    let all_of_away = hub.told_of("away", 5).await;

    let words = |events: &[Value]| -> Vec<String> {
        let words = events.iter().map(|event| {
            let (operation, status) = (&event["properties"]["opType"], &event["body"]["status"]);
            format!("{} {}", operation.as_str().unwrap(), status.as_str().unwrap())
        });
        words.collect()
    };
    assert_eq!(
        words(&of_good),
        [
            "deviceJobCreated pending",
            "deviceJobStarted running",
            "deviceJobCompleted completed"
        ]
    );
    assert_eq!(
        words(&of_away),
        [
            "deviceJobCreated pending",
            "deviceJobStarted running",
            "deviceJobFailed failed"
        ]
    );
    assert_eq!(
        words(&all_of_away)[3..],
        ["deviceJobCreated pending", "deviceJobCompleted completed"]
    );
    let last = &of_good[2];
    assert_eq!(
        (&last["messageSource"], &last["properties"]["iothub-message-schema"]),
        (
            &json!("deviceJobLifecycleEvents"),
            &json!("deviceJobLifecycleNotification")
        )
    );
    assert_eq!(
        (
            &last["body"]["jobId"],
            &last["body"]["deviceId"],
            &last["body"]["jobType"]
        ),
        (&json!("m"), &json!("good"), &json!("scheduleDeviceMethod"))
    );
    assert_eq!(
        last["body"]["outcome"]["deviceMethodResponse"],
        json!({"status": 200, "payload": {"done": true}})
    );
    assert_eq!(of_away[2]["body"]["error"]["code"], "404103");
}

#[tokio::test]
async fn devices_that_a_cancelled_job_has_not_begun_with_are_told_of() {
    let hub = silent().await;
    route(&hub, "DeviceJobLifecycleEvents").await;
    for n in 0..40 {
        hub.device(&format!("d{n:02}")).await;
    }
    let _clients = {
        let mut clients = Vec::new();
        for n in 0..40 {
            clients.push(hub.connect(&format!("d{n:02}"), Subscriptions::METHODS).await);
        }
        clients
    };
    let method = json!({"methodName": "reboot", "responseTimeoutInSeconds": 300});
    let job = json!({"type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": method});

    // 32 are called at a time, in order of their ids; the last is not called while none of them answers.
    hub.put("/jobs/v2/m", job).await.ok();
    hub.told_of("d00", 2).await;
    hub.post("/jobs/v2/m/cancel", json!({})).await.ok();
    let told = hub.told_of("d39", 2).await;

    let operations: Vec<_> = told
        .iter()
        .map(|event| event["properties"]["opType"].as_str().unwrap())
        .collect();
    assert_eq!(operations, ["deviceJobCreated", "deviceJobCanceled"]);
}
