//! The time, as a thing that is handed in: a simulation turns it by hand.
//!
//! The time of day comes from a [`Clock`], which whoever starts a node hands to its parts. Timeouts are measured on the clock
//! of the runtime ([`instant`]), which a test can pause.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Tells the time of day. Clones tell the same time.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> SystemTime + Send + Sync>>);

impl Clock {
    /// The clock of the operating system; the default.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that asks `now`.
    #[must_use]
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.0.as_ref().map_or_else(SystemTime::now, |now| now())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_none() {
            "Clock(system)"
        } else {
            "Clock(given)"
        })
    }
}

/// Certificates are judged by it; one before 1970 is judged as in 1970.
impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(since.unwrap_or(Duration::ZERO)))
    }
}

/// A moment on the clock by which this process measures timeouts: that of the async runtime. It never goes back.
#[must_use]
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}
