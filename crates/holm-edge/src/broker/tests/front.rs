//! The broker behind its real front: modules that speak MQTT over TLS.

use std::sync::Arc;
use std::time::Duration;

use holm_client::client::State;
use holm_client::credential::KeyTokens;
use holm_client::{Client, Credential, Endpoint, Event, Events, Interests, MethodCall, Options, Received};
use holm_gateway::{Gateway, Profile};
use holm_model::method::{MethodRequest, MethodResponse};
use holm_net::Scope;
use serde_json::{Value, json};

use super::edge::{Edge, message};
use super::hub::{Hub, listen};
use super::keys::Keys;
use super::{EDGE_HOST, HUB_HOST, identity, module, soon, until};

struct Front {
    endpoint: Endpoint,
    scope: Scope,
}

async fn front(hub: &Hub, edge: &Edge) -> Front {
    let scope = edge.scope.child();
    let (backend, directory) = (Arc::clone(&edge.broker), Arc::clone(edge.broker.directory()));
    let gateway = Gateway::new(backend, directory, Profile::edge(), scope.clone());
    let listener = listen("127.0.0.1:0".parse().unwrap()).await;
    let address = listener.local_address().unwrap();
    scope.spawn(gateway.serve_mqtt(listener, hub.server()));
    let endpoint = Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
    };
    Front { endpoint, scope }
}

impl Front {
    fn connect(&self, hub: &Hub, name: &str, interests: Interests) -> (Client, Events) {
        let tokens = KeyTokens::new(Keys::key(&module(name), "primary"), EDGE_HOST, &identity(name));
        let credential = Credential::Tokens(Arc::new(tokens));
        let mut options = Options::new(identity(name), HUB_HOST, credential, hub.tls());
        options.endpoint = self.endpoint.clone();
        options.interests = interests;
        Client::start(&self.scope, options)
    }
}

async fn up(client: &Client) {
    let mut state = client.state();
    soon(state.wait_for(|state| *state == State::Connected)).await.unwrap();
}

/// The next event of a kind; others are passed over.
async fn next<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    loop {
        let event = soon(events.next()).await.expect("the client lives");
        if let Some(found) = wanted(event) {
            return found;
        }
    }
}

fn received(event: Event) -> Option<Received> {
    match event {
        Event::Message(received) => Some(received),
        _ => None,
    }
}

fn call(event: Event) -> Option<MethodCall> {
    match event {
        Event::Method(call) => Some(call),
        _ => None,
    }
}

const ROUTES: &str = r#"FROM /messages/modules/sensor/outputs/raw INTO BrokeredEndpoint("/modules/watcher/inputs/in")"#;

#[tokio::test]
async fn modules_send_receive_report_and_answer_over_the_real_protocol() {
    let hub = Hub::start().await;
    hub.desire("watcher", json!({"threshold": 3}));
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let edge = Edge::with_routes(
        &hub,
        &keys,
        json!({"r": ROUTES, "up": "FROM /messages/modules/watcher INTO $upstream"}),
    )
    .await;
    edge.linked().await;
    let front = front(&hub, &edge).await;
    let everything = Interests {
        methods: true,
        desired_properties: true,
        inputs: true,
        ..Interests::default()
    };
    let (watcher, mut events) = front.connect(&hub, "watcher", everything);
    up(&watcher).await;
    let (sensor, _sensor_events) = front.connect(&hub, "sensor", Interests::default());

    soon(sensor.send(message("raw", "21"))).await.unwrap().await.unwrap();
    let received = next(&mut events, received).await;
    let (input, body) = (received.input.clone(), received.message.body.clone());
    received.complete().await;
    soon(watcher.send(message("alerts", "hot")))
        .await
        .unwrap()
        .await
        .unwrap();
    let twin = soon(watcher.twin()).await.unwrap();
    soon(watcher.patch_reported(json!({"seen": 1}))).await.unwrap();
    hub.desire("watcher", json!({"threshold": 4}));
    let version = |news: &Value| news["$version"] == 3;
    let changed = next(&mut events, |event| match event {
        Event::DesiredChanged(news) if version(&news) => Some(news),
        _ => None,
    })
    .await;
    let request = MethodRequest::new("reset", json!(null)).unwrap();
    let answer = async {
        let call = next(&mut events, call).await;
        call.answer(MethodResponse {
            status: 200,
            payload: json!("done"),
        })
        .await;
    };
    let caller = identity("watcher");
    let (called, ()) = tokio::join!(edge.broker.directory().invoke(&caller, request), answer);

    assert_eq!((input.as_deref(), &body[..]), (Some("in"), &b"21"[..]));
    assert_eq!(hub.received("watcher", 1).await, ["hot"]);
    assert_eq!(twin["desired"], json!({"threshold": 3, "$version": 2}));
    until("the report is above", || hub.reported("watcher").contains_key("seen")).await;
    assert_eq!(changed, json!({"threshold": 4, "$version": 3}));
    assert_eq!(called.unwrap().payload, json!("done"));
    until("the message is done", || edge.broker.status().counts.delivered == 1).await;
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_came_meanwhile_once_and_in_order() {
    let hub = Hub::unreachable().await;
    let keys = Arc::new(Keys::of(&["sensor", "watcher"]));
    let edge = Edge::with_routes(&hub, &keys, json!({"r": ROUTES})).await;
    let inputs = Interests {
        inputs: true,
        ..Interests::default()
    };
    let first = front(&hub, &edge).await;
    let (watcher, events) = first.connect(&hub, "watcher", inputs);
    up(&watcher).await;
    first.scope.stop();
    drop((watcher, events));
    until("it is gone", || edge.broker.status().clients_connected == 0).await;

    for number in 0..40 {
        edge.send("sensor", "raw", &number.to_string()).await;
    }
    let second = front(&hub, &edge).await;
    let (_watcher, mut events) = second.connect(&hub, "watcher", inputs);
    let mut got = Vec::new();
    while got.len() < 40 {
        let received = next(&mut events, received).await;
        got.push(String::from_utf8(received.message.body.to_vec()).unwrap());
        received.complete().await;
    }
    until("all is done", || edge.broker.status().counts.delivered == 40).await;
    let more = tokio::time::timeout(Duration::from_millis(50), next(&mut events, received)).await;

    assert_eq!(got, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(more.is_err(), "a message came again");
}
