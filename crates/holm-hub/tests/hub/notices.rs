//! What back ends are told once: `hub-service-api.md` §5.3, row 75; `hub-device-protocols.md` §8 row 56.

use std::time::Duration;

use bytes::Bytes;
use holm_gateway::{Settlement, Subscriptions};
use holm_hub::notices::{Notice, NoticeKind, Notices, ReaderId};
use holm_hub::storage::Repository;
use holm_hub::{Clock, QueueBounds};
use holm_model::ErrorCode;
use holm_net::Scope;
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{START, TestHub};

const BOUND: &str = "/devices/d1/messages/deviceBound";
const FEEDBACK: NoticeKind = NoticeKind::Feedback;
const FILES: NoticeKind = NoticeKind::FileNotification;

fn notices(hub: &TestHub) -> &Notices {
    hub.hub.backend().notices()
}

async fn put(hub: &TestHub, kind: NoticeKind, count: usize) {
    for number in 0..count {
        let body = json!({ "number": number }).to_string();
        notices(hub).put(kind, Bytes::from(body)).await.unwrap();
    }
}

async fn send(hub: &TestHub, ack: &str, id: &str) {
    let headers = [("iothub-ack", ack), ("iothub-messageid", id)];
    let sent = hub.call(Method::POST, BOUND, &headers, "x").await;
    assert_eq!(sent.status, 204);
}

/// What one reader is told once the batch is due, by message and status; all of it is completed.
async fn told(hub: &TestHub) -> Vec<(String, String)> {
    hub.turn_clock(15);
    let reader = ReaderId::next();
    let mut told = Vec::new();
    while let Some(batch) = notices(hub).try_receive(FEEDBACK, reader).await.unwrap() {
        let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        let records = records(&batch);
        told.extend(
            records
                .iter()
                .map(|it| (text(it, "originalMessageId"), text(it, "statusCode"))),
        );
        let settled = notices(hub).settle(FEEDBACK, batch.lease, Settlement::Complete).await;
        settled.unwrap();
    }
    told
}

fn records(batch: &Notice) -> Vec<Value> {
    serde_json::from_slice(&batch.body).unwrap()
}

fn pair(id: &str, status: &str) -> (String, String) {
    (id.to_owned(), status.to_owned())
}

#[tokio::test]
async fn a_completed_message_is_told_as_success_to_who_asked_and_to_nobody_else() {
    let hub = TestHub::start().await;
    let document = hub.device("d1").await;
    for (ack, id) in [
        ("none", "m-0"),
        ("positive", "m-1"),
        ("negative", "m-2"),
        ("full", "m-3"),
    ] {
        send(&hub, ack, id).await;
    }
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    for delivery in client.receive(4).await {
        assert!(client.settle_durably(&delivery, Settlement::Complete).await);
    }
    hub.turn_clock(15);

    let batch = notices(&hub)
        .try_receive(FEEDBACK, ReaderId::next())
        .await
        .unwrap()
        .unwrap();

    assert_eq!(batch.content_type, "application/vnd.microsoft.iothub.feedback.json");
    let record = |id: &str| {
        json!({
            "originalMessageId": id,
            "description": "Success",
            "deviceGenerationId": document["generationId"],
            "deviceId": "d1",
            "enqueuedTimeUtc": "2027-01-15T08:00:00.0000000Z",
            "statusCode": "Success",
        })
    };
    assert_eq!(records(&batch), [record("m-1"), record("m-3")]);
}

#[tokio::test]
async fn every_other_end_of_a_message_is_told_by_its_name_also_after_a_power_cut() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, "negative", "late").await;
    hub.turn_clock(3600);
    hub.hub.backend().mailboxes().sweep().await.unwrap();
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    send(&hub, "negative", "refused").await;
    client
        .settle_durably(&client.receive(1).await[0], Settlement::Reject)
        .await;
    send(&hub, "full", "tried").await;
    for _ in 0..10 {
        client
            .settle_durably(&client.receive(1).await[0], Settlement::Abandon)
            .await;
    }
    send(&hub, "full", "thrown-away").await;
    hub.call(Method::DELETE, "/devices/d1/commands", &[], "").await.ok();
    send(&hub, "positive", "not-told").await;
    hub.call(Method::DELETE, "/devices/d1/commands", &[], "").await.ok();
    drop(client);

    let hub = hub.cut_power().await;

    let expected = [
        pair("late", "Expired"),
        pair("refused", "Rejected"),
        pair("tried", "DeliveryCountExceeded"),
        pair("thrown-away", "Purged"),
    ];
    assert_eq!(told(&hub).await, expected);
    assert_eq!(told(&hub).await, [], "each is told once");
}

#[tokio::test]
async fn a_batch_has_at_most_64_records_and_its_lock_ends_by_the_clock() {
    let hub = TestHub::start().await;
    put(&hub, FEEDBACK, 70).await;
    let (first, second) = (ReaderId::next(), ReaderId::next());

    let full = notices(&hub).receive(FEEDBACK, first).await.unwrap();
    let early = notices(&hub).try_receive(FEEDBACK, second).await.unwrap();
    hub.turn_clock(15);
    let rest = notices(&hub).receive(FEEDBACK, second).await.unwrap();
    hub.turn_clock(45);
    let late = notices(&hub).settle(FEEDBACK, full.lease, Settlement::Complete).await;
    let again = notices(&hub).receive(FEEDBACK, second).await.unwrap();

    assert_eq!((records(&full).len(), early, records(&rest).len()), (64, None, 6));
    assert_eq!(late.unwrap_err().code, ErrorCode::DeviceMessageLockLost);
    assert_eq!((again.body, again.deliveries), (full.body, 0));
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_and_one_that_gives_up_holds_nothing() {
    let hub = TestHub::start().await;
    let receiving = || notices(&hub).receive(FILES, ReaderId::next());
    let mut given_up = Box::pin(receiving());
    let nothing = tokio::time::timeout(Duration::from_millis(50), &mut given_up).await;
    drop(given_up);

    let (received, ()) = tokio::join!(receiving(), put(&hub, FILES, 1));

    assert!(nothing.is_err());
    let received = received.unwrap();
    assert_eq!(&received.body[..], br#"{"number":0}"#);
    let kind = "application/vnd.microsoft.iothub.filenotification.json";
    assert_eq!(received.content_type, kind);
}

#[tokio::test]
async fn a_notice_that_no_reader_could_take_is_not_put() {
    let hub = TestHub::start().await;
    let put = async |body: String| notices(&hub).put(FILES, body.into()).await.unwrap_err().code;

    let text = put("no JSON".to_owned()).await;
    let large = put(format!("\"{}\"", "x".repeat(64 * 1024))).await;

    assert_eq!((text, large), (ErrorCode::ArgumentInvalid, ErrorCode::MessageTooLarge));
    assert_eq!(notices(&hub).waiting(FILES), 0);
}

#[tokio::test]
async fn a_kind_does_not_see_or_settle_the_other() {
    let hub = TestHub::start().await;
    put(&hub, FILES, 1).await;
    hub.turn_clock(15);
    let reader = ReaderId::next();

    let file = notices(&hub).receive(FILES, reader).await.unwrap();
    let foreign = notices(&hub).settle(FEEDBACK, file.lease, Settlement::Complete).await;
    let feedback = notices(&hub).try_receive(FEEDBACK, reader).await.unwrap();

    assert!(foreign.is_err());
    assert_eq!(feedback, None);
    notices(&hub)
        .settle(FILES, file.lease, Settlement::Complete)
        .await
        .unwrap();
    assert_eq!(notices(&hub).waiting(FILES), 0);
}

#[tokio::test]
async fn what_a_reader_held_goes_to_the_next_when_it_is_gone_and_a_restart_forgets_leases_only() {
    let hub = TestHub::start().await;
    put(&hub, FILES, 3).await;
    let reader = ReaderId::next();
    let one = notices(&hub).receive(FILES, reader).await.unwrap();
    notices(&hub)
        .settle(FILES, one.lease, Settlement::Complete)
        .await
        .unwrap();
    let two = notices(&hub).receive(FILES, reader).await.unwrap();
    notices(&hub)
        .settle(FILES, two.lease, Settlement::Abandon)
        .await
        .unwrap();
    notices(&hub).receive(FILES, reader).await.unwrap();

    notices(&hub).release(reader);
    let again = notices(&hub).receive(FILES, ReaderId::next()).await.unwrap();
    let hub = hub.restart().await;
    let after = notices(&hub).receive(FILES, ReaderId::next()).await.unwrap();
    let last = notices(&hub).receive(FILES, ReaderId::next()).await.unwrap();

    assert_eq!((again.sequence, again.deliveries), (two.sequence, 1));
    assert_eq!((after.sequence, after.deliveries), (two.sequence, 1));
    assert_eq!((last.sequence, last.deliveries), (two.sequence + 1, 0));
    let lost = notices(&hub).settle(FILES, again.lease, Settlement::Complete).await;
    assert_eq!(lost.unwrap_err().code, ErrorCode::DeviceMessageLockLost);
}

#[tokio::test]
async fn what_is_too_old_and_what_cannot_be_read_back_is_given_to_nobody() {
    let hub = TestHub::start().await;
    put(&hub, FILES, 3).await;
    hub.turn_clock(1800);
    put(&hub, FILES, 2).await;
    let database = rusqlite::Connection::open(hub.directory.path().join("data/hub.db")).unwrap();
    let spoiled = database
        .execute("UPDATE notices SET body = x'ff' WHERE id = 4", [])
        .unwrap();

    hub.turn_clock(1800);
    notices(&hub).sweep().await.unwrap();
    let left = notices(&hub).waiting(FILES);
    let received = notices(&hub).receive(FILES, ReaderId::next()).await.unwrap();

    assert_eq!((spoiled, left, received.sequence), (1, 2, 5));
    assert_eq!(notices(&hub).lost(FILES), 1);
}

#[tokio::test]
async fn outcomes_that_an_earlier_release_has_kept_become_feedback() {
    let hub = TestHub::start().await;
    let database = rusqlite::Connection::open(hub.directory.path().join("data/hub.db")).unwrap();
    let kept =
        "INSERT INTO c2d_outcomes (device, generation, message_id, outcome, at) VALUES ('d1', '7', 'm', 'Success', ?1)";
    database.execute(kept, [START]).unwrap();
    drop(database);

    let hub = hub.restart().await;

    assert_eq!(told(&hub).await, [pair("m", "Success")]);
    let hub = hub.restart().await;
    assert_eq!(told(&hub).await, []);
}

#[tokio::test]
async fn feedback_on_a_thousand_messages_costs_a_handful_of_commits() {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
    let (clock, scope) = (Clock::system(), Scope::new());
    let bounds = QueueBounds::default();
    let notices = Notices::open(repository.clone(), clock, scope, bounds, bounds)
        .await
        .unwrap();
    // All that ends while one commit is on its way to the disk goes there with the next.
    let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let keeps_busy = repository.clone();
    let busy = tokio::spawn(async move {
        let change = keeps_busy.change(move |_| {
            gate.recv().ok();
            Ok(())
        });
        change.await
    });
    let before = repository.commits();

    let mut putting = JoinSet::new();
    for number in 0..1000 {
        let (notices, body) = (notices.clone(), Bytes::from(json!({ "number": number }).to_string()));
        putting.spawn(async move { notices.put(FEEDBACK, body).await });
    }
    tokio::task::yield_now().await;
    drop(open);
    let put: Vec<_> = putting.join_all().await;
    busy.await.unwrap().unwrap();
    let written = repository.commits() - before;
    let batch = notices.receive(FEEDBACK, ReaderId::next()).await.unwrap();
    notices
        .settle(FEEDBACK, batch.lease, Settlement::Complete)
        .await
        .unwrap();

    assert!(put.iter().all(Result::is_ok));
    assert!(written <= 8, "{written} commits");
    assert_eq!((records(&batch).len(), notices.waiting(FEEDBACK)), (64, 936));
    assert_eq!(repository.commits() - before - written, 1, "a batch is settled by one");
}
