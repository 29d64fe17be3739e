//! What devices send, and how it is read.

use holm_gateway::{Earlier, Ingest, IngestError, Presence, Subscriptions};
use holm_model::{Message, SystemProperty};
use serde_json::{Value, json};

use crate::support::{Client, TestHub};

impl Client<'_> {
    pub(crate) async fn publish(&self, message: Message) -> Result<(), IngestError> {
        self.hub.hub.backend().ingest(&self.admission, message).await?.await
    }
}

async fn events(hub: &TestHub, query: &str) -> Vec<Value> {
    let reply = hub.get(&format!("/holm/v1/events?source=Telemetry&{query}")).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(
        reply.header("content-type"),
        Some("application/x-ndjson; charset=utf-8")
    );
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_stamped_with_who_sent_it() {
    let hub = TestHub::start().await;
    let device = hub.edge_device("e1").await;
    hub.put("/devices/e1/modules/m", json!({})).await.ok();
    let generation = hub.get("/devices/e1/modules/m").await.ok()["generationId"].clone();
    let client = hub.connect("e1/m", Subscriptions::NONE).await;
    let mut message = Message::new(&b"{\"t\":1}"[..]);
    message.system.set(SystemProperty::ConnectionDeviceId, "forged");
    message.system.set(SystemProperty::MessageId, "m-1");
    message.properties.set("level", Some("high".into()));

    client.publish(message).await.unwrap();

    let all = events(&hub, "").await;
    let [event] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (&event["body"], &event["bodyEncoding"]),
        (&json!({"t": 1}), &json!("json"))
    );
    assert_eq!(
        (&event["connectionDeviceId"], &event["connectionModuleId"]),
        (&json!("e1"), &json!("m"))
    );
    assert_eq!(event["properties"], json!({"level": "high"}));
    let system = &event["systemProperties"];
    assert_eq!(system["messageId"], "m-1");
    assert_eq!(system["messageSource"], "Telemetry");
    assert_eq!(
        system["connectionAuthMethod"],
        r#"{"scope":"module","type":"sas","issuer":"iothub"}"#
    );
    assert_eq!(system["connectionAuthGenerationId"], generation);
    assert_ne!(generation, device["generationId"]);
    assert_eq!(event["enqueuedTime"], "2027-01-15T08:00:00.0000000Z");
}

#[tokio::test]
async fn a_device_stays_in_its_partition_and_in_order_over_a_restart() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    for number in 0..100 {
        client.publish(Message::new(number.to_string())).await.unwrap();
    }
    client.disconnect().await;

    let hub = hub.restart().await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    client.publish(Message::new("100")).await.unwrap();

    let all = events(&hub, "device=d1").await;
    let bodies: Vec<u64> = all.iter().map(|event| event["body"].as_u64().unwrap()).collect();
    assert_eq!(bodies, (0..=100).collect::<Vec<_>>());
    assert!(all.iter().all(|event| event["partition"] == all[0]["partition"]));
    let numbers: Vec<u64> = all
        .iter()
        .map(|event| event["sequenceNumber"].as_u64().unwrap())
        .collect();
    assert!(numbers.is_sorted());
}

#[tokio::test]
async fn reading_begins_and_ends_where_it_was_asked_to() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    for body in ["a", "b", "c"] {
        client.publish(Message::new(body)).await.unwrap();
        hub.turn_clock(10);
    }
    let all = events(&hub, "device=d1").await;
    let (partition, second) = (&all[0]["partition"], &all[1]["sequenceNumber"]);
    let bodies = |events: Vec<Value>| {
        events
            .iter()
            .map(|e| e["body"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    assert_eq!(
        bodies(events(&hub, &format!("partition={partition}&from={second}")).await),
        ["b", "c"]
    );
    assert_eq!(bodies(events(&hub, "time=2027-01-15T08:00:20Z").await), ["c"]);
    assert_eq!(bodies(events(&hub, "device=d1&max=2").await), ["a", "b"]);
    assert_eq!(bodies(events(&hub, "from=latest").await), Vec::<String>::new());
    assert_eq!(bodies(events(&hub, "device=other").await), Vec::<String>::new());
}

#[tokio::test]
async fn following_sees_what_comes_after() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;

    let following = events(&hub, "from=earliest&follow=true&max=3");
    let sending = async {
        for body in ["a", "b", "c"] {
            client.publish(Message::new(body)).await.unwrap();
        }
    };
    let (seen, ()) = tokio::join!(following, sending);

    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_body_is_told_as_what_it_is() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;
    for body in [&b"[1]"[..], b"plain", b"\xff\x00"] {
        client.publish(Message::new(body)).await.unwrap();
    }

    let told: Vec<_> = events(&hub, "")
        .await
        .iter()
        .map(|e| (e["bodyEncoding"].clone(), e["body"].clone()))
        .collect();

    assert_eq!(
        told,
        [
            (json!("json"), json!([1])),
            (json!("text"), json!("plain")),
            (json!("base64"), json!("/wA=")),
        ]
    );
}

#[tokio::test]
async fn an_oversize_message_is_refused_and_the_limit_itself_is_not() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;

    client.publish(Message::new(vec![b'x'; 256 * 1024])).await.unwrap();
    let refused = client
        .publish(Message::new(vec![b'x'; 256 * 1024 + 1]))
        .await
        .unwrap_err();

    assert!(matches!(
        refused,
        IngestError::TooLarge {
            size: 262_145,
            limit: 262_144
        }
    ));
    assert_eq!(events(&hub, "").await.len(), 1);
}

#[tokio::test]
async fn bad_questions_are_refused_by_name() {
    let hub = TestHub::start().await;

    for query in [
        "partition=4",
        "from=x",
        "time=x",
        "from=1&time=x",
        "follow=maybe",
        "device=a%20b",
        "max=-1",
        "nonsense=1",
    ] {
        hub.get(&format!("/holm/v1/events?{query}"))
            .await
            .assert_error(400, "ArgumentInvalid");
    }
    let partitions = hub.get("/holm/v1/partitions").await.ok();
    assert_eq!(partitions.as_array().unwrap().len(), 4);
    assert_eq!(partitions[0]["beginSequenceNumber"], 0);
}

#[tokio::test]
async fn a_resumed_session_finds_its_subscriptions_and_a_clean_one_none() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let backend = hub.hub.backend();
    let filters = vec![("devices/d1/messages/devicebound/#".to_owned(), 1)];
    let first = hub.connect("d1", Subscriptions::NONE).await;
    backend
        .subscribed(
            first.handle.id(),
            &first.admission,
            Subscriptions::CLOUD_TO_DEVICE,
            Some(filters.clone()),
        )
        .await
        .unwrap();
    let admission = first.admission.clone();
    first.disconnect().await;

    let resumed = backend
        .opened(&hub_session(), &admission, Earlier::Resumed)
        .await
        .unwrap();
    let clean = backend
        .opened(&hub_session(), &admission, Earlier::Discarded)
        .await
        .unwrap();
    let after = backend
        .opened(&hub_session(), &admission, Earlier::Resumed)
        .await
        .unwrap();

    assert_eq!((resumed.present, resumed.filters), (true, filters));
    assert_eq!((clean.present, clean.filters.len()), (false, 0));
    assert!(!after.present);
}

fn hub_session() -> holm_gateway::SessionHandle {
    holm_gateway::SessionHandle::new(crate::support::identity("d1")).0
}
