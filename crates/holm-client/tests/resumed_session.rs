//! What a client does with a resumed session: with its inputs, which come before the subscriptions are answered, and with what
//! an earlier connection subscribed.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::{Duration, Instant};

use holm_client::{Event, Interests};
use holm_model::Message;
use holm_mqtt::{Granted, Outcome, Qos, Text};
use support::{Link, PATIENCE};
use tokio::sync::mpsc;

/// A server that resumes a session with 16 inputs, and answers SUBSCRIBE only when a message of the client has come: what
/// a connection looks like whose window was full before the client could say anything.
async fn serve(mut connection: Link) {
    let mut request = None;
    loop {
        let event = connection.next_event().await;
        let session = connection.session_mut();
        match event {
            holm_mqtt::Event::Connect(_) => {
                session.accept(Instant::now(), true);
                for number in 0..16 {
                    let topic = Text::try_from("devices/d/modules/m/inputs/in/%24.cdid=d").unwrap();
                    let payload = vec![number].into();
                    let message = holm_mqtt::Message {
                        topic,
                        payload,
                        qos: Qos::AtLeastOnce,
                        retain: false,
                        dup: false,
                    };
                    session.publish(Instant::now(), &message).unwrap();
                }
            }
            holm_mqtt::Event::Subscribe {
                request: asked,
                filters,
            } => request = Some((asked, filters.len())),
            holm_mqtt::Event::Publish { delivery, .. } => {
                if let Some((request, filters)) = request.take() {
                    session
                        .suback(request, &vec![Granted::Qos(Qos::AtLeastOnce); filters])
                        .unwrap();
                }
                session.acknowledge(delivery.unwrap(), Outcome::Accept);
            }
            holm_mqtt::Event::Closed(_) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_is_made_of_an_input_can_be_sent_before_the_subscriptions_are_answered() {
    let interests = Interests {
        inputs: true,
        ..Interests::default()
    };

    let (client, mut events) = support::start(interests, Duration::from_secs(60), support::tokens(), serve).await;
    let handled = async {
        for _ in 0..16 {
            match events.next().await {
                Some(Event::Message(received)) => {
                    // As a careful module does: what it makes of a message is safe before the message counts as handled.
                    client.send(Message::new("made of it")).await.unwrap().await.unwrap();
                    received.complete().await;
                }
                Some(Event::Connected) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    };

    assert!(
        tokio::time::timeout(PATIENCE, handled).await.is_ok(),
        "the client waits for ever"
    );
}

/// A server that tells the filters that a client subscribes and those that it gives up.
async fn tell_filters(mut connection: Link, resumed: bool, told: mpsc::Sender<(bool, Vec<String>)>) {
    loop {
        let event = connection.next_event().await;
        let session = connection.session_mut();
        match event {
            holm_mqtt::Event::Connect(_) => {
                session.accept(Instant::now(), resumed);
            }
            holm_mqtt::Event::Subscribe { request, filters } => {
                let granted = vec![Granted::Qos(Qos::AtLeastOnce); filters.len()];
                session.suback(request, &granted).unwrap();
                let filters = filters.iter().map(|one| one.filter.as_str().to_owned());
                told.try_send((true, filters.collect())).unwrap();
            }
            holm_mqtt::Event::Unsubscribe { request, filters } => {
                session.unsuback(request).unwrap();
                let filters = filters.iter().map(|filter| filter.as_str().to_owned());
                told.try_send((false, filters.collect())).unwrap();
            }
            holm_mqtt::Event::Closed(_) => return,
            _ => {}
        }
    }
}

/// What a module that wants methods says of its subscriptions, until the changes it wants later are subscribed too.
async fn said(resumed: bool) -> Vec<(bool, Vec<String>)> {
    let methods = Interests {
        methods: true,
        ..Interests::default()
    };
    let (tell, mut told) = mpsc::channel(16);
    let serve = move |connection| tell_filters(connection, resumed, tell);
    let (client, mut events) = support::start(methods, Duration::from_secs(60), support::tokens(), serve).await;
    let all = async {
        assert!(matches!(events.next().await, Some(Event::Connected)));
        client.set_interests(Interests {
            desired_properties: true,
            ..methods
        });
        let mut all = Vec::new();
        loop {
            let one = told.recv().await.unwrap();
            let is_last = one.1 == [DESIRED];
            all.push(one);
            if is_last && all.last().unwrap().0 {
                return all;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap()
}

const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const METHODS: &str = "$iothub/methods/POST/#";
const TWIN: &str = "$iothub/twin/res/#";

#[tokio::test]
async fn what_an_earlier_connection_subscribed_and_nobody_wants_is_given_up() {
    let all = said(true).await;

    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        all,
        [
            (true, names(&[TWIN, METHODS])),
            (false, names(&[DESIRED, "devices/d/modules/m/inputs/#"])),
            (true, names(&[DESIRED])),
        ]
    );
}

#[tokio::test]
async fn in_a_new_session_nothing_is_given_up() {
    let all = said(false).await;

    assert!(all.iter().all(|(subscribes, _)| *subscribes), "{all:?}");
}
