//! The test language: a server's and a client's connection joined by byte pipes, in virtual time.
//!
//! ```text
//!   client -- poll_transmit --> [to_server] -- pieces of `fragment` bytes --> server --> server_events
//!   client_events <-- client <-- pieces of `fragment` bytes -- [to_client] <-- poll_transmit -- server
//! ```
//!
//! A test says what each side does and what it then expects to have happened: `Pair::default().open()`, `link_up(…)`,
//! `send…`, `drive()`, `advance(…)`. A byte moves only when its receiver wants input, as with a real driver. The checks are
//! what fuzz targets call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::codec::{Frame, FrameBody, Limits, ProtocolHeader, decode_frame, encode_frame};
use crate::performative::Performative;
use crate::{
    Acceptance, Closed, Config, Connection, Delivery, DeliveryTag, Event, LinkId, Login, NewLink, Outbound, SaslCode,
    SessionId,
};

mod decoding;
mod hostile;
mod operations;

pub use decoding::{check_frames, check_message, check_value};
pub use hostile::{check_client, check_server};
pub use operations::check_operations;

/// A server and a client that are joined, and what each was told.
#[derive(Debug)]
#[expect(missing_docs, reason = "the picture of the module names the parts")]
pub struct Pair {
    pub server: Connection,
    pub client: Connection,
    pub to_server: BytesMut,
    pub to_client: BytesMut,
    pub server_events: Vec<Event>,
    pub client_events: Vec<Event>,
    pub now: Instant,
    /// The most bytes handed over at a time.
    pub fragment: usize,
}

/// Both ends of a link.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of the ends")]
pub struct Ends {
    pub client: LinkId,
    pub server: LinkId,
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

/// A delivery that waits for its outcome, named by a number.
#[must_use]
pub fn delivery(number: u64, payload: impl Into<Bytes>) -> Outbound {
    Outbound {
        tag: DeliveryTag::from(number),
        format: 0,
        payload: payload.into(),
        settled: false,
    }
}

/// All that a connection has to transmit.
pub fn transmitted(connection: &mut Connection) -> BytesMut {
    let mut bytes = BytesMut::new();
    while connection.poll_transmit(&mut bytes) {}
    bytes
}

/// All that a connection has to transmit, as frames; protocol headers are left out.
///
/// # Panics
/// When it is not of frames.
pub fn transmitted_frames(connection: &mut Connection) -> Vec<Frame> {
    let mut bytes = transmitted(connection);
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        if let Some(header) = bytes
            .first_chunk::<8>()
            .filter(|header| ProtocolHeader::of(**header).is_some())
        {
            let length = header.len();
            drop(bytes.split_to(length));
            continue;
        }
        let frame = decode_frame(&mut bytes, u32::MAX, Limits::default()).expect("connections transmit valid frames");
        frames.push(frame.expect("connections transmit whole frames"));
    }
    frames
}

/// The performatives among what a connection has to transmit.
pub fn transmitted_performatives(connection: &mut Connection) -> Vec<Performative> {
    let frames = transmitted_frames(connection).into_iter();
    frames
        .filter_map(|frame| match frame.body {
            FrameBody::Amqp(performative, _) => Some(performative),
            _ => None,
        })
        .collect()
}

/// The bytes of a performative on a channel.
#[must_use]
pub fn frame(channel: u16, performative: Performative) -> BytesMut {
    frame_with(channel, performative, Bytes::new())
}

/// The bytes of a performative on a channel, with what follows it.
#[must_use]
pub fn frame_with(channel: u16, performative: Performative, payload: Bytes) -> BytesMut {
    let mut out = BytesMut::new();
    let body = FrameBody::Amqp(performative, payload);
    encode_frame(&Frame { channel, body }, &mut out);
    out
}

/// The bytes of a performative whose fields are given as bytes, as another implementation would write them: the last fields
/// left out, numbers in other widths.
///
/// # Panics
/// When they are too many for a short list.
#[must_use]
pub fn raw_frame(channel: u16, descriptor: u8, fields: &[&[u8]]) -> BytesMut {
    let [high, low] = channel.to_be_bytes();
    let short = |length: usize| u8::try_from(length).expect("tests write short frames");
    let body = fields.concat();
    let list = [0, 0x53, descriptor, 0xc0, short(body.len() + 1), short(fields.len())];
    let size = short(8 + list.len() + body.len());
    BytesMut::from(&[&[0, 0, 0, size, 2, 0, high, low], &list[..], &body].concat()[..])
}

/// All events that a connection has to tell.
pub fn events(connection: &mut Connection) -> Vec<Event> {
    std::iter::from_fn(|| connection.poll_event()).collect()
}

/// The deliveries among events.
#[must_use]
pub fn deliveries(events: &[Event]) -> Vec<&Delivery> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Delivery(delivery) => Some(delivery),
            _ => None,
        })
        .collect()
}

/// The end, if it is the last event.
#[must_use]
pub fn closed(events: &[Event]) -> Option<&Closed> {
    match events.last() {
        Some(Event::Closed(reason)) => Some(reason),
        _ => None,
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new(Config::default(), Config::default(), Login::default())
    }
}

impl Pair {
    /// A pair before the first byte.
    #[must_use]
    pub fn new(server: Config, client: Config, login: Login) -> Self {
        let now = epoch();
        Self {
            server: Connection::server(now, Arc::new(server)),
            client: Connection::client(now, Arc::new(client), login),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            server_events: Vec::new(),
            client_events: Vec::new(),
            now,
            fragment: usize::MAX,
        }
    }

    /// The pair after both opens, with no events left over; credentials are taken.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.drive();
        if matches!(self.server_events.first(), Some(Event::Authenticate { .. })) {
            assert!(
                self.server.authenticate(self.now, SaslCode::Ok),
                "the server waits for a decision"
            );
            self.drive();
        }
        assert!(self.server.is_open() && self.client.is_open(), "{self:?}");
        self.server_events.clear();
        self.client_events.clear();
        self
    }

    /// A session that the client begins; its ids at client and server. No events are left over.
    pub fn begin(&mut self) -> (SessionId, SessionId) {
        let client = self.client.begin().expect("the connection is open");
        self.drive();
        assert_eq!(self.client_events, [Event::Begun(client)]);
        let [Event::Begun(server)] = self.server_events[..] else {
            panic!("expected one session: {:?}", self.server_events);
        };
        self.server_events.clear();
        self.client_events.clear();
        (client, server)
    }

    /// A link that the client attaches in a session of its own, and the server takes, with `window` where it receives. No
    /// events are left over.
    pub fn link_up(&mut self, new: NewLink, window: u32) -> Ends {
        let (session, _) = self.begin();
        self.link_up_in(session, new, window)
    }

    /// The same in a session.
    pub fn link_up_in(&mut self, session: SessionId, new: NewLink, window: u32) -> Ends {
        let client = self.client.attach(session, new).expect("the session is there");
        self.drive();
        let Some(Event::Attach { link: server, attach }) = self.server_events.pop() else {
            panic!("expected an attach: {:?}", self.server_events);
        };
        let acceptance = Acceptance {
            window,
            ..Acceptance::of(&attach)
        };
        assert!(self.server.accept_link(server, acceptance), "the link waits");
        self.drive();
        self.server_events.clear();
        self.client_events.clear();
        Ends { client, server }
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
}

fn hand_over(pipe: &mut BytesMut, to: &mut Connection, now: Instant, fragment: usize) -> bool {
    if pipe.is_empty() || !to.wants_input() {
        return false;
    }
    let piece = pipe.split_to(pipe.len().min(fragment.max(1)));
    to.handle_bytes(now, &piece);
    true
}
