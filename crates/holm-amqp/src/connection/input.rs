//! Taking frames in: in order, one at a time, and only while there is room for what they cause; and the end of it all.
//!
//! ```text
//!   input buffer --> held? ---------- yes: the application decides, events or output are full; all waits
//!                --> whole? --------- no: more bytes are needed (or the line was cut: closed)
//!                --> header, SASL, or a performative --> connection --> session --> link
//! ```

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use super::{Closed, Connection, Role, State, Timer};
use crate::codec::{FrameKind, ProtocolHeader, read_frame_header};
use crate::condition::{AmqpError, RESOURCE_LIMIT_EXCEEDED};
use crate::performative::{Close, Performative, Role as LinkRole, SaslFrame};
use crate::session::SessionState;
use crate::violation::{SessionFault, Violation};

/// The quickest beat that a peer may ask for, in milliseconds.
pub(super) const MIN_IDLE_TIME_OUT: u32 = 100;

impl Connection {
    /// Handles what waits in the input buffer, as far as there is room for what it causes.
    pub(super) fn process(&mut self) {
        while self.state != State::Closed {
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(violation) => self.fail(violation),
            }
        }
        self.pump();
    }

    /// Handles the next header or frame; false when there is none, or it has to wait.
    fn step(&mut self) -> Result<bool, Violation> {
        if self.is_blocked() {
            self.paused = true;
            return Ok(false);
        }
        let handled = match self.state {
            State::Header(layer) => {
                let header = self.input.first_chunk::<{ ProtocolHeader::BYTES }>().copied();
                match header {
                    Some(header) => {
                        self.input.advance(ProtocolHeader::BYTES);
                        self.handle_header(layer, header)?;
                        true
                    }
                    None => self.refuse_foreign_header()?,
                }
            }
            State::Closing => self.skip_frame(),
            _ => self.handle_frame()?,
        };
        if !handled && self.ended() {
            let reason = self.closing.take().unwrap_or(Closed::Lost);
            self.close_with(reason);
        }
        Ok(handled)
    }

    /// The first bytes of another protocol are enough to know it by: an HTTP client may wait for an answer before it sends
    /// eight.
    fn refuse_foreign_header(&self) -> Result<bool, Violation> {
        let magic = b"AMQP";
        let foreign = self.input.iter().zip(magic).any(|(byte, expected)| byte != expected);
        if foreign {
            let mut header = [0; ProtocolHeader::BYTES];
            header.iter_mut().zip(&self.input).for_each(|(to, from)| *to = *from);
            return Err(Violation::Header(header));
        }
        Ok(false)
    }

    fn handle_frame(&mut self) -> Result<bool, Violation> {
        let Some(header) = read_frame_header(&self.input, self.max_frame_size())? else {
            return Ok(false);
        };
        if self.input.len() < header.size {
            return Ok(false);
        }
        let body = header.take_body(&mut self.input);
        self.events.set_frame(header.size);
        match header.kind {
            FrameKind::Sasl => {
                let frame = SaslFrame::decode(&body, self.config.values).map_err(Violation::Decode)?;
                self.handle_sasl(frame)?;
            }
            FrameKind::Amqp if body.is_empty() => {}
            FrameKind::Amqp => {
                let (performative, payload) =
                    Performative::decode(&body, self.config.values).map_err(Violation::Decode)?;
                self.handle_performative(header.channel, performative, payload)?;
            }
        }
        Ok(true)
    }

    fn max_frame_size(&self) -> u32 {
        if self.state == State::Open {
            self.config.max_frame_size
        } else {
            self.config.max_frame_size.min(self.config.max_handshake_frame)
        }
    }

    fn handle_performative(
        &mut self,
        channel: u16,
        performative: Performative,
        payload: Bytes,
    ) -> Result<(), Violation> {
        let frame = performative.name();
        match (self.state, performative) {
            (State::AwaitingOpen, Performative::Open(open)) => self.handle_open(open),
            (State::Open, Performative::Begin(begin)) => self.handle_begin(channel, &begin),
            (State::AwaitingOpen | State::Open, Performative::Close(close)) => {
                self.handle_close(close);
                Ok(())
            }
            (State::Open, Performative::Open(_)) => Err(Violation::Unexpected {
                frame,
                expected: "any other performative",
            }),
            (State::Open, performative) => self.handle_on_session(channel, performative, payload),
            _ => Err(Violation::Unexpected {
                frame,
                expected: self.expected(),
            }),
        }
    }

    pub(super) const fn expected(&self) -> &'static str {
        match self.state {
            State::AwaitingInit => "sasl-init",
            State::AwaitingResponse => "sasl-response",
            State::AwaitingMechanisms => "sasl-mechanisms",
            State::AwaitingOutcome => "sasl-outcome",
            State::AwaitingOpen => "open",
            _ => "a performative",
        }
    }

    fn handle_on_session(
        &mut self,
        remote_channel: u16,
        performative: Performative,
        payload: Bytes,
    ) -> Result<(), Violation> {
        let frame = performative.name();
        let Some(channel) = self.sessions.by_remote(remote_channel) else {
            // Leftovers of a session that the peer ended ask for nothing: azure-eventhub detaches links after it.
            let asks = matches!(performative, Performative::Attach(_) | Performative::Transfer(_));
            let channel = remote_channel;
            return if asks {
                Err(Violation::UnknownChannel { frame, channel })
            } else {
                Ok(())
            };
        };
        let ending = self
            .sessions
            .get(channel)
            .is_none_or(|session| session.state == SessionState::Ending);
        match performative {
            Performative::End(end) => self.handle_end_frame(channel, end),
            _ if ending => {}
            performative => {
                if let Err(fault) = self.handle_live(channel, performative, payload) {
                    self.fail_session(channel, &fault);
                }
            }
        }
        Ok(())
    }

    fn handle_live(&mut self, channel: u16, performative: Performative, payload: Bytes) -> Result<(), SessionFault> {
        match performative {
            Performative::Attach(attach) => self.handle_attach(channel, attach)?,
            Performative::Detach(detach) => self.handle_detach(channel, detach)?,
            Performative::Transfer(transfer) => self.handle_transfer(channel, transfer, payload)?,
            Performative::Flow(flow) => self.handle_flow(channel, &flow)?,
            Performative::Disposition(disposition) => match disposition.role {
                LinkRole::Receiver => self.handle_receiver_disposition(channel, disposition),
                LinkRole::Sender => self.handle_sender_disposition(channel, &disposition),
            },
            // Handled before, by the connection.
            Performative::Open(_) | Performative::Begin(_) | Performative::End(_) | Performative::Close(_) => {}
        }
        Ok(())
    }

    fn handle_close(&mut self, close: Close) {
        if self.state == State::AwaitingOpen {
            self.send_open();
        }
        self.wire.send(0, &Close { error: None });
        self.close_with(Closed::ByPeer(close.error));
    }

    /// While closing: drops frames up to the peer's close. Bytes that are no frames are dropped until the line ends.
    fn skip_frame(&mut self) -> bool {
        let Ok(Some(header)) = read_frame_header(&self.input, u32::MAX) else {
            if !matches!(read_frame_header(&self.input, u32::MAX), Ok(None)) {
                self.input.clear();
            }
            return false;
        };
        if self.input.len() < header.size {
            let limit = usize::try_from(self.config.max_frame_size).unwrap_or(usize::MAX);
            if header.size > limit {
                self.input.clear();
            }
            return false;
        }
        let body = header.take_body(&mut self.input);
        let is_close = header.kind == FrameKind::Amqp
            && matches!(
                Performative::decode(&body, self.config.values),
                Ok((Performative::Close(_), _))
            );
        if is_close {
            let reason = self.closing.take().unwrap_or(Closed::ByApplication);
            self.close_with(reason);
        }
        true
    }

    /// Whether nothing at all may be handled now.
    pub(super) fn is_blocked(&self) -> bool {
        self.state != State::Closing && (self.waits_for_application() || self.output_is_full())
    }

    /// Whether the application holds up the reading of input. A full output does not count: that is the peer's doing.
    fn waits_for_application(&self) -> bool {
        self.state == State::Deciding
            || self.events.len() >= self.config.max_events.max(1)
            || self.events.bytes() > self.config.max_event_bytes
    }

    /// Whether silence of the peer, or what looked like it, was of our own making since bytes last came.
    pub(super) fn is_paused(&self) -> bool {
        self.paused || self.waits_for_application()
    }

    /// Closes the connection from this side; [`Event::Closed`](super::Event::Closed) follows when the peer has closed it too,
    /// or takes too long. What [`settle`](Self::settle) said before is told before. Nothing happens when it has ended already.
    pub fn close(&mut self, now: std::time::Instant, error: Option<AmqpError>) {
        self.last_received = now;
        self.flush();
        match self.state {
            State::Open => self.start_closing(error.map(Box::new), Closed::ByApplication),
            State::Closing | State::Closed => {}
            _ => self.close_with(Closed::ByApplication),
        }
    }

    pub(super) fn close_for_silence(&mut self) {
        let error = AmqpError::new(RESOURCE_LIMIT_EXCEEDED, "no frame came within the idle time-out");
        let reason = Closed::TimedOut(Timer::Silence);
        if self.state == State::Open {
            self.wire.send(
                0,
                &Close {
                    error: Some(Box::new(error)),
                },
            );
        }
        self.close_with(reason);
    }

    /// Takes a breach of the connection's rules: the peer is told, as far as the protocol has words for it.
    pub(super) fn fail(&mut self, violation: Violation) {
        match self.state {
            State::Header(layer) => self.answer_header(layer),
            State::AwaitingOpen => {
                self.send_open();
                let error = Some(Box::new(violation.error()));
                self.start_closing(error, Closed::Violation(violation));
                return;
            }
            State::Open => {
                let error = Some(Box::new(violation.error()));
                self.start_closing(error, Closed::Violation(violation));
                return;
            }
            _ => {}
        }
        self.close_with(Closed::Violation(violation));
    }

    /// Says close, and waits for the peer's: whoever closes the transport on bytes that were not read destroys what was
    /// written last.
    fn start_closing(&mut self, error: Option<Box<AmqpError>>, reason: Closed) {
        self.wire.send(0, &Close { error });
        if self.ended() {
            self.close_with(reason);
            return;
        }
        self.state = State::Closing;
        self.closing = Some(reason);
        self.forget_all();
        self.timers.clear_all();
        let deadline = self.last_received + self.config.close_timeout.max(Duration::from_millis(1));
        self.timers.set(Timer::Close, deadline);
        self.process();
    }

    pub(super) fn close_with(&mut self, reason: Closed) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.timers.clear_all();
        self.input = BytesMut::new();
        self.forget_all();
        self.events.push(super::Event::Closed(reason));
    }

    fn forget_all(&mut self) {
        self.sessions = super::Sessions::default();
        self.ready.clear();
        self.dirty.clear();
        self.links = 0;
        self.queued_bytes = 0;
        self.unfinished_bytes = 0;
    }

    pub(super) const fn is_server(&self) -> bool {
        matches!(self.role, Role::Server)
    }
}
