//! What a client tells when its token is to be renewed and that fails.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holm_client::credential::{KeyTokens, MakingToken, NoToken};
use holm_client::{Event, Interests, TokenSource};
use holm_model::Timestamp;
use holm_mqtt::{Granted, Qos};
use support::{Link, PATIENCE};

/// Gives one token, which soon ends.
struct OneToken {
    tokens: KeyTokens,
    is_given: AtomicBool,
}

impl TokenSource for OneToken {
    fn make(&self, now: Timestamp) -> MakingToken<'_> {
        if self.is_given.swap(true, Ordering::SeqCst) {
            let refused = std::io::Error::other("there was one token");
            return Box::pin(std::future::ready(Err(NoToken(Box::new(refused)))));
        }
        self.tokens.make(now)
    }
}

async fn serve(mut connection: Link) {
    loop {
        let event = connection.next_event().await;
        let session = connection.session_mut();
        match event {
            holm_mqtt::Event::Connect(_) => {
                session.accept(Instant::now(), false);
            }
            holm_mqtt::Event::Subscribe { request, filters } => {
                let granted = vec![Granted::Qos(Qos::AtLeastOnce); filters.len()];
                session.suback(request, &granted).unwrap();
            }
            holm_mqtt::Event::Closed(_) => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_as_the_end_of_the_connection_that_it_is() {
    let tokens = OneToken {
        tokens: support::tokens().with_life_seconds(2),
        is_given: AtomicBool::new(false),
    };
    let keep_alive = Duration::from_secs(60);
    let (_client, mut events) = support::start(Interests::default(), keep_alive, tokens, serve).await;

    let up = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    let down = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();

    assert!(matches!(up, Some(Event::Connected)), "{up:?}");
    match down {
        Some(Event::Disconnected(reason)) => assert!(reason.contains("token"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
