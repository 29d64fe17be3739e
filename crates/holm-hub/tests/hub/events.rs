//! Events that the hub makes: told once, in the log, with their source.

use bytes::Bytes;
use holm_gateway::{Subscriptions, Twins};
use holm_hub::events::{EventLog, Relay};
use holm_hub::storage::{Event, Repository};
use holm_hub::{Clock, Signals};
use holm_model::{DeviceId, Message, SystemProperty, Timestamp};
use serde_json::{Value, json};

use crate::support::{START, TestHub};

/// Follows the log until so many events of the hub itself about `d1` are there.
async fn notices(hub: &TestHub, count: usize) -> Vec<Value> {
    let reply = hub
        .get(&format!("/holm/v1/events?device=d1&follow=true&max={count}"))
        .await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn changes_are_told_in_order_with_source_and_operation() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.patch("/twins/d1", json!({"tags": {"a": 1}})).await.ok();
    let client = hub.connect("d1", Subscriptions::NONE).await;
    hub.hub
        .backend()
        .patch_reported(&client.admission, json!({"fw": "1"}), None)
        .await
        .unwrap();
    hub.put("/twins/d1", json!({"properties": {"desired": {"x": 1}}}))
        .await
        .ok();
    hub.delete("/devices/d1").await;

    let told: Vec<_> = notices(&hub, 5)
        .await
        .iter()
        .map(|event| {
            format!(
                "{} {}",
                event["messageSource"].as_str().unwrap(),
                event["properties"]["opType"].as_str().unwrap()
            )
        })
        .collect();

    assert_eq!(
        told,
        [
            "deviceLifecycleEvents createDeviceIdentity",
            "twinChangeEvents updateTwin",
            "twinChangeEvents updateTwin",
            "twinChangeEvents replaceTwin",
            "deviceLifecycleEvents deleteDeviceIdentity",
        ]
    );
}

#[tokio::test]
async fn a_twin_event_carries_what_changed() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.patch(
        "/twins/d1",
        json!({"tags": {"a": null, "b": 1}, "properties": {"desired": {"x": 1}}}),
    )
    .await
    .ok();

    let all = notices(&hub, 2).await;

    let body = &all[1]["body"];
    assert_eq!(body["tags"], json!({"a": null, "b": 1}));
    assert_eq!(body["properties"]["desired"], json!({"x": 1, "$version": 2}));
    assert_eq!(all[1]["properties"]["hubName"], "hub");
}

/// An event that was appended before a crash and is still in the outbox after it is recognised by its key.
#[tokio::test]
async fn an_event_that_is_in_the_log_already_is_not_told_again() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::new(|| Timestamp::from_unix_millis(START));
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let day = std::time::Duration::from_secs(24 * 3600);
    let log = EventLog::open(&directory.path().join("events"), 4, day, 1 << 30, &clock).unwrap();
    let device = DeviceId::new("d1").unwrap();
    let event = |key: &str| {
        let mut message = Message::new("{}");
        message.system.set(SystemProperty::MessageId, key);
        message.system.set(SystemProperty::MessageSource, "twinChangeEvents");
        Event {
            key: key.to_owned(),
            device: DeviceId::new("d1").unwrap(),
            at: Timestamp::from_unix_millis(START),
            message: message.encode().into(),
        }
    };
    let events = [event("v3"), event("v4")];
    let first = Bytes::from(events[0].message.clone());
    repository
        .change(move |transaction| events.iter().try_for_each(|event| transaction.emit(event)))
        .await
        .unwrap();
    log.append(&device, Timestamp::from_unix_millis(START), first)
        .unwrap()
        .await
        .unwrap();

    let mut relay = Relay::new(repository.clone(), log.clone(), Signals::default());
    assert_eq!(relay.round().await.unwrap(), 2);
    assert_eq!(relay.round().await.unwrap(), 0);

    let mut keys = Vec::new();
    for partition in 0..4 {
        let mut reader = log.reader(partition, holm_hub::events::From::Sequence(0)).unwrap();
        while let Some(stored) = reader.try_next().unwrap() {
            let message = Message::decode(stored.payload).unwrap();
            keys.push(message.system.get(SystemProperty::MessageId).unwrap().to_owned());
        }
    }
    assert_eq!(keys, ["v3", "v4"]);
}
