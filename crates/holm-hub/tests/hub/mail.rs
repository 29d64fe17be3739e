//! Cloud-to-device messages: rows 74 and 76, and `hub-device-protocols.md` §8 rows 25, 54 to 56.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use holm_gateway::{Delivery, Settlement, Subscriptions};
use holm_hub::c2d::Mailboxes;
use holm_hub::notices::Notices;
use holm_hub::registry::Entry;
use holm_hub::storage::Repository;
use holm_hub::{Clock, Hub, HubConfig, QueueBounds, Signals};
use holm_model::{Message, SystemProperty, Timestamp};
use holm_net::Scope;
use hyper::Method;
use serde_json::json;

use crate::support::{Reply, START, TestHub, identity};

const BOUND: &str = "/devices/d1/messages/deviceBound";

async fn send(hub: &TestHub, body: &'static str) -> Reply {
    hub.call(
        Method::POST,
        BOUND,
        &[("iothub-app-k", "v"), ("iothub-messageid", body)],
        body,
    )
    .await
}

/// Waits until so many messages wait for the device.
async fn waiting(hub: &TestHub, count: u64) {
    let reached = async {
        while hub.get("/devices/d1").await.ok()["cloudToDeviceMessageCount"] != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap();
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|d| String::from_utf8(d.message.body.to_vec()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_message_is_delivered_once_with_its_properties_and_goes_when_completed() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    let sent = send(&hub, "one").await;
    let received = client.receive(16).await;
    client.settle(&received[0], Settlement::Complete);
    waiting(&hub, 0).await;

    assert_eq!(sent.status, 204);
    assert_eq!(bodies(&received), ["one"]);
    let message = &received[0].message;
    assert_eq!(message.properties.get("k"), Some(Some("v")));
    assert_eq!(
        message.system.get(SystemProperty::To),
        Some("/devices/d1/messages/devicebound")
    );
    assert_eq!(message.system.get(SystemProperty::MessageId), Some("one"));
    assert!(!received[0].redelivered);
}

#[tokio::test]
async fn properties_in_the_header_of_ours_keep_their_names() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    let headers = [("holm-properties", "Level=2&two%20words=a%0Ab")];
    let sent = hub.call(Method::POST, BOUND, &headers, "x").await;
    let received = client.receive(16).await;

    assert_eq!(sent.status, 204);
    let properties: Vec<_> = received[0].message.properties.iter().collect();
    assert_eq!(properties, [("Level", Some("2")), ("two words", Some("a\nb"))]);
}

#[tokio::test]
async fn a_waiting_receiver_is_woken_and_a_dropped_one_leases_nothing() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    {
        let mut dropped = Box::pin(client.receive(16));
        assert!(futures_poll(&mut dropped).await.is_none());
    }
    let (received, sent) = tokio::join!(client.receive(16), send(&hub, "one"));

    assert_eq!((bodies(&received), sent.status), (vec!["one".to_owned()], 204));
}

async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::time::timeout(Duration::from_millis(50), future).await.ok()
}

#[tokio::test]
async fn what_a_session_held_is_delivered_again_in_order_and_marked() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    for body in ["one", "two", "three"] {
        send(&hub, body).await;
    }
    let first = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let held = first.receive(2).await;
    first.settle(&held[0], Settlement::Complete);
    waiting(&hub, 2).await;
    first.disconnect().await;

    let second = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let received = second.receive(16).await;

    assert_eq!(bodies(&received), ["two", "three"]);
    assert_eq!(
        received.iter().map(|d| d.redelivered).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(received[0].message.system.get(SystemProperty::DeliveryCount), Some("0"));
}

#[tokio::test]
async fn an_abandoned_message_comes_ten_times_and_is_then_given_up() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let headers = [("iothub-ack", "negative"), ("iothub-messageid", "m-1")];
    hub.call(Method::POST, BOUND, &headers, "x").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    for count in 0..10 {
        let received = client.receive(16).await;
        assert_eq!(
            received[0].message.system.get(SystemProperty::DeliveryCount),
            Some(count.to_string().as_str())
        );
        client.settle(&received[0], Settlement::Abandon);
    }

    waiting(&hub, 0).await;
}

#[tokio::test]
async fn a_rejected_message_goes_and_a_foreign_lease_settles_nothing() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let other = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let received = client.receive(16).await;

    other.settle(&received[0], Settlement::Complete);
    client.settle(&received[0], Settlement::Reject);

    waiting(&hub, 0).await;
}

#[tokio::test]
async fn the_fifty_first_message_is_refused_until_one_expires() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    for _ in 0..50 {
        assert_eq!(send(&hub, "x").await.status, 204);
    }

    send(&hub, "y")
        .await
        .assert_error(403, "DeviceMaximumQueueDepthExceeded");
    hub.turn_clock(3601);
    let after = send(&hub, "z").await;

    assert_eq!(after.status, 204);
    assert_eq!(hub.get("/devices/d1").await.ok()["cloudToDeviceMessageCount"], 1);
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let headers = [("iothub-expiry", "2027-01-15T08:01:00.0000000Z")];
    hub.call(Method::POST, BOUND, &headers, "short").await;
    hub.turn_clock(61);
    send(&hub, "long").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    assert_eq!(bodies(&client.receive(16).await), ["long"]);
}

#[tokio::test]
async fn waiting_messages_are_purged_and_survive_a_restart_until_then() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    for body in ["one", "two", "three"] {
        send(&hub, body).await;
    }

    let hub = hub.restart().await;
    let purged = hub.call(Method::DELETE, "/devices/d1/commands", &[], "").await.ok();

    assert_eq!(
        purged,
        json!({"deviceId": "d1", "moduleId": null, "totalMessagesPurged": 3})
    );
    waiting(&hub, 0).await;
}

#[tokio::test]
async fn bad_messages_are_refused_by_name() {
    let hub = TestHub::start().await;
    hub.device("d1").await;

    let ack = hub.call(Method::POST, BOUND, &[("iothub-ack", "maybe")], "x").await;
    let expiry = hub.call(Method::POST, BOUND, &[("iothub-expiry", "soon")], "x").await;
    let large = hub.call(Method::POST, BOUND, &[], "x".repeat(64 * 1024 + 1)).await;
    let unknown = hub
        .call(Method::POST, "/devices/no/messages/devicebound", &[], "x")
        .await;

    ack.assert_error(400, "ArgumentInvalid");
    expiry.assert_error(400, "ArgumentInvalid");
    large.assert_error(413, "MessageTooLarge");
    unknown.assert_error(404, "DeviceNotFound");
}

#[tokio::test]
async fn a_late_word_about_one_delivery_does_not_settle_the_next() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let first = client.receive(16).await;
    client.settle(&first[0], Settlement::Abandon);
    let second = client.receive(16).await;

    client.settle(&first[0], Settlement::Complete);
    client.settle(&second[0], Settlement::Abandon);
    let third = client.receive(16).await;

    assert_eq!(third[0].message.system.get(SystemProperty::DeliveryCount), Some("2"));
}

/// Makes one waiting message unreadable, as a damaged disk would.
fn spoil(database: &std::path::Path, sequence: u64) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let sql = "UPDATE c2d_messages SET message = x'ff' WHERE sequence = ?1";
    let spoiled = connection.execute(sql, [i64::try_from(sequence).unwrap()]).unwrap();
    assert_eq!(spoiled, 1);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_back_is_removed_and_what_waits_behind_it_is_delivered() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "spoiled").await;
    send(&hub, "good").await;
    spoil(&hub.directory.path().join("data/hub.db"), 1);
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    let received = client.receive(16).await;

    assert_eq!(bodies(&received), ["good"]);
    waiting(&hub, 1).await;
}

#[tokio::test]
async fn a_record_that_cannot_be_read_back_does_not_stop_others_from_expiring() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("hub.db");
    let repository = Repository::open(&database).unwrap();
    let (start, device) = (Timestamp::from_unix_millis(START), identity("d1").device);
    let entry = Entry::new(identity("d1"), start).unwrap();
    let written = repository
        .change(move |transaction| transaction.put_entry(&entry))
        .await;
    written.unwrap();
    let (now, scope) = (Arc::new(AtomicI64::new(START)), Scope::new());
    let told = Arc::clone(&now);
    let clock = Clock::new(move || Timestamp::from_unix_millis(told.load(Ordering::SeqCst)));
    let bounds = QueueBounds::default();
    let notices = Notices::open(repository.clone(), clock.clone(), scope.clone(), bounds, bounds);
    let notices = notices.await.unwrap();
    let mailboxes = Mailboxes::open(repository.clone(), Signals::default(), clock, scope, notices, bounds).unwrap();
    for _ in 0..3 {
        mailboxes.send(device.clone(), Message::new("x")).await.unwrap();
    }
    spoil(&database, 1);

    now.fetch_add(3_601_000, Ordering::SeqCst);
    mailboxes.sweep().await.unwrap();

    let left = repository.read(move |view| view.waiting_count(&device)).await.unwrap();
    assert_eq!((left, mailboxes.damaged()), (0, 1));
}

#[tokio::test]
async fn properties_that_a_device_could_not_get_are_refused_with_what_is_wrong() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let slashes = "/".repeat(30_000);

    let long = hub
        .call(Method::POST, BOUND, &[("iothub-app-k", slashes.as_str())], "x")
        .await;
    let accents = hub
        .call(
            Method::POST,
            BOUND,
            &[("iothub-app-k", "žluť 💧"), ("iothub-correlationid", "ünï")],
            "x",
        )
        .await;

    long.assert_error(413, "MessageTooLarge");
    assert_eq!(accents.status, 204);
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let got = client.receive(1).await;
    assert_eq!(got[0].message.properties.get("k"), Some(Some("žluť 💧")));
    assert_eq!(got[0].message.system.get(SystemProperty::CorrelationId), Some("ünï"));
}

#[tokio::test]
async fn a_message_id_has_the_published_form_or_is_refused_by_its_name() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let longest = "x".repeat(128);
    let send = async |id: &str| hub.call(Method::POST, BOUND, &[("iothub-messageid", id)], "x").await;

    for id in ["a-:.+%_#*?!(),=@;$'1", longest.as_str(), ""] {
        assert_eq!(send(id).await.status, 204, "{id}");
    }
    for (id, wrong) in [
        (format!("{longest}x").as_str(), "129 characters"),
        ("a b", "position 2"),
        ("a/b", "`/`"),
    ] {
        let refused = send(id).await;
        refused.assert_error(400, "ArgumentInvalid");
        let text = refused.json()["Message"].to_string();
        assert!(text.contains("`iothub-messageid`") && text.contains(wrong), "{text}");
    }

    assert_eq!(hub.get("/devices/d1").await.ok()["cloudToDeviceMessageCount"], 3);
}

#[tokio::test]
async fn the_newest_connection_wins_and_nothing_stays_locked_by_the_loser() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    send(&hub, "two").await;
    let loser = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let lost = loser.receive(16).await;

    // The loser's connection hangs: its end comes only after the newer one has asked.
    let winner = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let won = winner.receive(16).await;
    let late = loser.settle_durably(&lost[0], Settlement::Complete).await;
    loser.disconnect().await;
    let settled = winner.settle_durably(&won[1], Settlement::Complete).await;

    assert_eq!(bodies(&won), ["one", "two"]);
    assert!(won.iter().all(|delivery| delivery.redelivered));
    assert!(!late && settled);
    waiting(&hub, 1).await;
    winner.disconnect().await;
    let next = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let left = next.receive(16).await;
    assert_eq!(bodies(&left), ["one"]);
    assert_eq!(left[0].message.system.get(SystemProperty::DeliveryCount), Some("0"));
}

#[tokio::test]
async fn one_without_a_session_holds_a_message_for_the_time_of_its_lock() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    let client = hub.connect("d1", Subscriptions::NONE).await;

    let first = client.take(None).await.unwrap();
    let locked = client.take(None).await;
    hub.turn_clock(60);
    let late = client.settle_durably(&first, Settlement::Complete).await;
    let second = client.take(Some(1)).await.unwrap();
    hub.turn_clock(4);
    let in_time = client.settle_durably(&second, Settlement::Abandon).await;
    let third = client.take(Some(1000)).await.unwrap();
    hub.turn_clock(299);
    let still_locked = client.take(None).await;
    let done = client.settle_durably(&third, Settlement::Complete).await;

    assert!(locked.is_none() && still_locked.is_none());
    assert!(!late && in_time && done);
    let counts = [&first, &second, &third].map(|it| it.message.system.get(SystemProperty::DeliveryCount));
    // A lock that is over counts nothing, being abandoned does.
    assert_eq!(counts, [Some("0"), Some("0"), Some("1")]);
    assert_eq!(client.take(None).await.map(|_| ()), None);
    assert!(!client.settle_durably(&third, Settlement::Complete).await);
}

#[tokio::test]
async fn a_session_that_waits_gets_what_a_lock_gives_back_and_a_token_from_before_a_restart_names_nothing() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let taken = client.take(None).await.unwrap();

    let (received, ()) = tokio::join!(client.receive(16), async { hub.turn_clock(60) });
    drop(client);
    let hub = hub.restart().await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let again = client.receive(16).await;

    assert_eq!(bodies(&received), ["one"]);
    for old in [&taken, &received[0]] {
        assert!(!client.settle_durably(old, Settlement::Complete).await);
    }
    assert!(client.settle_durably(&again[0], Settlement::Complete).await);
}

#[tokio::test]
async fn what_is_released_comes_again_uncounted_and_what_is_held_does_not_expire() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "one").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    let first = client.receive(16).await;
    client.settle(&first[0], Settlement::Release);
    let second = client.receive(16).await;
    hub.turn_clock(3601);
    hub.hub.backend().mailboxes().sweep().await.unwrap();
    let done = client.settle_durably(&second[0], Settlement::Complete).await;

    assert_eq!(second[0].message.system.get(SystemProperty::DeliveryCount), Some("0"));
    assert!(second[0].redelivered && done);
    waiting(&hub, 0).await;
}

#[tokio::test]
async fn the_bounds_are_those_of_the_configuration_and_none_beyond_the_published_is_taken() {
    let bounds = QueueBounds {
        time_to_live: Duration::from_secs(60),
        lock: Duration::from_secs(5),
        max_deliveries: 1,
    };
    let hub = TestHub::start_with(|config| config.c2d = bounds).await;
    hub.device("d1").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;

    send(&hub, "abandoned").await;
    let abandoned = client.take(None).await.unwrap();
    hub.turn_clock(5);
    let late = client.settle_durably(&abandoned, Settlement::Abandon).await;
    let abandoned = client.take(None).await.unwrap();
    client.settle_durably(&abandoned, Settlement::Abandon).await;
    send(&hub, "old").await;
    hub.turn_clock(60);
    let nothing = client.take(None).await;

    assert!(!late && nothing.is_none());
    let beyond = [
        QueueBounds {
            time_to_live: Duration::from_secs(59),
            ..bounds
        },
        QueueBounds {
            lock: Duration::from_secs(301),
            ..bounds
        },
        QueueBounds {
            max_deliveries: 101,
            ..bounds
        },
    ];
    for (bounds, named) in beyond
        .into_iter()
        .zip(["time to live of feedback", "lock of feedback", "deliveries"])
    {
        let directory = tempfile::tempdir().unwrap();
        let mut config = HubConfig::new(directory.path(), "hub.test");
        config.feedback = bounds;
        let refused = Hub::open(config).await.unwrap_err().to_string();
        assert!(refused.contains(named) && refused.contains("give "), "{refused}");
    }
}
