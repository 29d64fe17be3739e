//! The one thread that uses the database: it shares commits among the operations that wait for it.
//!
//! ```text
//!   wait for an operation -> BEGIN -> run it and all that wait by now, each in a savepoint -> COMMIT -> answer all
//! ```
//!
//! - An operation that fails is undone alone; the others go on.
//! - Nothing is answered before the commit has returned. When it fails, the callers see their answer's channel close.
//! - There is no timer: a commit starts when the one before it has returned, with whatever has arrived since.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::StateError;

/// Operations that may wait; one more waits at its caller. Each holds at most a twin, so this is a few megabytes.
const MAX_WAITING: usize = 256;

/// Runs on the thread; gives what to do after the commit, or undoes itself and gives that too.
type Operation = Box<dyn FnOnce(&Connection) -> (Kept, Answer) + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// Whether what an operation wrote stays.
enum Kept {
    Yes,
    No,
}

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while dropping.
    operations: Option<mpsc::Sender<Operation>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (operations, waiting) = mpsc::channel(MAX_WAITING);
        let thread = std::thread::Builder::new()
            .name("edge-state".into())
            .spawn(move || serve(&connection, waiting))?;
        Ok(Self {
            operations: Some(operations),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs an operation and waits for its commit. Once queued it runs, even if its caller has gone.
    pub(super) async fn run<T, F>(&self, operation: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let boxed: Operation = Box::new(move |connection| {
            let result = operation(connection);
            let kept = if result.is_ok() { Kept::Yes } else { Kept::No };
            let tell = move || {
                if answer.send(result).is_err() {
                    tracing::trace!("nobody waits for a change of the state any more");
                }
            };
            (kept, Box::new(tell))
        });
        let operations = self.operations.as_ref().ok_or(StateError::NotCommitted)?;
        operations.send(boxed).await.map_err(|_| StateError::NotCommitted)?;
        match outcome.await {
            Ok(result) => result.map_err(StateError::Database),
            Err(_) => Err(StateError::NotCommitted),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.operations = None;
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the edge's state has panicked");
        }
    }
}

fn serve(connection: &Connection, mut waiting: mpsc::Receiver<Operation>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut answers = Vec::new();
        if let Err(error) = commit(connection, first, &mut waiting, &mut answers) {
            tracing::error!(%error, "the edge's state was not written");
            if !connection.is_autocommit()
                && let Err(error) = connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "a transaction of the edge's state can't be rolled back");
            }
            continue;
        }
        answers.into_iter().for_each(|answer| answer());
    }
}

fn commit(
    connection: &Connection,
    first: Operation,
    waiting: &mut mpsc::Receiver<Operation>,
    answers: &mut Vec<Answer>,
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut next = Some(first);
    while let Some(operation) = next {
        connection.execute_batch("SAVEPOINT operation")?;
        let (kept, answer) = operation(connection);
        connection.execute_batch(match kept {
            Kept::Yes => "RELEASE operation",
            Kept::No => "ROLLBACK TO operation; RELEASE operation",
        })?;
        answers.push(answer);
        next = (answers.len() < MAX_WAITING).then(|| waiting.try_recv().ok()).flatten();
    }
    connection.execute_batch("COMMIT")
}
