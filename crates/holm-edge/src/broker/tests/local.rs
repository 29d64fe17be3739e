//! Messages between modules: who may come in, what is routed, and what receivers get.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use holm_gateway::{
    Announced, Attempt, Authority, Credential, Earlier, Ingest, IngestError, Presence, Refusal, SessionHandle,
    Settlement,
};
use holm_model::{Identity, Message, SystemProperty};
use serde_json::json;

use super::edge::{Edge, admission, bodies, message};
use super::hub::{Hub, configuration};
use super::keys::Keys;
use super::{EDGE_HOST, HUB_HOST, identity, module, soon, until};

const TO_WATCHER: &str =
    r#"FROM /messages/modules/sensor/outputs/raw INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;

async fn edge() -> (Hub, Edge) {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher", "summary"]));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": TO_WATCHER})).await;
    (hub, edge)
}

#[tokio::test]
async fn a_routed_message_carries_who_sent_it_and_is_done_when_completed() {
    let (_hub, edge) = edge().await;
    let watcher = edge.module("watcher").await;

    edge.send("sensor", "raw", "21.5").await;
    let got = watcher.receive(16).await;
    watcher.complete(&got);

    let system = &got[0].message.system;
    assert_eq!(
        (bodies(&got), got[0].input.as_deref()),
        (vec!["21.5".to_owned()], Some("in"))
    );
    assert_eq!(system.get(SystemProperty::ConnectionDeviceId), Some("box"));
    assert_eq!(system.get(SystemProperty::ConnectionModuleId), Some("sensor"));
    assert_eq!(system.get(SystemProperty::EdgeOrigin), Some("internal"));
    assert_eq!(system.get(SystemProperty::EdgeMessageId).map(str::len), Some(36));
    let status = edge.broker.status();
    assert_eq!((status.counts.received, status.counts.delivered), (1, 1));
    assert_eq!(status.endpoints[0].depth.messages, 0);
}

#[tokio::test]
async fn a_message_is_delivered_although_its_commit_fails_and_its_sender_is_not_told_yes() {
    let (_hub, edge) = edge().await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "makes the lane").await;
    watcher.complete(&watcher.receive(16).await);
    edge.broker.lanes.queue().flush().await.unwrap();

    edge.files.fail_syncs(1_000_000);
    let receipt = edge.ingest("sensor", message("raw", "early")).await.unwrap();
    let got = watcher.receive(16).await;
    let told = soon(receipt).await;

    assert_eq!(bodies(&got), ["early"]);
    assert!(matches!(told, Err(IngestError::Unavailable(_))), "{told:?}");
}

#[tokio::test]
async fn a_message_that_no_route_takes_is_acknowledged_and_counted() {
    let (_hub, edge) = edge().await;

    edge.send("sensor", "other", "x").await;

    let counts = edge.broker.status().counts;
    assert_eq!((counts.received, counts.dropped_no_route), (1, 1));
}

#[tokio::test]
async fn messages_that_come_together_are_taken_in_up_to_the_first_that_is_refused() {
    let (_hub, edge) = edge().await;
    let watcher = edge.module("watcher").await;
    let from = admission("sensor");
    edge.send("sensor", "raw", "makes the lane").await;
    watcher.complete(&watcher.receive(16).await);
    let too_large = message("raw", &"x".repeat(300 << 10));
    let together = [
        message("raw", "1"),
        message("nowhere", "2"),
        message("raw", "3"),
        too_large,
        message("raw", "5"),
    ];

    let mut messages = VecDeque::from(together);
    let receipt = edge.broker.ingest_ready(&from, &mut messages).unwrap();
    let refused = edge.broker.ingest_ready(&from, &mut messages);

    soon(receipt).await.unwrap();
    let got = watcher.receive(16).await;
    let ids: BTreeSet<_> = got
        .iter()
        .filter_map(|got| got.message.system.get(SystemProperty::EdgeMessageId))
        .collect();
    let counts = edge.broker.status().counts;
    assert_eq!((bodies(&got), ids.len()), (vec!["1".to_owned(), "3".to_owned()], 2));
    assert_eq!((messages.len(), refused.is_none()), (2, true));
    assert_eq!((counts.received, counts.dropped_no_route), (4, 1));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_both_sizes() {
    let (_hub, edge) = edge().await;
    let large = Message::new(Bytes::from(vec![0; 256 * 1024 + 1]));

    let refused = edge.ingest("sensor", large).await.unwrap_err();

    let (size, limit) = (256 * 1024 + 1, 256 * 1024);
    assert_eq!(refused, IngestError::TooLarge { size, limit });
    assert_eq!(edge.broker.status().counts.refused_too_large, 1);
}

#[tokio::test]
async fn properties_that_no_topic_could_carry_on_are_refused_before_they_are_acknowledged() {
    let (_hub, edge) = edge().await;
    let mut long = message("raw", "x");
    long.properties.set("a", Some("/".repeat(30_000)));

    let refused = edge.ingest("sensor", long).await.unwrap_err();

    assert!(
        matches!(refused, IngestError::PropertiesTooLong { bytes, .. } if bytes > 90_000),
        "{refused}"
    );
    assert!(refused.to_string().contains("63487"), "{refused}");
    assert_eq!(edge.broker.status().counts.refused_too_large, 1);
}

#[tokio::test]
async fn before_the_first_configuration_nothing_is_acknowledged() {
    let hub = Hub::unreachable().await;
    let edge = Edge::start(&hub, &Arc::new(Keys::of(&["sensor"]))).await;

    let refused = edge.ingest("sensor", message("raw", "x")).await.unwrap_err();

    assert!(refused.to_string().contains("no routes yet"), "{refused}");
}

#[tokio::test]
async fn a_time_to_live_of_zero_expires_at_once_and_is_counted() {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let edge = Edge::with_configuration(&hub, &keys, configuration(json!({"r": TO_WATCHER}), 0)).await;

    edge.send("sensor", "raw", "x").await;

    let status = edge.broker.status();
    assert_eq!(status.counts.dropped_expired, 1);
    assert!(status.endpoints.is_empty());
}

#[tokio::test]
async fn what_waited_is_delivered_most_urgent_first_and_in_order() {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let routes = json!({
        "slow": r#"FROM /messages/modules/sensor/outputs/raw INTO BrokeredEndpoint("/modules/watcher/inputs/raw")"#,
        "fast": {
            "route": r#"FROM /messages/modules/sensor/outputs/alarm INTO BrokeredEndpoint("/modules/watcher/inputs/alarm")"#,
            "priority": 0,
        },
    });
    let edge = Edge::with_routes(&hub, &keys, routes).await;
    for (output, body) in [("raw", "1"), ("alarm", "A"), ("raw", "2"), ("alarm", "B")] {
        edge.send("sensor", output, body).await;
    }

    let watcher = edge.module("watcher").await;
    let got = watcher.receive_all(4).await;

    assert_eq!(bodies(&got), ["A", "B", "1", "2"]);
    assert_eq!(got[0].input.as_deref(), Some("alarm"));
}

#[tokio::test]
async fn what_a_session_did_not_settle_comes_first_to_the_next_and_in_order() {
    let (_hub, edge) = edge().await;
    for body in ["1", "2", "3", "4"] {
        edge.send("sensor", "raw", body).await;
    }
    let first = edge.module("watcher").await;
    let got = first.receive_all(3).await;
    first.settle(&got[1], Settlement::Complete);

    first.leave().await;
    let second = edge.module("watcher").await;
    let again = second.receive_all(3).await;

    assert_eq!(bodies(&again), ["1", "3", "4"]);
    let redelivered: Vec<_> = again.iter().map(|delivery| delivery.redelivered).collect();
    assert_eq!(redelivered, [true, true, false]);
}

#[tokio::test]
async fn a_released_message_comes_again_in_its_place() {
    let (_hub, edge) = edge().await;
    for body in ["1", "2", "3"] {
        edge.send("sensor", "raw", body).await;
    }
    let watcher = edge.module("watcher").await;
    let got = watcher.receive_all(2).await;

    watcher.settle(&got[1], Settlement::Release);
    watcher.settle(&got[0], Settlement::Release);
    let rest = watcher.receive_all(3).await;

    assert_eq!(bodies(&rest), ["1", "2", "3"]);
}

#[tokio::test]
async fn an_abandoned_message_comes_after_others_and_a_rejected_one_never() {
    let (_hub, edge) = edge().await;
    for body in ["1", "2", "3"] {
        edge.send("sensor", "raw", body).await;
    }
    let watcher = edge.module("watcher").await;
    let got = watcher.receive_all(2).await;

    watcher.settle(&got[0], Settlement::Abandon);
    watcher.settle(&got[1], Settlement::Reject);
    let rest = watcher.receive_all(2).await;

    assert_eq!(bodies(&rest), ["3", "1"]);
    assert_eq!(edge.broker.status().counts.dropped_rejected, 1);
}

#[tokio::test]
async fn a_message_that_its_module_abandons_over_and_over_is_a_dead_letter_in_the_end() {
    let (_hub, edge) = edge().await;
    edge.send("sensor", "raw", "no").await;
    let watcher = edge.module("watcher").await;
    let first = watcher.receive_all(1).await.remove(0);

    watcher.settle(&first, Settlement::Abandon);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let mut deliveries = 1;
    while edge.broker.status().counts.dropped_rejected == 0 {
        let again = watcher.receive_all(1).await;
        assert!(again[0].redelivered);
        watcher.settle(&again[0], Settlement::Abandon);
        deliveries += 1;
    }

    assert_eq!(deliveries, 10);
    assert!(began.elapsed().as_secs() >= 51, "{:?}", began.elapsed());
    assert_eq!(edge.broker.inboxes.held(&module("watcher")), 0);
}

#[tokio::test]
async fn a_module_that_abandons_everything_gets_no_more_than_a_bound() {
    let (_hub, edge) = edge().await;
    for number in 0..400 {
        edge.send("sensor", "raw", &number.to_string()).await;
    }
    let watcher = edge.module("watcher").await;
    tokio::time::pause();

    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        for delivery in watcher.receive(16).await {
            seen.insert(bodies(std::slice::from_ref(&delivery)).remove(0));
            watcher.settle(&delivery, Settlement::Abandon);
        }
        assert!(edge.broker.inboxes.held(&module("watcher")) <= 256 + 16);
    }

    assert!(seen.len() >= 256, "{}", seen.len());
}

#[tokio::test]
async fn an_absent_module_holds_up_nobody_and_holds_no_memory() {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher", "summary"]));
    let routes = json!({
        "w": r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#,
        "s": r#"FROM /messages/* INTO BrokeredEndpoint("/modules/summary/inputs/in")"#,
    });
    let edge = Edge::with_routes(&hub, &keys, routes).await;
    let watcher = edge.module("watcher").await;

    for number in 0..200 {
        edge.send("sensor", "raw", &number.to_string()).await;
        watcher.complete(&watcher.receive(16).await);
    }

    let status = edge.broker.status();
    assert_eq!(status.counts.delivered, 200);
    let summary = status
        .endpoints
        .iter()
        .find(|endpoint| endpoint.endpoint == "summary/in")
        .unwrap();
    assert_eq!(summary.depth.messages, 200);
    assert_eq!(edge.broker.inboxes.held(&module("summary")), 0);
}

#[tokio::test]
async fn a_waiting_receiver_that_goes_away_takes_nothing_with_it() {
    let (_hub, edge) = edge().await;
    let watcher = edge.module("watcher").await;

    let gave_up = tokio::time::timeout(std::time::Duration::from_millis(30), watcher.waiting(16)).await;
    edge.send("sensor", "raw", "1").await;
    let got = watcher.receive(16).await;

    assert!(gave_up.is_err());
    assert_eq!(bodies(&got), ["1"]);
}

#[tokio::test]
async fn a_session_resumes_what_it_was_subscribed_to_unless_it_is_clean() {
    let (_hub, edge) = edge().await;
    let (session, _inbox) = SessionHandle::new(identity("watcher"));
    let filters = vec![("$iothub/twin/res/#".to_owned(), 1)];
    let admission = admission("watcher");
    let broker = &edge.broker;
    let all = session.subscriptions();
    broker
        .subscribed(session.id(), &admission, all, Some(filters.clone()))
        .await
        .unwrap();

    let beside = broker.opened(&session, &admission, Earlier::LeftAlone).await.unwrap();
    let resumed = broker.opened(&session, &admission, Earlier::Resumed).await.unwrap();
    let clean = broker.opened(&session, &admission, Earlier::Discarded).await.unwrap();
    let after = broker.opened(&session, &admission, Earlier::Resumed).await.unwrap();

    assert_eq!((resumed.present, resumed.filters), (true, filters));
    assert!(!beside.present && !clean.present && !after.present);
}

fn attempt(identity: Identity, token: String) -> Attempt {
    Attempt {
        identity,
        credential: Credential::Token(token),
        announced: Announced::default(),
    }
}

const LATER: i64 = 4_000_000_000;

#[tokio::test]
async fn a_module_is_let_in_with_either_key_for_either_host_whatever_its_case() {
    let (_hub, edge) = edge().await;
    let sensor = identity("sensor");

    for (host, slot) in [(HUB_HOST, "primary"), ("EDGE.test", "secondary")] {
        let key = Keys::key(&module("sensor"), slot);
        for named in [sensor.clone(), "BOX/Sensor".parse().unwrap()] {
            let token = Keys::token(&named, host, LATER, &key);
            let admitted = edge.broker.authenticate(attempt(sensor.clone(), token)).await.unwrap();
            assert_eq!(admitted.generation_id, "g-sensor");
            assert_eq!(admitted.expires.map(|expires| expires.unix_seconds()), Some(LATER));
        }
    }
}

#[tokio::test]
async fn everybody_else_is_refused_with_the_reason() {
    let (_hub, edge) = edge().await;
    let key = |name: &str| Keys::key(&module(name), "primary");
    let token = |name: &str, host: &str, expires: i64, by: &str| Keys::token(&identity(name), host, expires, &key(by));
    let cases = [
        ("box/sensor", token("sensor", HUB_HOST, LATER, "watcher"), "another key"),
        (
            "box/sensor",
            token("sensor", HUB_HOST, 1_600_000_000, "sensor"),
            "expired",
        ),
        (
            "box/sensor",
            token("sensor", "elsewhere", LATER, "sensor"),
            "the token is for",
        ),
        (
            "box/sensor",
            token("watcher", HUB_HOST, LATER, "sensor"),
            "the token is for",
        ),
        ("box/sensor", "nonsense".to_owned(), "SharedAccessSignature"),
        (
            "box/nobody",
            token("nobody", HUB_HOST, LATER, "nobody"),
            "no module `nobody`",
        ),
        (
            "box/$edgeHub",
            token("$edgeHub", EDGE_HOST, LATER, "$edgeHub"),
            "built into the edge",
        ),
        ("box", token("sensor", HUB_HOST, LATER, "sensor"), "this edge itself"),
    ];

    for (who, token, reason) in cases {
        let refused = edge
            .broker
            .authenticate(attempt(who.parse().unwrap(), token))
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, Refusal::NotAuthorized(text) if text.contains(reason)),
            "{who}: {refused}"
        );
    }
    let none = Attempt {
        credential: Credential::None,
        ..attempt(identity("sensor"), String::new())
    };
    assert!(matches!(
        edge.broker.authenticate(none).await,
        Err(Refusal::NotAuthorized(_))
    ));
    let certificate = Attempt {
        credential: Credential::Certificate(Arc::from([])),
        ..attempt(identity("sensor"), String::new())
    };
    assert!(matches!(
        edge.broker.authenticate(certificate).await,
        Err(Refusal::NotAuthorized(_))
    ));
}

#[tokio::test]
async fn before_identities_are_loaded_nobody_is_told_that_they_do_not_exist() {
    let hub = Hub::unreachable().await;
    let edge = Edge::start(&hub, &Arc::new(Keys::never_loaded())).await;
    let token = Keys::token(
        &identity("sensor"),
        HUB_HOST,
        LATER,
        &Keys::key(&module("sensor"), "primary"),
    );

    let refused = edge
        .broker
        .authenticate(attempt(identity("sensor"), token))
        .await
        .unwrap_err();

    assert!(matches!(refused, Refusal::Unavailable(_)), "{refused}");
}

#[tokio::test]
async fn the_session_of_a_removed_module_is_closed_and_its_state_forgotten() {
    let hub = Hub::start().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": TO_WATCHER})).await;
    let mut sensor = edge.module("sensor").await;
    edge.state.put_session(&identity("sensor"), Some(&[])).await.unwrap();
    until("the module has its uplink", || edge.broker.status().uplinks_open == 2).await;

    keys.remove("sensor");
    let command = sensor.command().await;

    assert!(matches!(
        command,
        holm_gateway::Command::Close(holm_gateway::CloseReason::Revoked)
    ));
    until("its uplink is closed", || edge.broker.status().uplinks_open == 1).await;
    let kept = edge.state.clone();
    let mut left = kept.session(&identity("sensor")).await.unwrap();
    while left.is_some() {
        tokio::task::yield_now().await;
        left = kept.session(&identity("sensor")).await.unwrap();
    }
}

#[tokio::test]
async fn a_module_that_takes_its_time_over_each_message_has_a_window_of_them_in_its_hands() {
    const WINDOW: usize = 16;
    const EACH: std::time::Duration = std::time::Duration::from_millis(100);
    let (_hub, edge) = edge().await;
    let watcher = Arc::new(edge.module("watcher").await);
    for number in 0..4 * WINDOW {
        edge.send("sensor", "raw", &number.to_string()).await;
    }

    let begin = std::time::Instant::now();
    let (mut at_once, mut most, mut done) = (tokio::task::JoinSet::new(), 0, Vec::new());
    while done.len() < 4 * WINDOW {
        while at_once.len() < WINDOW && done.len() + at_once.len() < 4 * WINDOW {
            for delivery in watcher.receive(WINDOW - at_once.len()).await {
                let watcher = Arc::clone(&watcher);
                at_once.spawn(async move {
                    tokio::time::sleep(EACH).await;
                    watcher.settle(&delivery, Settlement::Complete);
                    delivery.message.body
                });
            }
        }
        most = most.max(at_once.len());
        done.push(at_once.join_next().await.unwrap().unwrap());
    }
    let took = begin.elapsed();

    assert_eq!(most, WINDOW);
    // One at a time it would be 64 times as long as each takes; a window at a time it is 4.
    assert!(took >= 4 * EACH && took < 32 * EACH, "{took:?}");
    assert_eq!(edge.broker.status().counts.delivered, 4 * WINDOW as u64);
}

#[tokio::test]
async fn the_status_says_how_much_is_written_for_each_message() {
    let (_hub, edge) = edge().await;
    let watcher = edge.module("watcher").await;
    for number in 0..100 {
        edge.send("sensor", "raw", &format!("{number:0>256}")).await;
    }
    watcher.complete(&watcher.receive_all(100).await);
    edge.broker.lanes.queue().flush().await.unwrap();

    let writes = edge.broker.status().writes;

    assert_eq!(writes.messages, 100);
    assert!(writes.payload_bytes > 100 * 256, "{writes:?}");
    assert!(writes.disk_bytes_written > writes.payload_bytes, "{writes:?}");
    assert_eq!(writes.disk_bytes_per_message, writes.disk_bytes_written / 100);
    // A record and its acknowledgement, with what was stamped on it; each of these was a commit of its own.
    assert!(writes.disk_bytes_per_message < 1024, "{writes:?}");
    // Whole blocks for each sync, and none for acknowledgements alone but the last.
    assert!(writes.device_bytes_written >= writes.syncs * 4096, "{writes:?}");
    assert_eq!(writes.device_bytes_per_message, writes.device_bytes_written / 100);
}
