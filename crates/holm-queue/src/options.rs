//! What a queue can be told at opening.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::OpenError;

/// A source of milliseconds since 1970.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// Wraps a function that returns milliseconds since 1970.
    pub fn new(clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    /// What it says.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How a queue behaves. Worst-case memory is about `max_uncommitted_bytes` + `hot_bytes` + 128 KiB a reader that lags +
/// the lanes' states (`max_lanes` × `max_ranges` × 48 bytes if every lane is acknowledged as scattered as allowed).
#[derive(Debug, Clone)]
pub struct Options {
    /// A segment takes no more appends once it has this many bytes. Default 16 MiB, 4 KiB to 1 GiB. Small: more files and
    /// finer trimming; large: space comes back later.
    pub segment_bytes: u64,
    /// Appends are refused with `QueueFull` when the directory holds this many bytes. Default none.
    pub max_bytes: Option<u64>,
    /// Appends are refused with `Busy` while this many bytes wait for the disk. Default 8 MiB.
    pub max_uncommitted_bytes: u64,
    /// How many of the newest bytes stay in memory for readers that keep up. Default 4 MiB; 0: only what waits for the
    /// disk.
    pub hot_bytes: u64,
    /// Space kept for the progress of lanes while the disk is full. Default 256 KiB; ranges beyond the low-water mark that
    /// do not fit in half of it may be delivered again after a crash on a full disk.
    pub reserve_bytes: u64,
    /// The largest sender and payload of a record. Default 4 MiB, at most 64 MiB.
    pub max_record_bytes: u64,
    /// The most lanes defined at a time. Default 1,024.
    pub max_lanes: usize,
    /// The most separate ranges that a lane may have acknowledged beyond its low-water mark; further ones are refused with
    /// `TooScattered`. Default 1,024.
    pub max_ranges: usize,
    /// A segment other than the newest is emptied into its lanes' own segments when what is still needed is at most this
    /// many percent of it. Default 50; 0: never.
    pub move_below_percent: u8,
    /// The most bytes that one step of moving reads. Default 1 MiB. A commit waits for at most one step.
    pub move_step_bytes: u64,
    /// How long acknowledgements, and what else moves a lane's progress, wait for an append to be committed with. Default 1 s,
    /// at most 60 s. Short: syncs for acknowledgements alone, each of which wears out a block of flash; long: more is delivered
    /// again after a crash, but no more than some 1,000 records. They do not wait while the queue or the disk is full, nor at
    /// closing.
    pub acknowledge_delay: Duration,
    /// How often a commit is tried again while the disk is full or failing. Default 1 s.
    pub retry_interval: Duration,
    /// How often expiry, retention and reclaiming are looked after. Default 30 s.
    pub maintain_interval: Duration,
    /// Where the shell takes the time from.
    pub clock: Clock,
    /// Makes headers of this directory unforgeable by payloads; used when the directory is created. `None`: random.
    pub salt: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            max_bytes: None,
            max_uncommitted_bytes: 8 << 20,
            hot_bytes: 4 << 20,
            reserve_bytes: 256 << 10,
            max_record_bytes: 4 << 20,
            max_lanes: 1024,
            max_ranges: 1024,
            move_below_percent: 50,
            move_step_bytes: 1 << 20,
            acknowledge_delay: Duration::from_secs(1),
            retry_interval: Duration::from_secs(1),
            maintain_interval: Duration::from_secs(30),
            clock: Clock::default(),
            salt: None,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let in_range = |name, value, range: std::ops::RangeInclusive<u64>, expected| {
            if range.contains(&value) {
                Ok(())
            } else {
                Err(OpenError::Option { name, value, expected })
            }
        };
        let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        in_range(
            "segment_bytes",
            self.segment_bytes,
            4 << 10..=1 << 30,
            "between 4 KiB and 1 GiB",
        )?;
        in_range(
            "max_record_bytes",
            self.max_record_bytes,
            1..=64 << 20,
            "between 1 byte and 64 MiB",
        )?;
        in_range(
            "max_uncommitted_bytes",
            self.max_uncommitted_bytes,
            1..=1 << 30,
            "between 1 byte and 1 GiB",
        )?;
        in_range(
            "reserve_bytes",
            self.reserve_bytes,
            4 << 10..=256 << 20,
            "between 4 KiB and 256 MiB",
        )?;
        in_range(
            "max_lanes",
            count(self.max_lanes),
            1..=1 << 20,
            "between 1 and 1,048,576",
        )?;
        in_range(
            "max_ranges",
            count(self.max_ranges),
            1..=1 << 20,
            "between 1 and 1,048,576",
        )?;
        in_range(
            "move_step_bytes",
            self.move_step_bytes,
            1..=1 << 30,
            "between 1 byte and 1 GiB",
        )?;
        let milliseconds = u64::try_from(self.acknowledge_delay.as_millis()).unwrap_or(u64::MAX);
        in_range("acknowledge_delay", milliseconds, 0..=60_000, "at most 60,000 ms")
    }

    /// The salt for a new directory.
    pub(crate) fn new_salt(&self) -> u64 {
        // The standard library's hash keys are the randomness that needs no further crate; nothing secret hangs on it.
        self.salt
            .unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish())
    }
}
