//! The beginning: protocol headers, SASL, open. AMQP 1.0, part 2, 2.2 and 2.4.1; part 5, 5.3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::input::MIN_IDLE_TIME_OUT;
use super::{Closed, Config, Connection, Event, Layer, Role, State};
use crate::codec::{MIN_MAX_FRAME_SIZE, ProtocolHeader};
use crate::map::Fields;
use crate::performative::{Open, SaslChallenge, SaslCode, SaslFrame, SaslInit, SaslMechanisms, SaslOutcome, Secret};
use crate::sasl::Credentials;
use crate::text::{Symbol, Text};
use crate::timer::Timer;
use crate::violation::Violation;

/// How a client begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Whom it wants to talk to.
    pub hostname: Option<Text>,
    /// What it gives; none for no SASL at all.
    pub credentials: Option<Credentials>,
    /// More about it, in open.
    pub properties: Fields,
}

impl Connection {
    /// The server's end of a connection that was just accepted; open must come within `config.handshake_timeout`.
    #[must_use]
    pub fn server(now: Instant, config: Arc<Config>) -> Self {
        Self::new(now, config, Role::Server, State::Header(Layer::Any))
    }

    /// The client's end of a connection that was just made; its protocol header is the first thing to transmit, and the
    /// server's open must come within `config.handshake_timeout`.
    #[must_use]
    pub fn client(now: Instant, config: Arc<Config>, login: Login) -> Self {
        let with_sasl = login.credentials.is_some();
        let layer = if with_sasl { Layer::Sasl } else { Layer::Amqp };
        let mut connection = Self::new(now, config, Role::Client(login), State::Header(layer));
        if with_sasl {
            connection.wire.header(ProtocolHeader::Sasl);
        } else {
            // Without SASL nothing is waited for: header and open go together.
            connection.wire.header(ProtocolHeader::Amqp);
            connection.send_open();
        }
        connection
    }

    pub(super) fn handle_header(&mut self, layer: Layer, bytes: [u8; ProtocolHeader::BYTES]) -> Result<(), Violation> {
        let header = ProtocolHeader::of(bytes);
        match (layer, header) {
            (Layer::Any, Some(ProtocolHeader::Sasl)) if !self.config.mechanisms.is_empty() => {
                self.wire.header(ProtocolHeader::Sasl);
                let mechanisms = self.config.mechanisms.clone();
                self.wire.sasl(&SaslFrame::Mechanisms(SaslMechanisms { mechanisms }));
                self.state = State::AwaitingInit;
            }
            (Layer::Any | Layer::Amqp, Some(ProtocolHeader::Amqp)) => {
                if self.is_server() {
                    self.wire.header(ProtocolHeader::Amqp);
                }
                self.state = State::AwaitingOpen;
            }
            (Layer::Sasl, Some(ProtocolHeader::Sasl)) => self.state = State::AwaitingMechanisms,
            _ => return Err(Violation::Header(bytes)),
        }
        Ok(())
    }

    /// Says which header would have been taken.
    pub(super) fn answer_header(&mut self, layer: Layer) {
        if self.is_server() {
            self.wire.header(match layer {
                Layer::Any if !self.config.mechanisms.is_empty() => ProtocolHeader::Sasl,
                _ => ProtocolHeader::Amqp,
            });
        }
    }

    pub(super) fn handle_sasl(&mut self, frame: SaslFrame) -> Result<(), Violation> {
        let name = frame.name();
        match (self.state, frame) {
            (State::AwaitingInit, SaslFrame::Init(init)) => self.handle_init(init),
            (State::AwaitingResponse, SaslFrame::Response(response)) => {
                self.wait_for_decision();
                self.events.push(Event::SaslResponse(response.response));
            }
            (State::AwaitingMechanisms, SaslFrame::Mechanisms(offered)) => self.choose(&offered.mechanisms),
            (State::AwaitingOutcome, SaslFrame::Outcome(outcome)) => self.handle_outcome(&outcome),
            _ => {
                return Err(Violation::Unexpected {
                    frame: name,
                    expected: self.expected(),
                });
            }
        }
        Ok(())
    }

    fn handle_init(&mut self, init: SaslInit) {
        let offered = self.config.mechanisms.contains(&init.mechanism);
        match Credentials::try_from(&init) {
            Ok(credentials) if offered => {
                self.wait_for_decision();
                self.events.push(Event::Authenticate {
                    credentials,
                    hostname: init.hostname,
                });
            }
            // The client has no use for the difference between a wrong form and a wrong content.
            _ => self.end_sasl(SaslCode::Auth),
        }
    }

    fn wait_for_decision(&mut self) {
        self.state = State::Deciding;
        let deadline = self.last_received + self.config.handshake_timeout;
        self.timers.clear_all();
        self.timers.set(Timer::Decision, deadline);
    }

    /// Asks the client something before it is decided on: its answer is an [`Event::SaslResponse`], and must come within
    /// `config.handshake_timeout`. How often that may be is for the application to bound.
    ///
    /// False, without effect, when no credentials wait for a decision (any more).
    pub fn challenge(&mut self, now: Instant, challenge: Bytes) -> bool {
        if self.state != State::Deciding {
            return false;
        }
        self.timers.clear_all();
        if !self.ended() {
            self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
        }
        self.paused = false;
        self.state = State::AwaitingResponse;
        let challenge = Secret(challenge);
        self.wire.sasl(&SaslFrame::Challenge(SaslChallenge { challenge }));
        self.process();
        true
    }

    /// Lets the client in by [`SaslCode::Ok`], or turns it away by any other code: [`SaslCode::Auth`] for wrong credentials,
    /// [`SaslCode::SysTemp`] when it shall come again.
    ///
    /// False, without effect, when no credentials wait for a decision (any more).
    pub fn authenticate(&mut self, now: Instant, code: SaslCode) -> bool {
        if self.state != State::Deciding {
            return false;
        }
        self.timers.clear_all();
        if !self.ended() {
            self.timers.set(Timer::Handshake, now + self.config.handshake_timeout);
        }
        self.paused = false;
        self.end_sasl(code);
        self.process();
        true
    }

    fn end_sasl(&mut self, code: SaslCode) {
        let additional_data = None;
        self.wire
            .sasl(&SaslFrame::Outcome(SaslOutcome { code, additional_data }));
        if code == SaslCode::Ok {
            self.state = State::Header(Layer::Amqp);
        } else {
            self.close_with(Closed::Refused(code));
        }
    }

    /// Client: takes the mechanism of its credentials, if it is offered.
    fn choose(&mut self, offered: &[Symbol]) {
        let Role::Client(login) = &self.role else {
            return;
        };
        let Some(credentials) = &login.credentials else {
            return;
        };
        let mechanism = credentials.mechanism();
        if !offered.contains(&mechanism) {
            let names: Vec<&str> = offered.iter().map(Symbol::as_str).collect();
            let reason = Closed::NotOffered(mechanism.to_string(), names.join("`, `"));
            self.close_with(reason);
            return;
        }
        let init = credentials.to_init(login.hostname.clone());
        self.wire.sasl(&SaslFrame::Init(init));
        self.state = State::AwaitingOutcome;
    }

    fn handle_outcome(&mut self, outcome: &SaslOutcome) {
        if outcome.code != SaslCode::Ok {
            self.close_with(Closed::Refused(outcome.code));
            return;
        }
        self.wire.header(ProtocolHeader::Amqp);
        self.send_open();
        self.state = State::Header(Layer::Amqp);
    }

    /// Our open: every limit as a number, since clients count on numbers (`libraries.md`, AMQP fact 2).
    pub(super) fn send_open(&mut self) {
        let (hostname, properties) = match &self.role {
            Role::Server => (None, Fields::new()),
            Role::Client(login) => (login.hostname.clone(), login.properties.clone()),
        };
        let idle = u32::try_from(self.config.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let open = Open {
            container_id: self.config.container_id.clone(),
            hostname,
            max_frame_size: self.config.max_frame_size.max(MIN_MAX_FRAME_SIZE),
            channel_max: self.config.channel_max,
            idle_time_out: (idle > 0).then_some(idle),
            outgoing_locales: Vec::new(),
            incoming_locales: Vec::new(),
            offered_capabilities: Vec::new(),
            desired_capabilities: Vec::new(),
            properties,
        };
        self.wire.send(0, &open);
    }

    pub(super) fn handle_open(&mut self, open: Box<Open>) -> Result<(), Violation> {
        if open.max_frame_size < MIN_MAX_FRAME_SIZE {
            return Err(Violation::MaxFrameSize(open.max_frame_size));
        }
        // 0 is none to some clients.
        let idle = open.idle_time_out.filter(|idle| *idle != 0);
        if let Some(idle) = idle.filter(|idle| *idle < MIN_IDLE_TIME_OUT) {
            return Err(Violation::IdleTimeOut(idle));
        }
        if self.is_server() {
            self.send_open();
        }
        self.state = State::Open;
        self.remote_channel_max = open.channel_max;
        self.wire
            .set_max_frame_size(open.max_frame_size.min(self.config.max_frame_size));
        self.timers.clear_all();
        if !self.ended() {
            self.set_idle_timers(idle);
        }
        self.events.push(Event::Opened(open));
        Ok(())
    }

    /// A beat at a quarter of the peer's time-out, left out when something was sent since the last one, shows this side at
    /// least at every half of it.
    fn set_idle_timers(&mut self, idle_time_out: Option<u32>) {
        if let Some(idle) = idle_time_out {
            self.beat = Duration::from_millis(u64::from(idle / 4));
            self.timers.set(Timer::Beat, self.last_received + self.beat);
        }
        if !self.silence.is_zero() {
            self.timers.set(Timer::Silence, self.last_received + self.silence);
        }
    }
}
