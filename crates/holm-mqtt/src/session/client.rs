//! The client's half of a session: CONNECT, pings, subscriptions.

use std::time::{Duration, Instant};

use super::config::SLOWEST_LINK;
use super::{Closed, Config, Event, RequestError, Role, Session, State};
use crate::codec::{EncodeError, encode};
use crate::flow::{Asked, Request, RequestId};
use crate::packet::{Connack, Connect, Granted, Packet, PacketId, Qos, Subscribe, Subscription, Unsubscribe};
use crate::text::Text;
use crate::timer::Timer;
use crate::violation::Violation;

impl Session {
    /// The client's end of a connection that was just made; CONNECT is the first thing to transmit, and CONNACK must come
    /// within `config.connect_timeout`.
    ///
    /// # Errors
    /// An [`EncodeError`] when the CONNECT has no form on the wire.
    pub fn client(now: Instant, config: Config, connect: Connect) -> Result<Self, EncodeError> {
        let mut session = Self::new(now, config, Role::Client, State::AwaitingConnack);
        session.silence = Duration::from_secs(u64::from(connect.keep_alive_seconds));
        encode(&Packet::Connect(Box::new(connect)), &mut session.output)?;
        session.timers.set(Timer::Connack, now + session.config.connect_timeout);
        Ok(session)
    }

    /// Asks for messages; [`Event::Subscribed`] brings one code for each filter.
    ///
    /// # Errors
    /// A [`RequestError`]; nothing was sent.
    pub fn subscribe(&mut self, now: Instant, filters: Vec<Subscription>) -> Result<RequestId, RequestError> {
        if filters.iter().any(|subscription| subscription.qos == Qos::ExactlyOnce) {
            return Err(RequestError::ExactlyOnce);
        }
        let asked = Asked::Subscribe(filters.len());
        self.request(now, asked, |id| Packet::Subscribe(Subscribe { id, filters }))
    }

    /// Asks for no more messages; [`Event::Unsubscribed`] follows.
    ///
    /// # Errors
    /// A [`RequestError`]; nothing was sent.
    pub fn unsubscribe(&mut self, now: Instant, filters: Vec<Text>) -> Result<RequestId, RequestError> {
        self.request(now, Asked::Unsubscribe, |id| {
            Packet::Unsubscribe(Unsubscribe { id, filters })
        })
    }

    fn request(
        &mut self,
        now: Instant,
        asked: Asked,
        packet: impl FnOnce(PacketId) -> Packet,
    ) -> Result<RequestId, RequestError> {
        if self.role != Role::Client || self.state != State::Open || self.ended {
            return Err(RequestError::NotOpen);
        }
        if self.requests.is_full() || self.output_is_full() {
            return Err(RequestError::TooMany);
        }
        let id = self.flow.allocate(&self.requests);
        encode(&packet(id), &mut self.output).map_err(RequestError::Encode)?;
        self.last_sent = now;
        Ok(self.requests.add(id, asked))
    }

    /// Handles what only a server sends.
    pub(super) fn handle_from_server(&mut self, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Connack(connack) if self.state == State::AwaitingConnack => self.handle_connack(connack),
            Packet::Suback(suback) => self.handle_suback(suback.id, suback.granted)?,
            Packet::Unsuback(id) => {
                let request = self.answered(id, |asked| asked == Asked::Unsubscribe)?;
                self.push(Event::Unsubscribed { request });
            }
            Packet::Pingresp => self.timers.clear(Timer::Pingresp),
            other => return Err(Violation::Unexpected(other.kind())),
        }
        Ok(())
    }

    fn handle_connack(&mut self, connack: Connack) {
        match connack {
            Connack::Refused(refusal) => self.close_with(Closed::Refused(refusal)),
            Connack::Accepted { session_present } => {
                self.state = State::Open;
                self.timers.clear(Timer::Connack);
                if !self.silence.is_zero() && !self.ended {
                    self.timers.set(Timer::Ping, self.last_received + self.silence);
                }
                self.push(Event::Connected { session_present });
            }
        }
    }

    fn handle_suback(&mut self, id: PacketId, granted: Vec<Granted>) -> Result<(), Violation> {
        let request = self.answered(id, |asked| asked == Asked::Subscribe(granted.len()))?;
        self.push(Event::Subscribed { request, granted });
        Ok(())
    }

    /// Takes the request that an answer of the server names, if it fits.
    fn answered(&mut self, id: PacketId, fits: impl FnOnce(Asked) -> bool) -> Result<RequestId, Violation> {
        match self.requests.get_by_id(id) {
            Some(Request { request, asked, .. }) if fits(asked) => {
                self.requests.remove(request);
                Ok(request)
            }
            _ => Err(Violation::UnaskedAnswer(id)),
        }
    }

    /// Sends PINGREQ if either direction was silent for a keep-alive: sending keeps the server content, and the answer
    /// tells that the server is there.
    pub(super) fn ping(&mut self, now: Instant) {
        let due = self.last_sent.min(self.last_received) + self.silence;
        if due > now {
            self.timers.set(Timer::Ping, due);
            return;
        }
        self.send(&Packet::Pingreq);
        self.last_sent = now;
        self.timers.set(Timer::Ping, now + self.silence);
        if !self.timers.is_set(Timer::Pingresp) {
            self.timers.set(Timer::Pingresp, now + self.patience());
        }
    }

    /// How long the server may be silent once it was asked. A ping waits behind the messages on their way, and what comes back
    /// next is the acknowledgement of the first of them: on a slow link that may take minutes, and is no sign of a dead one.
    pub(super) fn patience(&self) -> Duration {
        let bytes = u64::try_from(self.flow.next_bytes()).unwrap_or(u64::MAX);
        self.config.ping_timeout + Duration::from_secs(bytes / SLOWEST_LINK)
    }
}
