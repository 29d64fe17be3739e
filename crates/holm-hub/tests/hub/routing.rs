//! Message routing, with web servers of the test's own as endpoints.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holm_gateway::Subscriptions;
use holm_model::{Message, SystemProperty};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::{Client, TestHub};

const ROUTING: &str = "/holm/v1/routing";
/// How long a test waits for a state; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// No test sends more requests before it looks.
const REQUESTS: usize = 1024;

/// A request as the web server got it, after it was answered with success.
struct Taken {
    headers: HeaderMap,
    body: Bytes,
}

/// A web server that takes messages, or not.
struct Receiver {
    url: String,
    taken: mpsc::Receiver<Taken>,
    messages: VecDeque<Value>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Answers everything so; otherwise with success.
    status: Option<u16>,
    /// A request with this text in it is answered with 400.
    poison: Option<&'static str>,
    refused: usize,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in", listener.local_addr().unwrap());
        let (sender, taken) = mpsc::channel(REQUESTS);
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, sender) = (Arc::clone(&shared), sender.clone());
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let (shared, sender) = (Arc::clone(&shared), sender.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let status = shared.lock().unwrap().answer(&body);
                        if status == 200 {
                            drop(sender.try_send(Taken {
                                headers: head.headers,
                                body,
                            }));
                        }
                        let answer = Response::builder()
                            .status(status)
                            .body(Full::new(Bytes::from("so it is")));
                        Ok::<_, Infallible>(answer.unwrap())
                    }
                });
                let io = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                    drop(connection.await);
                });
            }
        });
        Self {
            url,
            taken,
            messages: VecDeque::new(),
            state,
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    async fn request(&mut self) -> Taken {
        let taken = tokio::time::timeout(PATIENCE, self.taken.recv()).await;
        taken.expect("no request came").unwrap()
    }

    /// The next message of a batch.
    async fn message(&mut self) -> Value {
        while self.messages.is_empty() {
            let batch: Vec<Value> = serde_json::from_slice(&self.request().await.body).unwrap();
            self.messages.extend(batch);
        }
        self.messages.pop_front().unwrap()
    }

    /// The bodies of the next messages.
    async fn bodies(&mut self, count: usize) -> Vec<Value> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            bodies.push(self.message().await["Body"].clone());
        }
        bodies
    }

    fn has_nothing(&mut self) -> bool {
        self.messages.is_empty() && self.taken.try_recv().is_err()
    }
}

impl State {
    fn answer(&mut self, body: &Bytes) -> u16 {
        let is_poisoned = |poison: &str| String::from_utf8_lossy(body).contains(poison);
        let status = match (self.status, self.poison) {
            (Some(status), _) => status,
            (None, Some(poison)) if is_poisoned(poison) => 400,
            (None, _) => 200,
        };
        self.refused += usize::from(status != 200);
        status
    }
}

impl TestHub {
    async fn endpoint(&self, name: &str, receiver: &Receiver, more: Value) {
        let mut document = json!({ "kind": "webhook", "url": receiver.url });
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.put(&format!("{ROUTING}/endpoints/{name}"), document).await.ok();
    }

    async fn route(&self, name: &str, condition: &str, endpoint: &str) {
        let document = json!({ "condition": condition, "endpoint": endpoint });
        self.put(&format!("{ROUTING}/routes/{name}"), document).await.ok();
    }

    async fn fallback(&self, enabled: bool) {
        self.put(&format!("{ROUTING}/fallback"), json!({ "enabled": enabled }))
            .await
            .ok();
    }

    async fn health(&self, endpoint: &str) -> Value {
        self.get(&format!("{ROUTING}/endpoints/{endpoint}")).await.ok()["health"].clone()
    }

    /// Waits until what is told of an endpoint is so.
    async fn until(&self, endpoint: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                let health = self.health(endpoint).await;
                if is_so(&health) {
                    return health;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(health) => health,
            Err(_) => panic!("it stays {}", self.health(endpoint).await),
        }
    }

    /// The bodies of what devices sent, as readers of `events` see it.
    async fn events(&self) -> Vec<Value> {
        let reply = self.get("/holm/v1/events?source=Telemetry").await;
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].clone())
            .collect()
    }
}

impl Client<'_> {
    async fn send(&self, body: Value, level: &str) {
        let mut message = Message::new(body.to_string());
        message.system.set(SystemProperty::ContentType, "application/json");
        message.system.set(SystemProperty::ContentEncoding, "utf-8");
        message.properties.set("level", Some(level.to_owned()));
        self.publish(message).await.unwrap();
    }
}

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
async fn an_endpoint_that_is_down_delays_only_its_own_and_gets_everything_in_order_when_it_is_back() {
    let (hub, mut up, mut down) = (TestHub::start().await, Receiver::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    down.set(|state| state.status = Some(503));
    hub.endpoint("up", &up, json!({})).await;
    hub.endpoint("down", &down, json!({ "maxMessages": 7 })).await;
    for (name, to) in [("1", "up"), ("2", "down"), ("3", "events")] {
        hub.route(name, "true", to).await;
    }

    for number in 0..50 {
        device.send(json!(number), "a").await;
    }
    let all: Vec<Value> = (0..50).map(|number| json!(number)).collect();
    let others = (up.bodies(50).await, hub.events().await);
    let ill = hub.until("down", |health| health["status"] == "unhealthy").await;
    // What was taken but is not recorded yet would come again.
    hub.until("up", |health| health["waiting"] == 0).await;
    // Neither a restart nor a power cut costs what waits.
    let hub = hub.restart().await.cut_power().await;
    hub.until("down", |health| health["failures"].as_u64() > Some(0)).await;
    down.set(|state| state.status = None);

    assert_eq!(others, (all.clone(), all.clone()));
    assert_eq!((&ill["waiting"], &ill["delivered"]), (&json!(50), &json!(0)));
    assert!(ill["lastError"]["message"].as_str().unwrap().contains("503"), "{ill}");
    let mut received = Vec::new();
    while received.last() != Some(&json!(49)) {
        received.extend(down.bodies(1).await);
    }
    received.dedup();
    assert_eq!(received, all);
    let well = hub.until("down", |health| health["waiting"] == 0).await;
    assert_eq!(well["status"], "healthy");
    assert!(up.has_nothing());
}

#[tokio::test]
async fn a_message_that_can_never_be_taken_goes_to_the_dead_letters_and_holds_up_nobody() {
    let (hub, mut picky, mut dead) = (TestHub::start().await, Receiver::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    picky.set(|state| {
        state.status = Some(503);
        state.poison = Some("poison");
    });
    hub.endpoint("dead", &dead, json!({})).await;
    hub.endpoint("picky", &picky, json!({ "deadLetter": "dead" })).await;
    hub.route("all", "true", "picky").await;

    for number in 0..20 {
        let body = if number == 13 { json!("poison") } else { json!(number) };
        device.send(body, "a").await;
    }
    // All of them wait, so that they come in one batch.
    hub.until("picky", |health| {
        health["waiting"] == 20 && health["failures"].as_u64() > Some(0)
    })
    .await;
    picky.set(|state| state.status = None);

    let good: Vec<Value> = (0..20)
        .filter(|number| *number != 13)
        .map(|number| json!(number))
        .collect();
    assert_eq!(picky.bodies(19).await, good);
    let letter = dead.message().await;
    assert_eq!(letter["Body"], "poison");
    assert_eq!(letter["Properties"]["holm-dead-letter-endpoint"], "picky");
    let reason = letter["Properties"]["holm-dead-letter-reason"].as_str().unwrap();
    assert_eq!(reason, "the server answered 400 Bad Request: so it is");
    let health = hub.until("picky", |health| health["delivered"] == 19).await;
    assert_eq!((&health["rejected"], &health["deadLettered"]), (&json!(1), &json!(1)));
    assert_eq!(health["lastRejection"]["message"], reason);
}

#[tokio::test]
async fn what_waits_too_long_or_is_too_much_is_dropped_and_counted() {
    let (hub, mut away) = (TestHub::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    away.set(|state| state.status = Some(500));
    hub.endpoint(
        "away",
        &away,
        json!({ "maxWaitingSeconds": 60, "maxWaitingBytes": 1 << 20 }),
    )
    .await;
    hub.route("all", "true", "away").await;

    for number in 0..5 {
        device.send(json!(number), "a").await;
    }
    hub.until("away", |health| {
        health["waiting"] == 5 && health["failures"].as_u64() > Some(0)
    })
    .await;
    hub.turn_clock(61);
    // Until then a request may be on its way with what is old by now.
    hub.until("away", |health| health["dropped"] == 5 && health["waiting"] == 0)
        .await;
    away.set(|state| state.status = None);
    device.send(json!("young"), "a").await;
    let first = away.bodies(1).await;
    hub.until("away", |health| health["delivered"] == 1 && health["waiting"] == 0)
        .await;
    away.set(|state| state.status = Some(500));
    for number in 0..12 {
        let body = json!({ "number": number, "filler": "x".repeat(200_000) });
        device.send(body, "a").await;
    }
    // Some were dropped before the last came; what that brought above the limit is dropped at the next look.
    let many = hub
        .until("away", |health| {
            health["dropped"].as_u64() > Some(5) && health["waitingBytes"].as_u64() <= Some(1 << 20)
        })
        .await;

    assert_eq!(first, [json!("young")]);
    // The newest stay.
    assert_eq!(many["delivered"], 1);
    assert!(many["waiting"].as_u64() > Some(0), "{many}");
}

#[tokio::test]
async fn a_webhook_gets_headers_a_token_and_a_signature_and_single_messages_as_they_are() {
    let (hub, mut single) = (TestHub::start().await, Receiver::start().await);
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    let more = json!({ "perMessage": true, "token": "hunter2", "hmacKey": "sesame", "headers": { "X-Site": "north" } });
    hub.endpoint("single", &single, more).await;
    hub.route("all", "true", "single").await;
    let shown = hub.get(&format!("{ROUTING}/endpoints/single")).await.ok();

    device.send(json!({ "n": 1 }), "high").await;

    let taken = single.request().await;
    let header = |name: &str| taken.headers[name].to_str().unwrap().to_owned();
    assert_eq!(&taken.body[..], br#"{"n":1}"#);
    assert_eq!(header("authorization"), "Bearer hunter2");
    assert_eq!(
        (header("x-site").as_str(), header("content-type").as_str()),
        ("north", "application/json")
    );
    assert_eq!(
        (
            header("iothub-connectiondeviceid").as_str(),
            header("iothub-app-level").as_str()
        ),
        ("d1", "high")
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"sesame");
    let tag = ring::hmac::sign(&key, format!("{}.{{\"n\":1}}", header("holm-time")).as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(header("holm-signature"), format!("sha256={hex}"));
    assert_eq!(shown["secrets"], json!(["token", "hmacKey"]));
    assert!(!shown.to_string().contains("hunter2") && !shown.to_string().contains("sesame"));
}

#[tokio::test]
async fn an_endpoint_of_files_can_be_changed_while_it_works_and_loses_nothing() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let device = hub.connect("d1", Subscriptions::NONE).await;
    let path = format!("{ROUTING}/endpoints/cold");
    hub.put(&path, json!({ "kind": "file", "folder": "cold" })).await.ok();
    hub.route("all", "true", "cold").await;

    for number in 0..3 {
        device.send(json!(number), "a").await;
    }
    hub.until("cold", |health| health["delivered"] == 3).await;
    // What has gathered is finished, since the old endpoint ends in good order.
    let changed = json!({ "kind": "file", "folder": "cold", "maxFileSeconds": 60 });
    hub.update(&path, "*", changed).await.ok();
    let wrong = hub
        .update(
            &path,
            "*",
            json!({ "kind": "file", "folder": "cold", "fileNameFormat": "{x}" }),
        )
        .await;
    device.send(json!(3), "a").await;
    let after = hub.until("cold", |health| health["delivered"] == 4).await;

    let day = hub.directory.path().join("data/routed/cold/hub");
    let mut lines = Vec::new();
    let mut folders = vec![day];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
    }
    let bodies: Vec<_> = lines.iter().map(|line| line["Body"].clone()).collect();
    assert_eq!(bodies, [json!(0), json!(1), json!(2)]);
    assert_eq!((wrong.status, &after["status"]), (400, &json!("healthy")));
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
async fn a_change_is_checked_guarded_recorded_and_in_force_at_once() {
    let (hub, receiver) = (TestHub::start().await, Receiver::start().await);
    let route = format!("{ROUTING}/routes/r");
    let missing = hub.put(&route, json!({ "endpoint": "hot" })).await;
    hub.endpoint("hot", &receiver, json!({})).await;
    let made = hub.put(&route, json!({ "endpoint": "hot" })).await.ok();
    let again = hub.put(&route, json!({ "endpoint": "hot" })).await;
    let stale = hub.update(&route, "\"AAAA\"", json!({ "endpoint": "events" })).await;
    let etag = format!("\"{}\"", made["etag"].as_str().unwrap());
    let changed = hub
        .update(&route, &etag, json!({ "endpoint": "hot", "enabled": false }))
        .await;
    let wrong = hub
        .put(
            &format!("{ROUTING}/routes/w"),
            json!({ "endpoint": "hot", "condition": "a = = 1" }),
        )
        .await;
    let in_use = hub.delete(&format!("{ROUTING}/endpoints/hot")).await;
    let deleted = hub.delete(&route).await;
    let free = hub.delete(&format!("{ROUTING}/endpoints/hot")).await;

    assert_eq!((missing.status, again.status, stale.status), (400, 409, 412));
    assert_eq!(changed.json()["enabled"], false);
    assert_ne!(changed.json()["etag"], made["etag"]);
    assert_eq!(wrong.status, 400);
    assert!(
        String::from_utf8_lossy(&wrong.body).contains("line 1, column 5"),
        "{:?}",
        wrong.body
    );
    assert_eq!((in_use.status, deleted.status, free.status), (409, 204, 204));
    assert!(
        String::from_utf8_lossy(&in_use.body).contains("the route `r`"),
        "{:?}",
        in_use.body
    );
    assert_eq!(hub.get(&route).await.status, 404);
    let audit = hub.get("/holm/v1/audit").await.ok();
    let operations: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["operation"].clone())
        .collect();
    assert_eq!(
        operations,
        [
            "endpoint.create",
            "route.create",
            "route.update",
            "route.delete",
            "endpoint.delete"
        ]
    );
}

#[tokio::test]
async fn who_may_not_read_messages_may_not_say_where_they_go() {
    let hub = TestHub::start().await;
    let path = format!("{ROUTING}/fallback");
    let mut answers = Vec::new();
    for (policy, method) in [
        ("service", Method::GET),
        ("registryRead", Method::GET),
        ("device", Method::GET),
        ("service", Method::PUT),
        ("registryReadWrite", Method::PUT),
        ("iothubowner", Method::PUT),
    ] {
        let token = hub.token_of(policy).await;
        let body = Bytes::from(json!({ "enabled": false }).to_string());
        let reply = hub.raw(method, &path, &[("authorization", &token)], body).await;
        answers.push(reply.status);
    }

    assert_eq!(answers, [200, 200, 401, 401, 401, 200]);
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
