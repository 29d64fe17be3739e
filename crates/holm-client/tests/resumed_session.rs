//! What a client does with the inputs of a resumed session, which come before its subscriptions are answered.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::{Duration, Instant};

use holm_client::{Event, Interests};
use holm_model::Message;
use holm_mqtt::{Granted, Outcome, Qos, Text};
use support::{Link, PATIENCE};

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
