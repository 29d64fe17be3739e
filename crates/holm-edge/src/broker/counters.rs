//! What became of messages: everything that ends anywhere but at its destination is counted under its reason.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub(super) fn count(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of a broker.
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $($(#[$doc])* pub(super) $name: Counter,)*
        }

        /// What became of messages since the broker was opened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            pub(super) fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Messages taken in from modules.
    received,
    /// Messages refused because they are too large.
    refused_too_large,
    /// Messages not taken in because there was no room or no configuration; their senders send them again.
    refused_unavailable,
    /// Of those, messages for which the queue had no room within its limit.
    refused_quota,
    /// Messages that no route took: acknowledged, and gone.
    dropped_no_route,
    /// Deliveries whose time-to-live ended first.
    dropped_expired,
    /// Deliveries that the receiving module rejected.
    dropped_rejected,
    /// Deliveries that have no form in the protocol of the node above.
    dropped_unsendable,
    /// Deliveries upstream whose sender is no identity any more.
    dropped_unknown_sender,
    /// Deliveries dropped to make room within the queue's limit.
    dropped_quota,
    /// Stored records found damaged or written by a newer release.
    dropped_unreadable,
    /// Messages made of changes of reported properties that could not be stored.
    dropped_twin_changes,
    /// Changes of reported properties that the node above refused for good.
    refused_reported,
    /// Deliveries that a module has completed.
    delivered,
    /// Deliveries handed to a module again.
    redelivered,
    /// Deliveries that the node above has acknowledged.
    forwarded,
    /// Deliveries upstream moved to a lane of their sender's own, because it could not be sent for.
    set_aside,
    /// Deliveries dropped above that were kept as dead letters.
    dead_letters,
    /// Dead letters sent again by an operator.
    dead_letters_resent,
    /// Dead letters removed by an operator.
    dead_letters_purged,
    /// Dead letters that went because there were too many, or they were too old.
    dead_letters_dropped,
    /// Dead letters that could not be kept: the disk refused.
    dead_letters_lost,
}
