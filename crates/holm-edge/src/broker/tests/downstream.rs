//! Devices below the edge: let in by what the hub told, spoken for with the key of `$edgeHub`.

use std::sync::Arc;

use holm_gateway::{CloseReason, Command, Delivery, Refusal, Settlement, Subscriptions};
use holm_model::method::MethodResponse;
use holm_model::{Identity, Message, SystemProperty};
use serde_json::{Value, json};

use super::amqp::transport;
use super::edge::{Edge, Module, bodies, child_key};
use super::hub::Hub;
use super::keys::Keys;
use super::{EDGE_HOST, HUB_HOST, until};
use crate::broker::tests::soon;

const UP: &str = "FROM /messages/* INTO $upstream";
const LATER: i64 = 9_000_000_000;

async fn gateway(hub: &Hub) -> (Edge, Arc<Keys>) {
    let keys = Arc::new(Keys::of(&["watcher"]));
    let local = r#"FROM /messages/* WHERE NOT IS_DEFINED($connectionModuleId) INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;
    let edge = Edge::with_routes(hub, &keys, json!({"up": UP, "local": local})).await;
    edge.adopt(&["leaf", "leaf/m", "leaf2"]).await;
    (edge, keys)
}

fn token(of: &str, host: &str) -> String {
    Keys::token(&of.parse().unwrap(), host, LATER, &child_key(of))
}

#[tokio::test]
async fn telemetry_of_a_device_takes_its_routes_and_goes_up_as_its_own() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let watcher = edge.module("watcher").await;
    let leaf = edge.device("leaf").await;

    assert!(
        !hub.is_connected("leaf"),
        "one that only sends has no connection above yet"
    );
    for number in 0..20 {
        leaf.send(&number.to_string()).await;
    }

    let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(hub.received("leaf", 20).await, expected);
    let local = watcher.receive_all(20).await;
    assert_eq!(bodies(&local), expected);
    let system = &local[0].message.system;
    assert_eq!(system.get(SystemProperty::ConnectionDeviceId), Some("leaf"));
    assert_eq!(system.get(SystemProperty::ConnectionModuleId), None);
    assert_eq!(system.get(SystemProperty::EdgeOrigin), Some("downstream"));
}

#[tokio::test]
async fn twins_and_methods_reach_a_device_through_the_edge() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let mut leaf = edge.device("leaf").await;

    leaf.subscribe(Subscriptions::METHODS.with(Subscriptions::DESIRED_PROPERTIES))
        .await;
    until("the device listens at the hub", || hub.listens_to_methods("leaf")).await;
    hub.desire("leaf", json!({"rate": 5}));
    let news = leaf.desired().await;
    leaf.report(json!({"rate": 5})).await;
    let calling = hub.call("leaf", "reboot", json!({"in": 3}));
    let answering = async {
        let Command::Invoke(request, answer) = leaf.command().await else {
            panic!("no call");
        };
        assert_eq!((request.name.as_str(), &request.payload), ("reboot", &json!({"in": 3})));
        let response = MethodResponse {
            status: 200,
            payload: json!("soon"),
        };
        answer.send(Ok(response)).unwrap();
    };
    let (response, ()) = tokio::join!(soon(calling), answering);

    assert_eq!(news["rate"], 5);
    assert_eq!(response.unwrap().payload, json!("soon"));
    until("the report is at the hub", || {
        hub.reported("leaf").get("rate") == Some(&json!(5))
    })
    .await;
}

#[tokio::test]
async fn mail_is_settled_at_the_hub_when_the_device_has_settled_it() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let leaf = edge.device("leaf").await;
    leaf.subscribe(Subscriptions::CLOUD_TO_DEVICE).await;
    hub.post("leaf", "first");
    hub.post("leaf", "second");

    let first = leaf.mail(1).await;
    assert_eq!(bodies(&first), ["first"]);
    assert_eq!(hub.settled(), Vec::<String>::new());
    leaf.complete_mail(&first[0]);
    until("the hub is told", || hub.settled() == ["first"]).await;
    // What it has not settled waits for its next session.
    let second = leaf.mail(1).await;
    leaf.leave().await;
    let leaf = edge.device("leaf").await;
    leaf.subscribe(Subscriptions::CLOUD_TO_DEVICE).await;
    let again = leaf.mail(1).await;
    leaf.complete_mail(&again[0]);

    assert_eq!(
        (bodies(&second), bodies(&again)),
        (vec!["second".to_owned()], vec!["second".to_owned()])
    );
    assert!(again[0].redelivered);
    until("the hub is told", || hub.settled() == ["first", "second"]).await;
}

#[tokio::test]
async fn mail_that_is_settled_while_the_link_is_cut_is_not_delivered_twice() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let leaf = edge.device("leaf").await;
    leaf.subscribe(Subscriptions::CLOUD_TO_DEVICE).await;
    hub.post("leaf", "once");
    let once = leaf.mail(1).await;

    hub.cut().await;
    edge.unlinked().await;
    until("what the connection brought counts as lost", || {
        edge.broker.mail.is_told(&"leaf".parse().unwrap()) == Some(false)
    })
    .await;
    leaf.complete_mail(&once[0]);
    hub.restore().await;
    edge.linked().await;
    hub.post("leaf", "next");

    let next = leaf.mail(1).await;
    assert_eq!(bodies(&next), ["next"]);
    until("the hub is told of the first", || {
        hub.settled().contains(&"once".to_owned())
    })
    .await;
}

/// A device with a message in its hands, and the link cut.
async fn cut_with_mail(hub: &Hub, edge: &Edge, message: Message) -> (Module, Delivery) {
    edge.linked().await;
    let leaf = edge.device("leaf").await;
    leaf.subscribe(Subscriptions::CLOUD_TO_DEVICE).await;
    hub.post_message("leaf", message);
    let held = leaf.mail(1).await.remove(0);
    hub.cut().await;
    edge.unlinked().await;
    until("what the connection brought counts as lost", || {
        edge.broker.mail.is_told(&"leaf".parse().unwrap()) == Some(false)
    })
    .await;
    (leaf, held)
}

#[tokio::test]
async fn a_command_that_looks_like_an_earlier_one_is_delivered_too() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    let (leaf, held) = cut_with_mail(&hub, &edge, Message::new("open")).await;
    leaf.complete_mail(&held);
    // The first is no more when the hub is back, and another of the same words is sent.
    hub.forget_mail();
    hub.restore().await;
    edge.linked().await;

    hub.post("leaf", "open");

    let next = leaf.mail(1).await;
    assert_eq!(bodies(&next), ["open"]);
    leaf.complete_mail(&next[0]);
    until("the hub is told", || hub.settled() == ["open"]).await;
}

#[tokio::test]
async fn messages_with_other_properties_are_other_messages() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    let command = |what: &str| {
        let mut message = Message::new("");
        message.system.set(SystemProperty::MessageId, "command");
        message.properties.set("cmd", Some(what.to_owned()));
        message
    };
    let (leaf, held) = cut_with_mail(&hub, &edge, command("open")).await;
    leaf.complete_mail(&held);
    hub.forget_mail();
    hub.restore().await;
    edge.linked().await;

    hub.post_message("leaf", command("close"));

    let next = leaf.mail(1).await;
    assert_eq!(next[0].message.properties.get("cmd"), Some(Some("close")));
}

#[tokio::test]
async fn what_a_device_holds_is_not_delivered_beside_when_it_comes_again() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    let (leaf, held) = cut_with_mail(&hub, &edge, Message::new("slow")).await;

    hub.restore().await;
    edge.linked().await;
    until("it came again", || {
        edge.broker.mail.is_told(&"leaf".parse().unwrap()) == Some(true)
    })
    .await;
    hub.post("leaf", "next");

    assert_eq!(bodies(&leaf.mail(2).await), ["next"]);
    leaf.complete_mail(&held);
    until("the hub is told", || hub.settled() == ["slow"]).await;
}

#[tokio::test]
async fn a_message_that_is_abandoned_goes_back_to_the_hub_or_comes_more_and_more_slowly() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let leaf = edge.device("leaf").await;
    leaf.subscribe(Subscriptions::CLOUD_TO_DEVICE).await;
    hub.post("leaf", "no");
    let began = tokio::time::Instant::now();

    let mut pauses = Vec::new();
    for _ in 0..4 {
        let got = leaf.mail(1).await;
        assert_eq!(bodies(&got), ["no"]);
        pauses.push(began.elapsed().as_millis());
        leaf.settle_mail(&got[0], Settlement::Abandon);
    }

    assert_eq!(hub.settled(), Vec::<String>::new());
    if transport().is_amqp() {
        // It is the hub that counts, and makes an end.
        until("the hub is told each time", || hub.abandoned() == 4).await;
    } else {
        // 100, 200 and 400 ms between them.
        assert!(pauses[1] >= 100 && pauses[2] >= 300 && pauses[3] >= 700, "{pauses:?}");
    }
}

#[tokio::test]
async fn a_restart_without_a_hub_lets_devices_in_and_keeps_what_they_do() {
    let hub = Hub::start().await;
    let (edge, keys) = gateway(&hub).await;
    edge.linked().await;
    hub.desire("leaf", json!({"rate": 5}));
    let leaf = edge.device("leaf").await;
    assert_eq!(leaf.twin().await["desired"]["rate"], 5);
    leaf.leave().await;
    hub.cut().await;
    edge.unlinked().await;

    let edge = edge.crash(&hub, &keys).await;
    let leaf = edge.device("leaf").await;
    leaf.send("offline").await;
    leaf.report(json!({"mode": "alone"})).await;
    let twin = leaf.twin().await;
    hub.restore().await;

    assert_eq!(
        (&twin["desired"]["rate"], &twin["reported"]["mode"]),
        (&json!(5), &json!("alone"))
    );
    assert_eq!(hub.received("leaf", 1).await, ["offline"]);
    until("the report is at the hub", || {
        hub.reported("leaf").get("mode") == Some(&json!("alone"))
    })
    .await;
}

#[tokio::test]
async fn who_is_not_below_the_edge_is_told_to_come_again_and_a_wrong_name_is_refused() {
    let hub = Hub::unreachable().await;
    let (edge, _keys) = gateway(&hub).await;

    let stranger = edge.admit("leaf9", token("leaf9", HUB_HOST)).await;
    let wrong_key = edge
        .admit(
            "leaf",
            Keys::token(&"leaf".parse().unwrap(), HUB_HOST, LATER, &child_key("leaf2")),
        )
        .await;
    let wrong_name = edge.admit("leaf", token("leaf2", HUB_HOST)).await;

    // Both may be right by now at the hub, which can't be asked.
    assert!(matches!(stranger, Err(Refusal::Unavailable(_))), "{stranger:?}");
    assert!(matches!(wrong_key, Err(Refusal::Unavailable(_))), "{wrong_key:?}");
    assert!(matches!(wrong_name, Err(Refusal::NotAuthorized(_))), "{wrong_name:?}");
    assert!(edge.admit("leaf/m", token("leaf/m", EDGE_HOST)).await.is_ok());
}

#[tokio::test]
async fn a_device_that_is_taken_away_is_cut_off_and_forgotten() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.linked().await;
    let (mut leaf, mut other) = (edge.device("leaf").await, edge.device("leaf2").await);
    leaf.report(json!({"a": 1})).await;
    leaf.subscribe(Subscriptions::METHODS).await;
    until("it is at the hub", || hub.is_connected("leaf")).await;

    edge.adopt(&["leaf2"]).await;

    assert!(matches!(leaf.command().await, Command::Close(CloseReason::Revoked)));
    until("its connection above is closed", || !hub.is_connected("leaf")).await;
    let identity: Identity = "leaf".parse().unwrap();
    loop {
        if edge.state.twin::<Value>(&identity).await.unwrap().is_none() {
            break;
        }
        tokio::task::yield_now().await;
    }
    other.subscribe(Subscriptions::METHODS).await;
    until("the other is served on", || hub.listens_to_methods("leaf2")).await;
    assert!(futures_util::FutureExt::now_or_never(other.command()).is_none());
}

#[tokio::test]
async fn the_module_of_a_device_gets_nothing_of_the_edges_own_module_of_that_name() {
    let hub = Hub::start().await;
    let (edge, _keys) = gateway(&hub).await;
    edge.adopt(&["leaf", "leaf/watcher"]).await;
    let namesake = edge.device("leaf/watcher").await;
    let watcher = edge.module("watcher").await;
    let leaf = edge.device("leaf").await;

    leaf.send("for the edge's own").await;

    assert_eq!(bodies(&watcher.receive(1).await), ["for the edge's own"]);
    let nothing = futures_util::FutureExt::now_or_never(namesake.waiting(1));
    assert!(nothing.is_none());
}

#[tokio::test]
async fn messages_wait_while_it_is_not_known_who_is_below_the_edge() {
    let hub = Hub::start().await;
    let (edge, keys) = gateway(&hub).await;
    hub.cut().await;
    edge.unlinked().await;
    let leaf = edge.device("leaf").await;
    leaf.send("kept").await;
    leaf.leave().await;

    // What was kept of the devices is lost, and the hub has not told yet.
    let gone = ["leaf", "leaf/m", "leaf2"].map(|name| name.parse().unwrap());
    edge.state.change_children(vec![], gone.to_vec()).await.unwrap();
    let edge = edge.crash(&hub, &keys).await;
    hub.restore().await;
    edge.linked().await;
    assert_eq!(edge.broker.status().upstream.messages, 1);
    edge.adopt(&["leaf"]).await;

    assert_eq!(hub.received("leaf", 1).await, ["kept"]);
}
