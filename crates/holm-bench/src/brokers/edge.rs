//! The broker of a Holm edge: this program again, as `serve-edge`.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Certificates, Hub, LISTENER, publisher_name, sibling, write};
use crate::edge_server::EdgeSettings;

/// The device that the edge is.
pub const EDGE_DEVICE: &str = "bench";

pub(super) const PROMISE: &str = "on disk (`fdatasync`), together with what else arrived meanwhile";
pub(super) const SETTINGS: &str = "gateway, broker, queue and uplink of the product, in a process of its own; every module has its token; \
                                   no hub in reach, except upstream";

pub(super) const PROMISE_IN_MEMORY: &str = "in memory, and never on a disk (`holm.messages_in_memory_bytes`)";
pub(super) const SETTINGS_IN_MEMORY: &str = "the same, with room for 3 GiB of messages: what waits for a receiver that is slower than its senders (rumqttd drops it beyond 1 GiB)";

/// Memory for messages, where they are kept there.
pub(super) const MEMORY_BYTES: u64 = 3 << 30;
/// Nothing listens on this port of the loopback: the hub is out of reach.
const NOWHERE: u16 = 1;

/// An edge that never saw its hub; what its modules publish goes to one of them.
pub(super) fn alone(directory: &Path, port: u16, certificates: &Certificates, clients: usize) -> EdgeSettings {
    let publishers = (0..clients).map(publisher_name);
    EdgeSettings {
        device: EDGE_DEVICE.to_owned(),
        modules: publishers.chain([LISTENER.to_owned()]).collect(),
        key: STANDARD.encode([7; 32]),
        hub_host: "127.0.0.1".to_owned(),
        hub_port: NOWHERE,
        hub_ca: certificates.ca_path(),
        port,
        data: directory.to_owned(),
        chain: certificates.chain_path(),
        chain_key: certificates.key_path(),
        memory_bytes: None,
        route: format!("FROM /messages/* INTO BrokeredEndpoint(\"/modules/{LISTENER}/inputs/bench\")"),
    }
}

/// An edge below a hub, whose modules' messages go up.
pub(super) fn below(
    hub: &Hub,
    directory: &Path,
    port: u16,
    certificates: &Certificates,
    clients: usize,
) -> EdgeSettings {
    EdgeSettings {
        modules: (0..clients).map(publisher_name).collect(),
        hub_port: hub.mqtt_port(),
        hub_ca: hub.ca_path(),
        route: "FROM /messages/* INTO $upstream".to_owned(),
        ..alone(directory, port, certificates, clients)
    }
}

/// The program of this package as the edge.
pub(super) fn command(directory: &Path, settings: &EdgeSettings) -> Result<Command> {
    let path = directory.join("edge.json");
    write(&path, &serde_json::to_string_pretty(settings)?)?;
    let mut command = Command::new(sibling("holm-bench")?);
    command.arg("serve-edge").arg(path);
    Ok(command)
}
