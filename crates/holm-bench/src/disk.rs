//! What the disk gives: the rate at which one record after the other can be written and synced. Durable throughput on a
//! machine that is shared says nothing without it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::histogram::Histogram;
use crate::process::usage_of;

/// What one record after the other costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SyncRate {
    /// Records a second.
    pub per_second: f64,
    /// Processor time of each, in microseconds: what a server pays that syncs for a message alone.
    pub cpu_us: f64,
    /// How long the slowest of a hundred takes, in milliseconds.
    pub p99_ms: f64,
}

/// Appends `bytes` and calls `fdatasync`, again and again for `duration`, to a file of its own in the directory.
///
/// # Errors
/// The file can't be made, written or synced.
pub fn sync_rate(directory: &Path, bytes: usize, duration: Duration) -> Result<SyncRate> {
    let path = directory.join("sync-rate");
    let mut file = File::create(&path).with_context(|| format!("`{}` can't be made", path.display()))?;
    let record = vec![b'.'; bytes];
    let (own, began) = ([std::process::id()], Instant::now());
    let used = usage_of(&own)?;
    let mut count = 0_u32;
    let mut times = Histogram::default();
    while began.elapsed() < duration {
        let start = Instant::now();
        file.write_all(&record)
            .and_then(|()| file.sync_data())
            .context("a write and sync")?;
        times.record(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        count += 1;
    }
    let (elapsed, used) = (began.elapsed(), usage_of(&own)?.since(used));
    std::fs::remove_file(&path).with_context(|| format!("`{}` can't be removed", path.display()))?;
    Ok(SyncRate {
        per_second: f64::from(count) / elapsed.as_secs_f64(),
        cpu_us: used.cpu_seconds * 1e6 / f64::from(count.max(1)),
        p99_ms: Duration::from_nanos(times.quantile(990).unwrap_or(0)).as_secs_f64() * 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_time_it_took_and_the_file_is_gone() {
        let directory = tempfile::tempdir().unwrap();

        let rate = sync_rate(directory.path(), 1024, Duration::from_millis(20)).unwrap();

        assert!(rate.per_second > 0.0, "{rate:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
