//! Devices over HTTPS, at the front that the gateway has for them: rows 13, 40 and 70 to 74 of `hub-device-protocols.md` §8.

use bytes::Bytes;
use holm_gateway::{Gateway, Profile, Settlement, Subscriptions};
use holm_hub::HubBackend;
use holm_net::{Peer, Scope};
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::support::{Reply, TestHub};

const EVENTS: &str = "/devices/d1/messages/events?api-version=2021-04-12";
const BOUND: &str = "/devices/d1/messages/devicebound";
const VERSION: &str = "?api-version=2020-09-30";

/// The HTTPS front of a hub, as its devices see it.
struct Front<'h> {
    hub: &'h TestHub,
    gateway: Gateway<HubBackend>,
}

impl<'h> Front<'h> {
    fn of(hub: &'h TestHub) -> Self {
        let backend = hub.hub.backend().clone();
        let directory = hub.hub.signals().directory().clone();
        let gateway = Gateway::new(backend.into(), directory, Profile::hub(), Scope::new());
        Self { hub, gateway }
    }

    /// A request with exactly these headers.
    async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = self.gateway.answer_device(request, &Peer::default()).await;
        let (head, body) = answer.expect("the path is one of devices").into_parts();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// A request with the token of an identity.
    async fn call(
        &self,
        identity: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let token = self.hub.device_token(identity).await;
        let all: Vec<_> = headers
            .iter()
            .copied()
            .chain([("authorization", token.as_str())])
            .collect();
        self.raw(method, path, &all, body).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.call("d1", Method::POST, EVENTS, headers, body).await
    }

    async fn fetch(&self) -> Reply {
        self.call("d1", Method::GET, &format!("{BOUND}{VERSION}"), &[], "")
            .await
    }

    async fn delete(&self, lock: &str, more: &str) -> u16 {
        let path = format!("{BOUND}/{lock}{VERSION}{more}");
        self.call("d1", Method::DELETE, &path, &[("if-match", "nonsense")], "")
            .await
            .status
    }
}

/// The lock of a fetched message, as SDKs read it.
fn lock(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let etag = reply.header("etag").unwrap();
    etag.strip_prefix('"')
        .and_then(|etag| etag.strip_suffix('"'))
        .unwrap()
        .to_owned()
}

async fn send(hub: &TestHub, ack: &str, id: &str, body: &'static str) {
    let headers = [("iothub-ack", ack), ("iothub-messageid", id), ("iothub-app-k", "v")];
    let sent = hub
        .call(Method::POST, "/devices/d1/messages/deviceBound", &headers, body)
        .await;
    assert_eq!(sent.status, 204);
}

async fn events(hub: &TestHub) -> Vec<Value> {
    let reply = hub.get("/holm/v1/events?source=Telemetry").await;
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_event_is_in_the_log_when_it_is_answered() {
    // Row 70.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    let front = Front::of(&hub);

    let headers = [
        ("IoTHub-MessageId", "m-1"),
        ("iothub-contenttype", "application/json"),
        ("iothub-app-Level", "high"),
        ("iothub-to", "/devices/d1/messages/events"),
    ];
    let posted = front.post(&headers, r#"{"t":1}"#).await;
    let path = "/devices/d1/modules/m/messages/events?api-version=2020-09-30";
    let of_module = front.call("d1/m", Method::POST, path, &[], "").await;

    assert_eq!((posted.status, of_module.status), (204, 204), "{:?}", posted.body);
    let all = events(&hub).await;
    let [first, second] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!(first["body"], json!({"t": 1}));
    assert_eq!(first["properties"], json!({"level": "high"}));
    assert_eq!(first["systemProperties"]["messageId"], "m-1");
    assert_eq!(first["systemProperties"]["contentType"], "application/json");
    assert_eq!(
        (&first["connectionDeviceId"], &first["connectionModuleId"]),
        (&json!("d1"), &Value::Null)
    );
    assert_eq!(second["connectionModuleId"], "m");
}

#[tokio::test]
async fn a_batch_is_taken_whole_or_not_at_all() {
    // Row 71.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let front = Front::of(&hub);
    let batch = [("content-type", "application/vnd.microsoft.iothub.json")];

    let bad = r#"[{"body":"aGVsbG8="},{"body":"%%"}]"#;
    front.post(&batch, bad).await.assert_error(400, "ArgumentInvalid");
    let half = "x".repeat(128 * 1024);
    let large = format!(r#"[{{"body":"{half}","base64Encoded":false}},{{"body":"{half}1","base64Encoded":false}}]"#);
    front.post(&batch, large).await.assert_error(413, "MessageTooLarge");
    let none = events(&hub).await;
    let good = r#"[{"body":"aGVsbG8=","properties":{"iothub-app-k":"v"}},{"body":"hi","base64Encoded":false}]"#;
    let taken = front.post(&batch, good).await;

    assert!(none.is_empty(), "{none:?}");
    assert_eq!(taken.status, 204);
    let all = events(&hub).await;
    let bodies: Vec<_> = all.iter().map(|event| event["body"].clone()).collect();
    assert_eq!(bodies, [json!("hello"), json!("hi")]);
    assert_eq!(all[0]["properties"], json!({"k": "v"}));
}

#[tokio::test]
async fn an_event_of_256_kib_is_taken_and_one_byte_more_is_not() {
    // Row 40.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let front = Front::of(&hub);

    let fits = front.post(&[], vec![b'x'; 256 * 1024]).await;
    let counted = front.post(&[("iothub-app-k", "v")], vec![b'x'; 256 * 1024]).await;
    let body = front.post(&[], vec![b'x'; 256 * 1024 + 1]).await;

    assert_eq!(fits.status, 204);
    counted.assert_error(413, "MessageTooLarge");
    body.assert_error(413, "MessageTooLarge");
    assert_eq!(events(&hub).await.len(), 1);
}

#[tokio::test]
async fn each_request_is_proved_anew_and_for_its_own_identity() {
    // Row 13.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let front = Front::of(&hub);
    let token = hub.device_token("d1").await;
    let with = |token: &str| [("authorization".to_owned(), token.to_owned())];
    let post = async |path: &str, headers: &[(String, String)]| {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        front.raw(Method::POST, path, &headers, "x").await
    };

    assert_eq!(post(EVENTS, &with(&token)).await.status, 204);
    let others = post("/devices/d2/messages/events?api-version=2021-04-12", &with(&token)).await;
    others.assert_error(401, "IotHubUnauthorized");
    post(EVENTS, &[]).await.assert_error(401, "IotHubUnauthorized");
    post(EVENTS, &with("nonsense"))
        .await
        .assert_error(401, "IotHubUnauthorized");
    post("/devices/d1/messages/events", &with(&token))
        .await
        .assert_error(400, "InvalidProtocolVersion");
    let policy = hub.token_of("device").await;
    assert_eq!(post(EVENTS, &with(&policy)).await.status, 204);
    let policy = hub.token_of("service").await;
    post(EVENTS, &with(&policy))
        .await
        .assert_error(401, "IotHubUnauthorized");

    let mut document = hub.get("/devices/d1").await.ok();
    document["status"] = json!("disabled");
    hub.update("/devices/d1", "\"*\"", document).await.ok();
    post(EVENTS, &with(&token))
        .await
        .assert_error(401, "IotHubUnauthorized");
    assert_eq!(events(&hub).await.len(), 2);
}

#[tokio::test]
async fn a_message_is_fetched_with_its_lock_and_completed_once() {
    // Rows 72 and 73.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.device("d2").await;
    let front = Front::of(&hub);

    let empty = front.fetch().await;
    send(&hub, "full", "m-1", "hello").await;
    let fetched = front.fetch().await;
    let held = front.fetch().await;
    let lock = lock(&fetched);
    let path = format!("/devices/d2/messages/devicebound/{lock}{VERSION}");
    let foreign = front.call("d2", Method::DELETE, &path, &[], "").await;
    let (done, again) = (front.delete(&lock, "").await, front.delete(&lock, "").await);

    assert_eq!((empty.status, held.status), (204, 204));
    assert_eq!(fetched.body, "hello");
    for (name, value) in [
        ("iothub-messageid", "m-1"),
        ("iothub-ack", "full"),
        ("iothub-deliverycount", "0"),
        ("iothub-app-k", "v"),
        ("iothub-to", "/devices/d1/messages/devicebound"),
    ] {
        assert_eq!(fetched.header(name), Some(value), "{name}");
    }
    assert!(fetched.header("iothub-sequencenumber").is_some());
    foreign.assert_error(412, "DeviceMessageLockLost");
    assert_eq!((done, again), (204, 412));
    assert_eq!(front.delete("1-00", "").await, 412);
    assert_eq!(hub.get("/devices/d1").await.ok()["cloudToDeviceMessageCount"], 0);
}

#[tokio::test]
async fn both_spellings_of_reject_end_in_the_dead_letters_and_an_abandoned_message_comes_again() {
    // Row 74.
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let front = Front::of(&hub);
    for id in ["m-1", "m-2", "m-3"] {
        send(&hub, "negative", id, "x").await;
    }

    let first = lock(&front.fetch().await);
    assert_eq!(front.delete(&first, "&reject").await, 204);
    let second = lock(&front.fetch().await);
    assert_eq!(front.delete(&second, "&%3Freject=true").await, 204);
    let third = front.fetch().await;
    let path = format!("{BOUND}/{}/abandon{VERSION}", lock(&third));
    let abandoned = front.call("d1", Method::POST, &path, &[], "\0").await;
    let fourth = front.fetch().await;

    assert_eq!(abandoned.status, 204);
    let told = |reply: &Reply| reply.header("iothub-messageid").map(str::to_owned);
    assert_eq!((told(&third), told(&fourth)), (Some("m-3".into()), Some("m-3".into())));
    assert_eq!(fourth.header("iothub-deliverycount"), Some("1"));
    hub.turn_clock(15);
    let notices = hub.hub.backend().notices();
    let kind = holm_hub::notices::NoticeKind::Feedback;
    let reader = holm_hub::notices::ReaderId::next();
    let feedback = notices.try_receive(kind, reader).await.unwrap().unwrap();
    let records: Vec<Value> = serde_json::from_slice(&feedback.body).unwrap();
    let rejected: Vec<_> = records
        .iter()
        .map(|it| (&it["originalMessageId"], &it["statusCode"]))
        .collect();
    let status = json!("Rejected");
    assert_eq!(rejected, [(&json!("m-1"), &status), (&json!("m-2"), &status)]);
}

#[tokio::test]
async fn a_lock_that_is_over_gives_the_message_back_and_means_nothing_any_more() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let front = Front::of(&hub);
    send(&hub, "none", "m-1", "x").await;

    let wish = [("iothub-messagelocktimeout", "180")];
    let first = front
        .call("d1", Method::GET, &format!("{BOUND}{VERSION}"), &wish, "")
        .await;
    hub.turn_clock(179);
    let held = front.fetch().await.status;
    hub.turn_clock(1);
    let second = front
        .call(
            "d1",
            Method::GET,
            &format!("{BOUND}{VERSION}&iothub-messagelocktimeout=60"),
            &[],
            "",
        )
        .await;
    let (late, good) = (
        front.delete(&lock(&first), "").await,
        front.delete(&lock(&second), "").await,
    );
    let bad = front
        .call(
            "d1",
            Method::GET,
            &format!("{BOUND}{VERSION}&iothub-messagelocktimeout=x"),
            &[],
            "",
        )
        .await;

    assert_eq!(held, 204);
    assert_eq!((late, good), (412, 204));
    bad.assert_error(400, "ArgumentInvalid");
}

#[tokio::test]
async fn what_a_connection_holds_is_not_fetched_and_what_was_fetched_reaches_no_connection() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let front = Front::of(&hub);
    send(&hub, "none", "m-1", "one").await;
    send(&hub, "none", "m-2", "two").await;

    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    let fetched = front.fetch().await;
    let received = client.receive(16).await;
    let nothing = front.fetch().await.status;
    client.disconnect().await;
    let given_back = front.fetch().await;

    assert_eq!((fetched.body.as_ref(), nothing), (b"one".as_slice(), 204));
    let bodies: Vec<_> = received.iter().map(|delivery| delivery.message.body.clone()).collect();
    assert_eq!(bodies, ["two"]);
    assert_eq!(given_back.body, "two");
    let client = hub.connect("d1", Subscriptions::CLOUD_TO_DEVICE).await;
    assert_eq!(front.delete(&lock(&fetched), "").await, 204);
    assert_eq!(front.delete(&lock(&given_back), "").await, 204);
    send(&hub, "none", "m-3", "three").await;
    let received = client.receive(16).await;
    assert!(client.settle_durably(&received[0], Settlement::Complete).await);
}

#[tokio::test]
async fn another_method_is_refused_with_the_right_one_and_modules_have_no_mail() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    hub.put("/devices/d1/modules/m", json!({})).await.ok();
    let front = Front::of(&hub);

    let refused = front.call("d1", Method::PUT, EVENTS, &[], "").await;
    let path = format!("/devices/d1/modules/m/messages/devicebound{VERSION}");
    let module = front.call("d1/m", Method::GET, &path, &[], "").await;

    assert_eq!(refused.status, 405);
    assert!(refused.json()["Message"].as_str().unwrap().contains("use POST"));
    assert_eq!(module.status, 204);
}
