//! What the broker says of itself, for `holm edge status` and the demo.

use serde::Serialize;

use super::counters::Counts;
use super::links::LinkState;
use super::quota::Quota;
use super::{Broker, lock};
use crate::uplink::Refused;
use holm_query::Sink;
use holm_queue::AppendError;

/// A broker at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// The link to the node above.
    pub link: LinkState,
    /// What carries them: `mqtt`, `mqtt-ws`, `amqp` or `amqp-ws`.
    pub uplink_protocol: &'static str,
    /// Connections upstream that are up; over AMQP, where they share, sessions.
    pub uplinks_connected: usize,
    /// Connections upstream that are open, up or not.
    pub uplinks_open: usize,
    /// Identities that the node above refuses, by name.
    pub refused: Vec<Refused>,
    /// Modules and devices that are connected here.
    pub clients_connected: usize,
    /// Devices below this edge and their modules, as the hub told.
    pub children: usize,
    /// What waits, by endpoint and priority.
    pub endpoints: Vec<EndpointDepth>,
    /// What waits for the node above.
    pub upstream: Depth,
    /// Messages and bytes for the node above that are in memory.
    pub upstream_held: Depth,
    /// Bytes of the queue on disk.
    pub disk_bytes: u64,
    /// What the queue has written since the broker was opened: what flash wears by.
    pub writes: Writes,
    /// The limit of those bytes on disk.
    pub quota: QuotaStatus,
    /// Messages that came to their end elsewhere than at their destination and are kept.
    pub dead_letters: Depth,
    /// The version of the last desired properties of `$edgeHub`, and the code and description of what became of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,
    /// What became of messages.
    pub counts: Counts,
}

/// What a queue has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Writes {
    /// Bytes, acknowledgements and moves included.
    pub disk_bytes_written: u64,
    /// Records: each message once, however many endpoints it is for.
    pub messages: u64,
    /// Bytes of those records' content.
    pub payload_bytes: u64,
    /// Bytes written for each message; 0 before the first.
    pub disk_bytes_per_message: u64,
    /// The bytes written in whole blocks of 4 KiB, as flash takes them at each sync.
    pub device_bytes_written: u64,
    /// Those for each message; 0 before the first.
    pub device_bytes_per_message: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
}

/// The limit of the queue's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// What is in force.
    #[serde(flatten)]
    pub limit: Quota,
    /// Whether the last message found no room.
    pub is_full: bool,
}

/// What became of the last configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigurationStatus {
    /// Its version.
    pub version: u64,
    /// 200 in force, 400 refused.
    pub code: u16,
    /// Why it was refused.
    pub description: String,
}

/// What waits in one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointDepth {
    /// `$upstream`, or `module/input`.
    pub endpoint: String,
    /// 0 to 9, or 2000000000 for none.
    pub priority: u32,
    /// The sender whose messages these are, if it could not be sent for and was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aside: Option<String>,
    /// What waits.
    #[serde(flatten)]
    pub depth: Depth,
}

/// A number of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// How many.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Broker {
    /// Whether what modules send, and what is known of them, reaches the disk.
    ///
    /// # Errors
    /// Why not, in words for an operator.
    pub fn health(&self) -> Result<(), String> {
        let health = self.lanes.queue().health();
        let checked = health.map_or(Err(AppendError::Closed), |health| health.check());
        checked.map_err(|error| format!("messages are not taken in: {error}"))?;
        let state = self.state.health();
        state.map_err(|error| format!("the edge's state can't be written: {error}"))
    }

    /// The broker at this moment.
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        let endpoints = self.depths();
        let upstream = endpoints.iter().filter(|endpoint| endpoint.endpoint == UPSTREAM);
        let upstream = upstream.fold(Depth::default(), |all, endpoint| Depth {
            messages: all.messages + endpoint.depth.messages,
            bytes: all.bytes + endpoint.depth.bytes,
        });
        let (uplinks_connected, uplinks_open) = self.links.count();
        let held = lock(&self.held);
        let (stats, counts) = (self.lanes.queue().stats(), self.counters.read());
        BrokerStatus {
            link: self.links.describe(&self.edge_hub),
            uplink_protocol: self.links.protocol(),
            uplinks_connected,
            uplinks_open,
            refused: self.links.refused(),
            clients_connected: self.sessions.count(),
            children: self.children.count(),
            endpoints,
            upstream,
            upstream_held: Depth {
                messages: held.messages as u64,
                bytes: held.bytes as u64,
            },
            disk_bytes: stats.disk_bytes,
            writes: Writes {
                disk_bytes_written: stats.bytes_written,
                messages: stats.appended,
                payload_bytes: stats.payload_bytes,
                disk_bytes_per_message: stats.bytes_written.checked_div(stats.appended).unwrap_or(0),
                device_bytes_written: stats.device_bytes,
                device_bytes_per_message: stats.device_bytes.checked_div(stats.appended).unwrap_or(0),
                syncs: stats.syncs,
            },
            quota: QuotaStatus {
                limit: self.quota(),
                is_full: self.quota_state.is_full(),
            },
            dead_letters: self.dead_letter_depth(),
            configuration: self.report.desired().map(|(version, status)| ConfigurationStatus {
                version,
                code: status.code,
                description: status.description,
            }),
            counts: Counts {
                dropped_expired: self.expired_deliveries(),
                ..counts
            },
        }
    }

    /// Deliveries whose time-to-live has ended, whoever met them: readers, or the queue itself.
    pub(super) fn expired_deliveries(&self) -> u64 {
        self.counters.read().dropped_expired + self.lanes.queue().stats().expired
    }

    fn depths(&self) -> Vec<EndpointDepth> {
        let depth = |lane| {
            let depth = self.lanes.queue().depth(lane).unwrap_or_default();
            Depth {
                messages: depth.records,
                bytes: depth.bytes,
            }
        };
        let all = self.lanes.all().into_iter();
        all.map(|(name, lane)| EndpointDepth {
            endpoint: match name.endpoint {
                Sink::Upstream => UPSTREAM.to_owned(),
                Sink::Module { module, input } => format!("{module}/{input}"),
            },
            priority: name.priority,
            aside: name.aside.map(|sender| sender.to_string()),
            depth: depth(lane),
        })
        .collect()
    }
}

const UPSTREAM: &str = "$upstream";
