//! What its receiver gives back comes again after a pause that grows, and not for ever.

use std::time::Duration;

use tokio::time::Instant;

/// Which delivery that is abandoned is the last: the most deliveries of a hub. Source: `hub-device-protocols.md` §7.
pub(super) const MOST: u32 = 10;
/// The pause before the second delivery; each is twice as long as the one before it.
const FIRST: Duration = Duration::from_millis(100);

/// The pause before what was abandoned so often comes again: 100 ms to 25.6 s, so all of them take less than a minute. `None`: it does
/// not come again.
pub(super) fn pause(times: u32) -> Option<Duration> {
    (times < MOST).then(|| FIRST * 2_u32.pow(times.saturating_sub(1)))
}

/// Waits until the first is due; for ever where nothing was abandoned.
pub(super) async fn wait(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let pauses: Vec<_> = (1..).map_while(pause).map(|pause| pause.as_millis()).collect();

        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600]);
        assert!(pauses.iter().sum::<u128>() < 60_000);
    }
}
