//! Store and forward: each message as its own sender, in order, whatever the link and the process do.

use std::sync::Arc;

use holm_model::{Message, SystemProperty};
use serde_json::json;

use super::edge::{Edge, message};
use super::hub::Hub;
use super::keys::Keys;
use super::{identity, module, until};
use crate::broker::forward::{LOOK_AHEAD, MAX_HELD_BYTES};

const UP: &str = "FROM /messages/* INTO $upstream";

fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&["sensor", "watcher"]))
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn each_message_reaches_the_hub_as_its_own_sender_with_what_the_sender_said_and_no_more() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    let mut said = message("alerts", "hot");
    said.system.set(SystemProperty::ContentType, "application/json");
    said.properties.set("level", Some("9".to_owned()));

    edge.ingest("watcher", said).await.unwrap().await.unwrap();
    edge.send("sensor", "raw", "21").await;
    hub.received("watcher", 1).await;
    hub.received("sensor", 1).await;
    edge.drained().await;

    let events = hub.events();
    let (_, got) = events
        .iter()
        .find(|(sender, _)| *sender == identity("watcher"))
        .unwrap();
    let names: Vec<_> = got.system.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            SystemProperty::MessageId,
            SystemProperty::ContentType,
            SystemProperty::OutputName
        ]
    );
    assert_eq!(got.properties.get("level"), Some(Some("9")));
    assert_eq!(got.properties.len(), 1);
    assert_eq!(edge.broker.status().counts.forwarded, 2);
}

#[tokio::test]
async fn what_was_stored_offline_survives_a_crash_and_is_forwarded_in_order() {
    let hub = Hub::unreachable().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    for body in numbers(0, 50) {
        edge.send("sensor", "raw", &body).await;
        edge.send("watcher", "alerts", &body).await;
    }

    let edge = edge.crash(&hub, &keys).await;
    for body in numbers(50, 60) {
        edge.send("sensor", "raw", &body).await;
    }
    hub.restore().await;

    assert_eq!(hub.received("sensor", 60).await, numbers(0, 60));
    assert_eq!(hub.received("watcher", 50).await, numbers(0, 50));
    edge.drained().await;
}

#[tokio::test]
async fn while_the_hub_is_silent_the_edge_alone_tries_and_modules_open_when_it_answers() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    let _modules = (edge.module("sensor").await, edge.module("watcher").await);
    edge.send("sensor", "raw", "waits").await;
    until("the edge tries", || edge.broker.status().uplinks_open == 1).await;

    hub.restore().await;

    until("both modules are connected too", || {
        edge.broker.status().uplinks_connected == 3
    })
    .await;
    assert_eq!(hub.received("sensor", 1).await, ["waits"]);
}

#[tokio::test]
async fn a_hub_that_refuses_the_edge_itself_takes_what_modules_send() {
    let hub = Hub::start().await;
    hub.refuse("$edgeHub", true);
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;

    edge.send("sensor", "raw", "in spite of it").await;

    assert_eq!(hub.received("sensor", 1).await, ["in spite of it"]);
    assert!(!edge.broker.status().link.connected);
}

#[tokio::test]
async fn nothing_overtakes_what_was_on_its_way_over_a_connection_that_was_closed() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;
    hub.acknowledge(false);
    edge.send("sensor", "raw", "first").await;
    hub.received("sensor", 1).await;
    hub.cut().await;
    edge.unlinked().await;

    // As happens to one that has been without a connection for a minute.
    edge.broker.links.close(&identity("sensor"));
    edge.send("sensor", "raw", "second").await;
    hub.acknowledge(true);
    hub.restore().await;
    edge.drained().await;

    let events = hub.events().into_iter().map(|(_, message)| message.body);
    assert_eq!(events.collect::<Vec<_>>(), ["first", "first", "second"]);
}

#[tokio::test]
async fn a_link_that_comes_and_goes_loses_nothing_and_keeps_the_order_of_first_arrivals() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;

    for round in 0..4 {
        for body in numbers(round * 100, round * 100 + 100) {
            edge.send("sensor", "raw", &body).await;
        }
        hub.cut().await;
        edge.send("sensor", "raw", &format!("cut {round}")).await;
        hub.restore().await;
    }

    let got = hub.received("sensor", 404).await;
    let expected: Vec<_> = (0..4)
        .flat_map(|round| {
            let mut bodies = numbers(round * 100, round * 100 + 100);
            bodies.push(format!("cut {round}"));
            bodies
        })
        .collect();
    assert_eq!(got, expected);
    edge.drained().await;
}

#[tokio::test]
async fn a_crash_between_delivery_and_acknowledgement_makes_a_duplicate_and_no_loss() {
    let hub = Hub::start().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    hub.acknowledge(false);
    for body in numbers(0, 10) {
        edge.send("sensor", "raw", &body).await;
    }
    hub.received("sensor", 10).await;

    hub.cut().await;
    let edge = edge.crash(&hub, &keys).await;
    hub.acknowledge(true);
    hub.restore().await;
    edge.drained().await;

    assert_eq!(hub.bodies("sensor"), numbers(0, 10));
    assert_eq!(hub.events().len(), 20, "each came twice");
}

#[tokio::test]
async fn a_sender_that_the_hub_refuses_holds_up_nobody_and_is_sent_for_later() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    hub.refuse("watcher", true);

    for body in numbers(0, 100) {
        edge.send("watcher", "alerts", &body).await;
        edge.send("sensor", "raw", &body).await;
    }
    let others = hub.received("sensor", 100).await;
    let refused = hub.bodies("watcher");
    hub.refuse("watcher", false);
    let later = hub.received("watcher", 100).await;

    assert_eq!(others, numbers(0, 100));
    assert!(refused.is_empty());
    assert_eq!(later, numbers(0, 100));
}

#[tokio::test]
async fn messages_of_a_removed_module_are_dropped_and_counted_and_others_go_on() {
    let hub = Hub::unreachable().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    edge.send("watcher", "alerts", "1").await;

    keys.remove("watcher");
    edge.send("sensor", "raw", "2").await;
    hub.restore().await;
    hub.received("sensor", 1).await;
    edge.drained().await;

    assert_eq!(edge.broker.status().counts.dropped_unknown_sender, 1);
    assert!(hub.bodies("watcher").is_empty());
}

#[tokio::test]
async fn urgent_messages_overtake_those_that_waited() {
    let hub = Hub::unreachable().await;
    let routes = json!({
        "plain": "FROM /messages/modules/sensor/outputs/raw INTO $upstream",
        "urgent": {"route": "FROM /messages/modules/sensor/outputs/alarm INTO $upstream", "priority": 0},
    });
    let edge = Edge::with_routes(&hub, &keys(), routes).await;
    for body in ["1", "2"] {
        edge.send("sensor", "raw", body).await;
    }
    edge.send("sensor", "alarm", "A").await;
    until("all three are read ahead", || {
        edge.broker.status().upstream_held.messages == 3
    })
    .await;

    hub.restore().await;

    assert_eq!(hub.received("sensor", 3).await, ["A", "1", "2"]);
}

#[tokio::test]
async fn what_expires_while_the_link_is_down_is_dropped_and_counted() {
    let hub = Hub::unreachable().await;
    let routes = json!({"up": {"route": UP, "timeToLiveSecs": 1}});
    let edge = Edge::with_routes(&hub, &keys(), routes).await;

    edge.send("sensor", "raw", "stale").await;
    edge.drained().await;
    hub.restore().await;
    edge.linked().await;
    edge.send("sensor", "raw", "fresh").await;

    assert_eq!(hub.received("sensor", 1).await, ["fresh"]);
    assert_eq!(edge.broker.status().counts.dropped_expired, 1);
}

#[tokio::test]
async fn with_the_link_down_what_is_held_is_bounded_by_count_and_by_bytes() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    let small = |number: usize| message("raw", &number.to_string());
    let large = || Message::new(vec![b'x'; 200 * 1024]);
    let held = || edge.broker.status().upstream_held;

    let mut receipts = Vec::new();
    for number in 0..3 * LOOK_AHEAD {
        receipts.push(edge.ingest("sensor", small(number)).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    until("the look-ahead is full", || held().messages == LOOK_AHEAD as u64).await;
    let after_small = held();
    hub.restore().await;
    edge.drained().await;
    hub.cut().await;
    edge.unlinked().await;
    for _ in 0..100 {
        edge.ingest("sensor", large()).await.unwrap().await.unwrap();
    }
    until("the bytes are full", || held().bytes >= MAX_HELD_BYTES as u64).await;

    assert_eq!(after_small.messages, LOOK_AHEAD as u64);
    assert!(held().bytes < MAX_HELD_BYTES as u64 + 256 * 1024, "{:?}", held());
    assert_eq!(edge.broker.status().upstream.messages, 100);
}

#[tokio::test]
async fn nothing_leaves_the_edge_before_it_is_on_disk() {
    let hub = Hub::start().await;
    let to_both = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP, "local": to_both})).await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "safe").await;
    hub.received("sensor", 1).await;
    watcher.complete(&watcher.receive(16).await);
    edge.broker.lanes.queue().flush().await.unwrap();

    edge.files.fail_syncs(1_000_000);
    let receipt = edge.ingest("sensor", message("raw", "unsafe")).await.unwrap();
    let here = watcher.receive(16).await;
    receipt.await.unwrap_err();
    let failed = || edge.broker.lanes.queue().stats().failed_commits;
    until("the disk has failed twice", || failed() >= 2).await;
    let there = hub.bodies("sensor");
    edge.files.fail_syncs(0);

    assert_eq!(super::edge::bodies(&here), ["unsafe"]);
    assert_eq!(there, ["safe"]);
    assert_eq!(hub.received("sensor", 2).await, ["safe", "unsafe"]);
}

#[tokio::test]
async fn the_status_says_why_the_link_is_down() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;

    until("a reason is known", || edge.broker.status().link.reason.is_some()).await;

    let link = edge.broker.status().link;
    assert!(!link.connected && link.reason.unwrap().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_module_has_left_when_all_it_sent_before_its_end_is_at_the_hub() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;
    hub.acknowledge(false);
    edge.send("sensor", "raw", "last").await;
    assert!(!edge.broker.has_left(&module("sensor")));

    hub.acknowledge(true);

    until("it has left", || edge.broker.has_left(&module("sensor"))).await;
    assert_eq!(hub.bodies("sensor"), ["last"]);
}

#[tokio::test]
async fn a_crash_brings_nothing_back_of_a_module_that_has_left() {
    let hub = Hub::start().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    edge.linked().await;
    edge.send("sensor", "raw", "last").await;

    until("it has left", || edge.broker.has_left(&module("sensor"))).await;
    let edge = edge.crash(&hub, &keys).await;

    assert_eq!(edge.broker.status().upstream.messages, 0);
}

#[tokio::test]
async fn a_module_that_came_back_meanwhile_has_left_only_when_its_newest_message_has() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.send("sensor", "raw", "first").await;
    assert!(!edge.broker.has_left(&module("sensor")));

    let session = edge.module("sensor").await;
    edge.send("sensor", "raw", "second").await;
    session.leave().await;
    let (_, lane) = edge.broker.lanes.all().pop().unwrap();
    edge.broker.lanes.queue().acknowledge(lane, 0..1).unwrap();

    assert!(!edge.broker.has_left(&module("sensor")));
    edge.broker.lanes.queue().acknowledge(lane, 1..2).unwrap();
    until("it has left", || edge.broker.has_left(&module("sensor"))).await;
}

#[tokio::test]
async fn a_refused_identity_is_told_by_name_until_it_is_accepted_and_holds_up_nobody() {
    let hub = Hub::start().await;
    hub.refuse("sensor", true);
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.send("sensor", "raw", "1").await;
    edge.send("watcher", "alerts", "1").await;

    hub.received("watcher", 1).await;
    until("the refusal is told", || !edge.broker.status().refused.is_empty()).await;
    let refused = edge.broker.status().refused;
    assert_eq!(refused[0].identity, identity("sensor").to_string());
    let reason = if hub.transport().is_amqp() {
        "status 401"
    } else {
        "not authorized"
    };
    assert!(refused[0].reason.contains(reason), "{refused:?}");
    hub.refuse("sensor", false);

    assert_eq!(hub.received("sensor", 1).await, ["1"]);
    until("the refusal is over", || edge.broker.status().refused.is_empty()).await;
}

#[tokio::test]
async fn with_newest_first_what_is_new_overtakes_the_backlog_of_an_outage_and_nothing_comes_twice() {
    let hub = Hub::unreachable().await;
    let mut desired = super::hub::configuration(json!({"up": UP}), 7200);
    desired["storeAndForwardConfiguration"]["order"] = json!("newestFirst");
    let edge = Edge::with_configuration(&hub, &keys(), desired).await;
    let old = 3 * LOOK_AHEAD;
    for body in numbers(0, old) {
        drop(edge.ingest("sensor", message("raw", &body)).await.unwrap());
    }
    edge.send("sensor", "raw", "last old").await;
    until("the look-ahead is full", || {
        edge.broker.status().upstream_held.messages == LOOK_AHEAD as u64
    })
    .await;

    hub.acknowledge(false);
    hub.restore().await;
    hub.received("sensor", 1).await;
    edge.linked().await;
    // The forwarder was woken by the same change, on the same thread.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    for body in ["new 1", "new 2", "new 3"] {
        edge.send("sensor", "raw", body).await;
    }
    hub.acknowledge(true);
    edge.drained().await;

    let got = hub.bodies("sensor");
    let place = |body: &str| got.iter().position(|got| got == body).unwrap();
    assert!(place("new 1") < place("new 2") && place("new 2") < place("new 3"));
    assert!(place("new 3") < LOOK_AHEAD + 200, "{}", place("new 3"));
    let mut late: Vec<_> = got.iter().filter(|body| !body.starts_with("new")).cloned().collect();
    assert_eq!(late.pop().unwrap(), "last old");
    assert_eq!(late, numbers(0, old));
    assert_eq!(hub.events().len(), old + 4, "each came once");
}

#[tokio::test]
async fn an_outage_while_a_backlog_drains_newest_first_loses_nothing() {
    let hub = Hub::unreachable().await;
    let mut desired = super::hub::configuration(json!({"up": UP}), 7200);
    desired["storeAndForwardConfiguration"]["order"] = json!("newestFirst");
    let edge = Edge::with_configuration(&hub, &keys(), desired).await;
    let mut sent = 0;
    for _ in 0..4 {
        for body in numbers(sent, sent + LOOK_AHEAD) {
            drop(edge.ingest("sensor", message("raw", &body)).await.unwrap());
        }
        sent += LOOK_AHEAD;
        hub.restore().await;
        hub.received("sensor", sent / 4).await;
        hub.cut().await;
        edge.unlinked().await;
    }
    hub.restore().await;
    edge.drained().await;

    let mut got: Vec<usize> = hub.bodies("sensor").iter().map(|body| body.parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..sent).collect::<Vec<_>>());
}

#[tokio::test]
async fn urgent_messages_find_room_however_much_waits_that_is_less_urgent() {
    let hub = Hub::unreachable().await;
    let routes = json!({
        "plain": "FROM /messages/modules/sensor/outputs/raw INTO $upstream",
        "urgent": {"route": "FROM /messages/modules/sensor/outputs/alarm INTO $upstream", "priority": 0},
    });
    let edge = Edge::with_routes(&hub, &keys(), routes).await;
    edge.send("sensor", "alarm", "first").await;
    for number in 0..60 {
        let mut large = message("raw", &number.to_string());
        large.body = vec![b'0'; 200 << 10].into();
        edge.ingest("sensor", large).await.unwrap().await.unwrap();
    }
    for number in 0..200 {
        edge.send("sensor", "alarm", &format!("A{number}")).await;
    }
    until("all alarms are read ahead", || {
        edge.broker.status().upstream_held.messages > 201
    })
    .await;

    hub.restore().await;
    let got = hub.received("sensor", 261).await;

    assert!(
        got[..201].iter().all(|body| body == "first" || body.starts_with('A')),
        "{:?}",
        &got[..5]
    );
}
