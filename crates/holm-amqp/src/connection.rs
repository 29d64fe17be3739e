//! One AMQP connection with its sessions and links, from either end, without a socket.
//!
//! ```text
//!   server:  Header --AMQP 0-----------------------------------------------> AwaitingOpen --open--> Open
//!            Header --AMQP 3--> Sasl(init, Deciding) --authenticate--> Header(AMQP 0)
//!                                     Deciding --challenge--> AwaitingResponse --response--> Deciding
//!   client:  Header --AMQP 3--> Sasl(mechanisms, outcome) --ok--> Header --AMQP 0--> AwaitingOpen --open--> Open
//!   both:    Open --close, or a violation--> Closing --the peer's close--> Closed            any state can go to Closed
//! ```
//!
//! There are four kinds of method: `handle_*` take in what came from the network and the clock; `poll_*` give out bytes,
//! deadlines and events; `wants_input` and `can_send` say what would be welcome; the rest is the application's voice.
//! A driver is one loop:
//!
//! 1. while `poll_event` gives one, hand it to the application;
//! 2. while `poll_transmit` gives bytes, write them; after [`Event::Closed`], close the transport and stop;
//! 3. wait for: bytes (only if `wants_input`), `poll_timeout`, the application. The end of the stream or an error of the
//!    socket is `handle_end`; the loop goes on until [`Event::Closed`], since what came before the end is handled first.
//!
//! Invariants:
//! - every end is told once, by [`Event::Closed`], after everything that came before it;
//! - frames are handled in order, one at a time. Input that cannot be handled now (the application decides on credentials, the
//!   events or the output are full) waits in the input buffer, and the next call that makes room goes on with it;
//! - a fault costs the least that it can: its link, its session, or the connection (`violation.rs`);
//! - begins are answered, empty frames sent, and credit filled up here, without the application;
//! - what a peer can make this side hold is bounded by the [`Config`], whoever the peer is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::link::LinkId;
use crate::performative::SaslCode;
use crate::timer::{Timer, Timers};
use crate::violation::Violation;

#[cfg(any(test, feature = "testing"))]
mod accounts;
mod config;
mod event;
mod flows;
mod handshake;
mod input;
mod links;
mod peer_links;
mod receiving;
mod sending;
mod sessions;
mod wire;

pub use config::{Allowance, Config};
pub use event::{Closed, Delivery, Event, OpenError, SendError, Side};
pub use handshake::Login;
pub use links::{Acceptance, NewLink};
pub use sending::Outbound;

use event::Events;
use sessions::Sessions;
use wire::Wire;

/// Which end of the connection this is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client(Login),
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The peer's protocol header is awaited. `Header => (AwaitingInit | AwaitingMechanisms | AwaitingOpen | Closed)`
    Header(Layer),
    /// Server: the client's choice of mechanism. `AwaitingInit => (Deciding | Closed)`
    AwaitingInit,
    /// Server: the application decides. `Deciding => (AwaitingResponse | Header(Amqp) | Closed)`
    Deciding,
    /// Server: the answer to a challenge. `AwaitingResponse => (Deciding | Closed)`
    AwaitingResponse,
    /// Client: the server's mechanisms. `AwaitingMechanisms => (AwaitingOutcome | Closed)`
    AwaitingMechanisms,
    /// Client: the end of SASL. `AwaitingOutcome => (Header(Amqp) | Closed)`
    AwaitingOutcome,
    /// `AwaitingOpen => (Open | Closing | Closed)`
    AwaitingOpen,
    /// `Open => (Closing | Closed)`
    Open,
    /// Our close is sent, the peer's is awaited; all else is dropped. `Closing => Closed`
    Closing,
    /// The end: input is dropped, output is still given out.
    Closed,
}

/// Which protocol headers may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// Server: the first header of a client, of AMQP or of SASL.
    Any,
    /// Client: SASL.
    Sasl,
    /// AMQP.
    Amqp,
}

/// One AMQP connection. See the module for how it is driven.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    allowance: Allowance,
    role: Role,
    state: State,
    input: BytesMut,
    wire: Wire,
    events: Events,
    sessions: Sessions,
    /// How many links all sessions have, detaching ones included.
    links: usize,
    /// Bytes of deliveries that are not whole.
    unfinished_bytes: usize,
    /// Bytes of deliveries that wait to be sent.
    queued_bytes: usize,
    /// Links that have something to send, in turn.
    ready: VecDeque<LinkId>,
    /// Channels of sessions that have something to tell.
    dirty: Vec<u16>,
    remote_channel_max: u16,
    serial: u32,
    timers: Timers,
    /// How long the peer may be silent; zero for ever.
    silence: Duration,
    /// How often this side shows that it is there; zero for never.
    beat: Duration,
    /// Bytes were transmitted since the last beat.
    transmitted: bool,
    last_received: Instant,
    /// Input had to wait since bytes last came: silence was of our own making.
    paused: bool,
    /// Why the connection closes, while the peer's close is awaited.
    closing: Option<Closed>,
}

impl Connection {
    fn new(now: Instant, config: Arc<Config>, role: Role, state: State) -> Self {
        let mut timers = Timers::default();
        timers.set(Timer::Handshake, now + config.handshake_timeout);
        Self {
            allowance: config.allowance,
            silence: config.idle_timeout.mul_f32(1.5),
            config,
            role,
            state,
            input: BytesMut::new(),
            wire: Wire::new(),
            events: Events::default(),
            sessions: Sessions::default(),
            links: 0,
            unfinished_bytes: 0,
            queued_bytes: 0,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            remote_channel_max: u16::MAX,
            serial: 0,
            timers,
            beat: Duration::ZERO,
            transmitted: false,
            last_received: now,
            paused: false,
            closing: None,
        }
    }

    /// Takes bytes from the peer: any piece of the stream, at most [`Config::max_input`] bytes at a time.
    ///
    /// After the end of the connection they are dropped.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.state != State::Closed && !self.ended() {
            self.input.extend_from_slice(bytes);
            self.handle_input(now);
        }
    }

    /// The buffer that [`handle_input`](Self::handle_input) reads, for a driver that reads the socket straight into it:
    /// append to it, never take from it.
    pub const fn input_buffer(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Takes the bytes that were appended to [`input_buffer`](Self::input_buffer).
    pub fn handle_input(&mut self, now: Instant) {
        if self.state == State::Closed {
            self.input = BytesMut::new();
            return;
        }
        self.last_received = now;
        self.paused = false;
        if self.timers.is_set(Timer::Silence) {
            self.timers.set(Timer::Silence, now + self.silence);
        }
        self.process();
        let frame = usize::try_from(self.config.max_frame_size).unwrap_or(usize::MAX);
        let limit = self.config.max_input.saturating_add(frame);
        if self.input.len() > limit {
            let bytes = self.input.len();
            self.fail(Violation::InputOverflow { bytes, limit });
        }
    }

    /// Takes the end of the transport, in error or not. What arrived before it is still handled; then the connection closes.
    pub fn handle_end(&mut self) {
        if self.state == State::Closed {
            return;
        }
        self.wire.end();
        if self.state != State::Deciding {
            self.timers.clear_all();
        }
        self.process();
    }

    /// Takes the passing of time: call it at or after [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_expired(now) {
            match timer {
                Timer::Beat => {
                    if !self.transmitted {
                        self.wire.beat();
                    }
                    self.transmitted = false;
                    self.timers.set(Timer::Beat, now + self.beat);
                }
                // It closes the connection too.
                Timer::Decision => {
                    self.authenticate(now, SaslCode::SysTemp);
                }
                Timer::Silence if self.is_paused() => {
                    self.paused = false;
                    self.timers.set(Timer::Silence, now + self.silence);
                }
                Timer::Silence => self.close_for_silence(),
                Timer::Handshake => self.close_with(Closed::TimedOut(Timer::Handshake)),
                Timer::Close => {
                    let reason = self.closing.take().unwrap_or(Closed::TimedOut(Timer::Close));
                    self.close_with(reason);
                }
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
        self.flush();
        self.pump();
        // A peer that takes in what held up its own frames is alive, though nothing of it was read.
        self.paused |= self.output_is_full();
        if !self.wire.take(out) {
            return false;
        }
        self.transmitted = true;
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
        let event = self.events.take_where(wanted)?;
        self.process();
        Some(event)
    }

    /// Whether the driver should read the socket. False while the application decides on credentials, while as many events
    /// or bytes wait as the [`Config`] allows, and after the end.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.state != State::Closed && !self.ended() && !self.is_blocked()
    }

    /// Whether the peer opened the connection and it has not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Changes how many sessions and links there may be, once it is known who the peer is. What is there already stays.
    pub const fn set_allowance(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    const fn ended(&self) -> bool {
        self.wire.ended
    }

    fn output_is_full(&self) -> bool {
        self.wire.len() > self.config.max_output
    }

    const fn next_serial(&mut self) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}
