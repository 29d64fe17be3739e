//! The kinds of notices, and what each is given out by.
//!
//! Source: `hub-service-api.md` §5.3.

use std::time::Duration;

use super::queue::Rules;
use crate::config::QueueBounds;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoticeKind {
    /// What became of a cloud-to-device message; see [`crate::feedback`].
    Feedback,
    /// A device has uploaded a file.
    FileNotification,
}

impl NoticeKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Feedback, Self::FileNotification];

    /// Its name in the database and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Feedback => "feedback",
            Self::FileNotification => "fileNotification",
        }
    }

    /// The published content type of what [`Notices::receive`](super::Notices::receive) gives.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Feedback => "application/vnd.microsoft.iothub.feedback.json",
            Self::FileNotification => "application/vnd.microsoft.iothub.filenotification.json",
        }
    }

    /// How many make a batch, and how long one that is not full waits for more.
    const fn batch(self) -> (usize, Duration) {
        match self {
            Self::Feedback => (64, Duration::from_secs(15)),
            Self::FileNotification => (1, Duration::ZERO),
        }
    }

    pub(super) fn rules(self, bounds: QueueBounds) -> Rules {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let (most, patience) = self.batch();
        Rules {
            most,
            patience: millis(patience),
            lock: millis(bounds.lock),
            time_to_live: millis(bounds.time_to_live),
            max_deliveries: bounds.max_deliveries,
        }
    }
}
