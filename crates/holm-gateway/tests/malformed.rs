//! What an operator reads of clients that break MQTT.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use holm_net::Peer;
use support::Fixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing_subscriber::fmt::MakeWriter;

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn warnings(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains("WARN"))
            .map(str::to_owned)
            .collect()
    }
}

/// A connection from `address` that sends these bytes and waits for its end.
async fn send(fixture: &Fixture, address: SocketAddr, bytes: &[u8]) {
    let peer = Peer {
        address: Some(address),
        ..Peer::default()
    };
    let mut stream = fixture.dial_as(peer);
    stream.write_all(bytes).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_client_that_breaks_mqtt_is_told_of_once_with_address_and_reason_and_a_flood_is_bounded() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::hub();

    send(&fixture, "192.0.2.7:4711".parse().unwrap(), &[0xC0, 0]).await;
    let first = log.warnings();
    for _ in 0..100 {
        send(&fixture, "192.0.2.8:4712".parse().unwrap(), &[0xFF, 0xFF]).await;
    }

    assert_eq!(first.len(), 1, "{first:?}");
    assert!(
        first[0].contains("192.0.2.7:4711") && first[0].contains("PINGREQ"),
        "{}",
        first[0]
    );
    assert_eq!(log.warnings().len(), 20);
}
