//! What tokens of shared access policies have opened ends when they open it no more: the policy was deleted or reduced, or has other
//! keys.
//!
//! ```text
//! a token opens something --listen, look once--> a policy changes --> look again at what they opened --> it stays, or ends
//! ```
//!
//! A connection that no such token has opened anything on listens to nothing and costs nothing. Looking is done in memory.

use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::backend::Refusal;
use crate::service::Service;

/// Changes of policies, for a connection that cares.
#[derive(Default)]
pub(crate) struct PolicyChanges(Option<BoxStream<'static, ()>>);

impl PolicyChanges {
    /// Listens from now on. What was checked before is to be looked at once more: it may have changed in between.
    pub(crate) fn listen<B: Service>(&mut self, backend: &B) {
        if self.0.is_none() {
            self.0 = backend.policy_changes();
        }
    }

    /// Waits for a change; for ever where nobody listens. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        poll_fn(|context| self.poll_next(context)).await;
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.0.as_mut().map(|changes| changes.poll_next_unpin(context)) {
            Some(Poll::Ready(Some(()))) => Poll::Ready(()),
            // No change comes any more.
            Some(Poll::Ready(None)) => {
                self.0 = None;
                Poll::Pending
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

/// The token of a policy by which a session was let in, where it was by one: in a box, as few are.
pub(crate) struct PolicyProof(Option<Box<Shown>>);

struct Shown {
    token: String,
    changes: PolicyChanges,
}

impl PolicyProof {
    /// Of a session that opens now, with the token if it is a policy's. Listens from now on.
    pub(crate) fn new<B: Service>(token: Option<String>, backend: &B) -> Self {
        Self(token.map(|token| {
            let mut changes = PolicyChanges::default();
            changes.listen(backend);
            Box::new(Shown { token, changes })
        }))
    }

    /// Waits until it is to be looked at; for ever where there is none. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        poll_fn(|context| match &mut self.0 {
            Some(shown) => shown.changes.poll_next(context),
            None => Poll::Pending,
        })
        .await;
    }

    /// Whether it still lets its session in; so does none.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn check<B: Service>(&self, backend: &B) -> Result<(), Refusal> {
        let shown = self.0.as_ref();
        shown.map_or(Ok(()), |shown| backend.permit_session(&shown.token))
    }
}
