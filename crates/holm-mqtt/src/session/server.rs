//! The server's half of a session: CONNECT and its answer, subscriptions of the client, keep-alive.

use std::time::{Duration, Instant};

use super::{AnswerError, Closed, Config, Event, Role, Session, State};
use crate::flow::{Asked, RequestId};
use crate::packet::{Connack, Connect, Granted, Packet, PacketId, Qos, Refusal, Suback, Subscribe, Unsubscribe};
use crate::timer::Timer;
use crate::violation::Violation;

impl Session {
    /// The server's end of a connection that was just accepted; CONNECT must come within `config.connect_timeout`.
    #[must_use]
    pub fn server(now: Instant, config: Config) -> Self {
        let mut session = Self::new(now, config, Role::Server, State::AwaitingConnect);
        session.timers.set(Timer::Connect, now + session.config.connect_timeout);
        session
    }

    /// Lets the client in: sends CONNACK 0, starts the keep-alive, and handles what came since CONNECT.
    ///
    /// False, without effect, when no CONNECT waits for a decision (any more).
    pub fn accept(&mut self, now: Instant, session_present: bool) -> bool {
        if self.state != State::Deciding {
            return false;
        }
        self.state = State::Open;
        self.timers.clear_all();
        self.paused = false;
        if !self.ended {
            self.timers.set(Timer::KeepAlive, now + self.silence);
        }
        self.send(&Packet::Connack(Connack::Accepted { session_present }));
        self.give_back();
        self.process();
        true
    }

    /// Turns the client away: sends CONNACK with that code and closes.
    ///
    /// False, without effect, when no CONNECT waits for a decision (any more).
    pub fn refuse(&mut self, refusal: Refusal) -> bool {
        if self.state != State::Deciding {
            return false;
        }
        self.send(&Packet::Connack(Connack::Refused(refusal)));
        self.close_with(Closed::Refused(refusal));
        true
    }

    /// Answers a [`Event::Subscribe`]: one code for each filter, in their order.
    ///
    /// # Errors
    /// An [`AnswerError`] when no such SUBSCRIBE waits or the number of codes is wrong; it still waits then.
    pub fn suback(&mut self, request: RequestId, granted: &[Granted]) -> Result<(), AnswerError> {
        let given = granted.len();
        self.answer(request, |id, asked| match asked {
            Asked::Subscribe(filters) if filters == given => Ok(Packet::Suback(Suback {
                id,
                granted: granted.to_vec(),
            })),
            Asked::Subscribe(filters) => Err(AnswerError::CodeCount { filters, given }),
            Asked::Unsubscribe => Err(AnswerError::UnknownRequest),
        })
    }

    /// Answers a [`Event::Unsubscribe`].
    ///
    /// # Errors
    /// [`AnswerError::UnknownRequest`] when no such UNSUBSCRIBE waits.
    pub fn unsuback(&mut self, request: RequestId) -> Result<(), AnswerError> {
        self.answer(request, |id, asked| match asked {
            Asked::Unsubscribe => Ok(Packet::Unsuback(id)),
            Asked::Subscribe(_) => Err(AnswerError::UnknownRequest),
        })
    }

    fn answer(
        &mut self,
        request: RequestId,
        packet: impl FnOnce(PacketId, Asked) -> Result<Packet, AnswerError>,
    ) -> Result<(), AnswerError> {
        if self.state == State::Closed {
            return Ok(());
        }
        if self.role != Role::Server {
            return Err(AnswerError::UnknownRequest);
        }
        let known = self.requests.get(request).ok_or(AnswerError::UnknownRequest)?;
        let packet = packet(known.id, known.asked)?;
        self.requests.remove(request);
        self.send(&packet);
        self.process();
        Ok(())
    }

    /// Handles what only a client sends.
    pub(super) fn handle_from_client(&mut self, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Connect(_) if self.state != State::AwaitingConnect => return Err(Violation::SecondConnect),
            Packet::Connect(connect) => return self.handle_connect(connect),
            Packet::Subscribe(subscribe) => return self.handle_subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => return self.handle_unsubscribe(unsubscribe),
            Packet::Pingreq => {
                self.send(&Packet::Pingresp);
                self.give_back();
            }
            Packet::Disconnect => self.close_with(Closed::Disconnected),
            other => return Err(Violation::Unexpected(other.kind())),
        }
        Ok(())
    }

    fn handle_connect(&mut self, connect: Box<Connect>) -> Result<(), Violation> {
        if connect.client_id.is_empty() && !connect.clean_session {
            return Err(Violation::EmptyClientId);
        }
        self.silence = allowed_silence(connect.keep_alive_seconds, self.config.idle_cap);
        self.state = State::Deciding;
        self.timers.clear(Timer::Connect);
        self.timers
            .set(Timer::Decision, self.last_received + self.config.connect_timeout);
        self.push(Event::Connect(connect));
        Ok(())
    }

    fn handle_subscribe(&mut self, subscribe: Subscribe) -> Result<(), Violation> {
        let Subscribe { id, mut filters } = subscribe;
        self.check_request_id(id)?;
        for subscription in &mut filters {
            subscription.qos = subscription.qos.min(Qos::AtLeastOnce);
        }
        let request = self.requests.add(id, Asked::Subscribe(filters.len()));
        self.push(Event::Subscribe { request, filters });
        Ok(())
    }

    fn handle_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), Violation> {
        let Unsubscribe { id, filters } = unsubscribe;
        self.check_request_id(id)?;
        let request = self.requests.add(id, Asked::Unsubscribe);
        self.push(Event::Unsubscribe { request, filters });
        Ok(())
    }

    fn check_request_id(&self, id: PacketId) -> Result<(), Violation> {
        if self.requests.uses(id) {
            return Err(Violation::PacketIdInUse(id));
        }
        Ok(())
    }

    /// The application took too long: the client is told to come later, which SDKs retry, never that it has no right.
    pub(super) fn decision_timed_out(&mut self) {
        self.send(&Packet::Connack(Connack::Refused(Refusal::ServerUnavailable)));
        self.close_with(Closed::TimedOut(Timer::Decision));
    }

    /// The two violations that MQTT 3.1.1 has an answer for.
    pub(super) fn answer_violation(&mut self, violation: &Violation) {
        let refusal = match violation {
            Violation::ProtocolLevel(_) => Refusal::UnacceptableProtocolVersion,
            Violation::EmptyClientId => Refusal::IdentifierRejected,
            _ => return,
        };
        if self.state == State::AwaitingConnect {
            self.send(&Packet::Connack(Connack::Refused(refusal)));
        }
    }
}

/// How long a client may be silent: 1.5 times its keep-alive, at most the cap; the cap alone without one. MQTT-3.1.2-24.
fn allowed_silence(keep_alive_seconds: u16, cap: Duration) -> Duration {
    match keep_alive_seconds {
        0 => cap,
        seconds => cap.min(Duration::from_millis(u64::from(seconds) * 1500)),
    }
}
