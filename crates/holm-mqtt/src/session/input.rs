//! Taking packets in: in order, one at a time, and only while there is room for what they cause.
//!
//! ```text
//!   input buffer --> held? --------- yes: the application decides, events or output are full; all waits
//!                --> header whole? - no: more bytes are needed (or the line was cut: closed)
//!                --> room for it? -- no: a window is full; this packet waits, and so what is behind it
//!                --> decode, handle, again
//! ```

use super::{Closed, Event, Message, Role, Session, State};
use crate::acknowledgements::Arrival;
use crate::codec::{FixedHeader, decode_packet, read_header};
use crate::packet::{Delivery, Packet, PacketKind, Publish, Qos};
use crate::violation::Violation;

impl Session {
    /// Handles what waits in the input buffer, as far as there is room for what it causes.
    pub(super) fn process(&mut self) {
        while self.state != State::Closed {
            match self.next_packet() {
                Ok(Some(packet)) => {
                    if let Err(violation) = self.handle_packet(packet) {
                        self.fail(violation);
                    }
                }
                Ok(None) => return,
                Err(violation) => self.fail(violation),
            }
        }
    }

    /// Takes the next packet if it is here and may be handled now.
    fn next_packet(&mut self) -> Result<Option<Packet>, Violation> {
        if self.is_blocked() {
            self.paused |= self.waits_for_application();
            return Ok(None);
        }
        let header = match read_header(&self.input, self.max_packet())? {
            Some(header) if self.input.len() >= header.packet_bytes => header,
            _ => {
                if self.ended {
                    self.close_with(Closed::Lost);
                }
                return Ok(None);
            }
        };
        if self.must_wait(header) {
            self.paused = true;
            return Ok(None);
        }
        self.check_order(header.kind)?;
        decode_packet(&mut self.input, header).map(Some)
    }

    /// The first packet of a client, judged by its type before it is read.
    fn check_order(&self, kind: PacketKind) -> Result<(), Violation> {
        match (self.state, kind) {
            (State::AwaitingConnect, PacketKind::Connect) | (State::AwaitingConnack, PacketKind::Connack) => Ok(()),
            (State::AwaitingConnect, _) => Err(Violation::NotConnect(kind)),
            (State::AwaitingConnack, _) => Err(Violation::Unexpected(kind)),
            _ => Ok(()),
        }
    }

    fn max_packet(&self) -> usize {
        if self.state == State::AwaitingConnect {
            self.config.max_packet.min(self.config.max_connect_packet)
        } else {
            self.config.max_packet
        }
    }

    /// Whether no packet at all may be handled now.
    fn is_blocked(&self) -> bool {
        self.holds_all_input() || self.output_is_full()
    }

    /// Whether the application has to do something before any packet is handled.
    fn holds_all_input(&self) -> bool {
        self.state == State::Deciding
            || self.acknowledgements.is_closing()
            || self.events.len() >= self.config.max_events.max(1)
            || self.event_bytes > self.config.max_event_bytes
    }

    /// Whether this packet has to wait although others would not.
    fn must_wait(&self, header: FixedHeader) -> bool {
        match header.kind {
            PacketKind::Publish => self.acknowledgements.is_full() && header.flags & 0b0110 != 0,
            PacketKind::Subscribe | PacketKind::Unsubscribe => self.server_requests_are_full(),
            _ => false,
        }
    }

    /// Whether the application holds up the reading of input. A full output does not count: that is the peer's doing.
    pub(super) fn waits_for_application(&self) -> bool {
        self.holds_all_input() || self.acknowledgements.is_full() || self.server_requests_are_full()
    }

    /// Whether silence of the peer, or what looked like it, was of our own making since bytes last came.
    pub(super) fn is_paused(&self) -> bool {
        self.paused || self.waits_for_application()
    }

    fn server_requests_are_full(&self) -> bool {
        self.role == Role::Server && self.requests.is_full()
    }

    pub(super) fn output_is_full(&self) -> bool {
        self.output.len() > self.config.max_output
    }

    fn handle_packet(&mut self, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::Puback(id) => {
                // An id that nothing waits under is what a peer sends that acknowledged a repeat twice: harmless.
                if let Some(token) = self.flow.acknowledged(id) {
                    self.push(Event::Acknowledged(token));
                }
            }
            packet => match self.role {
                Role::Server => return self.handle_from_client(packet),
                Role::Client => return self.handle_from_server(packet),
            },
        }
        Ok(())
    }

    fn handle_publish(&mut self, publish: Publish) -> Result<(), Violation> {
        let (qos, dup, delivery) = match publish.delivery {
            Delivery::AtMostOnce => (Qos::AtMostOnce, false, None),
            Delivery::AtLeastOnce { id, dup } => match self.acknowledgements.arrive(id, dup)? {
                Arrival::New(delivery) => (Qos::AtLeastOnce, dup, Some(delivery)),
                Arrival::Repeat => return Ok(()),
            },
            Delivery::ExactlyOnce { .. } => return Err(Violation::ExactlyOnce),
        };
        let message = Message {
            topic: publish.topic,
            payload: publish.payload,
            qos,
            retain: publish.retain,
            dup,
        };
        self.push(Event::Publish { message, delivery });
        Ok(())
    }
}
