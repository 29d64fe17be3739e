//! Clients over AMQP, on connections that they share.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod hub;

use std::sync::Arc;

use holm_amqp::condition::{INTERNAL_ERROR, UNAUTHORIZED_ACCESS};
use holm_amqp::{Allowance, AmqpError, Message as Wire, MessageId, Outcome, Value};
use holm_client::client::State;
use holm_client::credential::KeyTokens;
use holm_client::{Client, Credential, Event, Events, Interests, SendError};
use holm_identity::SymmetricKey;
use holm_model::method::MethodResponse;
use holm_model::{Message, SystemProperty};
use hub::{Hub, PATIENCE, call};
use serde_json::json;

const NOTHING: Interests = Interests {
    methods: false,
    desired_properties: false,
    cloud_to_device: false,
    inputs: false,
};

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

async fn until(client: &Client, wanted: impl FnMut(&State) -> bool) {
    drop(soon(client.state().wait_for(wanted)).await.unwrap());
}

async fn up(client: &Client) {
    until(client, |state| *state == State::Connected).await;
}

async fn next(events: &mut Events) -> Event {
    loop {
        match soon(events.next()).await.unwrap() {
            Event::Connected => {}
            event => return event,
        }
    }
}

async fn send(client: &Client, body: &str) -> Result<(), SendError> {
    let sent = soon(client.send(Message::new(body.to_owned()))).await.unwrap();
    soon(sent).await
}

fn bodies(hub: &Hub) -> Vec<String> {
    hub.notes().events.iter().map(|(_, body)| body.clone()).collect()
}

#[tokio::test]
async fn many_identities_share_one_connection_each_with_a_token_and_only_the_links_that_it_needs() {
    let hub = Hub::start().await;

    let mut clients = Vec::new();
    for number in 0..30 {
        clients.push(hub.client(&format!("d{number}"), NOTHING));
    }
    for (number, (client, _)) in clients.iter().enumerate() {
        send(client, &number.to_string()).await.unwrap();
    }

    let notes = hub.notes();
    assert_eq!((notes.connections, notes.tokens.len()), (1, 30));
    assert!(
        notes.tokens.contains(&"hub.test/devices/d7".to_owned()),
        "{:?}",
        notes.tokens
    );
    assert_eq!(notes.attached.len(), 2 + 30);
    let mut sent = notes.events.clone();
    sent.sort();
    assert!(
        sent.contains(&("/devices/d7/messages/events".to_owned(), "7".to_owned())),
        "{sent:?}"
    );
    drop(notes);
    assert_eq!(hub.shared.count(), 1);
}

#[tokio::test]
async fn a_peer_that_takes_few_sessions_gets_more_connections() {
    let hub = Hub::start().await;
    // One of each connection is that of the tokens.
    hub.notes().sessions = Some(4);

    let clients: Vec<_> = (0..7)
        .map(|number| hub.client(&format!("d{number}"), NOTHING))
        .collect();
    for (client, _) in &clients {
        up(client).await;
    }

    assert_eq!((hub.notes().connections, hub.shared.count()), (3, 3));
    // A place that becomes free is taken.
    let mut clients = clients;
    drop(clients.remove(0));
    hub.until("its session gone", |notes| notes.ended == 1).await;
    let (late, _events) = hub.client("late", NOTHING);
    up(&late).await;
    assert_eq!(hub.notes().connections, 3);
    drop((clients, late, _events));
    let all_gone = async {
        while hub.shared.count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon(all_gone).await;
}

#[tokio::test]
async fn many_who_come_at_once_begin_no_session_before_one_of_them_was_let_in() {
    let hub = Hub::start().await;
    hub.notes().strangers = Some(Allowance { sessions: 4, links: 16 });

    let clients: Vec<_> = (0..60)
        .map(|number| hub.client(&format!("d{number}"), NOTHING))
        .collect();
    for (client, _) in &clients {
        up(client).await;
    }

    // Nobody had to come again.
    let notes = hub.notes();
    assert_eq!((notes.connections, notes.tokens.len()), (1, 60));
}

#[tokio::test]
async fn one_whose_token_is_refused_makes_no_connection_for_the_others_who_wait_and_fails_none_of_them() {
    let hub = Hub::start().await;
    hub.notes().strangers = Some(Allowance { sessions: 4, links: 16 });
    hub.notes().refused.push("hub.test/devices/bad".to_owned());

    let (bad, _bad_events) = hub.client("bad", NOTHING);
    let good: Vec<_> = (0..20)
        .map(|number| hub.client(&format!("d{number}"), NOTHING))
        .collect();
    for (client, _) in &good {
        up(client).await;
    }
    until(&bad, |state| matches!(state, State::Refused(_))).await;

    let notes = hub.notes();
    let good_tokens = notes.tokens.iter().filter(|name| !name.ends_with("/bad"));
    assert_eq!(good_tokens.count(), 20);
}

#[tokio::test]
async fn an_edge_says_for_whom_it_speaks_in_its_links_and_with_its_token() {
    let hub = Hub::start().await;
    let mut options = hub.options("leaf/m$", NOTHING);
    options.auth_chain = Some("leaf/m$;leaf;box".to_owned());
    options.user_agent = "test/1".to_owned();

    let (client, _events) = Client::start(&hub.scope, options);
    up(&client).await;

    let notes = hub.notes();
    let (address, _, properties) = notes.attached.last().unwrap();
    assert_eq!(address, "/devices/leaf/modules/m%24/messages/events");
    let said = |name: &str| properties.get(name).and_then(Value::as_str).unwrap().to_owned();
    assert_eq!(said("com.microsoft:auth-chain"), "leaf/m$;leaf;box");
    assert_eq!(said("com.microsoft:client-version"), "test/1");
}

#[tokio::test]
async fn messages_are_acknowledged_in_any_order_and_a_final_rejection_is_told() {
    let hub = Hub::start().await;
    let (client, _events) = hub.client("d", NOTHING);
    send(&client, "good").await.unwrap();
    let error = AmqpError::new("com.microsoft:argument-error", "no such schema");

    hub.notes().once = Some(Outcome::Rejected(Some(Box::new(error))));
    let refused = send(&client, "bad").await;
    let after = send(&client, "good again").await;

    let Err(SendError::Invalid(reason)) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("no such schema"), "{reason}");
    assert_eq!(after, Ok(()));
    assert_eq!(hub.notes().connections, 1);
}

#[tokio::test]
async fn what_has_no_outcome_is_sent_again_first_and_in_order_after_a_loss() {
    let hub = Hub::start().await;
    let (client, _events) = hub.client("d", NOTHING);
    hub.notes().holds = true;
    let mut sent = Vec::new();
    for body in ["1", "2", "3"] {
        sent.push(client.send(Message::new(body)).await.unwrap());
    }
    hub.until("three messages", |notes| notes.events.len() == 3).await;

    hub.notes().holds = false;
    hub.cut();
    for sent in sent {
        soon(sent).await.unwrap();
    }
    send(&client, "4").await.unwrap();

    assert_eq!(bodies(&hub), ["1", "2", "3", "1", "2", "3", "4"]);
    assert_eq!(hub.notes().connections, 2);
}

#[tokio::test]
async fn a_message_that_was_not_taken_now_goes_again_before_what_follows() {
    let hub = Hub::start().await;
    let (client, _events) = hub.client("d", NOTHING);
    let busy = AmqpError::new("com.microsoft:device-container-throttled", "slower");

    for outcome in [Outcome::Released, Outcome::Rejected(Some(Box::new(busy)))] {
        hub.notes().once = Some(outcome);
        send(&client, "1").await.unwrap();
        send(&client, "2").await.unwrap();
    }

    assert_eq!(bodies(&hub), ["1", "1", "2", "1", "1", "2"]);
    assert_eq!(
        hub.notes().connections,
        3,
        "its session was the only one of each connection"
    );
}

#[tokio::test]
async fn the_end_of_one_identitys_session_leaves_the_others_alone() {
    let hub = Hub::start().await;
    let (good, mut good_events) = hub.client("good", NOTHING);
    let (bad, mut bad_events) = hub.client("bad", NOTHING);
    up(&good).await;
    up(&bad).await;

    hub.notes().refused.push("hub.test/devices/bad".to_owned());
    hub.act(|served| {
        let error = AmqpError::new(UNAUTHORIZED_ACCESS, "disabled");
        served.end_session("/devices/bad/messages/events", error);
    });
    let Event::Disconnected(reason) = next(&mut bad_events).await else {
        panic!("its end is told");
    };
    until(
        &bad,
        |state| matches!(state, State::Refused(reason) if reason.contains("status 401")),
    )
    .await;
    send(&good, "still here").await.unwrap();

    assert!(reason.contains("disabled"), "{reason}");
    assert!(matches!(soon(good_events.next()).await, Some(Event::Connected)));
    assert!(good.is_connected());
    hub.notes().refused.clear();
    up(&bad).await;
    assert_eq!(hub.notes().connections, 1);
}

#[tokio::test]
async fn a_token_is_renewed_on_the_open_connection_and_nobody_notices() {
    let hub = Hub::start().await;
    let mut options = hub.options("d", NOTHING);
    let identity = options.identity.clone();
    let tokens = KeyTokens::new(SymmetricKey::from_bytes([7; 32]).unwrap(), "hub.test", &identity);
    options.credential = Credential::Tokens(Arc::new(tokens.with_life_seconds(1)));

    let (client, mut events) = Client::start(&hub.scope, options);
    assert!(matches!(soon(events.next()).await, Some(Event::Connected)));
    hub.until("three tokens", |notes| notes.tokens.len() >= 3).await;
    send(&client, "x").await.unwrap();

    assert_eq!(hub.notes().connections, 1);
    assert_eq!(hub.notes().attached.len(), 3);
    let told = tokio::time::timeout(std::time::Duration::ZERO, events.next()).await;
    assert!(told.is_err(), "{told:?}");
}

#[tokio::test]
async fn a_method_is_called_with_its_argument_and_answered_with_the_id_that_it_came_with() {
    let hub = Hub::start().await;
    let interests = Interests {
        methods: true,
        ..NOTHING
    };
    let (client, mut events) = hub.client("d/m", interests);
    up(&client).await;
    let ids = [MessageId::Uuid([9; 16]), MessageId::from("text")];

    for id in ids {
        hub.act(|served| served.send("/devices/d/modules/m/methods/devicebound", &call("reboot", id)));
        let Event::Method(call) = next(&mut events).await else {
            panic!("a call");
        };
        assert_eq!((call.name.as_str(), &call.payload), ("reboot", &json!({"a": 1})));
        let response = MethodResponse {
            status: 207,
            payload: json!("done"),
        };
        call.answer(response).await;
    }

    hub.until("two answers", |notes| notes.answers.len() == 2).await;
    assert_eq!(hub.notes().answers[0], (207, "\"done\"".to_owned()));
}

#[tokio::test]
async fn messages_to_a_device_are_completed_given_back_and_rejected() {
    let hub = Hub::start().await;
    let interests = Interests {
        cloud_to_device: true,
        ..NOTHING
    };
    let (client, mut events) = hub.client("d", interests);
    up(&client).await;

    for _ in 0..3 {
        hub.act(|served| {
            let mut message = Wire::of_data("body");
            message.application_properties.push("k".into(), "v");
            let sequence = holm_amqp::Symbol::from_static("x-opt-sequence-number");
            message.message_annotations.push(sequence, 5_u64);
            served.send("/devices/d/messages/devicebound", &message);
        });
    }
    let mut received = Vec::new();
    for _ in 0..3 {
        let Event::Message(message) = next(&mut events).await else {
            panic!("a message");
        };
        received.push(message);
    }
    let first = received.remove(0);
    assert_eq!((&first.message.body[..], first.input.as_deref()), (&b"body"[..], None));
    assert_eq!(first.message.properties.get("k"), Some(Some("v")));
    assert_eq!(first.message.system.get(SystemProperty::SequenceNumber), Some("5"));
    first.complete().await;
    received.remove(0).abandon().await;
    received.remove(0).reject().await;

    hub.until("three outcomes", |notes| notes.outcomes.len() == 3).await;
    let expected = [Outcome::Accepted, Outcome::Released, Outcome::Rejected(None)].map(Some);
    assert_eq!(hub.notes().outcomes, expected);
}

#[tokio::test]
async fn a_twin_is_read_and_patched_and_its_changes_are_told() {
    let hub = Hub::start().await;
    let interests = Interests {
        desired_properties: true,
        ..NOTHING
    };
    let (watching, mut events) = hub.client("d", interests);
    // One that wants no changes attaches the links when it first asks.
    let (asking, _unread) = hub.client("e", NOTHING);
    up(&watching).await;
    up(&asking).await;

    hub.act(|served| served.send("/devices/d/twin", &Wire::of_data("{\"fan\":1,\"$version\":2}")));
    let changed = next(&mut events).await;
    let twin = soon(asking.twin()).await;
    let version = soon(watching.patch_reported(json!({"a": 1}))).await;

    assert!(matches!(changed, Event::DesiredChanged(patch) if patch == json!({"fan": 1, "$version": 2})));
    assert_eq!(twin.unwrap()["desired"]["$version"], 1);
    assert_eq!(version, Ok(Some(7)));
}

#[tokio::test]
async fn an_application_that_reads_no_events_still_sends_and_holds_up_nobody() {
    let hub = Hub::start().await;
    let interests = Interests {
        desired_properties: true,
        ..NOTHING
    };
    let (deaf, _unread) = hub.client("deaf", interests);
    let (other, _events) = hub.client("other", NOTHING);
    up(&deaf).await;

    // More than its channel and the credit of the link hold.
    for _ in 0..400 {
        hub.act(|served| served.send("/devices/deaf/twin", &Wire::of_data("{\"$version\":2}")));
    }
    send(&deaf, "mine").await.unwrap();
    send(&other, "other").await.unwrap();

    assert!(deaf.is_connected());
    assert_eq!(hub.notes().connections, 1);
}

#[tokio::test]
async fn interests_change_the_links_of_an_open_session() {
    let hub = Hub::start().await;
    let (client, _events) = hub.client("d", NOTHING);
    up(&client).await;

    client.set_interests(Interests {
        methods: true,
        cloud_to_device: true,
        ..NOTHING
    });
    hub.until("the links", |notes| notes.attached.len() == 2 + 1 + 3).await;
    client.set_interests(NOTHING);
    send(&client, "x").await.unwrap();

    assert_eq!(hub.notes().connections, 1);
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_message_can_be_settled_when_nobody_listens_any_more() {
    let hub = Hub::start().await;
    let mail = Interests {
        cloud_to_device: true,
        ..NOTHING
    };
    let (client, mut events) = hub.client("d", mail);
    up(&client).await;
    hub.act(|served| served.send("/devices/d/messages/devicebound", &Wire::of_data("x")));
    let Event::Message(message) = next(&mut events).await else {
        panic!("a message");
    };

    client.set_interests(NOTHING);
    // What is sent after the change says that it was seen.
    send(&client, "seen").await.unwrap();
    assert_eq!(hub.notes().detached, Vec::<String>::new());
    message.complete().await;

    hub.until("the link gone", |notes| notes.detached.len() == 1).await;
    assert_eq!(hub.notes().outcomes, [Some(Outcome::Accepted)]);
    // Now there is nothing to wait for.
    client.set_interests(mail);
    hub.until("the link back", |notes| notes.attached.len() == 2 + 3).await;
    client.set_interests(NOTHING);
    hub.until("it is gone at once", |notes| notes.detached.len() == 2).await;
}

#[tokio::test]
async fn an_error_of_the_hub_ends_a_session_that_then_comes_back() {
    let hub = Hub::start().await;
    let (client, mut events) = hub.client("d", NOTHING);
    up(&client).await;

    hub.act(|served| {
        let error = AmqpError::new(INTERNAL_ERROR, "restarting");
        served.end_session("/devices/d/messages/events", error);
    });
    let lost = next(&mut events).await;
    up(&client).await;

    assert!(matches!(lost, Event::Disconnected(reason) if reason.contains("restarting")));
}

#[tokio::test]
async fn whoever_has_a_certificate_gives_no_token_and_shares_no_connection() {
    let hub = Hub::start().await;
    let clients: Vec<_> = ["a", "b"]
        .map(|device| {
            let mut options = hub.options(device, NOTHING);
            options.credential = Credential::Certificate;
            Client::start(&hub.scope, options)
        })
        .into();

    for (client, _) in &clients {
        send(client, "x").await.unwrap();
    }

    let notes = hub.notes();
    assert_eq!((notes.connections, notes.tokens.len(), notes.attached.len()), (2, 0, 2));
    drop(notes);
    assert_eq!(hub.shared.count(), 0);
}
