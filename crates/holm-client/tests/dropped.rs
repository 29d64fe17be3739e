//! What becomes of messages on their way when the application drops its client.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::{Duration, Instant};

use holm_client::client::{SendError, State};
use holm_client::{Client, Events, Interests};
use holm_model::Message;
use holm_mqtt::{Event, Granted, Qos};
use support::{Link, PATIENCE};
use tokio::sync::oneshot;

/// A server that acknowledges no message; when it is told, it ends the connection and does nothing with the next.
async fn serve(mut connection: Link, mut leave: oneshot::Receiver<()>) {
    loop {
        let event = tokio::select! {
            event = connection.next_event() => event,
            Ok(()) = &mut leave => break,
        };
        let session = connection.session_mut();
        match event {
            Event::Connect(_) => {
                session.accept(Instant::now(), false);
            }
            Event::Subscribe { request, filters } => {
                let granted = vec![Granted::Qos(Qos::AtLeastOnce); filters.len()];
                session.suback(request, &granted).unwrap();
            }
            Event::Closed(_) => return,
            _ => {}
        }
    }
    drop(connection);
    std::future::pending().await
}

async fn start() -> (Client, Events, oneshot::Sender<()>) {
    let (leave, told) = oneshot::channel();
    let keep_alive = Duration::from_secs(60);
    let serve = |link| serve(link, told);
    let (client, events) = support::start(Interests::default(), keep_alive, support::tokens(), serve).await;
    (client, events, leave)
}

async fn until(client: &Client, wanted: impl FnMut(&State) -> bool) {
    let mut state = client.state();
    let reached = tokio::time::timeout(PATIENCE, state.wait_for(wanted)).await;
    drop(reached.unwrap().unwrap());
}

#[tokio::test]
async fn a_full_window_that_nobody_acknowledges_comes_back_at_once() {
    let (client, events, _leave) = start().await;
    let mut sent = Vec::new();
    for _ in 0..support::WINDOW {
        sent.push(client.send(Message::new("x")).await.unwrap());
    }
    until(&client, |state| *state == State::Connected).await;

    drop((client, events));

    for sent in sent {
        let outcome = tokio::time::timeout(PATIENCE, sent).await;
        assert_eq!(outcome, Ok(Err(SendError::Stopped)));
    }
}

#[tokio::test]
async fn what_was_on_its_way_comes_back_at_once_while_the_next_connection_is_being_made() {
    let (client, events, leave) = start().await;
    let sent = client.send(Message::new("x")).await.unwrap();
    until(&client, |state| *state == State::Connected).await;
    leave.send(()).unwrap();
    until(&client, |state| matches!(state, State::Disconnected(_))).await;
    // The system takes the next connection, and nobody speaks on it until the handshake is given up.
    until(&client, |state| *state == State::Connecting).await;

    drop((client, events));

    let outcome = tokio::time::timeout(PATIENCE, sent).await;
    assert_eq!(outcome, Ok(Err(SendError::Stopped)));
}
