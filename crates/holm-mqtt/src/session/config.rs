//! The limits and deadlines of a session. Every one has a default that suits a hub.

use std::time::Duration;

/// The slowest link that is no dead one, in bytes a second: half of 9.6 kbit/s. On it a message of 256 KiB takes 7 minutes.
pub const SLOWEST_LINK: u64 = 600;

/// Limits and deadlines of a session, for either role.
///
/// The worst-case memory of a session is about `max_packet + max_input` for input, `max_event_bytes + max_packet` for
/// events, `max_output + max_packet` for output, and the messages in flight (`outbound_window`), whose payloads are
/// shared with whoever published them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes of an inbound packet with its header. Default 327,688: a message of 256 KiB and the longest topic
    /// (`hub-device-protocols.md` §2.8). The edge's published figure is 262,144 for both together. A larger packet closes.
    pub max_packet: usize,
    /// The same for CONNECT, which comes from peers that nobody knows yet. Default 96 KiB: a will of 65,535 bytes and a
    /// token. `max_packet` holds too.
    pub max_connect_packet: usize,
    /// How many inbound publishes of QoS 1 may wait for the application. Default 16, the edge's published figure. Too
    /// small makes each wait for the disk alone; too large lets one client fill a commit.
    pub inbound_window: usize,
    /// How many outbound publishes of QoS 1 may wait for PUBACK. Default 16, at most 8192.
    pub outbound_window: u16,
    /// How many SUBSCRIBE and UNSUBSCRIBE may wait for their answer. Default 16.
    pub max_requests: usize,
    /// How many events may wait for the application. Default 64; at this number input is not handled.
    pub max_events: usize,
    /// How many bytes of messages may wait in events. Default 1 MiB; beyond it input is not handled.
    pub max_event_bytes: usize,
    /// How many bytes may wait to be sent. Default 1 MiB; beyond it nothing is published and input is not handled.
    pub max_output: usize,
    /// How many bytes beyond one packet may wait to be handled. Default 1 MiB, the most a driver may hand in at a time;
    /// beyond it the connection closes, since a driver that heeds `wants_input` never gets there.
    pub max_input: usize,
    /// Server: how long CONNECT may take, and then the application's answer to it; client: how long CONNACK may take.
    /// Default 60 s (`hub-device-protocols.md` §2.1).
    pub connect_timeout: Duration,
    /// Server: the longest silence of a client whatever its keep-alive. Default 1767 s, the hub's published figure
    /// (29.45 min); the edge's is 10 min.
    pub idle_cap: Duration,
    /// Client: how long nothing at all may come from the server after a PINGREQ. Default 30 s, and longer by what the
    /// next message to be acknowledged takes at [`SLOWEST_LINK`]: behind it the ping has to wait.
    pub ping_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_packet: 256 * 1024 + 65_535 + 9,
            max_connect_packet: 96 * 1024,
            inbound_window: 16,
            outbound_window: 16,
            max_requests: 16,
            max_events: 64,
            max_event_bytes: 1024 * 1024,
            max_output: 1024 * 1024,
            max_input: 1024 * 1024,
            connect_timeout: Duration::from_secs(60),
            idle_cap: Duration::from_secs(1767),
            ping_timeout: Duration::from_secs(30),
        }
    }
}
