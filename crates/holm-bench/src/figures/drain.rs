//! What is stored while the hub is silent, and how fast it leaves when the hub is back.
//!
//! ```text
//!   hub stopped (SIGSTOP) ── load on the edge ── hub goes on ──> clock runs until the last event is read at the hub
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Figure;
use crate::bench::{PATIENCE, WINDOW};
use crate::brokers::{Broker, Certificates, Hub, MAX_MODULES};
use crate::load::{self, Plan};
use crate::machine::load_average;
use crate::schedule::Pace;

/// How long is stored, and how much a second.
const OUTAGE: Duration = Duration::from_secs(4);
const PER_SECOND: u32 = 25_000;
/// The last event that takes longer than this after the one before does not come.
const GIVE_UP: Duration = Duration::from_secs(30);

pub(super) async fn measure(place: &Path, certificates: &Certificates) -> Result<Figure> {
    let directory = tempfile::tempdir_in(place)?;
    let hub = Hub::start(&directory.path().join("above")).await?;
    let edge = directory.path().join("edge");
    let broker = Broker::start_below(&hub, &edge, certificates, MAX_MODULES).await?;
    let mut events = hub.follow().await?;

    hub.pause()?;
    let publishers = (0..MAX_MODULES).map(|number| broker.publisher(number));
    let plan = Plan {
        target: broker.target().clone(),
        publishers: publishers.collect::<Result<_>>()?,
        listeners: Vec::new(),
        payload_bytes: 256,
        window: WINDOW,
        pace: Pace::Open { per_second: PER_SECOND },
        duration: OUTAGE,
        warm_up: Duration::ZERO,
        patience: PATIENCE,
        servers: vec![broker.pid()],
    };
    let stored = load::run(&plan).await;
    hub.resume()?;
    let stored = stored?.acknowledged;
    let began = Instant::now();
    for _ in 0..stored {
        let event = tokio::time::timeout(GIVE_UP, events.next()).await;
        event.context("what was stored does not arrive at the hub")??;
    }
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts of messages are far below 2^52")]
    let rate = stored as f64 / seconds;
    Ok(Figure::new(
        "drain after an outage",
        format!("{rate:.0} messages a second"),
        "≥ 20,000/s",
        format!(
            "{stored} messages of 256 B of {MAX_MODULES} modules, stored while the hub was stopped; {seconds:.1} s until the last \
             was read from its event log; load {}",
            load_average()
        ),
    ))
}
