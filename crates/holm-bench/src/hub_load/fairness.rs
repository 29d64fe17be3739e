//! What one device that sends fifty times its share does to the others.
//!
//! ```text
//!   quiet:   a hundred devices, ten messages a second each                  -> acknowledgement, 99th percentile
//!   beside:  the same, and one more that sends fifty times as many          -> the same
//! ```

use std::time::Duration;

use anyhow::Result;

use super::fleet::Fleet;
use super::telemetry::plan;
use crate::brokers::hub::Hub;
use crate::load;
use crate::schedule::Pace;

/// Messages a second of a device.
const SHARE: u32 = 10;
/// How many times its share one device sends.
const TIMES: u32 = 50;
/// Devices that keep to their share.
const OTHERS: usize = 100;
const WARM_UP: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug)]
pub(super) struct Fairness {
    pub(super) quiet_ms: f64,
    pub(super) beside_ms: f64,
}

pub(super) async fn run(hub: &Hub, fleet: &Fleet, duration: Duration) -> Result<Fairness> {
    let others = OTHERS.min(fleet.count.saturating_sub(1)).max(1);
    let per_second = SHARE * u32::try_from(others)?;
    let mut shared = plan(hub, fleet, 0..others, duration)?;
    (shared.pace, shared.warm_up) = (Pace::Open { per_second }, WARM_UP);
    let mut greedy = plan(hub, fleet, others..others + 1, duration)?;
    greedy.pace = Pace::Open {
        per_second: SHARE * TIMES,
    };

    let quiet = load::run(&shared).await?;
    let (beside, _) = tokio::try_join!(load::run(&shared), load::run(&greedy))?;
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of an acknowledgement")]
    let ms = |outcome: &load::Outcome| outcome.puback.quantile(990).unwrap_or_default() as f64 / 1e6;
    Ok(Fairness {
        quiet_ms: ms(&quiet),
        beside_ms: ms(&beside),
    })
}
