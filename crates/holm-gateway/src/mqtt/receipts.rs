//! What was taken in and is not acknowledged yet: receipts in the order of arrival.
//!
//! ```text
//!   taken in:  r7  r8  r9            the first is waited for; one commit resolves many, which leave together
//!   r7 safe:   PUBACK 7, and 8, 9 if they are safe too
//! ```
//!
//! PUBACKs leave in the order of arrival, so a receipt behind one that waits would have to wait anyhow: only the first is
//! polled, and a commit wakes a connection once, however many of its messages it holds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use holm_mqtt::DeliveryId;

/// Receipts that wait. Bounded by the session's window of unacknowledged publishes.
#[derive(Debug)]
pub(super) struct Receipts<R> {
    waiting: VecDeque<(DeliveryId, R)>,
}

impl<R> Default for Receipts<R> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }
}

impl<R: Future + Unpin> Receipts<R> {
    pub(super) fn push(&mut self, delivery: DeliveryId, receipt: R) {
        self.waiting.push_back((delivery, receipt));
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The next that is resolved, in the order of arrival; waits for ever while there is none. Cancel-safe.
    pub(super) async fn next(&mut self) -> (DeliveryId, R::Output) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next that is resolved already.
    pub(super) fn try_next(&mut self) -> Option<(DeliveryId, R::Output)> {
        // Without a waker: whoever asks goes on to wait, and leaves one then.
        match self.poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(resolved) => Some(resolved),
            Poll::Pending => None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(DeliveryId, R::Output)> {
        let Some((delivery, receipt)) = self.waiting.front_mut() else {
            return Poll::Pending;
        };
        let delivery = *delivery;
        Pin::new(receipt).poll(cx).map(|outcome| {
            self.waiting.pop_front();
            (delivery, outcome)
        })
    }
}
