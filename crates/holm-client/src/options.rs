//! How a client connects.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use holm_model::Identity;
use holm_net::{Clock, Dialer};
use rustls::ClientConfig;
use tokio::sync::Semaphore;

use crate::credential::Credential;
use crate::engine::Connections;

/// Where to connect to. TLS checks the certificate against this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What a client speaks, and over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Transport {
    /// MQTT over TLS; port 8883.
    #[default]
    Mqtt,
    /// MQTT in a WebSocket over TLS, where only HTTPS passes; port 443.
    MqttWebSocket,
    /// AMQP over TLS; port 5671.
    Amqp,
    /// AMQP in a WebSocket over TLS; port 443.
    AmqpWebSocket,
}

impl Transport {
    /// The published port.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Mqtt => 8883,
            Self::Amqp => 5671,
            Self::MqttWebSocket | Self::AmqpWebSocket => 443,
        }
    }

    /// Whether it is AMQP, where clients may share a connection.
    #[must_use]
    pub const fn is_amqp(self) -> bool {
        matches!(self, Self::Amqp | Self::AmqpWebSocket)
    }

    /// Its name, as configurations have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWebSocket => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWebSocket => "amqp-ws",
        }
    }

    /// Whether it goes through a WebSocket, and so to the port of HTTPS.
    #[must_use]
    pub const fn is_web_socket(self) -> bool {
        self.subprotocol().is_some()
    }

    /// The WebSocket's, if there is one (`hub-device-protocols.md` §2.1 and §3.1).
    pub(crate) const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Mqtt | Self::Amqp => None,
            Self::MqttWebSocket => Some("mqtt"),
            Self::AmqpWebSocket => Some("AMQPWSB10"),
        }
    }
}

/// A text that names no transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such protocol; take `mqtt`, `mqtt-ws`, `amqp` or `amqp-ws`")]
pub struct UnknownTransport;

/// Reads a name, also as the original spells it (`MqttWs`).
impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        let plain = text.trim().to_ascii_lowercase().replace(['-', '_'], "");
        let all = [Self::Mqtt, Self::MqttWebSocket, Self::Amqp, Self::AmqpWebSocket];
        let named = all
            .into_iter()
            .find(|transport| transport.name().replace('-', "") == plain);
        named.ok_or(UnknownTransport)
    }
}

/// What a client wants to receive. Twin answers always come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interests {
    /// Method calls.
    pub methods: bool,
    /// Changes of desired properties.
    pub desired_properties: bool,
    /// Cloud-to-device messages (devices).
    pub cloud_to_device: bool,
    /// Messages to inputs (modules).
    pub inputs: bool,
}

impl Interests {
    /// All that there is for a device, or for a module.
    pub(crate) const fn all_of(identity: &Identity) -> Self {
        Self {
            methods: true,
            desired_properties: true,
            cloud_to_device: !identity.is_module(),
            inputs: identity.is_module(),
        }
    }
}

/// How a client connects and behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom it acts for.
    pub identity: Identity,
    /// The hub's host name, as it stands in user names and tokens, whatever gateway is in between.
    pub hub_host: String,
    /// Where to connect to: the hub, or a gateway.
    pub endpoint: Endpoint,
    /// What carries the protocol.
    pub transport: Transport,
    /// What it proves itself with.
    pub credential: Credential,
    /// Whom it trusts, and its certificate if it has one.
    pub tls: Arc<ClientConfig>,
    /// What it wants to receive from the start.
    pub interests: Interests,
    /// How often the connection is proved alive when nothing else is sent. Default 60 s. Shorter finds a dead link sooner
    /// and costs 2 small packets each. The answer may take as long again, and at most 30 s; and longer behind a message that is
    /// on its way over a slow link.
    pub keep_alive: Duration,
    /// Messages sent and not acknowledged at once; further ones wait. Default 100. Worst-case memory: this many messages
    /// of 256 KiB.
    pub window: usize,
    /// The longest wait between two attempts to connect. Default 30 s; waits grow from 0.1 s and are spread at random, so
    /// that thousands do not come back at once.
    pub longest_retry_wait: Duration,
    /// Name and version of the program, told to the hub.
    pub user_agent: String,
    /// For whom an edge speaks, and through whom: `device;…;edge`. The credential is then the edge's. Default: none.
    pub auth_chain: Option<String>,
    /// Clients that share this make their connections in turns, as many at a time as it has permits: thousands that lost one
    /// link don't shake hands at once. Default: none, no waiting.
    pub turns: Option<Arc<Semaphore>>,
    /// AMQP: clients with tokens that share this share connections, each with a session and a token of its own. Default: none,
    /// a connection for this client alone. A client with a certificate always has its own.
    pub connections: Option<Connections>,
    /// What tells the time of day: when tokens begin and end. Default: the system's clock.
    pub clock: Clock,
    /// How the endpoint is reached. Default: TCP.
    pub dialer: Dialer,
}

impl Options {
    /// Options with the defaults.
    #[must_use]
    pub fn new(identity: Identity, hub_host: &str, credential: Credential, tls: Arc<ClientConfig>) -> Self {
        Self {
            identity,
            hub_host: hub_host.to_owned(),
            endpoint: Endpoint {
                host: hub_host.to_owned(),
                port: Transport::Mqtt.default_port(),
            },
            transport: Transport::Mqtt,
            credential,
            tls,
            interests: Interests::default(),
            keep_alive: Duration::from_secs(60),
            window: 100,
            longest_retry_wait: Duration::from_secs(30),
            user_agent: concat!("holm-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            auth_chain: None,
            turns: None,
            connections: None,
            clock: Clock::system(),
            dialer: Dialer::default(),
        }
    }

    /// The same over another transport, at its published port.
    #[must_use]
    pub fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self.endpoint.port = transport.default_port();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_read_by_our_name_and_by_that_of_the_original() {
        for (text, transport) in [
            ("mqtt", Transport::Mqtt),
            ("MqttWs", Transport::MqttWebSocket),
            ("Amqp", Transport::Amqp),
            ("amqp-ws", Transport::AmqpWebSocket),
            ("AmqpWs", Transport::AmqpWebSocket),
        ] {
            assert_eq!(text.parse(), Ok(transport), "{text}");
        }
        assert_eq!("amqps".parse::<Transport>(), Err(UnknownTransport));
    }
}
