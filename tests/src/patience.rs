//! Deadlines. Each wait has one; none is a pause. `HOLM_E2E_PATIENCE=3` makes all three times as long, for slow machines.

use std::time::{Duration, Instant};

/// How long a process may take to start, end or answer.
#[must_use]
pub fn long() -> Duration {
    scaled(120)
}

/// How long something may take that needs no other process to start.
#[must_use]
pub fn short() -> Duration {
    scaled(60)
}

fn scaled(seconds: u64) -> Duration {
    let factor = std::env::var("HOLM_E2E_PATIENCE")
        .ok()
        .and_then(|text| text.parse().ok());
    Duration::from_secs(seconds * factor.unwrap_or(1).clamp(1, 100))
}

/// Tries again and again until there is a value.
///
/// # Panics
/// When the time is over; with `what` was awaited and the last reason why it was not there.
#[track_caller]
pub fn wait<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if began.elapsed() > patience => {
                panic!("{what}: not within {} s; at last: {reason}", patience.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
