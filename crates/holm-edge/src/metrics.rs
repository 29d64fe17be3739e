//! The page of figures of an edge: what the original publishes of its two parts, under its names, and what is ours.
//!
//! | names | of | written by |
//! | --- | --- | --- |
//! | `edgehub_*` | the broker | `broker/figures.rs` |
//! | `edgeAgent_*` | the agent; modules and device | `agent/figures.rs`, `usage/` |
//! | `holm_edge_*` | link, queue, connections | here |
//!
//! The published ones begin with the published labels: the hub, this device, and a number that is another one after each
//! start, by which a reader sees that counters began anew.

use std::sync::Arc;

use holm_gateway::Gateway;
use holm_gateway::metrics::{Exposition, Kind};
use holm_model::hex;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::agent::figures::telemetry;
use crate::broker::{Broker, BrokerStatus};
use crate::config::EdgeConfig;
use crate::management::system;
use crate::usage::Usage;

/// What the page is made of. Clones are the same one.
#[derive(Clone, Debug)]
pub struct EdgeMetrics {
    pub(crate) broker: Arc<Broker>,
    pub(crate) agent: Agent,
    pub(crate) gateway: Gateway<Broker>,
    pub(crate) usage: Usage,
    pub(crate) labels: Labels,
}

/// The labels that every published figure has.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    pub(crate) hub: String,
    pub(crate) device: String,
    pub(crate) instance: String,
}

impl Labels {
    /// Those of this edge, with a new number.
    pub(crate) fn new(config: &EdgeConfig) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        let hex = hex::encode(&bytes);
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        // The form of a random GUID (RFC 9562 §5.4).
        let instance = format!(
            "{}-{}-4{}-8{}-{}",
            part(0, 8),
            part(8, 12),
            part(13, 16),
            part(17, 20),
            part(20, 32)
        );
        Ok(Self {
            hub: config.hub.host.clone(),
            device: config.device.to_string(),
            instance,
        })
    }
}

impl EdgeMetrics {
    /// What tells this edge from others, and this start from others.
    #[cfg(feature = "otel")]
    pub(crate) const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// All figures as they are now.
    pub async fn read(&self) -> Exposition {
        let mut out = Exposition::default();
        self.write_ours(&mut out);
        self.agent.write_method_figures(&mut out);
        out.set_common(&[
            ("iothub", &self.labels.hub),
            ("edge_device", &self.labels.device),
            ("instance_number", &self.labels.instance),
        ]);
        self.broker.write_figures(&mut out);
        self.agent.write_figures(&mut out);
        self.usage.write(&mut out).await;
        write_metadata(&mut out);
        out
    }

    fn write_ours(&self, out: &mut Exposition) {
        self.gateway.metrics().write("holm_edge", out);
        let status = self.broker.status();
        write_link(out, &status);
        write_queue(out, &status);
        out.begin(
            "holm_edge_messages_total",
            "What became of messages and deliveries; the words of `counts` in `holm edge status --json`.",
            Kind::Counter,
        );
        for (what, count) in json!(status.counts).as_object().into_iter().flatten() {
            out.point(&[("event", what)], count.as_u64().unwrap_or_default());
        }
    }
}

fn write_link(out: &mut Exposition, status: &BrokerStatus) {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    out.gauge(
        "holm_edge_link_up",
        "Whether the hub can be reached.",
        u64::from(status.link.connected),
    );
    out.gauge(
        "holm_edge_clients",
        "Modules and devices connected to this edge now.",
        count(status.clients_connected),
    );
    out.gauge(
        "holm_edge_children",
        "Devices below this edge and their modules, as the hub told.",
        count(status.children),
    );
    out.begin(
        "holm_edge_uplinks_connected",
        "Connections to the hub that are up, one for each identity; over AMQP, where they share, sessions.",
        Kind::Gauge,
    );
    out.point(&[("protocol", status.uplink_protocol)], count(status.uplinks_connected));
    out.gauge(
        "holm_edge_identities_refused",
        "Identities that the hub refuses.",
        count(status.refused.len()),
    );
}

fn write_queue(out: &mut Exposition, status: &BrokerStatus) {
    out.gauge(
        "holm_edge_upstream_messages",
        "Messages that wait for the hub.",
        status.upstream.messages,
    );
    out.gauge("holm_edge_upstream_bytes", "Their bytes.", status.upstream.bytes);
    out.gauge(
        "holm_edge_dead_letters",
        "Dead letters that are kept.",
        status.dead_letters.messages,
    );
    out.gauge(
        "holm_edge_queue_disk_bytes",
        "Bytes of the message queue on disk.",
        status.disk_bytes,
    );
    out.begin(
        "holm_edge_queue_limit_bytes",
        "The limit of those bytes; none where there is no limit.",
        Kind::Gauge,
    );
    if let Some(limit) = status.quota.limit.max_bytes {
        out.point(&[], limit);
    }
    out.gauge(
        "holm_edge_queue_full",
        "Whether the last message found no room within the limit.",
        u64::from(status.quota.is_full),
    );
    out.counter(
        "holm_edge_queue_written_bytes_total",
        "Bytes that the queue has written.",
        status.writes.disk_bytes_written,
    );
    out.counter(
        "holm_edge_queue_device_bytes_total",
        "The same in whole blocks of 4 KiB, as the device takes them at each sync: what flash wears by.",
        status.writes.device_bytes_written,
    );
    out.counter(
        "holm_edge_queue_syncs_total",
        "Syncs of files and directories of the queue.",
        status.writes.syncs,
    );
}

/// What a device is, in labels; the number says nothing, as published.
fn write_metadata(out: &mut Exposition) {
    let info = system::info();
    let field = |name: &str| info.get(name).cloned().unwrap_or(Value::Null);
    let text = |name: &str| field(name).as_str().unwrap_or_default().to_owned();
    let host = json!({
        "OperatingSystemType": field("osType"),
        "Architecture": field("architecture"),
        "Version": field("version"),
        "ServerVersion": field("server_version"),
        "KernelVersion": field("kernel_release"),
        "OperatingSystem": format!("{} {}", text("operating_system"), text("operating_system_version")).trim(),
        "NumCpus": field("cpus"),
        "Virtualized": field("virtualized"),
    });
    out.begin("edgeAgent_metadata", "What the device is, in labels.", Kind::Gauge);
    let labels = [
        ("edge_agent_version", env!("CARGO_PKG_VERSION")),
        ("experimental_features", "{}"),
        ("host_information", &host.to_string()),
    ];
    out.point(&telemetry(&labels), 0_u64);
}
