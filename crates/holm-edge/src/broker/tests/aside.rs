//! One sender that can't be sent for blocks nobody: whatever its backlog, whatever the process does.

use std::sync::Arc;

use serde_json::json;

use super::edge::{Edge, message};
use super::hub::Hub;
use super::keys::Keys;
use super::{identity, until};
use crate::broker::forward::LOOK_AHEAD;

const UP: &str = "FROM /messages/* INTO $upstream";

fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&["sensor", "watcher"]))
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| number.to_string()).collect()
}

/// Hands in messages and waits until all are safe.
async fn send(edge: &Edge, from: &str, bodies: &[String]) {
    let mut receipts = Vec::new();
    for body in bodies {
        receipts.push(edge.ingest(from, message("raw", body)).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
}

fn waits_aside(edge: &Edge, of: &str) -> u64 {
    let all = edge.broker.status().endpoints;
    let own = all
        .iter()
        .filter(|endpoint| endpoint.aside.as_deref() == Some(&identity(of).to_string()));
    own.map(|endpoint| endpoint.depth.messages).sum()
}

#[tokio::test]
async fn a_refused_sender_with_a_backlog_beyond_the_look_ahead_blocks_nobody() {
    let hub = Hub::start().await;
    hub.refuse("watcher", true);
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;

    send(&edge, "watcher", &numbers(0, 3 * LOOK_AHEAD)).await;
    send(&edge, "sensor", &numbers(0, 100)).await;
    let others = hub.received("sensor", 100).await;
    until("all of it is aside", || {
        waits_aside(&edge, "watcher") == 3 * LOOK_AHEAD as u64
    })
    .await;
    let held = edge.broker.status().upstream_held.messages;
    send(&edge, "watcher", &numbers(3 * LOOK_AHEAD, 3 * LOOK_AHEAD + 10)).await;
    hub.refuse("watcher", false);
    let late = hub.received("watcher", 3 * LOOK_AHEAD + 10).await;
    edge.drained().await;

    assert_eq!(others, numbers(0, 100));
    assert!(held <= LOOK_AHEAD as u64, "{held}");
    assert_eq!(late, numbers(0, 3 * LOOK_AHEAD + 10));
    until("its lanes are gone", || {
        edge.broker
            .status()
            .endpoints
            .iter()
            .all(|endpoint| endpoint.aside.is_none())
    })
    .await;
}

#[tokio::test]
async fn a_sender_that_is_refused_with_messages_on_their_way_keeps_its_order() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;
    hub.acknowledge(false);
    send(&edge, "watcher", &numbers(0, 500)).await;
    hub.received("watcher", 10).await;

    hub.refuse("watcher", true);
    hub.cut().await;
    hub.acknowledge(true);
    hub.restore().await;
    send(&edge, "watcher", &numbers(500, 2 * LOOK_AHEAD)).await;
    send(&edge, "sensor", &numbers(0, 100)).await;
    let others = hub.received("sensor", 100).await;
    until("all of it is aside", || {
        waits_aside(&edge, "watcher") == 2 * LOOK_AHEAD as u64
    })
    .await;
    hub.refuse("watcher", false);

    assert_eq!(others, numbers(0, 100));
    assert_eq!(
        hub.received("watcher", 2 * LOOK_AHEAD).await,
        numbers(0, 2 * LOOK_AHEAD)
    );
}

#[tokio::test]
async fn a_crash_while_messages_are_set_aside_loses_none_and_keeps_the_order() {
    let hub = Hub::start().await;
    hub.refuse("watcher", true);
    let keys = keys();
    let mut edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    edge.linked().await;

    for round in 0..3 {
        send(&edge, "watcher", &numbers(round * LOOK_AHEAD, (round + 1) * LOOK_AHEAD)).await;
        until("some is aside", || {
            waits_aside(&edge, "watcher") > (round * LOOK_AHEAD) as u64
        })
        .await;
        edge = edge.crash(&hub, &keys).await;
        edge.linked().await;
    }
    hub.refuse("watcher", false);

    let all = hub.received("watcher", 3 * LOOK_AHEAD).await;
    edge.drained().await;
    assert_eq!(all, numbers(0, 3 * LOOK_AHEAD));
}

#[tokio::test]
async fn with_the_link_down_nobody_is_set_aside() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;

    send(&edge, "watcher", &numbers(0, 2 * LOOK_AHEAD)).await;
    until("the look-ahead is full", || {
        edge.broker.status().upstream_held.messages == LOOK_AHEAD as u64
    })
    .await;
    tokio::time::sleep(2 * crate::broker::aside::PATIENCE).await;

    assert_eq!(edge.broker.status().counts.set_aside, 0);
}

#[tokio::test]
async fn a_sender_whose_first_connection_is_slow_to_come_up_is_waited_for() {
    let hub = Hub::start().await;
    hub.detain(Some("watcher"));
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;

    send(&edge, "watcher", &numbers(0, 2 * LOOK_AHEAD)).await;
    until("the look-ahead is full", || {
        edge.broker.status().upstream_held.messages == LOOK_AHEAD as u64
    })
    .await;
    tokio::time::sleep(2 * crate::broker::aside::PATIENCE).await;
    hub.detain(None);

    assert_eq!(
        hub.received("watcher", 2 * LOOK_AHEAD).await,
        numbers(0, 2 * LOOK_AHEAD)
    );
    assert_eq!(edge.broker.status().counts.set_aside, 0);
}

#[tokio::test]
async fn what_is_aside_of_a_removed_module_does_not_stay() {
    let hub = Hub::start().await;
    hub.refuse("watcher", true);
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    edge.linked().await;
    send(&edge, "watcher", &numbers(0, 2 * LOOK_AHEAD)).await;
    until("all of it is aside", || {
        waits_aside(&edge, "watcher") == 2 * LOOK_AHEAD as u64
    })
    .await;

    keys.remove("watcher");

    edge.drained().await;
    assert_eq!(
        edge.broker.status().counts.dropped_unknown_sender,
        2 * LOOK_AHEAD as u64
    );
}

#[tokio::test]
async fn a_sender_that_publishes_fifty_times_its_share_starves_nobody() {
    let hub = Hub::start().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"up": UP})).await;
    edge.linked().await;
    hub.acknowledge(false);

    send(&edge, "watcher", &numbers(0, 900)).await;
    send(&edge, "sensor", &numbers(0, 10)).await;

    // Nothing of the noisy one is acknowledged, so most of it waits; what is polite is there.
    assert_eq!(hub.received("sensor", 10).await, numbers(0, 10));
    assert!(hub.bodies("watcher").len() <= 100, "a window");
    hub.acknowledge(true);
    edge.drained().await;
    assert_eq!(hub.bodies("watcher"), numbers(0, 900));
}
