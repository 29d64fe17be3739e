//! The size of the queue: what happens at the limit, and how soon space comes back.

use std::sync::Arc;

use serde_json::{Value, json};

use super::edge::{Edge, bodies, message};
use super::hub::{Hub, configuration};
use super::keys::Keys;
use super::until;

const UP: &str = "FROM /messages/* INTO $upstream";
const LIMIT: u64 = 2 << 20;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&["sensor", "watcher"]))
}

fn limited(routes: Value, when_full: &str) -> Value {
    let mut desired = configuration(routes, 7200);
    desired["storeAndForwardConfiguration"]["storeLimits"] = json!({"maxSizeBytes": LIMIT, "whenFull": when_full});
    desired
}

fn large(output: &str, number: usize) -> holm_model::Message {
    let mut message = message(output, &number.to_string());
    message.properties.set("filling", Some("x".repeat(8 << 10)));
    message
}

/// Sends until the queue takes no more, or so many are in. Gives how many are in.
async fn fill(edge: &Edge, output: &str, most: usize) -> usize {
    for number in 0..most {
        match edge.ingest("sensor", large(output, number)).await {
            Ok(receipt) => receipt.await.unwrap(),
            Err(_) => return number,
        }
    }
    most
}

#[tokio::test]
async fn at_the_limit_senders_are_refused_and_told_and_taken_in_again_when_there_is_room() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_configuration(&hub, &keys(), limited(json!({"up": UP}), "refuse")).await;

    let taken = fill(&edge, "raw", 1000).await;
    let full = edge.broker.status();
    hub.restore().await;
    edge.drained().await;
    until("there is room", || edge.broker.status().disk_bytes < LIMIT / 2).await;
    let again = fill(&edge, "raw", 10).await;

    assert!((150..1000).contains(&taken), "{taken}");
    assert!(full.quota.is_full && full.disk_bytes <= LIMIT, "{full:?}");
    assert_eq!(full.counts.refused_quota, 1);
    assert_eq!(again, 10);
    assert!(!edge.broker.status().quota.is_full);
    assert_eq!(hub.bodies("sensor").len(), taken);
}

#[tokio::test]
async fn the_oldest_of_the_least_urgent_make_room_counted_and_kept_as_dead_letters() {
    let hub = Hub::unreachable().await;
    let routes = json!({
        "urgent": {"route": "FROM /messages/modules/sensor/outputs/alarm INTO $upstream", "priority": 0},
        "plain": {"route": "FROM /messages/modules/sensor/outputs/raw INTO $upstream", "priority": 9},
    });
    let edge = Edge::with_configuration(&hub, &keys(), limited(routes, "dropOldest")).await;

    let alarms = fill(&edge, "alarm", 40).await;
    let taken = fill(&edge, "raw", 600).await;
    let status = edge.broker.status();
    let letters = edge.broker.list_dead_letters(0, 1000).unwrap();
    hub.restore().await;
    edge.drained().await;

    assert_eq!((alarms, taken), (40, 600), "everything new was taken in");
    assert!(
        status.counts.dropped_quota > 0 && status.counts.refused_quota == 0,
        "{:?}",
        status.counts
    );
    assert!(status.disk_bytes <= LIMIT + (256 << 10), "{}", status.disk_bytes);
    let letters = letters["deadLetters"].as_array().unwrap();
    assert!(!letters.is_empty());
    assert!(
        letters
            .iter()
            .all(|letter| letter["reason"] == "quota" && letter["priority"] == 9)
    );
    let got = hub.bodies("sensor");
    assert_eq!(
        got.iter().filter(|body| *body == "0").count(),
        1,
        "the alarm, not the oldest plain one"
    );
    assert_eq!(got.last().unwrap(), "599");
}

#[tokio::test]
async fn what_made_room_is_not_sent_as_well_when_the_link_comes_back() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_configuration(&hub, &keys(), limited(json!({"up": UP}), "dropOldest")).await;

    let taken = fill(&edge, "raw", 600).await;
    let dropped = usize::try_from(edge.broker.status().counts.dropped_quota).unwrap();
    hub.restore().await;
    edge.drained().await;

    assert!(dropped > 0);
    let expected: Vec<_> = (dropped..taken).map(|number| number.to_string()).collect();
    assert_eq!(hub.bodies("sensor"), expected);
}

#[tokio::test]
async fn what_made_room_does_not_come_back_to_a_module_that_had_it_in_its_hands() {
    let hub = Hub::unreachable().await;
    let to = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;
    let edge = Edge::with_configuration(&hub, &keys(), limited(json!({"local": to}), "dropOldest")).await;
    let watcher = edge.module("watcher").await;
    fill(&edge, "raw", 10).await;
    let held = watcher.receive_all(10).await;
    watcher.leave().await;

    let taken = fill(&edge, "raw", 600).await;
    let dropped = usize::try_from(edge.broker.status().counts.dropped_quota).unwrap();
    let watcher = edge.module("watcher").await;
    let got = watcher.receive_all(held.len() + taken - dropped).await;

    assert!(dropped > held.len());
    let expected: Vec<_> = (dropped - held.len()..taken).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&got), expected);
}

#[tokio::test]
async fn what_is_more_urgent_does_not_make_room_for_what_is_less() {
    let hub = Hub::unreachable().await;
    let routes = json!({
        "urgent": {"route": "FROM /messages/modules/sensor/outputs/alarm INTO $upstream", "priority": 0},
        "plain": {"route": "FROM /messages/modules/sensor/outputs/raw INTO $upstream", "priority": 9},
    });
    let edge = Edge::with_configuration(&hub, &keys(), limited(routes, "dropOldest")).await;

    // Urgent ones make room for urgent ones.
    let alarms = fill(&edge, "alarm", 400).await;
    let dropped = edge.broker.status().counts.dropped_quota;
    let urgent = || {
        let lanes = edge.broker.status().endpoints;
        lanes.iter().find(|lane| lane.priority == 0).unwrap().depth.messages
    };
    let before = urgent();
    fill(&edge, "raw", 400).await;

    assert_eq!(alarms, 400);
    assert!(dropped > 0);
    assert_eq!(urgent(), before);
}

#[tokio::test]
async fn a_limit_comes_in_force_with_its_configuration() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;

    hub.desire("$edgeHub", limited(json!({"up": UP}), "dropOldest"));

    until("it is in force", || {
        edge.broker.status().quota.limit.max_bytes == Some(LIMIT)
    })
    .await;
}

#[tokio::test]
async fn what_expires_for_an_absent_module_is_gone_with_its_space_though_nobody_reads() {
    let hub = Hub::unreachable().await;
    let to = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;
    let routes = json!({"local": {"route": to, "timeToLiveSecs": 1}});
    let edge = Edge::with_routes(&hub, &keys(), routes).await;

    fill(&edge, "raw", 400).await;
    let before = edge.broker.status();
    until("it has expired", || edge.broker.status().counts.dropped_expired == 400).await;
    until("its space is back", || edge.broker.status().disk_bytes < 1 << 20).await;

    assert!(before.disk_bytes > 3 << 20, "{}", before.disk_bytes);
    assert_eq!(
        edge.broker
            .status()
            .endpoints
            .iter()
            .map(|lane| lane.depth.messages)
            .sum::<u64>(),
        0
    );
}

#[tokio::test]
async fn what_is_delivered_gives_its_space_back_without_a_segment_being_full() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;

    fill(&edge, "raw", 400).await;
    edge.drained().await;

    until("its space is back", || edge.broker.status().disk_bytes < 1 << 20).await;
}
