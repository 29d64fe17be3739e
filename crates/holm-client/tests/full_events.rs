//! What a client does while its application does not read its events.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::{Duration, Instant};

use holm_client::Interests;
use holm_model::Message;
use holm_mqtt::{Event, Granted, Outcome, Qos, Text};
use support::{Link, PATIENCE};
use tokio::sync::oneshot;

/// More changes of desired properties than a client keeps (32 and 256), and fewer than its session holds back besides.
const CHANGES: u64 = 300;

/// A server that sends changes before it acknowledges the client's message, and tells when the client was heard of after
/// that: of its own accord it has nothing more to say but PINGREQ.
async fn serve(mut connection: Link, heard: oneshot::Sender<()>) {
    let (mut heard, mut silent_until) = (Some(heard), None);
    loop {
        let event = tokio::select! {
            event = connection.next_event() => Some(event),
            // Looks at the session now and then: a PINGREQ is no event.
            () = tokio::time::sleep(Duration::from_millis(20)) => None,
        };
        let session = connection.session_mut();
        match event {
            Some(Event::Connect(_)) => {
                session.accept(Instant::now(), false);
            }
            Some(Event::Subscribe { request, filters }) => {
                let granted = vec![Granted::Qos(Qos::AtMostOnce); filters.len()];
                session.suback(request, &granted).unwrap();
            }
            Some(Event::Publish { delivery, .. }) => {
                for version in 0..CHANGES {
                    let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
                    let message = holm_mqtt::Message {
                        topic: Text::try_from(topic).unwrap(),
                        payload: format!("{{\"$version\":{version}}}").into(),
                        qos: Qos::AtMostOnce,
                        retain: false,
                        dup: false,
                    };
                    session.publish(Instant::now(), &message).unwrap();
                }
                session.acknowledge(delivery.unwrap(), Outcome::Accept);
                silent_until = session.poll_timeout();
            }
            Some(Event::Closed(reason)) => panic!("the client is gone: {reason}"),
            _ => {}
        }
        // Whatever the client sends moves the end of its patience.
        if silent_until.is_some()
            && session.poll_timeout() > silent_until
            && let Some(heard) = heard.take()
        {
            heard.send(()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_application_that_reads_no_events_still_sends_and_stays_connected() {
    let interests = Interests {
        desired_properties: true,
        ..Interests::default()
    };
    let (heard, pinged) = oneshot::channel();
    let keep_alive = Duration::from_secs(2);
    let (client, _unread) = support::start(interests, keep_alive, support::tokens(), |link| serve(link, heard)).await;

    let sent = async { client.send(Message::new("x")).await.unwrap().await };
    let acknowledged = tokio::time::timeout(PATIENCE, sent).await;
    let pinged = tokio::time::timeout(PATIENCE, pinged).await;

    assert_eq!(acknowledged, Ok(Ok(())));
    assert_eq!(pinged, Ok(Ok(())));
}
