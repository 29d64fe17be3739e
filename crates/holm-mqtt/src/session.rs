//! One MQTT connection, from either end, without a socket.
//!
//! ```text
//!   server:  AwaitingConnect --CONNECT--> Deciding --accept--> Open --> Closed      any state can go to Closed
//!   client:  AwaitingConnack --CONNACK 0----------------------> Open --> Closed
//! ```
//!
//! There are four kinds of method: `handle_*` take in what came from the network and the clock; `poll_*` give out bytes,
//! deadlines and events; `wants_input` and `can_publish` say what would be welcome; the rest is the application's voice.
//! A driver is one loop:
//!
//! 1. while `poll_event` gives one, hand it to the application;
//! 2. while `poll_transmit` gives bytes, write them; after [`Event::Closed`], close the socket and stop;
//! 3. wait for: bytes (only if `wants_input`), `poll_timeout`, the application. The end of the stream or an error of the
//!    socket is `handle_end`; the loop goes on until [`Event::Closed`], since what came before the end is handled first.
//!
//! Invariants:
//! - every end is told once, by [`Event::Closed`], after everything that came before it. There is no second way to learn
//!   of a violation, because input that had to wait is judged when its turn comes, not in the call that brought it;
//! - packets are handled in order, one at a time. Input that cannot be handled now (the application decides on CONNECT,
//!   a window, the events or the output are full) waits in the input buffer, neither lost nor handled early, and the next
//!   call that makes room goes on with it;
//! - PINGREQ is answered here, without the application.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::acknowledgements::{Acknowledgements, DeliveryId, Outcome};
use crate::codec::{encode, encode_publish};
use crate::flow::{Flow, Requests, Token};
use crate::packet::{Packet, Qos};
use crate::timer::{Timer, Timers};
use crate::violation::Violation;

mod client;
mod config;
mod event;
mod input;
mod server;

pub use config::{Config, SLOWEST_LINK};
pub use event::{AnswerError, Closed, Event, Message, PublishError, RequestError};

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `AwaitingConnect => (Deciding | Closed)`
    AwaitingConnect,
    /// `Deciding => (Open | Closed)`
    Deciding,
    /// `AwaitingConnack => (Open | Closed)`
    AwaitingConnack,
    /// `Open => Closed`
    Open,
    /// The end: input is dropped, output is still given out.
    Closed,
}

/// One MQTT connection. See the module for how it is driven.
#[derive(Debug)]
pub struct Session {
    config: Config,
    role: Role,
    state: State,
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<Event>,
    event_bytes: usize,
    acknowledgements: Acknowledgements,
    flow: Flow,
    requests: Requests,
    timers: Timers,
    /// Server: 1.5 times the client's keep-alive, capped. Client: the keep-alive, zero for none.
    silence: Duration,
    last_received: Instant,
    last_sent: Instant,
    /// Input had to wait since bytes last came: silence was of our own making.
    paused: bool,
    /// The transport ended; what came before is still handled.
    ended: bool,
}

impl Session {
    fn new(now: Instant, config: Config, role: Role, state: State) -> Self {
        Self {
            acknowledgements: Acknowledgements::new(config.inbound_window),
            flow: Flow::new(config.outbound_window),
            requests: Requests::new(config.max_requests),
            config,
            role,
            state,
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
            event_bytes: 0,
            timers: Timers::default(),
            silence: Duration::ZERO,
            last_received: now,
            last_sent: now,
            paused: false,
            ended: false,
        }
    }

    /// Takes bytes from the peer: any piece of the stream, at most [`Config::max_input`] bytes at a time.
    ///
    /// After the end of the session they are dropped.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.state != State::Closed && !self.ended {
            self.input.extend_from_slice(bytes);
            self.handle_input(now);
        }
    }

    /// The buffer that [`handle_input`](Self::handle_input) reads, for a driver that reads the socket straight into it:
    /// append to it, never take from it.
    pub fn input_buffer(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Takes the bytes that were appended to [`input_buffer`](Self::input_buffer).
    pub fn handle_input(&mut self, now: Instant) {
        if self.state == State::Closed {
            self.input.clear();
            return;
        }
        self.last_received = now;
        self.paused = false;
        if self.timers.is_set(Timer::KeepAlive) {
            self.timers.set(Timer::KeepAlive, now + self.silence);
        }
        self.process();
        // Whatever comes shows that the server is there; its answer to the ping is behind it.
        if self.timers.is_set(Timer::Pingresp) {
            self.timers.set(Timer::Pingresp, now + self.patience());
        }
        let limit = self.config.max_input.saturating_add(self.config.max_packet);
        if self.input.len() > limit {
            let bytes = self.input.len();
            self.fail(Violation::InputOverflow { bytes, limit });
        }
    }

    /// Gives back room that is left of busier times: who has just connected, or only pings, may do nothing else for days, and
    /// thousands of them must fit.
    fn give_back(&mut self) {
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        self.flow.give_back();
    }

    /// Takes the end of the transport, in error or not. What arrived before it is still handled; then the session closes.
    pub fn handle_end(&mut self) {
        if self.state == State::Closed {
            return;
        }
        self.ended = true;
        self.output.clear();
        if self.state != State::Deciding {
            self.timers.clear_all();
        }
        self.process();
    }

    /// Takes the passing of time: call it at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Connect | Timer::Connack => self.close_with(Closed::TimedOut(timer)),
                Timer::Decision => self.decision_timed_out(),
                Timer::KeepAlive | Timer::Pingresp if self.is_paused() => {
                    self.paused = false;
                    let wait = if timer == Timer::KeepAlive {
                        self.silence
                    } else {
                        self.patience()
                    };
                    self.timers.set(timer, now + wait);
                }
                Timer::KeepAlive | Timer::Pingresp => self.close_with(Closed::TimedOut(timer)),
                Timer::Ping => self.ping(now),
            }
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    /// Gives the bytes to be sent: an empty `out` is exchanged for the buffer that holds them, otherwise they are
    /// appended. False when there are none. Clear `out` and pass it again, and the two buffers take turns.
    pub fn poll_transmit(&mut self, out: &mut BytesMut) -> bool {
        if self.output.is_empty() {
            return false;
        }
        // A peer that takes in what held up its own packets is alive, though nothing of it was read.
        self.paused |= self.output_is_full();
        if out.is_empty() {
            std::mem::swap(out, &mut self.output);
        } else {
            out.extend_from_slice(&self.output);
            self.output.clear();
        }
        self.process();
        true
    }

    /// The next event. Taking it makes room, so input that waited may be handled within.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.poll_event_where(|_| true)
    }

    /// The next event that is wanted now; those before it wait, and count as waiting. For an application that has no room
    /// for some kind of event and must still hear of others. The order within what is wanted stays.
    pub fn poll_event_where(&mut self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let index = self.events.iter().position(wanted)?;
        let event = self.events.remove(index)?;
        self.event_bytes = self.event_bytes.saturating_sub(counted_bytes(&event));
        self.process();
        Some(event)
    }

    /// Whether the driver should read the socket. False while the application decides on CONNECT, while as many
    /// publishes, requests, events or bytes wait as the [`Config`] allows, and after the end.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.state != State::Closed && !self.ended && !self.waits_for_application() && !self.output_is_full()
    }

    /// Whether a message of QoS 1 would be taken now.
    #[must_use]
    pub fn can_publish(&self) -> bool {
        self.state == State::Open && !self.ended && !self.output_is_full() && self.flow.free() > 0
    }

    /// Whether the connection was accepted and has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Publishes a message. At QoS 1 it gives the token that [`Event::Acknowledged`] will name; at QoS 0, none.
    ///
    /// # Errors
    /// A [`PublishError`]; nothing was sent, and the message is still the caller's.
    pub fn publish(&mut self, now: Instant, message: &Message) -> Result<Option<Token>, PublishError> {
        if self.state != State::Open || self.ended {
            return Err(PublishError::NotOpen);
        }
        if self.output_is_full() {
            return Err(PublishError::OutputFull);
        }
        let id = match message.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce if self.flow.free() == 0 => return Err(PublishError::WindowFull),
            Qos::AtLeastOnce => Some((self.flow.allocate(&self.requests), message.dup)),
            Qos::ExactlyOnce => return Err(PublishError::ExactlyOnce),
        };
        let Message {
            topic,
            payload,
            retain,
            qos,
            ..
        } = message;
        encode_publish(topic, payload, *retain, *qos, id, &mut self.output).map_err(PublishError::Encode)?;
        self.last_sent = now;
        Ok(id.map(|(id, _)| self.flow.sent(id, message.clone())))
    }

    /// Says what became of an inbound publish. PUBACKs leave in the order of arrival, whatever the order of these calls;
    /// [`Outcome::Close`] closes in its turn, and what came after it is not handled.
    ///
    /// True when the delivery waited for it; false when it was settled before or the session has ended.
    pub fn acknowledge(&mut self, delivery: DeliveryId, outcome: Outcome) -> bool {
        if self.state != State::Open || !self.acknowledgements.settle(delivery, outcome) {
            return false;
        }
        while let Some((id, outcome)) = self.acknowledgements.next_settled() {
            match outcome {
                Outcome::Accept => self.send(&Packet::Puback(id)),
                Outcome::Close => {
                    self.close();
                    return true;
                }
            }
        }
        self.process();
        true
    }

    /// Ends the session from this side; an open client says DISCONNECT. Nothing happens when it has ended already.
    pub fn close(&mut self) {
        if self.role == Role::Client && self.state == State::Open {
            self.send(&Packet::Disconnect);
        }
        self.close_with(Closed::ByApplication);
    }

    /// The messages of QoS 1 that the peer has not acknowledged, in the order sent, with DUP set: publish them again on
    /// the next session. Events that were not polled are lost, so poll them first.
    #[must_use]
    pub fn into_unacknowledged(self) -> Vec<(Token, Message)> {
        self.flow.into_unacknowledged()
    }

    fn push(&mut self, event: Event) {
        self.event_bytes += counted_bytes(&event);
        self.events.push_back(event);
    }

    /// Writes a packet that this crate made and that therefore has a form on the wire.
    fn send(&mut self, packet: &Packet) {
        if !self.ended {
            encode(packet, &mut self.output).expect("packets that a session makes by itself are within the limits");
        }
    }

    fn fail(&mut self, violation: Violation) {
        self.answer_violation(&violation);
        self.close_with(Closed::Violation(violation));
    }

    fn close_with(&mut self, reason: Closed) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.timers.clear_all();
        self.input = BytesMut::new();
        self.events.push_back(Event::Closed(reason));
    }
}

/// What an event holds of its input buffer, near enough.
fn counted_bytes(event: &Event) -> usize {
    match event {
        Event::Publish { message, .. } => message.topic.len() + message.payload.len(),
        Event::Connect(connect) => connect.will.as_ref().map_or(0, |will| Bytes::len(&will.payload)),
        Event::Subscribe { filters, .. } => filters.iter().map(|subscription| subscription.filter.len()).sum(),
        Event::Unsubscribe { filters, .. } => filters.iter().map(|filter| filter.len()).sum(),
        _ => 0,
    }
}
