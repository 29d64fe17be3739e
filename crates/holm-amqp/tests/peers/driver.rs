//! Moves bytes between a connection and a socket, in one thread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use holm_amqp::{Closed, Connection, Event};

/// How long the socket is waited for at most before the application is asked again.
const TURN: Duration = Duration::from_millis(20);

/// A connection on its socket.
pub(crate) struct Driver {
    pub(crate) connection: Connection,
    socket: TcpStream,
    out: BytesMut,
    /// All that came.
    pub(crate) received: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(connection: Connection, socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        Self {
            connection,
            socket,
            out: BytesMut::new(),
            received: Vec::new(),
        }
    }

    /// Writes what there is to write, reads what is there or comes within a moment, and lets time pass.
    pub(crate) fn turn(&mut self) {
        while self.connection.poll_transmit(&mut self.out) {
            if self.socket.write_all(&self.out).is_err() {
                self.connection.handle_end();
            }
            self.out.clear();
        }
        let now = Instant::now();
        if self.connection.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.connection.handle_timeout(now);
        }
        if !self.connection.wants_input() {
            return;
        }
        self.socket.set_read_timeout(Some(TURN)).unwrap();
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.connection.handle_end(),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                self.connection.handle_bytes(Instant::now(), &buffer[..count]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.connection.handle_end(),
        }
    }

    /// Goes on until an event that is looked for; others are dropped.
    pub(crate) fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            while let Some(event) = self.connection.poll_event() {
                if let Event::Closed(reason) = &event {
                    let in_order = matches!(reason, Closed::ByApplication | Closed::ByPeer(None));
                    assert!(in_order, "{what}: {reason:?}");
                }
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
            assert!(Instant::now() < deadline, "{what} did not come in time");
            self.turn();
        }
    }
}
