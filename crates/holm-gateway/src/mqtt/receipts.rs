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
    /// Each with how many deliveries it is for; none for messages that nobody waits to hear of.
    waiting: VecDeque<(R, usize)>,
    deliveries: VecDeque<DeliveryId>,
}

impl<R> Default for Receipts<R> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            deliveries: VecDeque::new(),
        }
    }
}

impl<R: Future + Unpin> Receipts<R> {
    /// Waits for a receipt, on behalf of these deliveries.
    pub(super) fn push(&mut self, deliveries: impl Iterator<Item = DeliveryId>, receipt: R) {
        let before = self.deliveries.len();
        self.deliveries.extend(deliveries);
        let count = self.deliveries.len() - before;
        if count > 0 {
            self.waiting.push_back((receipt, count));
        }
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.deliveries.clear();
    }

    /// The outcome of the next receipt, in the order of arrival, with the number of deliveries that it was for:
    /// [`Receipts::pop`] gives them. Waits for ever while none waits. Cancel-safe.
    pub(super) async fn next(&mut self) -> (usize, R::Output) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Receipts::next`], if it is resolved already.
    pub(super) fn try_next(&mut self) -> Option<(usize, R::Output)> {
        // Without a waker: whoever asks goes on to wait, and leaves one then.
        match self.poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(resolved) => Some(resolved),
            Poll::Pending => None,
        }
    }

    /// The first delivery.
    pub(super) fn pop(&mut self) -> Option<DeliveryId> {
        self.deliveries.pop_front()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(usize, R::Output)> {
        let Some((receipt, count)) = self.waiting.front_mut() else {
            return Poll::Pending;
        };
        let count = *count;
        Pin::new(receipt).poll(cx).map(|outcome| {
            self.waiting.pop_front();
            (count, outcome)
        })
    }
}
