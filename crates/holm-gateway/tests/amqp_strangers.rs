//! How long clients of AMQP may stay that prove nothing, or fall silent, on a clock of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::time::Duration;

use holm_net::Peer;
use support::Fixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

const HEADER: &[u8] = b"AMQP\0\x01\0\0";
/// Open with a container id, and begin.
const OPEN: &[u8] = &[0, 0, 0, 17, 2, 0, 0, 0, 0, 0x53, 0x10, 0xc0, 4, 1, 0xa1, 1, b'c'];
const BEGIN: &[u8] = &[
    0, 0, 0, 18, 2, 0, 0, 0, 0, 0x53, 0x11, 0xc0, 5, 4, 0x40, 0x43, 0x43, 0x43,
];
/// A sender for telemetry of `dev1`.
const ATTACH: &[u8] = b"\0\0\0\x41\x02\0\0\0\0\x53\x12\xc0\x34\x0a\xa1\x01l\x43\x42\x40\x40\
    \0\x53\x28\x45\0\x53\x29\xc0\x20\x01\xa1\x1d/devices/dev1/messages/events\x40\x40\x43";
/// A frame without anything: the peer is there.
const BEAT: &[u8] = &[0, 0, 0, 8, 2, 0, 0, 0];
/// The longest that such a connection may stand, and what belongs to saying goodbye.
const MOST: Duration = Duration::from_secs(66);

fn dial(fixture: &Fixture) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let gateway = fixture.gateway.clone();
    fixture
        .scope
        .spawn(async move { gateway.serve_amqp_stream(far, Peer::default()).await });
    near
}

/// All that comes until the connection is closed, while beats go out; and how long it took.
async fn read_to_end(mut stream: DuplexStream, beats: bool) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let (mut input, mut output) = tokio::io::split(&mut stream);
    let beating = async {
        if beats {
            let mut ticks = tokio::time::interval(Duration::from_secs(5));
            while output.write_all(BEAT).await.is_ok() {
                ticks.tick().await;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut all = Vec::new();
    let reading = input.read_to_end(&mut all);
    tokio::select! {
        read = reading => { read.unwrap(); }
        () = beating => {}
    }
    (all, began.elapsed())
}

/// PLAIN for `dev1`, with the password that the node of these tests takes.
fn plain() -> Vec<u8> {
    let response = b"\0dev1@sas.hub.test\0good";
    let length = u8::try_from(response.len()).unwrap();
    // Two fields: a symbol of 5 bytes and a binary.
    let list = [
        &[0xc0, 1 + 7 + 2 + length, 2, 0xa3, 5][..],
        b"PLAIN",
        &[0xa0, length],
        response,
    ]
    .concat();
    let size = u8::try_from(8 + 3 + list.len()).unwrap();
    [
        b"AMQP\x03\x01\0\0",
        &[0, 0, 0, size, 2, 1, 0, 0, 0, 0x53, 0x41][..],
        &list,
    ]
    .concat()
}

fn says(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_and_proves_nothing_is_told_why_and_closed_after_a_minute() {
    let fixture = Fixture::hub();
    let mut stream = dial(&fixture);
    stream.write_all(&[HEADER, OPEN, BEGIN].concat()).await.unwrap();

    let (said, took) = read_to_end(stream, true).await;

    assert!(took >= Duration::from_secs(59) && took <= MOST, "{took:?}");
    assert!(
        says(&said, "amqp:unauthorized-access") && says(&said, "$cbs"),
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_that_falls_silent_is_given_up_after_the_announced_time_and_a_half() {
    for (beats, least, most) in [(false, 240, 370), (true, 3600, 3610)] {
        let fixture = Fixture::hub();
        let mut stream = dial(&fixture);
        let opening = [&plain()[..], HEADER, OPEN, BEGIN, ATTACH].concat();
        stream.write_all(&opening).await.unwrap();
        let began = Instant::now();

        let leaving = tokio::time::timeout(Duration::from_secs(3600), read_to_end(stream, beats));
        let left = leaving.await.is_ok();

        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(least) && took <= Duration::from_secs(most),
            "{took:?}"
        );
        assert_eq!(left, !beats);
        fixture.node.until(|state| state.closed == 1).await;
        assert_eq!(fixture.directory.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_or_half_a_header_is_closed_after_a_minute() {
    for hello in [&b""[..], b"AMQP", HEADER, b"AMQP\x03\x01\0\0"] {
        let fixture = Fixture::hub();
        let mut stream = dial(&fixture);
        stream.write_all(hello).await.unwrap();

        let (_, took) = read_to_end(stream, false).await;

        assert!(took <= MOST, "{hello:?}: {took:?}");
    }
}
