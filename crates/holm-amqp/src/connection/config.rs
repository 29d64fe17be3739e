//! The limits and deadlines of a connection. Every one has a default that suits a hub.

use std::time::Duration;

use crate::codec::Limits;
use crate::text::{Symbol, Text};

/// Limits and deadlines of a connection, for either role. Connections share one.
///
/// The worst-case memory of a connection is about `max_frame_size + max_input` for input, `max_event_bytes + max_frame_size`
/// for events, `max_output + max_frame_size` and `max_queued` for output, `max_unfinished` for deliveries of several
/// transfers, and what its sessions and links are: about 300 and 400 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What this side calls itself. Default `holm`.
    pub container_id: Text,
    /// The largest frame that is taken and sent, in bytes. Default 64 KiB, that of the C# SDK
    /// (`hub-device-protocols.md` §3.1); at least 512.
    pub max_frame_size: u32,
    /// The largest frame before open, from peers that nobody knows yet. Default 16 KiB: a token in PLAIN has one or two;
    /// `max_frame_size` holds too.
    pub max_handshake_frame: u32,
    /// What one frame may hold. Default 32 levels and 16,384 values.
    pub values: Limits,
    /// The highest channel, announced. Default 1023: the pools of the SDKs have 1,000 devices with a session each at most
    /// (`hub-device-protocols.md` §3.4).
    pub channel_max: u16,
    /// The highest handle of a session, announced. Default 255: a device has seven links.
    pub handle_max: u32,
    /// How many sessions and links there may be, until [`set_allowance`](crate::Connection::set_allowance). Default 1,024
    /// and 8,192; a server that does not know its client yet sets less.
    pub allowance: Allowance,
    /// The largest message that a link takes unless its acceptance says otherwise, announced. Default 1 MiB, that of the
    /// edge (`hub-device-protocols.md` §3.1). 0 for no limit.
    pub max_message_size: u64,
    /// How many bytes of deliveries that are not whole a connection may hold. Default 4 MiB; the link that goes beyond is
    /// detached.
    pub max_unfinished: usize,
    /// How many transfers a session takes before it hears more, announced. Default 2,048; not a bound on memory, which
    /// credit and events are.
    pub incoming_window: u32,
    /// How many deliveries of this side may wait for their outcome on one link. Default 1,024.
    pub max_unsettled: usize,
    /// How many bytes may wait to be sent on one link because of windows and output. Default 256 KiB, and one message.
    pub max_link_queue: usize,
    /// The same of all links together. Default 4 MiB.
    pub max_queued: usize,
    /// How many events may wait for the application. Default 64; at this number input is not handled.
    pub max_events: usize,
    /// How many bytes of deliveries may wait in events. Default 1 MiB; beyond it input is not handled.
    pub max_event_bytes: usize,
    /// How many bytes may wait to be transmitted. Default 256 KiB; beyond it transfers wait and input is not handled.
    pub max_output: usize,
    /// How many bytes beyond one frame may wait to be handled. Default 1 MiB, the most a driver may hand in at a time;
    /// beyond it the connection closes, since a driver that heeds `wants_input` never gets there.
    pub max_input: usize,
    /// How long the peer's steps up to open may take, and the application's decision. Default 60 s.
    pub handshake_timeout: Duration,
    /// How long the peer may be silent; announced, and 1.5 times as long is waited. Default 240 s
    /// (`hub-device-protocols.md` §3.1). Zero for ever.
    pub idle_timeout: Duration,
    /// How long the peer's close after ours is waited for. Default 5 s.
    pub close_timeout: Duration,
    /// Server: what SASL offers, in this order. Default MSSBCBS, ANONYMOUS, PLAIN, EXTERNAL (`libraries.md`, AMQP fact 4).
    /// That no SASL at all is spoken is always taken.
    pub mechanisms: Vec<Symbol>,
}

/// How many sessions and links a connection may have. More are refused one by one, with
/// `amqp:resource-limit-exceeded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Sessions.
    pub sessions: usize,
    /// Links of all sessions together.
    pub links: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            sessions: 1024,
            links: 8192,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            container_id: Text::from_static("holm"),
            max_frame_size: 64 * 1024,
            max_handshake_frame: 16 * 1024,
            values: Limits::default(),
            channel_max: 1023,
            handle_max: 255,
            allowance: Allowance::default(),
            max_message_size: 1024 * 1024,
            max_unfinished: 4 * 1024 * 1024,
            incoming_window: 2048,
            max_unsettled: 1024,
            max_link_queue: 256 * 1024,
            max_queued: 4 * 1024 * 1024,
            max_events: 64,
            max_event_bytes: 1024 * 1024,
            max_output: 256 * 1024,
            max_input: 1024 * 1024,
            handshake_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(240),
            close_timeout: Duration::from_secs(5),
            mechanisms: ["MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"]
                .map(Symbol::from_static)
                .to_vec(),
        }
    }
}
