//! The tasks of jobs that run, by the job that each is for.
//!
//! A task that breaks off is a defect; it is known by its own number, so that no other job is taken for it, or ended with it.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

/// Tasks, one a job. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Crew {
    tasks: JoinSet<()>,
    jobs: HashMap<Id, String>,
}

impl Crew {
    /// Begins a job's task.
    pub(super) fn begin(&mut self, job: String, work: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(work);
        self.jobs.insert(task.id(), job);
    }

    /// Whether a job has a task.
    pub(super) fn has(&self, job: &str) -> bool {
        self.jobs.values().any(|it| it == job)
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Waits until a task has ended; gives its job if it broke off. For ever while there is none. Cancel-safe.
    pub(super) async fn ended(&mut self) -> Option<String> {
        let Some(ended) = self.tasks.join_next_with_id().await else {
            return std::future::pending().await;
        };
        match ended {
            Ok((task, ())) => {
                self.jobs.remove(&task);
                None
            }
            Err(error) => {
                let job = self.jobs.remove(&error.id());
                job.filter(|_| error.is_panic())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_breaks_off_is_known_by_its_job_and_ends_no_other() {
        let mut crew = Crew::default();
        let (go_on, waits) = tokio::sync::oneshot::channel();
        crew.begin("good".to_owned(), async move { waits.await.unwrap() });
        crew.begin("bad".to_owned(), async { panic!("as it happens") });

        let broken = crew.ended().await;
        let is_alone = (crew.len(), crew.has("good"), crew.has("bad"));
        go_on.send(()).unwrap();
        let done = crew.ended().await;

        assert_eq!(broken.as_deref(), Some("bad"));
        assert_eq!(is_alone, (1, true, false));
        assert_eq!((done, crew.len()), (None, 0));
    }
}
