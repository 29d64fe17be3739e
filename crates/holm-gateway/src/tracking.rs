//! Numbers that tie an answer to a line of the log.

use std::sync::atomic::{AtomicU64, Ordering};

use holm_model::error::TrackingId;

/// A new tracking id: random, or counted where the system gives no random numbers. It identifies, it protects nothing.
#[must_use]
pub fn tracking_id() -> TrackingId {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let half = || getrandom::u64().unwrap_or_else(|_| COUNT.fetch_add(1, Ordering::Relaxed));
    TrackingId::new(u128::from(half()) << 64 | u128::from(half()))
}
