//! A promise of durability: what an append returns.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::CommitError;
use crate::lane::LaneId;
use crate::record::{Appended, Offset};
use crate::signal::CommitSignal;

/// An append on its way to the disk. As a future it resolves when the record is known to be on disk, or when the commit that
/// was to bring it there failed; it needs no particular runtime. Dropping it changes nothing about the record.
///
/// After an error the record is still appended, and written as soon as the disk allows: who sends it again may cause a
/// duplicate, never a loss.
///
/// Cancel safety: polling may stop and go on at any time.
#[derive(Debug)]
#[must_use = "the record is not known to be on disk before this resolves"]
pub struct Pending {
    appended: Appended,
    commit: Commit,
}

/// The commit that some appends are part of, as [`Pending`] is for one of them.
///
/// Cancel safety: polling may stop and go on at any time.
#[derive(Debug)]
#[must_use = "the records are not known to be on disk before this resolves"]
pub struct Commit {
    signal: Arc<CommitSignal>,
    place: Option<usize>,
}

impl Commit {
    pub(crate) const fn new(signal: Arc<CommitSignal>) -> Self {
        Self { signal, place: None }
    }

    /// Blocks until it resolves, for threads that are not part of a runtime.
    ///
    /// # Errors
    /// The commit failed; see [`CommitError`].
    pub fn wait(self) -> Result<(), CommitError> {
        self.signal.wait()
    }
}

impl From<Pending> for Commit {
    fn from(pending: Pending) -> Self {
        pending.commit
    }
}

impl Future for Commit {
    type Output = Result<(), CommitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.signal.poll(context.waker(), &mut this.place)
    }
}

impl Pending {
    pub(crate) const fn new(appended: Appended, commit: Commit) -> Self {
        Self { appended, commit }
    }

    /// The record's identity.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.appended.offset
    }

    /// The record's lanes and its position in each, in the order of the append.
    #[must_use]
    pub fn positions(&self) -> &[(LaneId, u64)] {
        self.appended.positions.as_slice()
    }

    /// Blocks until it resolves, for threads that are not part of a runtime.
    ///
    /// # Errors
    /// The commit failed; see [`CommitError`].
    pub fn wait(self) -> Result<(), CommitError> {
        self.commit.wait()
    }
}

impl Future for Pending {
    type Output = Result<(), CommitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.get_mut().commit).poll(context)
    }
}
