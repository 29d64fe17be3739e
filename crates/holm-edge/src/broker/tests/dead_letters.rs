//! What can't reach its destination is kept with its reason, and can be sent again.

use std::sync::Arc;

use holm_gateway::Settlement;
use serde_json::{Value, json};

use super::edge::{Edge, bodies};
use super::hub::Hub;
use super::keys::Keys;
use super::until;
use crate::broker::DeadLetterError;

const UP: &str = "FROM /messages/* INTO $upstream";
const LOCAL: &str = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;

fn keys() -> Arc<Keys> {
    Arc::new(Keys::of(&["sensor", "watcher"]))
}

fn letters(edge: &Edge) -> Vec<Value> {
    let list = edge.broker.list_dead_letters(0, 1000).unwrap();
    list["deadLetters"].as_array().unwrap().clone()
}

async fn kept(edge: &Edge, count: usize) -> Vec<Value> {
    until("the dead letters are on disk", || letters(edge).len() == count).await;
    letters(edge)
}

#[tokio::test]
async fn a_rejected_message_is_kept_with_its_reason_survives_a_crash_and_is_sent_again() {
    let hub = Hub::unreachable().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"local": LOCAL})).await;
    let watcher = edge.module("watcher").await;
    edge.send("sensor", "raw", "bad").await;
    watcher.settle(&watcher.receive(16).await[0], Settlement::Reject);
    let found = kept(&edge, 1).await;
    until("it is done where it was", || {
        edge.broker.status().endpoints[0].depth.messages == 0
    })
    .await;
    edge.broker.lanes.queue().flush().await.unwrap();

    watcher.leave().await;
    let edge = edge.crash(&hub, &keys).await;
    let again = letters(&edge);
    let id = again[0]["id"].as_u64().unwrap();
    let shown = edge.broker.dead_letter(id).unwrap().show();
    edge.broker.resend_dead_letter(id).await.unwrap();
    let watcher = edge.module("watcher").await;
    let got = watcher.receive(16).await;
    watcher.complete(&got);

    assert_eq!(found, again);
    assert_eq!(
        (&found[0]["reason"], &found[0]["endpoint"], &found[0]["sender"]),
        (&json!("rejected"), &json!("watcher/in"), &json!("box/sensor"))
    );
    assert!(found[0]["detail"].as_str().unwrap().contains("watcher"));
    assert_eq!(
        (&shown["body"], &shown["systemProperties"]["messageId"]),
        (&json!("bad"), &json!("bad"))
    );
    assert_eq!(bodies(&got), ["bad"]);
    assert!(letters(&edge).is_empty());
    assert_eq!(edge.broker.status().counts.dead_letters_resent, 1);
}

#[tokio::test]
async fn messages_of_a_removed_module_are_kept_and_go_up_when_it_is_back() {
    let hub = Hub::start().await;
    let keys = keys();
    let edge = Edge::with_routes(&hub, &keys, json!({"up": UP})).await;
    hub.refuse("watcher", true);
    for number in 0..3 {
        edge.send("watcher", "alerts", &number.to_string()).await;
    }
    keys.remove("watcher");
    let found = kept(&edge, 3).await;
    edge.drained().await;

    keys.add(&super::module("watcher"));
    hub.refuse("watcher", false);
    let answer = edge.broker.resend_dead_letters().await.unwrap();

    assert!(found.iter().all(|letter| letter["reason"] == "unknownSender"));
    assert_eq!(answer, json!({"resent": 3, "failed": []}));
    assert_eq!(hub.received("watcher", 3).await, ["0", "1", "2"]);
}

#[tokio::test]
async fn dead_letters_are_removed_by_command_and_unknown_numbers_are_told() {
    let hub = Hub::unreachable().await;
    let edge = Edge::with_routes(&hub, &keys(), json!({"local": LOCAL})).await;
    let watcher = edge.module("watcher").await;
    for number in 0..5 {
        edge.send("sensor", "raw", &number.to_string()).await;
        watcher.settle(&watcher.receive(1).await[0], Settlement::Reject);
    }
    kept(&edge, 5).await;

    let purged = edge.broker.purge_dead_letters().await.unwrap();

    assert_eq!(purged, 5);
    assert!(letters(&edge).is_empty());
    assert_eq!(edge.broker.status().dead_letters.messages, 0);
    let missing = edge.broker.resend_dead_letter(3).await;
    assert!(matches!(missing, Err(DeadLetterError::NotFound(3))), "{missing:?}");
    assert_eq!(edge.broker.status().counts.dead_letters_purged, 5);
}

#[tokio::test]
async fn every_message_is_counted_where_it_ends() {
    let hub = Hub::start().await;
    let routes = json!({
        "up": "FROM /messages/modules/sensor/outputs/up INTO $upstream",
        "local": LOCAL.replace("/messages/*", "/messages/modules/sensor/outputs/in"),
        "short": {"route": "FROM /messages/modules/sensor/outputs/short INTO BrokeredEndpoint(\"/modules/late/inputs/in\")", "timeToLiveSecs": 1},
    });
    let edge = Edge::with_routes(&hub, &keys(), routes).await;
    let watcher = edge.module("watcher").await;
    edge.linked().await;

    for output in ["up", "up", "in", "in", "in", "short", "short", "nowhere"] {
        edge.send("sensor", output, output).await;
    }
    let got = watcher.receive_all(3).await;
    watcher.complete(&got[..2]);
    watcher.settle(&got[2], Settlement::Reject);
    let counts = || edge.broker.status().counts;
    until("all have ended", || {
        let counts = counts();
        counts.forwarded + counts.delivered + counts.dropped_rejected + counts.dropped_expired == 7
    })
    .await;

    let counts = counts();
    assert_eq!(counts.received, 8);
    assert_eq!((counts.forwarded, counts.delivered, counts.dropped_rejected), (2, 2, 1));
    assert_eq!(
        (counts.dropped_expired, counts.dropped_no_route, counts.dead_letters),
        (2, 1, 1)
    );
}
