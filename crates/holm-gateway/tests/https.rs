//! What a node that has messages for sessions only answers over HTTPS.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use holm_net::Peer;
use holm_net::http::body;
use hyper::header::AUTHORIZATION;
use hyper::{Request, StatusCode};
use support::Fixture;

#[tokio::test]
async fn a_node_without_locks_refuses_a_fetch_for_good_and_says_where_to_go() {
    let fixture = Fixture::edge();
    let fetch = Request::get("/devices/dev1/messages/devicebound?api-version=2021-04-12")
        .header(AUTHORIZATION, "good")
        .body(body::empty())
        .unwrap();

    let answer = fixture.gateway.answer_device(fetch, &Peer::default()).await.unwrap();

    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.headers()["iothub-errorcode"], "InvalidOperation");
    let read = body::read(answer.into_body(), 4096).await.unwrap();
    let text = String::from_utf8_lossy(&read);
    assert!(text.contains("MQTT or AMQP") && text.contains("at the hub"), "{text}");
}
