//! Feedback and notifications of files over HTTPS: `hub-service-api.md` §2.2, §5.3, rows 74 to 76.

use bytes::Bytes;
use holm_gateway::Settlement;
use holm_gateway::{Delivery, Subscriptions};
use holm_hub::notices::{NoticeKind, ReaderId};
use holm_model::SystemProperty;
use hyper::Method;
use serde_json::{Value, json};

use crate::support::{Reply, TestHub};

const BOUND: &str = "/devices/d1/messages/deviceBound";
const FEEDBACK: &str = "/messages/serviceBound/feedback";

async fn send(hub: &TestHub, headers: &[(&str, &str)], body: &'static str) -> Reply {
    hub.call(Method::POST, BOUND, headers, body).await
}

/// A hub where a message was sent with the demand for feedback, and completed, 15 s ago.
async fn told() -> TestHub {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    send(&hub, &[("iothub-ack", "full"), ("iothub-messageid", "m-1")], "x").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let delivery: Delivery = client.receive(1).await.remove(0);
    assert!(client.settle_durably(&delivery, Settlement::Complete).await);
    client.disconnect().await;
    hub.turn_clock(15);
    hub
}

fn lock(reply: &Reply) -> String {
    reply.header("etag").unwrap().trim_matches('"').to_owned()
}

async fn delete(hub: &TestHub, lock: &str) -> Reply {
    hub.call(Method::DELETE, &format!("{FEEDBACK}/{lock}"), &[], "").await
}

async fn abandon(hub: &TestHub, lock: &str) -> Reply {
    let path = format!("{FEEDBACK}/{lock}/abandon");
    hub.call(Method::POST, &path, &[], "").await
}

#[tokio::test]
async fn feedback_is_received_once_under_a_lock_and_gone_when_completed() {
    let hub = told().await;

    let first = hub.get(FEEDBACK).await;
    let locked = hub.get("/messages/servicebound/Feedback/").await;
    let done = delete(&hub, &lock(&first)).await;
    hub.turn_clock(60);
    let after = hub.get(FEEDBACK).await;
    let twice = delete(&hub, &lock(&first)).await;

    assert_eq!(
        (first.status, locked.status, done.status, after.status),
        (200, 204, 204, 204)
    );
    let kind = "application/vnd.microsoft.iothub.feedback.json";
    assert_eq!(first.header("content-type"), Some(kind));
    assert_eq!(first.header("iothub-deliverycount"), Some("0"));
    assert_eq!(first.json()[0]["statusCode"], "Success");
    assert_eq!(first.json()[0]["originalMessageId"], "m-1");
    twice.assert_error(412, "DeviceMessageLockLost");
}

#[tokio::test]
async fn abandoned_feedback_comes_again_and_a_lock_that_is_over_is_412() {
    let hub = told().await;

    let first = hub.get(FEEDBACK).await;
    let abandoned = abandon(&hub, &lock(&first)).await;
    let second = hub.get(FEEDBACK).await;
    hub.turn_clock(60);
    let late = abandon(&hub, &lock(&second)).await;
    let third = hub.get(FEEDBACK).await;
    let nonsense = delete(&hub, "nonsense").await;
    let unknown = delete(&hub, "00000000-0000-4000-8000-000000000000").await;

    assert_eq!((abandoned.status, third.status), (204, 200));
    assert_eq!(third.header("iothub-deliverycount"), Some("1"));
    assert_eq!(third.body, first.body);
    for lost in [late, nonsense, unknown] {
        lost.assert_error(412, "DeviceMessageLockLost");
    }
}

#[tokio::test]
async fn who_prefers_to_wait_is_answered_when_something_comes() {
    let hub = TestHub::start().await;
    let notices = hub.hub.backend().notices();
    let path = "/messages/serviceBound/filenotifications";
    let body = Bytes::from_static(br#"{"deviceId":"d1"}"#);

    let waiting = hub.call(Method::GET, path, &[("prefer", "wait=60")], "");
    let (told, put) = tokio::join!(waiting, notices.put(NoticeKind::FileNotification, body.clone()));
    let nothing = hub.call(Method::GET, path, &[("prefer", "wait=0")], "").await;
    let wrong = hub.call(Method::GET, path, &[("prefer", "wait=long")], "").await;

    put.unwrap();
    assert_eq!((told.status, &told.body), (200, &body));
    assert_eq!(nothing.status, 204);
    wrong.assert_error(400, "ArgumentInvalid");
    let done = hub
        .call(Method::DELETE, &format!("{path}/{}", lock(&told)), &[], "")
        .await;
    assert_eq!(done.status, 204);
}

#[tokio::test]
async fn feedback_is_for_those_who_may_read_it_and_by_the_published_methods() {
    let hub = told().await;
    let token = hub.token_of("registryReadWrite").await;
    let path = format!("{FEEDBACK}?api-version=2021-04-12");

    let forbidden = hub
        .raw(Method::GET, &path, &[("authorization", &token)], Bytes::new())
        .await;
    let posted = hub.post(FEEDBACK, json!({})).await;
    let unknown = hub.get("/messages/serviceBound/other").await;

    assert_eq!((forbidden.status, posted.status, unknown.status), (401, 405, 404));
    assert_eq!(hub.get(FEEDBACK).await.status, 200, "nobody else has it");
}

#[tokio::test]
async fn who_looks_at_feedback_sees_what_is_kept_and_what_comes_and_takes_nothing() {
    let hub = told().await;
    let notices = hub.hub.backend().notices();
    let mut follower = notices.follow(NoticeKind::Feedback, false);
    let mut from_now = notices.follow(NoticeKind::Feedback, true);

    let listed = hub.get("/holm/v1/feedback?device=d1").await;
    let of_other = hub.get("/holm/v1/feedback?device=d2").await;
    let kept = follower.next().await.unwrap();
    let newer = br#"{"deviceId":"d2"}"#;
    notices
        .put(NoticeKind::Feedback, Bytes::from_static(newer))
        .await
        .unwrap();

    assert_eq!(listed.status, 200);
    let line: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(line["originalMessageId"], "m-1");
    assert_eq!((of_other.status, of_other.body.len()), (200, 0));
    assert_eq!(serde_json::from_slice::<Value>(&kept).unwrap(), line);
    assert_eq!(&follower.next().await.unwrap()[..], newer);
    assert_eq!(&from_now.next().await.unwrap()[..], newer);
    let batch = notices
        .try_receive(NoticeKind::Feedback, ReaderId::next())
        .await
        .unwrap();
    assert_eq!(batch.map(|batch| batch.sequence), Some(1));
    hub.get("/holm/v1/feedback?max=1")
        .await
        .assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn one_who_looks_and_falls_behind_reads_on_from_the_disk() {
    let hub = TestHub::start().await;
    let notices = hub.hub.backend().notices();
    let mut follower = notices.follow(NoticeKind::Feedback, true);

    for number in 0..600 {
        let body = Bytes::from(json!({ "number": number }).to_string());
        notices.put(NoticeKind::Feedback, body).await.unwrap();
    }

    for number in 0..600 {
        let seen: Value = serde_json::from_slice(&follower.next().await.unwrap()).unwrap();
        assert_eq!(seen["number"], number);
    }
}

#[tokio::test]
async fn every_published_header_of_a_message_reaches_its_device() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let headers = [
        ("IoTHub-MessageId", "m-1"),
        ("iothub-correlationid", "c-1"),
        ("iothub-userid", "u-1"),
        ("iothub-ack", "Full"),
        ("iothub-expiry", "2027-01-15T09:30:00Z"),
        ("iothub-contenttype", "application/json"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-app-Level", "high"),
        ("content-type", "application/octet-stream"),
    ];

    let path = "/Devices/d1/Messages/DeviceBound/";
    let sent = hub.call(Method::POST, path, &headers, r#"{"a":1}"#).await;
    send(&hub, &[("content-type", "application/octet-stream")], "bytes").await;
    send(&hub, &[("content-type", "text/plain")], "text").await;
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let got = client.receive(3).await;

    assert_eq!(sent.status, 204);
    let of = |index: usize, name| got[index].message.system.get(name);
    for (name, value) in [
        (SystemProperty::MessageId, "m-1"),
        (SystemProperty::CorrelationId, "c-1"),
        (SystemProperty::UserId, "u-1"),
        (SystemProperty::Ack, "Full"),
        (SystemProperty::AbsoluteExpiryTime, "2027-01-15T09:30:00.0000000Z"),
        (SystemProperty::ContentType, "application/json"),
        (SystemProperty::ContentEncoding, "utf-8"),
        (SystemProperty::To, "/devices/d1/messages/devicebound"),
    ] {
        assert_eq!(of(0, name), Some(value), "{name:?}");
    }
    // Names of headers have no case, so a property's name comes as HTTP libraries give it.
    assert_eq!(got[0].message.properties.get("level"), Some(Some("high")));
    assert_eq!(of(1, SystemProperty::ContentType), None);
    assert_eq!(of(2, SystemProperty::ContentType), Some("text/plain"));
}
