//! What was taken in and is not acknowledged yet: receipts in the order of arrival.
//!
//! ```text
//!   taken in:  r7  r8  r9            the first is waited for; one commit resolves many, which leave together
//!   r7 safe:   7 is acknowledged, and 8, 9 if they are safe too
//! ```
//!
//! Acknowledgements leave in the order of arrival, so a receipt behind one that waits would have to wait anyhow: only the first
//! is polled, and a commit wakes a connection once, however many of its messages it holds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Receipts that wait, for deliveries `D` of one protocol. Bounded by the window of what a client may leave unacknowledged.
#[derive(Debug)]
pub(crate) struct Receipts<R, D> {
    /// Each with how many deliveries it is for; none for messages that nobody waits to hear of.
    waiting: VecDeque<(R, usize)>,
    deliveries: VecDeque<D>,
}

impl<R, D> Default for Receipts<R, D> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            deliveries: VecDeque::new(),
        }
    }
}

impl<R: Future + Unpin, D> Receipts<R, D> {
    /// Waits for a receipt, on behalf of these deliveries.
    pub(crate) fn push(&mut self, deliveries: impl Iterator<Item = D>, receipt: R) {
        let before = self.deliveries.len();
        self.deliveries.extend(deliveries);
        let count = self.deliveries.len() - before;
        if count > 0 {
            self.waiting.push_back((receipt, count));
        }
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what waits.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.deliveries.clear();
    }

    /// The outcome of the next receipt, in the order of arrival, with the number of deliveries that it was for:
    /// [`Receipts::pop`] gives them. Waits for ever while none waits. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (usize, R::Output) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Receipts::next`], if it is resolved already.
    pub(crate) fn try_next(&mut self) -> Option<(usize, R::Output)> {
        // Without a waker: whoever asks goes on to wait, and leaves one then.
        match self.poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(resolved) => Some(resolved),
            Poll::Pending => None,
        }
    }

    /// The first delivery.
    pub(crate) fn pop(&mut self) -> Option<D> {
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
