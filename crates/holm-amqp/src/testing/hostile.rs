//! Any bytes at a connection: it holds no more than its limits, tells its end once, and transmits frames.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{delivery, epoch};
use crate::{
    Acceptance, AmqpError, Config, Connection, Credentials, Event, Limits, LinkId, Login, NewLink, Outcome, SaslCode,
    condition,
};

/// The most that a connection may have to transmit between two transmissions: its limit, and what one piece of input may
/// cause on top.
const MAX_OUTPUT: usize = 1024 * 1024;

/// The most that a connection may hold after it: unfinished deliveries, a frame that is not whole, and what the application
/// sends on its links without looking.
const MAX_HELD: usize = 8192 + 64 * 1024 + 4096 + 512 * 1024;

/// Small limits, so that they are reached.
fn config() -> Config {
    Config {
        values: Limits {
            values: 1000,
            ..Limits::default()
        },
        max_message_size: 4096,
        max_unfinished: 8192,
        incoming_window: 16,
        max_output: 16 * 1024,
        ..Config::default()
    }
}

/// Gives any bytes to a server whose application takes links of every other kind.
///
/// # Panics
/// When a promise is broken.
pub fn check_server(bytes: &[u8]) {
    let now = epoch();
    drive(Connection::server(now, Arc::new(config())), now, bytes);
}

/// Gives any bytes to a client that wants a session with links in both directions.
///
/// # Panics
/// When a promise is broken.
pub fn check_client(bytes: &[u8]) {
    let now = epoch();
    let login = Login {
        credentials: bytes
            .first()
            .filter(|first| **first % 2 == 0)
            .map(|_| Credentials::Anonymous),
        ..Login::default()
    };
    drive(
        Connection::client(now, Arc::new(config()), login),
        now,
        bytes.get(1..).unwrap_or_default(),
    );
}

fn drive(mut connection: Connection, mut now: Instant, bytes: &[u8]) {
    let mut application = Application::default();
    let mut out = BytesMut::new();
    for piece in bytes.chunks(257) {
        if connection.wants_input() {
            connection.handle_bytes(now, piece);
        }
        application.take_events(&mut connection);
        now += Duration::from_millis(100);
        connection.handle_timeout(now);
        out.clear();
        connection.poll_transmit(&mut out);
        assert!(out.len() <= MAX_OUTPUT, "{} bytes to send", out.len());
        let held = connection.held_bytes();
        assert!(held <= MAX_HELD, "{held} bytes are held");
    }
    connection.handle_end();
    application.take_events(&mut connection);
    assert!(application.closed, "the end is told");
}

/// Does something about everything that it is told.
#[derive(Default)]
struct Application {
    attached: u32,
    sent: u64,
    closed: bool,
}

impl Application {
    fn take_events(&mut self, connection: &mut Connection) {
        while let Some(event) = connection.poll_event() {
            assert!(!self.closed, "nothing follows the end");
            self.handle(connection, event);
        }
    }

    fn handle(&mut self, connection: &mut Connection, event: Event) {
        match event {
            Event::Authenticate { .. } => assert!(connection.authenticate(epoch(), SaslCode::Ok), "it was asked for"),
            Event::Opened(_) => {
                if let Ok(session) = connection.begin() {
                    for new in [NewLink::sender("out", "node"), NewLink::receiver("in", "node", 3)] {
                        connection.attach(session, new).expect("the session is there");
                    }
                }
            }
            Event::Attach { link, attach } => {
                self.attached += 1;
                if self.attached.is_multiple_of(3) {
                    connection.refuse_link(link, AmqpError::new(condition::NOT_FOUND, "no such node"));
                } else {
                    connection.accept_link(link, Acceptance::of(&attach));
                }
            }
            Event::Credit { link, drain, .. } => {
                self.send(connection, link);
                if drain {
                    connection.give_credit_back(link);
                }
            }
            Event::Delivery(delivery) => {
                // Its link may be gone again, or the peer may have forgotten it.
                if let Some(id) = delivery.id
                    && connection.settle(id, Outcome::Accepted)
                {
                    assert!(!connection.settle(id, Outcome::Accepted), "once");
                }
                if delivery.payload.len() == 7 {
                    connection.drain(delivery.link);
                }
            }
            Event::Closed(_) => self.closed = true,
            _ => {}
        }
    }

    fn send(&mut self, connection: &mut Connection, link: LinkId) {
        for _ in 0..4 {
            self.sent += 1;
            let payload = vec![7; usize::try_from(self.sent % 5).unwrap_or(0) * 300];
            if connection.send(link, &delivery(self.sent, payload)).is_err() {
                return;
            }
        }
    }
}
