//! How long an endpoint is left alone after it took nothing.

use std::time::Duration;

use crate::random;

/// The first pause after a failure; each is twice the one before.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that the other side may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How long after so many failures in a row: twice as long each time, between a half and the whole of it by `chance`, and not
/// before the other side wants to be asked again.
pub(super) fn pause(failures: u32, after: Option<Duration>, chance: u16) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let half = doubled.min(LONGEST_PAUSE) / 2;
    let mine = half + half.mul_f64(f64::from(chance) / f64::from(u16::MAX));
    mine.max(after.unwrap_or_default().min(LONGEST_ASKED))
}

/// How much of the second half.
pub(super) fn chance() -> u16 {
    random::bytes().map_or(u16::MAX, u16::from_le_bytes)
}
