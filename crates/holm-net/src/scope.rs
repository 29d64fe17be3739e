//! Who spawned what, and how it ends: a scope owns the tasks spawned in it, tells them to stop, and waits for them with a
//! deadline.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A task of any kind.
type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The owner of a set of tasks. Clones are the same scope; a [`Scope::child`] stops with its parent.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Scope {
    /// A scope without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope that is told to stop when this one is, and whose tasks this one waits for.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            tasks: self.tasks.clone(),
            stop: self.stop.child_token(),
        }
    }

    /// Spawns a task that ends by itself, or soon after [`Scope::stopping`] resolves.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // What runs a task is in the program once for each kind of output, and not once for each kind of task.
        let task: Task<F::Output> = Box::pin(task);
        self.tasks.spawn(task)
    }

    /// Spawns a task that may be dropped at any await once the scope stops.
    pub fn spawn_until_stopped<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        // In a box: passed on by value, a task would take its size three times, and a kind of task its place in the program.
        let task: Task<()> = Box::pin(task);
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Resolves when the scope is told to stop. Cancel-safe.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the scope was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Tells every task to stop, without waiting.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// How many tasks are left.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Tells every task to stop and waits for them, at most `patience`.
    ///
    /// # Errors
    /// The number of tasks that were still running then.
    pub async fn drain(&self, patience: Duration) -> Result<(), usize> {
        self.stop();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() && !self.tasks.is_empty() {
            return Err(self.tasks.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_stop_when_told() {
        let scope = Scope::new();
        let child = scope.child();
        scope.spawn(async move { child.stopping().await });

        assert_eq!(scope.drain(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_reports_what_is_left_at_the_deadline() {
        let scope = Scope::new();
        scope.spawn(std::future::pending::<()>());

        assert_eq!(scope.drain(Duration::from_secs(5)).await, Err(1));
    }
}
