//! Where messages and events of the hub go, and what is added to them.

use holm_gateway::Subscriptions;
use serde_json::{Value, json};

use super::{ROUTING, Receiver};
use crate::support::TestHub;

#[tokio::test]
async fn messages_go_where_routes_say_and_the_rest_to_events() {
    let (hub, mut hot) = (TestHub::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    device.send(json!(0), "hot").await;

    hub.endpoint("hot", &hot, json!({})).await;
    hub.route("alarms", "level = 'hot'", "hot").await;
    device.send(json!({ "n": 1 }), "hot").await;
    device.send(json!(2), "cold").await;
    hub.route("numbers", "$body.n > 0", "events").await;
    device.send(json!({ "n": 3 }), "hot").await;
    hub.fallback(false).await;
    device.send(json!(4), "cold").await;
    hub.delete(&format!("{ROUTING}/routes/alarms")).await;
    hub.delete(&format!("{ROUTING}/routes/numbers")).await;
    device.send(json!(5), "hot").await;

    let first = hot.message().await;
    assert_eq!(first["Body"], json!({ "n": 1 }));
    assert_eq!(first["Properties"], json!({ "level": "hot" }));
    let system = &first["SystemProperties"];
    assert_eq!(
        (&system["connectionDeviceId"], &system["iothub-message-source"]),
        (&json!("d1"), &json!("Telemetry"))
    );
    assert_eq!(first["EnqueuedTimeUtc"], "2027-01-15T08:00:00.0000000Z");
    assert_eq!(hot.bodies(1).await, [json!({ "n": 3 })]);
    assert_eq!(hub.events().await, [json!(0), json!(2), json!({ "n": 3 }), json!(5)]);
    assert_eq!(hub.hub.backend().routing().unrouted(), 1);
    let health = hub
        .until("hot", |health| health["delivered"] == 2 && health["waiting"] == 0)
        .await;
    assert_eq!(health["status"], "healthy");
}

#[tokio::test]
async fn enrichments_are_stamped_and_twins_decide_as_they_are_now() {
    let (hub, mut site) = (TestHub::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    hub.endpoint("site", &site, json!({})).await;
    hub.route("x", "$twin.tags.site = 'x'", "site").await;
    for (key, value, to) in [
        ("hub", "$iothubname", json!(["site", "events"])),
        ("site", "$twin.tags.site", json!(["site", "events"])),
        ("plant", "seven", json!(["site"])),
    ] {
        let document = json!({ "value": value, "endpoints": to });
        hub.put(&format!("{ROUTING}/enrichments/{key}"), document).await.ok();
    }

    device.send(json!(1), "a").await;
    hub.patch("/twins/d1", json!({ "tags": { "site": "x" } })).await.ok();
    device.send(json!(2), "a").await;
    hub.patch("/twins/d1", json!({ "tags": { "site": "y" } })).await.ok();
    device.send(json!(3), "a").await;

    let routed = site.message().await;
    assert_eq!(routed["Body"], 2);
    let expected = json!({ "level": "a", "hub": "hub", "site": "x", "plant": "seven" });
    assert_eq!(routed["Properties"], expected);
    assert!(site.has_nothing());
    let reply = hub.get("/holm/v1/events?source=Telemetry").await;
    let lines = String::from_utf8(reply.body.to_vec()).unwrap();
    let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // A path that leads nowhere is stamped as it is written.
    assert_eq!(
        told[0]["properties"],
        json!({ "level": "a", "hub": "hub", "site": "$twin.tags.site" })
    );
    assert_eq!(
        told[1]["properties"],
        json!({ "level": "a", "hub": "hub", "site": "y" })
    );
}

#[tokio::test]
async fn events_of_the_hub_are_routed_where_a_route_is_about_them() {
    let (hub, mut twins) = (TestHub::start().await, Receiver::start().await);
    hub.endpoint("twins", &twins, json!({})).await;
    let document = json!({ "source": "TwinChangeEvents", "condition": "opType = 'updateTwin'", "endpoint": "twins" });
    hub.put(&format!("{ROUTING}/routes/twins"), document).await.ok();
    let connections = json!({ "source": "DeviceConnectionStateEvents", "endpoint": "twins" });
    hub.put(&format!("{ROUTING}/routes/connections"), connections)
        .await
        .ok();

    hub.device("d1").await;
    hub.patch("/twins/d1", json!({ "tags": { "a": 1 } })).await.ok();
    let told = twins.message().await;
    let _client = hub.connect("d1", Subscriptions::NONE).await;
    let connected = twins.message().await;

    assert_eq!(told["SystemProperties"]["iothub-message-source"], "twinChangeEvents");
    assert_eq!(told["Body"]["tags"], json!({ "a": 1 }));
    assert_eq!(connected["Properties"]["opType"], "deviceConnected");
    // What no route is about goes where it went.
    let reply = hub.get("/holm/v1/events?device=d1").await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    assert!(
        text.contains("deviceLifecycleEvents") && !text.contains("twinChangeEvents"),
        "{text}"
    );
}

#[tokio::test]
async fn a_message_can_be_tried_against_the_routes_without_being_sent() {
    let (hub, receiver) = (TestHub::start().await, Receiver::start().await);
    hub.device("d1").await;
    hub.patch("/twins/d1", json!({ "tags": { "site": "x" } })).await.ok();
    hub.endpoint("hot", &receiver, json!({})).await;
    hub.route("body", "$body.temp > 30", "hot").await;
    hub.route("twin", "$twin.tags.site = 'x'", "hot").await;
    let lifecycle = json!({ "source": "DeviceLifecycleEvents", "endpoint": "hot" });
    hub.put(&format!("{ROUTING}/routes/lifecycle"), lifecycle).await.ok();
    let test = format!("{ROUTING}/test");
    let results = |answer: &Value| -> Vec<Value> {
        let routes = answer["routes"].as_array().unwrap();
        routes
            .iter()
            .map(|route| json!([route["name"], route["result"]]))
            .collect()
    };

    let all = hub
        .post(
            &test,
            json!({ "message": { "body": { "temp": 31 } }, "deviceId": "d1" }),
        )
        .await
        .ok();
    let given = json!({ "message": { "body": "no json" }, "twin": { "tags": { "site": "y" } } });
    let none = hub.post(&test, given).await.ok();
    let one =
        json!({ "message": { "appProperties": { "level": 5 } }, "route": { "condition": "as_number(level) > 4" } });
    let one = hub.post(&test, one).await.ok();
    let bad = hub
        .post(&test, json!({ "route": { "condition": "level >" } }))
        .await
        .ok();
    let wrong = hub
        .post(&test, json!({ "message": { "systemProperties": { "nowhere": "x" } } }))
        .await;

    assert_eq!(
        results(&all),
        [
            json!(["body", "true"]),
            json!(["lifecycle", "otherSource"]),
            json!(["twin", "true"])
        ]
    );
    assert_eq!((&all["endpoints"], &all["fallback"]), (&json!(["hot"]), &json!(false)));
    assert_eq!(results(&none)[0], json!(["body", "undefined"]));
    assert_eq!(
        (&none["endpoints"], &none["fallback"]),
        (&json!(["events"]), &json!(true))
    );
    assert_eq!(one, json!({ "result": "true", "problems": [] }));
    assert_eq!(bad["problems"][0]["column"], 8);
    assert_eq!(wrong.status, 400);
    assert!(hub.events().await.is_empty());
}
