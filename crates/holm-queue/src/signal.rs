//! Futures without a runtime: what waits leaves its waker, and whoever changes the state wakes it outside of any lock.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::error::CommitError;

/// Locks, whoever panicked while holding it: every change under these locks is complete in itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a commit went, for all who wait for it. Each commit has one, so nobody is woken for another's.
#[derive(Debug, Default)]
pub(crate) struct CommitSignal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    result: Option<Result<(), CommitError>>,
    waiting: Vec<Waker>,
}

impl CommitSignal {
    /// One that needs no waiting.
    pub(crate) fn completed(result: Result<(), CommitError>) -> Self {
        let signal = Self::default();
        signal.complete(result);
        signal
    }

    /// `place` remembers where the waker of the one who polls stands, so that polling twice does not leave two.
    pub(crate) fn poll(&self, waker: &Waker, place: &mut Option<usize>) -> Poll<Result<(), CommitError>> {
        let mut state = lock(&self.state);
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        match place.and_then(|place| state.waiting.get_mut(place)) {
            Some(known) => known.clone_from(waker),
            None => {
                *place = Some(state.waiting.len());
                state.waiting.push(waker.clone());
            }
        }
        Poll::Pending
    }

    pub(crate) fn wait(&self) -> Result<(), CommitError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(result) = &state.result {
                return result.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says how it went; the first answer counts.
    pub(crate) fn complete(&self, result: Result<(), CommitError>) {
        let waiting = {
            let mut state = lock(&self.state);
            state.result.get_or_insert(result);
            std::mem::take(&mut state.waiting)
        };
        self.changed.notify_all();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Answers `Closed` if nobody answered before, so that a writer that dies leaves nobody waiting.
#[derive(Debug)]
pub(crate) struct Promise(pub(crate) Arc<CommitSignal>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.complete(Err(CommitError::Closed));
    }
}
