//! A clock that no change of the time of day moves: what lives of messages are counted by.
//!
//! ```text
//!   time of day  ───────┐ +90 days              steady = what the time of day was at the first start
//!                       └──────────                    + what has passed since while the device was on   (by its uptime)
//!   steady       ─────────────────                     + what the time of day says that it was off, if that is credible
//! ```
//!
//! `DATA/clock.json` says where the clock stood, beside uptime, boot and time of day. Within one boot the uptime tells exactly
//! how long the edge was away, whatever the time of day did. After another boot only the time of day can tell: one that went
//! back, or that was or is earlier than any release, is not believed, and the time off counts as none. So messages may live longer
//! than they should on a device without a clock, and never shorter; only a clock that was set wrong while the device was off, by
//! hand say, is taken at its word.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use holm_identity::ca::EARLIEST;
use holm_identity::private_file;
use holm_model::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How often it is looked whether somebody has set the time of day.
const LOOK: Duration = Duration::from_secs(2);
/// How often the clock is written: after another boot nothing of it is needed but the time of day.
const KEEP: Duration = Duration::from_secs(3600);
/// A change of the time of day by less is no news: time services correct by this much in one step.
pub(crate) const JUMP_MILLIS: i64 = 10_000;
/// A file of this kind has a tenth of this.
const MAX_FILE_BYTES: u64 = 4096;

/// Where all clocks stand at one moment, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Anchor {
    version: u32,
    /// The steady clock, since 1970.
    steady_millis: i64,
    /// The time of day, since 1970.
    wall_millis: i64,
    /// Since the boot, with the time asleep.
    uptime_millis: i64,
    boot_id: String,
}

/// The version of the file.
const VERSION: u32 = 1;

/// Where the steady clock stands, by where it stood and what the others say now.
fn resume(before: Option<&Anchor>, wall_millis: i64, uptime_millis: i64, boot_id: &str) -> i64 {
    let Some(before) = before else { return wall_millis };
    let since = if before.boot_id == boot_id && uptime_millis >= before.uptime_millis {
        uptime_millis - before.uptime_millis
    } else if before.wall_millis < EARLIEST.unix_millis() {
        0
    } else {
        (wall_millis - before.wall_millis).max(0)
    };
    before.steady_millis.saturating_add(since)
}

/// What was seen of changes of the time of day.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Moves {
    /// How often it was moved since the start of the edge.
    pub count: u64,
    /// By how much at last, in milliseconds; positive: forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_millis: Option<i64>,
}

/// The steady clock of an edge.
#[derive(Debug)]
pub struct SteadyClock {
    path: PathBuf,
    boot_id: String,
    /// The steady clock when the uptime was 0.
    at_boot_millis: i64,
    /// Held for a copy.
    moves: Mutex<Moves>,
}

impl SteadyClock {
    /// Goes on with the clock of a data directory, which is only read; a new one stands at the time of day.
    #[must_use]
    pub fn open(data: &Path) -> Self {
        let path = data.join("clock.json");
        // Without `/proc` no boot is known from another: each start counts as one.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.map_or_else(|_| String::new(), |text| text.trim().to_owned());
        let before = read(&path);
        let uptime = uptime_millis();
        let known = before.as_ref().filter(|before| !before.boot_id.is_empty());
        Self {
            at_boot_millis: resume(known, wall_millis(), uptime, &boot_id) - uptime,
            path,
            boot_id,
            moves: Mutex::default(),
        }
    }

    /// Milliseconds since 1970, by this clock.
    #[must_use]
    pub fn millis(&self) -> i64 {
        self.at_boot_millis + uptime_millis()
    }

    /// What was seen of changes of the time of day.
    #[must_use]
    pub fn moves(&self) -> Moves {
        *self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the clock, and looks for changes of the time of day, for ever; calls `moved` after each.
    pub async fn watch(&self, moved: impl Fn()) {
        self.keep();
        let ahead = || wall_millis() - self.millis();
        let mut known = ahead();
        let mut kept = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = ahead();
            let by = now - known;
            known = now;
            if by.abs() >= JUMP_MILLIS {
                self.note(by);
                moved();
            } else if kept.elapsed() < KEEP {
                continue;
            }
            self.keep();
            kept = tokio::time::Instant::now();
        }
    }

    fn note(&self, by: i64) {
        tracing::warn!(
            seconds = by / 1000,
            now = %Timestamp::from(SystemTime::now()),
            "the time of day was changed; messages keep their lives"
        );
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        moves.count += 1;
        moves.last_millis = Some(by);
    }

    /// Writes where the clock stands.
    fn keep(&self) {
        let anchor = Anchor {
            version: VERSION,
            steady_millis: self.millis(),
            wall_millis: wall_millis(),
            uptime_millis: uptime_millis(),
            boot_id: self.boot_id.clone(),
        };
        let text = serde_json::json!(anchor).to_string();
        if let Err(error) = private_file::write(&self.path, text.as_bytes()) {
            let error = holm_net::error_chain(&error);
            tracing::warn!(
                error,
                "where the clock stands was not written; a time off may not be counted"
            );
        }
    }
}

fn read(path: &Path) -> Option<Anchor> {
    let bytes = match private_file::read(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return None,
        Err(error) => {
            let error = holm_net::error_chain(&error);
            tracing::warn!(
                error,
                "where the clock stood can't be read; it begins with the time of day"
            );
            return None;
        }
    };
    match serde_json::from_slice::<Anchor>(&bytes) {
        Ok(anchor) if anchor.version == VERSION => Some(anchor),
        Ok(Anchor { version, .. }) => {
            tracing::warn!(path = %path.display(), version, "the clock is of another version; it begins with the time of day");
            None
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "where the clock stood is not readable; it begins with the time of day");
            None
        }
    }
}

fn wall_millis() -> i64 {
    Timestamp::from(SystemTime::now()).unix_millis()
}

fn uptime_millis() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1000)
        .saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const WALL: i64 = 1_800_000_000_000;

    fn before() -> Anchor {
        Anchor {
            version: VERSION,
            steady_millis: WALL - 7,
            wall_millis: WALL,
            uptime_millis: 5000,
            boot_id: "a".to_owned(),
        }
    }

    #[test]
    fn within_a_boot_only_the_uptime_counts() {
        for wall in [0, WALL - 90 * DAY, WALL, WALL + 90 * DAY] {
            assert_eq!(resume(Some(&before()), wall, 6000, "a"), WALL - 7 + 1000);
        }
    }

    #[test]
    fn after_another_boot_a_clock_that_went_forward_is_believed_and_no_other() {
        let after = |before: &Anchor, wall| resume(Some(before), wall, 100, "b") - before.steady_millis;

        assert_eq!(after(&before(), WALL + DAY), DAY);
        assert_eq!(after(&before(), WALL - DAY), 0);
        assert_eq!(after(&before(), 1000), 0);
        let unset = Anchor {
            wall_millis: 1000,
            ..before()
        };
        assert_eq!(after(&unset, WALL), 0);
        assert_eq!(after(&unset, 9000), 0);
    }

    #[test]
    fn a_new_clock_stands_at_the_time_of_day() {
        assert_eq!(resume(None, WALL, 100, "b"), WALL);
    }

    #[test]
    fn a_clock_goes_on_after_a_restart_and_a_broken_file_costs_only_the_memory() {
        let data = tempfile::tempdir().unwrap();
        let first = SteadyClock::open(data.path());
        first.keep();
        let second = SteadyClock::open(data.path());
        assert!((first.at_boot_millis - second.at_boot_millis).abs() < 2);

        std::fs::write(data.path().join("clock.json"), "{").unwrap();
        let third = SteadyClock::open(data.path());

        assert!((third.millis() - wall_millis()).abs() < 1000);
    }
}
