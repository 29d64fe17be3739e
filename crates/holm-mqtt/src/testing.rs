//! The test language: a server's and a client's session joined by byte pipes, in virtual time.
//!
//! ```text
//!   client -- poll_transmit --> [to_server] -- pieces of `fragment` bytes --> server --> server_events
//!   client_events <-- client <-- pieces of `fragment` bytes -- [to_client] <-- poll_transmit -- server
//! ```
//!
//! A test says what each side does and what it then expects to have happened:
//! `Pair::default().connected()`, `publish…`, `drive()`, `advance(seconds)`. A byte moves only when its receiver wants
//! input, as with a real driver. [`check_decode`] and [`check_operations`] are what fuzz targets call.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::{
    Closed, Config, Connect, Credentials, DeliveryId, Event, Message, Packet, Qos, Session, Subscription, Text,
    Violation, Will, decode, encode,
};

mod operations;

pub use operations::check_operations;

/// A server and a client that are joined, and what each was told.
#[derive(Debug)]
#[expect(missing_docs, reason = "the picture of the module names the parts")]
pub struct Pair {
    pub server: Session,
    pub client: Session,
    pub to_server: BytesMut,
    pub to_client: BytesMut,
    pub server_events: Vec<Event>,
    pub client_events: Vec<Event>,
    pub now: Instant,
    /// The most bytes handed over at a time.
    pub fragment: usize,
}

/// Some time at which virtual time begins.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise; only differences from it are used"
)]
pub fn epoch() -> Instant {
    Instant::now()
}

/// A valid text.
#[must_use]
pub fn text(text: &str) -> Text {
    Text::try_from(text).expect("tests use valid text")
}

/// A CONNECT of `dev1` as a device SDK sends it: keep-alive 60 s, session kept, credentials, no will.
#[must_use]
pub fn connect() -> Connect {
    Connect {
        version: crate::Version::V311,
        client_id: text("dev1"),
        clean_session: false,
        keep_alive_seconds: 60,
        will: None,
        credentials: Some(Credentials {
            user_name: text("hub.test/dev1/?api-version=2020-09-30"),
            password: Some(Bytes::from_static(b"SharedAccessSignature sr=hub.test")),
        }),
    }
}

/// A will on the telemetry topic of `dev1`.
#[must_use]
pub fn will() -> Will {
    Will {
        topic: text("devices/dev1/messages/events/"),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
    }
}

/// A message of QoS 1 on the telemetry topic of `dev1`.
#[must_use]
pub fn telemetry(payload: impl Into<Bytes>) -> Message {
    Message {
        topic: text("devices/dev1/messages/events/%24.mid=m-1"),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        ..Message::default()
    }
}

/// A subscription.
#[must_use]
pub fn subscription(filter: &str, qos: Qos) -> Subscription {
    Subscription {
        filter: text(filter),
        qos,
    }
}

/// The bytes of packets in a row.
#[must_use]
pub fn wire(packets: &[Packet]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for packet in packets {
        encode(packet, &mut bytes).expect("tests encode valid packets");
    }
    bytes
}

/// All that a session has to transmit, as packets.
pub fn transmitted(session: &mut Session) -> Vec<Packet> {
    let mut bytes = BytesMut::new();
    while session.poll_transmit(&mut bytes) {}
    let mut packets = Vec::new();
    while let Some(packet) = decode(&mut bytes, usize::MAX).expect("sessions transmit valid packets") {
        packets.push(packet);
    }
    assert!(bytes.is_empty(), "sessions transmit whole packets");
    packets
}

/// All events that a session has to tell.
pub fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

impl Default for Pair {
    fn default() -> Self {
        Self::new(Config::default(), Config::default(), connect())
    }
}

impl Pair {
    /// A pair before the first byte.
    #[must_use]
    pub fn new(server: Config, client: Config, connect: Connect) -> Self {
        let now = epoch();
        Self {
            server: Session::server(now, server),
            client: Session::client(now, client, connect).expect("tests use valid CONNECTs"),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            server_events: Vec::new(),
            client_events: Vec::new(),
            now,
            fragment: usize::MAX,
        }
    }

    /// The pair after CONNECT and CONNACK, with no events left over.
    #[must_use]
    pub fn connected(mut self) -> Self {
        self.drive();
        assert!(self.server.accept(self.now, false), "the server waits for a decision");
        self.drive();
        assert_eq!(self.client_events, [Event::Connected { session_present: false }]);
        self.server_events.clear();
        self.client_events.clear();
        self
    }

    /// Moves bytes and collects events until nothing moves.
    pub fn drive(&mut self) {
        while self.step() {}
    }

    /// Moves at most one piece each way and collects events; false when nothing moved.
    pub fn step(&mut self) -> bool {
        let sent = self.client.poll_transmit(&mut self.to_server) | self.server.poll_transmit(&mut self.to_client);
        let up = hand_over(&mut self.to_server, &mut self.server, self.now, self.fragment);
        let down = hand_over(&mut self.to_client, &mut self.client, self.now, self.fragment);
        let before = self.server_events.len() + self.client_events.len();
        self.server_events.extend(events(&mut self.server));
        self.client_events.extend(events(&mut self.client));
        sent | up | down | (before != self.server_events.len() + self.client_events.len())
    }

    /// Lets time pass, stopping at each deadline, with bytes moving in between.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        self.drive();
        while let Some(deadline) = self.next_deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            self.drive();
        }
        self.now = end;
    }

    fn next_deadline(&self) -> Option<Instant> {
        [self.server.poll_timeout(), self.client.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Cuts the line: what is on the way is lost, both sides learn of the end.
    pub fn cut(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.server.handle_end();
        self.client.handle_end();
        self.server_events.extend(events(&mut self.server));
        self.client_events.extend(events(&mut self.client));
    }

    /// Why the server's session ended, if it did.
    #[must_use]
    pub fn server_closed(&self) -> Option<&Closed> {
        closed(&self.server_events)
    }

    /// Why the client's session ended, if it did.
    #[must_use]
    pub fn client_closed(&self) -> Option<&Closed> {
        closed(&self.client_events)
    }

    /// The deliveries that the server was told of, in order.
    #[must_use]
    pub fn server_deliveries(&self) -> Vec<DeliveryId> {
        deliveries(&self.server_events)
    }
}

fn hand_over(pipe: &mut BytesMut, to: &mut Session, now: Instant, fragment: usize) -> bool {
    if pipe.is_empty() || !to.wants_input() {
        return false;
    }
    let piece = pipe.split_to(pipe.len().min(fragment.max(1)));
    to.handle_bytes(now, &piece);
    true
}

/// The last event, if it is the end.
#[must_use]
pub fn closed(events: &[Event]) -> Option<&Closed> {
    match events.last() {
        Some(Event::Closed(reason)) => Some(reason),
        _ => None,
    }
}

/// The deliveries among events.
#[must_use]
pub fn deliveries(events: &[Event]) -> Vec<DeliveryId> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Publish { delivery, .. } => *delivery,
            _ => None,
        })
        .collect()
}

/// Checks what decoding promises for any bytes: whole and byte by byte give the same packets and the same verdict, and
/// each packet has a form on the wire that decodes to itself.
///
/// # Panics
/// When a promise is broken.
pub fn check_decode(data: &[u8], max_packet: usize) {
    let whole = decode_all(&[data], max_packet);
    let single: Vec<&[u8]> = data.chunks(1).collect();
    let pieces = decode_all(&single, max_packet);

    assert_eq!(whole, pieces, "pieces change nothing");
    for packet in &whole.0 {
        let mut bytes = BytesMut::new();
        encode(packet, &mut bytes).expect("what was decoded can be encoded");
        let again = decode(&mut bytes, usize::MAX);
        assert_eq!(again.as_ref(), Ok(&Some(packet.clone())), "encoding keeps the value");
        assert!(bytes.is_empty(), "encoding adds nothing");
    }
}

/// Decodes pieces that arrive one after the other: the packets, and the violation that ended it.
fn decode_all(pieces: &[&[u8]], max_packet: usize) -> (Vec<Packet>, Option<Violation>) {
    let mut input = BytesMut::new();
    let mut packets = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decode(&mut input, max_packet) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(violation) => return (packets, Some(violation)),
            }
        }
    }
    (packets, None)
}
