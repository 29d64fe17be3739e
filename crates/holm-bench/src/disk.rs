//! What the disk gives: the rate at which one record after the other can be written and synced. Durable throughput on a
//! machine that is shared says nothing without it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Appends `bytes` and calls `fdatasync`, again and again for `duration`, to a file of its own in the directory. Returns how
/// often a second.
///
/// # Errors
/// The file can't be made, written or synced.
pub fn sync_rate(directory: &Path, bytes: usize, duration: Duration) -> Result<f64> {
    let path = directory.join("sync-rate");
    let mut file = File::create(&path).with_context(|| format!("`{}` can't be made", path.display()))?;
    let record = vec![b'.'; bytes];
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < duration {
        file.write_all(&record)
            .and_then(|()| file.sync_data())
            .context("a write and sync")?;
        count += 1;
    }
    let elapsed = began.elapsed();
    std::fs::remove_file(&path).with_context(|| format!("`{}` can't be removed", path.display()))?;
    Ok(f64::from(count) / elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_time_it_took_and_the_file_is_gone() {
        let directory = tempfile::tempdir().unwrap();

        let rate = sync_rate(directory.path(), 1024, Duration::from_millis(20)).unwrap();

        assert!(rate > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
