//! The event log as an Event Hub: consumer groups, owner levels, positions, retention, rights.

use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use holm_gateway::service::{
    EventPosition, Mark, NoticeKind, NoticeReader, PartitionReader, PartitionRequest, ReadRefusal,
};
use holm_gateway::{Ingest, Service, Settlement, Subscriptions};
use holm_hub::EventSources;
use holm_hub::service::{HubReader, event_hub_name};
use holm_identity::SasToken;
use holm_model::{ErrorCode, Identity, Message, SystemProperty, Timestamp};
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{HOST, START, TestHub};

fn request(partition: u16) -> PartitionRequest {
    PartitionRequest {
        event_hub: event_hub_name(HOST),
        group: "$Default".to_owned(),
        partition,
        position: EventPosition::Earliest,
        owner_level: None,
        reader: "test".to_owned(),
    }
}

/// Sends so many messages of a device, a second after each other; gives its partition.
async fn send(hub: &TestHub, device: &str, bodies: &[&str]) -> u16 {
    let client = hub.connect(device, Subscriptions::NONE).await;
    for body in bodies {
        let message = Message::new((*body).to_owned());
        let receipt = hub.hub.backend().ingest(&client.admission, message).await.unwrap();
        receipt.await.unwrap();
        hub.turn_clock(1);
    }
    client.disconnect().await;
    partition_of_name(device)
}

fn partition_of_name(device: &str) -> u16 {
    holm_hub::events::partition_of(&holm_model::DeviceId::new(device).unwrap(), 4)
}

/// What a reader gives at once: sequence numbers and bodies, telemetry only.
fn read(reader: &mut HubReader) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    loop {
        let batch = reader.try_read().unwrap();
        if batch.is_empty() {
            return all;
        }
        for event in batch {
            let message = Message::decode(event.message).unwrap();
            if message.system.get(SystemProperty::MessageSource) == Some("Telemetry") {
                all.push((event.sequence, String::from_utf8_lossy(&message.body).into_owned()));
            }
        }
    }
}

fn bodies(read: &[(u64, String)]) -> Vec<&str> {
    read.iter().map(|(_, body)| body.as_str()).collect()
}

const fn mark(number: u64, inclusive: bool) -> Mark {
    Mark { number, inclusive }
}

const fn at(number: u64) -> EventPosition {
    EventPosition::Sequence(mark(number, true))
}

const fn after(number: u64) -> EventPosition {
    EventPosition::Sequence(mark(number, false))
}

/// A hub that writes no events of its own: those of a device that is made come at any time, and count in its partition.
async fn silent_hub() -> TestHub {
    let silent = EventSources {
        twin_changes: false,
        lifecycle: false,
        ..EventSources::default()
    };
    TestHub::start_with(|config| config.event_sources = silent).await
}

#[tokio::test]
async fn a_reader_begins_where_it_says() {
    let hub = silent_hub().await;
    hub.device("d1").await;
    let partition = send(&hub, "d1", &["a", "b", "c"]).await;
    let backend = hub.hub.backend();
    let open = |position| {
        let request = PartitionRequest {
            position,
            ..request(partition)
        };
        backend.open_partition(&request).unwrap()
    };
    let all = read(&mut open(EventPosition::Earliest));
    assert_eq!(bodies(&all), ["a", "b", "c"]);
    let second = all[1].0;

    // Rows 78 and 79 of the reference.
    for (position, expected) in [
        (at(second), vec!["b", "c"]),
        (after(second), vec!["c"]),
        (EventPosition::Offset(mark(second, false)), vec!["c"]),
        (at(0), vec!["a", "b", "c"]),
        // Who has read everything.
        (after(all[2].0), vec![]),
        (at(all[2].0 + 1), vec![]),
        (EventPosition::Latest, vec![]),
        (
            EventPosition::Since(Timestamp::from_unix_millis(START + 1000)),
            vec!["b", "c"],
        ),
        (
            EventPosition::After(Timestamp::from_unix_millis(START + 1000)),
            vec!["c"],
        ),
        (
            EventPosition::After(Timestamp::from_unix_millis(START + 60_000)),
            vec![],
        ),
    ] {
        assert_eq!(bodies(&read(&mut open(position))), expected, "{position:?}");
    }
}

#[tokio::test]
async fn a_reader_can_begin_at_the_next_event_and_not_behind_it() {
    let hub = silent_hub().await;
    hub.device("d1").await;
    let full = send(&hub, "d1", &["a", "b"]).await;
    let empty = (full + 1) % 4;
    let backend = hub.hub.backend();
    let open = |partition, position| {
        let request = PartitionRequest {
            position,
            ..request(partition)
        };
        backend.open_partition(&request).map(drop)
    };

    let offset = |number| EventPosition::Offset(mark(number, false));
    for (partition, position) in [(full, after(1)), (full, at(2)), (full, offset(1)), (empty, at(0))] {
        assert_eq!(open(partition, position), Ok(()), "{position:?}");
    }

    // Event Hubs' words.
    for (partition, position, told) in [
        (
            full,
            after(2),
            "The supplied sequence number '2' is invalid. The last sequence number in the system is '1'",
        ),
        (
            full,
            at(3),
            "The supplied sequence number '3' is invalid. The last sequence number in the system is '1'",
        ),
        (
            full,
            offset(1000),
            "The supplied offset '1000' is invalid. The last offset in the system is '1'",
        ),
        (
            empty,
            after(0),
            "The supplied sequence number '0' is invalid. The last sequence number in the system is '-1'",
        ),
        (
            empty,
            offset(u64::MAX),
            "The supplied offset '18446744073709551615' is invalid. The last offset in the system is '-1'",
        ),
    ] {
        match open(partition, position) {
            Err(ReadRefusal::BehindEnd(text)) => assert!(text.starts_with(told), "{text}"),
            other => panic!("{position:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_that_has_read_everything_goes_on_where_nothing_is_left() {
    let hub = silent_hub().await;
    hub.device("d1").await;
    let partition = send(&hub, "d1", &["a", "b"]).await;
    let backend = hub.hub.backend();
    let open = |position| {
        let request = PartitionRequest {
            position,
            ..request(partition)
        };
        backend.open_partition(&request)
    };
    let last = read(&mut open(EventPosition::Earliest).unwrap()).pop().unwrap().0;

    hub.turn_clock(25 * 3600);
    hub.hub.events().maintain();
    // What is kept no longer goes with the next commit, of another partition.
    let other = (0..)
        .map(|number| format!("e{number}"))
        .find(|id| partition_of_name(id) != partition)
        .unwrap();
    hub.device(&other).await;
    send(&hub, &other, &["c"]).await;
    let is_empty = || backend.partition_bounds(partition).unwrap().first > last;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !is_empty() {
        assert!(std::time::Instant::now() < deadline, "the log keeps what is too old");
        tokio::task::yield_now().await;
    }
    let mut reader = open(after(last)).unwrap();
    let refused = open(after(last + 1)).err();
    send(&hub, "d1", &["d"]).await;

    assert_eq!(bodies(&read(&mut reader)), ["d"]);
    assert!(matches!(refused, Some(ReadRefusal::BehindEnd(_))), "{refused:?}");
}

#[tokio::test]
async fn a_reader_at_the_end_is_woken_by_what_comes() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let partition = send(&hub, "d1", &["a"]).await;
    let mut reader = hub.hub.backend().open_partition(&request(partition)).unwrap();
    assert_eq!(bodies(&read(&mut reader)), ["a"]);

    let waits = poll_fn(|context| Poll::Ready(reader.poll_readable(context).is_pending())).await;
    send(&hub, "d1", &["b"]).await;
    poll_fn(|context| reader.poll_readable(context)).await;

    assert!(waits);
    assert_eq!(bodies(&read(&mut reader)), ["b"]);
}

#[tokio::test]
async fn a_reader_that_loses_its_partition_reads_no_more() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let partition = send(&hub, "d1", &["a"]).await;
    let backend = hub.hub.backend();
    let owner = |level| PartitionRequest {
        owner_level: Some(level),
        ..request(partition)
    };

    let mut first = backend.open_partition(&owner(1)).unwrap();
    let refused = backend.open_partition(&owner(0)).err();
    let _second = backend.open_partition(&owner(2)).unwrap();

    assert!(matches!(refused, Some(ReadRefusal::Stolen(_))), "{refused:?}");
    let end = poll_fn(|context| first.poll_end(context)).await;
    assert!(matches!(end, ReadRefusal::Stolen(_)));
    assert!(matches!(first.try_read(), Err(ReadRefusal::Stolen(_))));
}

#[tokio::test]
async fn a_reader_slower_than_the_retention_goes_on_at_the_oldest_event_and_that_is_counted() {
    let hub = silent_hub().await;
    hub.device("d1").await;
    let partition = send(&hub, "d1", &["a"]).await;
    let backend = hub.hub.backend();
    let mut reader = backend.open_partition(&request(partition)).unwrap();
    let first = read(&mut reader);
    send(&hub, "d1", &["b", "c"]).await;

    hub.turn_clock(25 * 3600);
    hub.hub.events().maintain();
    let is_let_go = || backend.partition_bounds(partition).unwrap().first > first[0].0 + 2;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !is_let_go() {
        assert!(std::time::Instant::now() < deadline, "the log keeps what is too old");
        tokio::task::yield_now().await;
    }
    send(&hub, "d1", &["d"]).await;
    let rest = read(&mut reader);

    assert_eq!((bodies(&first), bodies(&rest)), (vec!["a"], vec!["d"]));
    let mut page = holm_gateway::metrics::Exposition::default();
    backend.write_metrics(&mut page).await;
    let page = page.into_text();
    assert!(page.contains("holm_hub_events_missed_total 2"), "{page}");
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_its_name() {
    let hub = TestHub::start().await;
    let backend = hub.hub.backend();

    for (request, is_right) in [
        (
            PartitionRequest {
                group: "other".to_owned(),
                ..request(0)
            },
            (|refusal| matches!(refusal, ReadRefusal::NotFound(_))) as fn(&ReadRefusal) -> bool,
        ),
        (
            PartitionRequest {
                event_hub: "other".to_owned(),
                ..request(0)
            },
            |refusal| matches!(refusal, ReadRefusal::NotFound(_)),
        ),
        (request(4), |refusal| matches!(refusal, ReadRefusal::NoPartition(_))),
    ] {
        let refusal = backend.open_partition(&request).err().unwrap();
        assert!(is_right(&refusal), "{request:?}: {refusal:?}");
    }
}

#[tokio::test]
async fn consumer_groups_are_made_listed_and_removed_and_outlive_a_restart() {
    let hub = TestHub::start().await;
    let groups = "/holm/v1/consumer-groups";
    let made = |name: &str| format!("{groups}/{name}");
    assert_eq!(hub.get(groups).await.ok(), json!(["$Default"]));
    let created = hub.hub.backend().event_hub().unwrap().created;

    hub.turn_clock(1);
    assert_eq!(hub.put(&made("billing"), Value::Null).await.status, 204);
    assert_eq!(hub.put(&made("Billing"), Value::Null).await.status, 204);
    let in_group = PartitionRequest {
        group: "BILLING".to_owned(),
        ..request(0)
    };
    drop(hub.hub.backend().open_partition(&in_group).unwrap());
    let hub2 = hub.restart().await;
    assert_eq!(hub2.get(groups).await.ok(), json!(["$Default", "billing"]));
    assert_eq!(hub2.hub.backend().event_hub().unwrap().created, created);

    let mut reader = hub2.hub.backend().open_partition(&in_group).unwrap();
    assert_eq!(hub2.delete(&made("billing")).await.status, 204);
    assert!(matches!(reader.try_read(), Err(ReadRefusal::Stolen(text)) if text.contains("`billing`")));
    assert!(hub2.hub.backend().open_partition(&in_group).is_err());
    assert_eq!(hub2.delete(&made("billing")).await.status, 204);
    hub2.delete(&made("$default"))
        .await
        .assert_error(400, "InvalidOperation");
    hub2.put(&made("a%20b"), Value::Null)
        .await
        .assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn there_are_no_more_than_twenty_consumer_groups() {
    let hub = TestHub::start().await;
    for number in 1..20 {
        let path = format!("/holm/v1/consumer-groups/g{number}");
        assert_eq!(hub.put(&path, Value::Null).await.status, 204);
    }

    let one_more = hub.put("/holm/v1/consumer-groups/g20", Value::Null).await;

    one_more.assert_error(400, "InvalidOperation");
    assert_eq!(hub.put("/holm/v1/consumer-groups/g7", Value::Null).await.status, 204);
}

#[tokio::test]
async fn changing_consumer_groups_takes_the_right_to_write_the_registry() {
    let hub = TestHub::start().await;
    let token = hub.token_of("service").await;
    let with = [("authorization", token.as_str())];

    let list = hub.raw(Method::GET, "/holm/v1/consumer-groups", &with, "".into()).await;
    let add = hub
        .raw(Method::PUT, "/holm/v1/consumer-groups/g", &with, "".into())
        .await;

    assert_eq!((list.status, add.status), (200, 401));
}

#[tokio::test]
async fn a_link_opens_to_a_policy_with_the_right_below_what_its_token_names() {
    let hub = TestHub::start().await;
    let key = hub.policy_key("service").await;
    let event_hub = event_hub_name(HOST);
    let partition = format!("{event_hub}/ConsumerGroups/$Default/Partitions/0");
    let backend = hub.hub.backend();
    let token = |resource: &str| {
        let token = SasToken::sign(resource, hub.now_seconds() + 60, Some("service"), &key);
        token.to_text().expose().to_owned()
    };

    for (resource, opens) in [
        (HOST.to_owned(), true),
        (format!("sb://{HOST}/{event_hub}"), true),
        (format!("sb://{HOST}/{partition}"), true),
        // As uamqp's reader writes it.
        (format!("sb://{HOST}/{event_hub}/consumergroups/$Default"), true),
        (format!("amqps://{HOST}/"), true),
        (format!("{HOST}/messages/events"), false),
        (format!("sb://{HOST}/{event_hub}/ConsumerGroups/other"), false),
        (format!("sb://other.test/{event_hub}"), false),
    ] {
        let permitted = backend.permit_service(&token(&resource), &partition);
        assert_eq!(permitted.is_ok(), opens, "{resource}: {permitted:?}");
    }
    let device = hub.token_of("device").await;
    assert!(backend.permit_service(&device, &partition).is_err());
    let old = SasToken::sign(HOST, hub.now_seconds() - 400, Some("service"), &key);
    assert!(backend.permit_service(old.to_text().expose(), &partition).is_err());
}

#[tokio::test]
async fn a_back_end_sends_to_devices_and_hears_what_became_of_it() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let backend = hub.hub.backend();
    let to = |name: &str| name.parse::<Identity>().unwrap();
    let mut message = Message::new("hello");
    message.system.set(SystemProperty::MessageId, "m-1");
    message.system.set(SystemProperty::Ack, "full");

    backend.send_to_device(to("d1"), message.clone()).await.unwrap();
    let unknown = backend.send_to_device(to("nobody"), message.clone()).await.unwrap_err();
    let module = backend.send_to_device(to("d1/m1"), message).await.unwrap_err();
    hub.delete("/devices/d1/commands").await;
    let reader = backend.open_notices(NoticeKind::Feedback).unwrap();
    hub.turn_clock(60);
    let notice = reader.receive(false).await.unwrap().expect("feedback");
    reader.settle(notice.lease, Settlement::Complete);

    assert_eq!(unknown.code, ErrorCode::DeviceNotFound);
    assert_eq!(module.code, ErrorCode::InvalidOperation);
    let told: Value = serde_json::from_slice(&notice.body).unwrap();
    assert_eq!(told[0]["originalMessageId"], "m-1");
    assert_eq!(told[0]["statusCode"], "Purged");
}

#[tokio::test]
async fn a_reader_that_leaves_gives_its_notices_back() {
    let hub = TestHub::start().await;
    let backend = hub.hub.backend();
    let body = bytes::Bytes::from_static(b"{}");
    let kind = holm_hub::notices::NoticeKind::FileNotification;
    backend.notices().put(kind, body).await.unwrap();

    let first = backend.open_notices(NoticeKind::Files).unwrap();
    let leased = first.receive(true).await.unwrap();
    let second = backend.open_notices(NoticeKind::Files).unwrap();
    let nothing = second.receive(false).await.unwrap();
    drop(first);
    let again = tokio::time::timeout(Duration::from_secs(60), second.receive(true))
        .await
        .unwrap();

    assert!(leased.is_some());
    assert_eq!(nothing, None);
    assert!(again.unwrap().is_some());
}

#[tokio::test]
async fn what_a_reader_settles_and_leaves_in_one_breath_does_not_come_again() {
    let hub = TestHub::start().await;
    let backend = hub.hub.backend();
    let kind = holm_hub::notices::NoticeKind::FileNotification;
    backend.notices().put(kind, "{}".into()).await.unwrap();
    let first = backend.open_notices(NoticeKind::Files).unwrap();
    let leased = first.receive(true).await.unwrap().unwrap();

    first.settle(leased.lease, Settlement::Complete);
    drop(first);

    let second = backend.open_notices(NoticeKind::Files).unwrap();
    assert_eq!(second.receive(false).await.unwrap(), None);
}
