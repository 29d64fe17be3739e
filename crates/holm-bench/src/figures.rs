//! What an edge costs and how fast it does what it is for, as single figures beside their limits.
//!
//! ```text
//!   rows of the tables ──> cost of a message, ratios, latencies
//!   queue alone, edge below a hub, whole edge, device binary ──> the rest
//! ```
//!
//! A figure that can't be measured here says why in its place.

mod appends;
mod container;
mod drain;
mod loads;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::brokers::{Certificates, Hub, WholeEdge};
use crate::process::proportional_kib;
use crate::report::{Idle, Row};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// What came of it, with its unit.
    pub value: String,
    /// The limit that was set for it.
    pub limit: String,
    /// How it was measured, and what stands beside it.
    pub how: String,
}

impl Figure {
    fn new(name: &str, value: impl Into<String>, limit: &str, how: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
            limit: limit.to_owned(),
            how: how.into(),
        }
    }
}

/// Any bytes in base64; the hub is ours.
pub const KEY: &str = "QmVuY2htYXJrcyBuZWVkIG5vIHNlY3JldHMgYXQgYWxsIQ==";

/// Measures what the tables don't show, and takes from them what they do.
///
/// # Errors
/// A broker or the hub fails.
pub async fn measure(
    place: &Path,
    certificates: &Certificates,
    rows: &[Row],
    idle: &[Idle],
    tell: &impl Fn(&str),
) -> Result<Vec<Figure>> {
    let mut figures = loads::of_rows(rows);
    figures.extend(appends::measure(place)?);
    figures.push(
        drain::measure(place, certificates)
            .await
            .context("the drain after an outage")?,
    );
    figures.extend(whole_edge(place).await.context("the whole edge")?);
    figures.push(client_memory(idle));
    figures.push(device_binary());
    figures.push(container::measure(place).await.context("a container")?);
    for figure in &figures {
        tell(&format!("{}: {} ({})", figure.name, figure.value, figure.limit));
    }
    Ok(figures)
}

/// Memory of the product with nothing to do, and how long it takes to start.
async fn whole_edge(place: &Path) -> Result<Vec<Figure>> {
    let directory = tempfile::tempdir_in(place)?;
    let hub = Hub::start(&directory.path().join("above")).await?;
    let mut edge = WholeEdge::start(&hub, directory.path(), KEY).await?;
    tokio::time::sleep(crate::bench::SETTLE).await;
    let memory = proportional_kib(edge.pid())?;
    let mut starts = Vec::new();
    for _ in 0..5 {
        starts.push(edge.restart().await?.as_secs_f64() * 1e3);
    }
    edge.stop(&hub).await?;
    starts.sort_by(f64::total_cmp);
    let all: Vec<_> = starts.iter().map(|ms| format!("{ms:.0}")).collect();
    let median = starts.get(starts.len() / 2).copied().unwrap_or_default();
    Ok(vec![
        Figure::new(
            "idle edge with agent, broker, security and twins",
            format!("{} MiB PSS", tenths(memory)),
            "≤ 12 MiB",
            "`holm edge run` below a hub, three process modules connected, without them and their supervisors",
        ),
        Figure::new(
            "process start to broker ready",
            format!("{median:.0} ms"),
            "< 150 ms",
            format!(
                "`holm edge run` that was deployed before, to the line `ready`; five starts: {} ms",
                all.join(", ")
            ),
        ),
    ])
}

/// What one of a thousand idle clients costs the edge, or the broker that is alone in the rows.
pub(crate) fn client_memory(idle: &[Idle]) -> Figure {
    let is_alone = |row: &Idle| idle.iter().all(|other| other.broker == row.broker);
    let of = |clients: usize| {
        let mut rows = idle.iter().filter(|row| row.broker == "Holm edge" || is_alone(row));
        rows.find(|row| row.clients == clients).map(|row| row.proportional_kib)
    };
    let value = match (of(0), of(1000)) {
        #[expect(clippy::cast_precision_loss, reason = "KiB of memory")]
        (Some(none), Some(thousand)) => format!("{:.1} KiB", thousand.saturating_sub(none) as f64 / 1000.0),
        _ => "not measured".to_owned(),
    };
    Figure::new(
        "memory of a TLS client",
        value,
        "≤ 12 KiB",
        "PSS with 1,000 idle modules less that with none, by 1,000; the hub is silent, and the edge tries to reach it",
    )
}

/// The size of the binary that a device gets, where it was built.
fn device_binary() -> Figure {
    let value = match std::env::var_os("HOLM_DEVICE_BIN").map(std::fs::metadata) {
        Some(Ok(file)) => format!("{} MiB", tenths(file.len() / 1024)),
        _ => "not built".to_owned(),
    };
    Figure::new(
        "device binary, stripped",
        value,
        "≤ 10 MiB",
        "`cargo xtask device`: no hub in it, profile `device`",
    )
}

/// KiB as MiB.
fn tenths(kib: u64) -> String {
    format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)
}
