//! Events that the hub makes: told once, in the log, with their source.

use holm_gateway::{Subscriptions, Twins};
use holm_hub::events::{ConnectionStates, EventLog, Relay};
use holm_hub::routing::{Parts, Routing};
use holm_hub::storage::{Event, Repository};
use holm_hub::{Clock, EventSources, Signals};
use holm_model::{DeviceId, Message, SystemProperty, Timestamp};
use holm_net::Scope;
use serde_json::{Value, json};

use crate::support::{START, TestHub};

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

    let told: Vec<_> = hub
        .told_of("d1", 5)
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

    let all = hub.told_of("d1", 2).await;

    let body = &all[1]["body"];
    assert_eq!(body["tags"], json!({"a": null, "b": 1}));
    let at = json!({"$lastUpdated": "2027-01-15T08:00:00.0000000Z", "$lastUpdatedVersion": 2});
    let metadata = json!({"$lastUpdated": at["$lastUpdated"], "$lastUpdatedVersion": 2, "x": at});
    assert_eq!(
        body["properties"]["desired"],
        json!({"x": 1, "$version": 2, "$metadata": metadata})
    );
    assert_eq!(all[1]["properties"]["hubName"], "hub");
}

const START_OF_LOG: holm_hub::events::From = holm_hub::events::From::Sequence(0);

/// An outbox and an event log, without a hub.
struct Outbox {
    directory: tempfile::TempDir,
    repository: Repository,
    log: EventLog,
}

impl Outbox {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::new(|| Timestamp::from_unix_millis(START));
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        let day = std::time::Duration::from_secs(24 * 3600);
        let log = EventLog::open(&directory.path().join("events"), 4, day, 1 << 30, &clock).unwrap();
        Self {
            directory,
            repository,
            log,
        }
    }

    async fn relay(&self, sources: EventSources) -> Relay {
        let parts = Parts {
            repository: self.repository.clone(),
            log: self.log.clone(),
            clock: Clock::new(|| Timestamp::from_unix_millis(START)),
            scope: Scope::new(),
            connections: ConnectionStates::new(false),
            defaults: sources,
            hub_name: "hub".to_owned(),
            files: self.directory.path().join("routed"),
        };
        let routing = Routing::open(parts).await.unwrap();
        Relay::new(self.repository.clone(), routing, Signals::default())
    }

    fn event(key: &str) -> Event {
        let mut message = Message::new("{}");
        message.system.set(SystemProperty::MessageId, key);
        message.system.set(SystemProperty::MessageSource, "twinChangeEvents");
        Event {
            key: key.to_owned(),
            device: DeviceId::new("d1").unwrap(),
            at: Timestamp::from_unix_millis(START),
            message: message.encode().into(),
        }
    }

    async fn emit(&self, keys: &[&str]) {
        let events: Vec<_> = keys.iter().map(|key| Self::event(key)).collect();
        self.repository
            .change(move |transaction| events.iter().try_for_each(|event| transaction.emit(event)))
            .await
            .unwrap();
    }

    fn told(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for partition in 0..4 {
            let mut reader = self.log.reader(partition, START_OF_LOG).unwrap();
            while let Some(stored) = reader.try_next().unwrap() {
                let message = Message::decode(stored.payload).unwrap();
                keys.push(message.system.get(SystemProperty::MessageId).unwrap().to_owned());
            }
        }
        keys
    }
}

/// An event that was appended before a crash and is still in the outbox after it is recognised by its key.
#[tokio::test]
async fn an_event_that_is_in_the_log_already_is_not_told_again() {
    let outbox = Outbox::open();
    outbox.emit(&["v3", "v4"]).await;
    let first = Outbox::event("v3");
    let receipt = outbox
        .log
        .append(&first.device, first.at, first.message.into())
        .unwrap();
    receipt.await.unwrap();

    let mut relay = outbox.relay(EventSources::default()).await;
    assert_eq!(relay.round().await.unwrap(), 2);
    assert_eq!(relay.round().await.unwrap(), 0);

    assert_eq!(outbox.told(), ["v3", "v4"]);
}

#[tokio::test]
async fn an_event_that_cannot_be_deleted_from_the_outbox_is_told_once_all_the_same() {
    let outbox = Outbox::open();
    let database = rusqlite::Connection::open(outbox.directory.path().join("hub.db")).unwrap();
    database
        .execute_batch("CREATE TRIGGER stuck BEFORE DELETE ON outbox BEGIN SELECT RAISE(FAIL, 'no'); END")
        .unwrap();
    let mut relay = outbox.relay(EventSources::default()).await;
    outbox.emit(&["v3"]).await;

    for _ in 0..3 {
        assert!(relay.round().await.is_err());
    }
    outbox.emit(&["v4"]).await;
    assert!(relay.round().await.is_err());
    database.execute_batch("DROP TRIGGER stuck").unwrap();
    assert_eq!(relay.round().await.unwrap(), 2);

    assert_eq!(outbox.told(), ["v3", "v4"]);
    assert_eq!(relay.round().await.unwrap(), 0);
}

#[tokio::test]
async fn events_of_a_source_that_nobody_wants_are_not_told() {
    let outbox = Outbox::open();
    outbox
        .emit(&["twinChangeEvents/d1/1/v3", "deviceLifecycleEvents/d1/1/created"])
        .await;
    let sources = EventSources {
        twin_changes: false,
        ..EventSources::default()
    };

    assert_eq!(outbox.relay(sources).await.round().await.unwrap(), 2);

    assert_eq!(outbox.told(), ["deviceLifecycleEvents/d1/1/created"]);
}

#[tokio::test]
async fn a_connection_is_told_with_the_published_properties_where_that_is_wanted() {
    let sources = EventSources {
        connection_states: true,
        lifecycle: false,
        twin_changes: false,
        ..EventSources::default()
    };
    let hub = TestHub::start_with(|config| config.event_sources = sources).await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    let connected = hub.told_of("d1", 1).await.remove(0);
    hub.turn_clock(61);
    client.disconnect().await;
    let disconnected = hub.told_of("d1", 2).await.remove(1);

    for (event, operation) in [(&connected, "deviceConnected"), (&disconnected, "deviceDisconnected")] {
        assert_eq!(event["messageSource"], "deviceConnectionStateEvents");
        let properties = &event["properties"];
        assert_eq!(
            (&properties["opType"], &properties["hubName"], &properties["deviceId"]),
            (&json!(operation), &json!("hub"), &json!("d1"))
        );
        assert_eq!(properties["iothub-message-schema"], "deviceConnectionStateNotification");
        assert!(properties["operationTimestamp"].is_string());
    }
    let sequence = |event: &Value| event["body"]["sequenceNumber"].as_str().unwrap().to_owned();
    assert!(sequence(&connected) < sequence(&disconnected));
}
