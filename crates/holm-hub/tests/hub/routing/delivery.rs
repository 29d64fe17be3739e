//! What becomes of messages for an endpoint that is away, picky, or changed.

use holm_gateway::Subscriptions;
use serde_json::{Value, json};

use super::{ROUTING, Receiver};
use crate::support::TestHub;

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
