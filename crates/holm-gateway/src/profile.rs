//! Where hub and edge must answer a client differently. Every difference is a row here, with its source and its reason;
//! nowhere else does this crate ask which of the two it serves.

use std::time::Duration;

use holm_model::wire::bag;

/// How a node answers devices and modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The longest time between packets of a client, whatever keep-alive it asked for; a keep-alive of 0 means this.
    ///
    /// Hub 1767 s (`hub-device-protocols.md` §2.1), edge 600 s (`edge-broker.md` §1.4).
    pub idle_cap: Duration,
    /// Whether a filter that means nothing is granted (and stays silent) instead of refused with 0x80.
    ///
    /// Hub refuses: SDKs log it (`hub-device-protocols.md` §2.4). The original broker grants every filter, and modules
    /// exist that subscribe to more than they need (`edge-broker.md` §1.5).
    pub grants_unknown_filters: bool,
    /// Whether a twin request without `$rid` closes the connection instead of being dropped
    /// (`hub-device-protocols.md` §2.6, `edge-broker.md` §1.6).
    pub twin_get_without_request_id_closes: bool,
    /// Whether the user name must carry an `api-version`. Optional at the hub, mandatory at the original broker; a client
    /// without it is harmless, so neither insists (`edge-broker.md` §1.4, FIX).
    pub requires_api_version: bool,
    /// The application property that marks a client's will: `iothub-MessageType` at the hub, `MessageType` at the edge
    /// (`hub-device-protocols.md` §2.1, `edge-broker.md` §1.4).
    pub will_property: &'static str,
    /// Unacknowledged publishes of a client at which its socket is no longer read. 16 (`edge-broker.md` §1.5).
    pub max_unacknowledged: usize,
    /// Publishes to a client that wait for its acknowledgement at once, as far as they have few bytes. Hub 16
    /// (`hub-device-protocols.md` §2.5). Edge 128: what a module gets of others is what they send at full speed, and each
    /// window costs both sides a turn (the original has one at a time, `edge-broker.md` §3.5, FIX).
    pub delivery_window: usize,
    /// How long a delivery may wait for its acknowledgement before the connection is closed, so that the message goes to
    /// the next one. The original broker waits 30 s and tries again on the same connection (`edge-broker.md` §3.5); MQTT
    /// allows a repeat only on a new connection.
    pub acknowledge_deadline: Duration,
}

/// The largest packet of a client: 256 KiB of message, and a topic of at most 64 KiB
/// (`hub-device-protocols.md` §2.8). What exceeds the message limit within it is refused by its counted size.
pub const MAX_PACKET: usize = 256 * 1024 + 64 * 1024;

/// How long after its `se` a token still holds: 5 minutes of clock error (`hub-device-protocols.md` §1.2).
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

impl Profile {
    /// How the hub answers.
    #[must_use]
    pub const fn hub() -> Self {
        Self {
            idle_cap: Duration::from_secs(1767),
            grants_unknown_filters: false,
            twin_get_without_request_id_closes: false,
            requires_api_version: false,
            will_property: bag::HUB_WILL,
            max_unacknowledged: 16,
            delivery_window: 16,
            acknowledge_deadline: Duration::from_secs(60),
        }
    }

    /// How the edge's broker answers.
    #[must_use]
    pub const fn edge() -> Self {
        Self {
            idle_cap: Duration::from_secs(600),
            grants_unknown_filters: true,
            twin_get_without_request_id_closes: true,
            requires_api_version: false,
            will_property: bag::EDGE_WILL,
            max_unacknowledged: 16,
            delivery_window: 128,
            acknowledge_deadline: Duration::from_secs(30),
        }
    }
}
