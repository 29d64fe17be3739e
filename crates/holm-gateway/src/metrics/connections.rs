//! What a front counts of its connections.

use crate::backend::Refusal;
use crate::label;
use crate::metrics::{Counter, Exposition, Family};

label! {
    /// How a client speaks to the node.
    pub enum Protocol("protocol") {
        /// MQTT over TLS.
        Mqtt = "mqtt",
        /// MQTT over a WebSocket.
        MqttWebSocket = "mqtt_websocket",
        /// AMQP over TLS.
        Amqp = "amqp",
        /// AMQP over a WebSocket.
        AmqpWebSocket = "amqp_websocket",
    }
}

label! {
    /// Why a client was not let in: a CONNECT with another return code than 0; over AMQP a token, a log-in or the first link of an
    /// identity.
    pub enum ConnectRefusal("reason") {
        /// User name, client id or will have not the published form.
        Malformed = "malformed",
        /// The proof is wrong, or the identity may not connect.
        NotAuthorized = "not_authorized",
        /// The node could not tell.
        Unavailable = "unavailable",
        /// More came than the node lets in.
        Throttled = "throttled",
    }
}

label! {
    /// Why a connection ended, or what an identity did on one that it shares.
    pub enum End("reason") {
        /// The client said goodbye.
        Disconnected = "disconnected",
        /// The transport ended without it.
        Lost = "lost",
        /// The client was silent for too long.
        TimedOut = "timed_out",
        /// The client broke the protocol.
        Violation = "violation",
        /// The client was not let in.
        Refused = "refused",
        /// The same identity connected anew.
        Replaced = "replaced",
        /// The identity was removed, disabled, or its key changed.
        Revoked = "revoked",
        /// The node stopped.
        ShuttingDown = "shutting_down",
        /// The client did not take what was sent to it.
        TooSlow = "too_slow",
        /// The client did not acknowledge a message in time.
        Unacknowledged = "unacknowledged",
        /// The client's token ended.
        TokenEnded = "token_ended",
        /// The client sent a message that breaks a rule: its topic or its size.
        MessageRefused = "message_refused",
        /// A message could not be stored.
        NotStored = "not_stored",
        /// The node could not read or keep what the session needs.
        Unavailable = "unavailable",
    }
}

label! {
    /// What a client was made to wait for, or refused for now.
    pub enum Throttle("what") {
        /// Messages that had to wait for room at the node.
        Messages = "messages",
        /// Twin requests answered with 429.
        TwinRequests = "twin_requests",
        /// Logins that had to wait for their turn, or were refused for now.
        Logins = "logins",
    }
}

impl From<&Refusal> for ConnectRefusal {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NotAuthorized(_) => Self::NotAuthorized,
            Refusal::Unavailable(_) => Self::Unavailable,
            Refusal::Throttled(_) => Self::Throttled,
        }
    }
}

/// The figures of a front.
#[derive(Debug, Default)]
pub struct ConnectionMetrics {
    pub(crate) open: Family<Protocol>,
    pub(crate) accepted: Family<Protocol>,
    pub(crate) refused: Family<ConnectRefusal>,
    pub(crate) ended: Family<End>,
    pub(crate) throttled: Family<Throttle>,
}

impl ConnectionMetrics {
    /// Writes them, under names that begin with `prefix`.
    pub fn write(&self, prefix: &str, out: &mut Exposition) {
        out.gauges(
            &format!("{prefix}_connections"),
            "Connections that are open now, logged in or not.",
            &self.open,
        );
        out.counters(
            &format!("{prefix}_connections_total"),
            "Connections that were opened.",
            &self.accepted,
        );
        out.counters(
            &format!("{prefix}_connections_refused_total"),
            "Clients that were not let in.",
            &self.refused,
        );
        out.counters(
            &format!("{prefix}_connections_ended_total"),
            "Connections that have ended, by reason.",
            &self.ended,
        );
        out.counters(
            &format!("{prefix}_throttled_total"),
            "What clients had to wait for, or were refused for now.",
            &self.throttled,
        );
    }

    /// Counts a connection until the value goes.
    pub(crate) fn open(&self, protocol: Protocol) -> Open<'_> {
        self.accepted.of(protocol).increment();
        let gauge = self.open.of(protocol);
        gauge.increment();
        Open(gauge)
    }
}

/// A connection that is open.
pub(crate) struct Open<'m>(&'m Counter);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.decrement();
    }
}
