//! What a sender waits for: that its messages are on disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use holm_gateway::IngestError;
use holm_queue::Commit;

use super::figures::Taken;

/// Resolves when a message is on disk, or those that were taken in together.
#[derive(Debug)]
pub struct Receipt {
    /// `None`: nothing of it goes to the disk.
    commit: Option<Commit>,
    /// Where it is counted if they are not stored after all, and how many there are.
    figures: Vec<(Arc<Taken>, u64)>,
}

impl Receipt {
    pub(super) const fn new(commit: Option<Commit>, figures: Vec<(Arc<Taken>, u64)>) -> Self {
        Self { commit, figures }
    }
}

impl Future for Receipt {
    type Output = Result<(), IngestError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(commit) = &mut self.commit else {
            return Poll::Ready(Ok(()));
        };
        let stored = ready!(Pin::new(commit).poll(cx));
        if stored.is_err() {
            for (figures, count) in std::mem::take(&mut self.figures) {
                figures.unacknowledged.add(count);
            }
        }
        Poll::Ready(stored.map_err(|error| IngestError::Unavailable(error.to_string())))
    }
}
