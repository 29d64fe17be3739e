//! A backlog is on disk, not in memory.

use std::sync::Arc;

use holm_model::manifest::BuildVersion;
use holm_net::Scope;
use serde_json::json;

use holm_gateway::Ingest;

use super::edge::{admission, message};
use super::hub::{Hub, configuration};
use super::keys::Keys;
use super::{EDGE_HOST, until};
use crate::broker::{Broker, BrokerOptions};
use crate::keys::ModuleKeys;
use crate::state::State;
use crate::uplink::{Uplink, UplinkSettings};

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test]
#[ignore = "the figure means something only when nothing else runs in the process; `cargo xtask` and people run it alone"]
async fn a_long_backlog_costs_no_memory() {
    let records: u64 = std::env::var("HOLM_BACKLOG").map_or(1_000_000, |text| text.parse().unwrap());
    let hub = Hub::unreachable().await;
    let disk = tempfile::tempdir().unwrap();
    let state = State::open(&disk.path().join("state.db")).unwrap();
    let desired = configuration(json!({"up": "FROM /messages/* INTO $upstream"}), -1);
    let document = json!({"version": 1, "desired": desired});
    state
        .put_document(crate::broker::CONFIGURATION, &document)
        .await
        .unwrap();
    let keys: Arc<dyn ModuleKeys> = Arc::new(Keys::of(&["sensor"]));
    let scope = Scope::new();
    let uplink = Uplink::new(
        UplinkSettings::new(hub.endpoint(), hub.tls()),
        Arc::clone(&keys),
        scope.clone(),
    );
    let options = BrokerOptions {
        hostname: EDGE_HOST.to_owned(),
        version: BuildVersion::default(),
        queue: holm_queue::Options::default(),
        scope: scope.clone(),
    };
    let broker = Broker::open(&disk.path().join("queue"), keys, uplink, state, options)
        .await
        .unwrap();
    let sender = admission("sensor");

    let mut first = 0;
    for number in 0..records {
        let receipt = broker
            .ingest(&sender, message("raw", &format!("{number:0>128}")))
            .await
            .unwrap();
        if number % 100 == 0 {
            receipt.await.unwrap();
        }
        if (number + 1) % (records / 10) == 0 {
            eprintln!(
                "{:>10} waiting, {:.1} MiB resident",
                number + 1,
                resident() as f64 / 1048576.0
            );
        }
        if number + 1 == records / 5 {
            first = resident();
        }
    }
    until("all of it waits", || broker.status().upstream.messages == records).await;
    let grown = resident().saturating_sub(first);

    assert!(grown < 8 << 20, "{grown} bytes more for {} messages", records * 4 / 5);
    scope.drain(std::time::Duration::from_secs(10)).await.unwrap();
}
