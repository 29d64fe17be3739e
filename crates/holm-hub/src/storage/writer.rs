//! The one writer: a thread that shares commits among the operations that wait for it.
//!
//! ```text
//! wait for an operation -> BEGIN -> run it and all that wait by now, each in a savepoint -> COMMIT -> answer all
//! ```
//!
//! - An operation that fails is rolled back to its savepoint; the others go on.
//! - Nothing is answered and no effect is seen outside before the commit has returned. A commit that fails answers nobody:
//!   the callers see their answer's channel close and say that the hub is unavailable.
//! - Answers are given in the order of the operations, on this thread: what tells devices of new twin versions relies on it.
//!
//! There is no timer: a commit starts when the one before it has returned, with whatever has arrived since.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::mpsc;

/// Operations that may wait; one more waits at its caller. Each holds what its request brought, so this bounds memory.
const MAX_WAITING: usize = 1024;
/// Operations in one commit, so that the first one's answer does not wait for ever under load.
const MAX_IN_A_COMMIT: usize = 512;

/// An operation: writes through the connection and gives what to do once that is committed; `None` when it failed and is
/// to be rolled back, with its answer.
pub(super) type Operation = Box<dyn FnOnce(&Connection) -> Outcome + Send>;
/// What to do after the commit.
pub(super) type Answer = Box<dyn FnOnce() + Send>;

/// How an operation went.
pub(super) struct Outcome {
    /// Whether to keep what it wrote.
    pub(super) keep: bool,
    /// What to do after the commit.
    pub(super) answer: Answer,
}

#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Operation>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (queue, operations) = mpsc::channel(MAX_WAITING);
        let commits = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&commits);
        let thread = std::thread::Builder::new()
            .name("hub-db-writer".into())
            .spawn(move || run(&connection, operations, &counted))?;
        Ok(Self {
            queue: Some(queue),
            thread: Mutex::new(Some(thread)),
            commits,
        })
    }

    /// Queues an operation; waits while the queue is full. An operation that was queued runs even if nobody waits for it.
    pub(super) async fn submit(&self, operation: Operation) {
        if let Some(queue) = &self.queue
            && queue.send(operation).await.is_err()
        {
            // The operation was dropped with its answer's channel, so its caller knows.
            tracing::error!("the thread that writes to the database has ended");
        }
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes to the database has panicked");
        }
    }
}

fn run(connection: &Connection, mut operations: mpsc::Receiver<Operation>, commits: &AtomicU64) {
    while let Some(first) = operations.blocking_recv() {
        if let Err(error) = commit(connection, first, &mut operations, commits) {
            tracing::error!(%error, "the database can't be written to");
            // Ends the transaction if it is still open; then there is nothing to roll back, which is what we want.
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a failed transaction can't be rolled back");
            }
        }
    }
}

fn commit(
    connection: &Connection,
    first: Operation,
    operations: &mut mpsc::Receiver<Operation>,
    commits: &AtomicU64,
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut answers = Vec::new();
    let mut next = Some(first);
    while let Some(operation) = next.take() {
        answers.extend(execute(connection, operation)?);
        if answers.len() < MAX_IN_A_COMMIT {
            next = operations.try_recv().ok();
        }
    }
    connection.execute_batch("COMMIT")?;
    commits.fetch_add(1, Ordering::Relaxed);
    for answer in answers {
        if catch_unwind(AssertUnwindSafe(answer)).is_err() {
            tracing::error!("what follows a commit has panicked; this is a defect");
        }
    }
    Ok(())
}

fn execute(connection: &Connection, operation: Operation) -> rusqlite::Result<Option<Answer>> {
    connection.execute_batch("SAVEPOINT operation")?;
    // A defect in one operation must not take the others with it: its savepoint is rolled back, so nothing half-done stays.
    let outcome = catch_unwind(AssertUnwindSafe(|| operation(connection)));
    match outcome {
        Ok(Outcome { keep: true, answer }) => {
            connection.execute_batch("RELEASE operation")?;
            Ok(Some(answer))
        }
        Ok(Outcome { keep: false, answer }) => {
            connection.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            Ok(Some(answer))
        }
        Err(_) => {
            tracing::error!("an operation on the database has panicked; this is a defect");
            connection.execute_batch("ROLLBACK TO operation; RELEASE operation")?;
            Ok(None)
        }
    }
}
