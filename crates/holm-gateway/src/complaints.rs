//! How often the log is told of peers that break the protocol, or ask on one connection again and again for what they don't
//! get: at most [`LINES_A_MINUTE`]. Such a peer fills no disk, and hides nothing: what was left out is counted and told with
//! the next line.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_net::clock::instant;

/// Lines a minute: enough to see that something is wrong and with whom, too few to drown the rest of the log.
const LINES_A_MINUTE: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// What the log was told of late; one for a front.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<Told>);

/// The lines of the minute that began with the first of them.
#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Told {
    /// Whether a line may be written now; gives how many were left out since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES_A_MINUTE {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Complaints {
    /// Tells the log that a peer broke the protocol, which ended its connection; `who` is the identity, if it got so far.
    pub(crate) fn broke(
        &self,
        protocol: &'static str,
        violation: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
        who: &dyn std::fmt::Display,
    ) {
        if let Some(left_out) = self.take() {
            let peer = shown(peer);
            tracing::warn!(peer, %who, reason = %violation, left_out, "a client broke {protocol}; its connection was closed");
        }
    }

    /// Tells the log that a message was refused for what it is: its sender knows why, and stays.
    pub(crate) fn refused(
        &self,
        reason: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
        who: &dyn std::fmt::Display,
    ) {
        if let Some(left_out) = self.take() {
            let peer = shown(peer);
            tracing::warn!(peer, %who, %reason, left_out, "a message was refused");
        }
    }

    /// Tells the log that somebody was not let in, and stays to try again.
    pub(crate) fn not_let_in(
        &self,
        reason: &dyn std::fmt::Display,
        peer: Option<SocketAddr>,
        who: &dyn std::fmt::Display,
    ) {
        if let Some(left_out) = self.take() {
            let peer = shown(peer);
            tracing::info!(peer, %who, %reason, left_out, "a client was refused");
        }
    }

    fn take(&self) -> Option<u64> {
        // Held for a few numbers only, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(instant())
    }
}

fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_lines_a_minute_and_the_rest_is_counted() {
        let (mut told, start) = (Told::default(), Instant::now());
        let flood = |told: &mut Told, at: Instant| (0..1000).filter_map(|_| told.take(at)).collect::<Vec<_>>();

        let first = flood(&mut told, start);
        let same_minute = flood(&mut told, start + Duration::from_secs(59));
        let next_minute = flood(&mut told, start + Duration::from_secs(60));

        assert_eq!((first.len(), first.iter().sum::<u64>()), (20, 0));
        assert!(same_minute.is_empty());
        assert_eq!((next_minute.len(), next_minute[0]), (20, 980 + 1000));
        assert_eq!(next_minute[1..].iter().sum::<u64>(), 0);
    }
}
