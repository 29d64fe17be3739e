//! The one thread that uses the database: it shares commits among the operations that wait for it.
//!
//! ```text
//!   wait for a change -> BEGIN -> run it and all that wait by now, each in a savepoint -> COMMIT -> answer all
//!   wait for a look   -> run it -> answer
//! ```
//!
//! - Operations run in the order of their calls; a look ends the transaction before it, so that it sees what is on disk, and
//!   is answered even where nothing can be written.
//! - An operation that fails is undone alone; the others go on.
//! - Nothing is answered before the commit has returned. When it fails, the callers see their answer's channel close, and the
//!   reason is kept until a write has succeeded again. An operation that wrote nothing proves nothing, so the writer then
//!   writes something of its own behind it ([`touch`]).
//! - There is no timer: a commit starts when the one before it has returned, with whatever has arrived since.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::{StateError, VERSION};

/// Operations that may wait; one more waits at its caller. Each holds at most a twin, so this is a few megabytes.
const MAX_WAITING: usize = 256;

/// What runs on the thread.
enum Operation {
    /// Reads only, and answers at once.
    Look(Box<dyn FnOnce(&Connection) + Send>),
    /// Gives what to do after the commit, or undoes itself and gives that too.
    Change(Change),
}
type Change = Box<dyn FnOnce(&Connection) -> (Kept, Answer) + Send>;
type Answer = Box<dyn FnOnce() + Send>;

/// Whether what an operation wrote stays.
enum Kept {
    Yes,
    No,
}

/// Why nothing can be written; `None` while writing works.
type Trouble = watch::Sender<Option<String>>;

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` once it is closed.
    operations: Mutex<Option<mpsc::Sender<Operation>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    trouble: Arc<Trouble>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (operations, waiting) = mpsc::channel(MAX_WAITING);
        let trouble = Arc::new(Trouble::new(None));
        let told = Arc::clone(&trouble);
        let thread = std::thread::Builder::new()
            .name("edge-state".into())
            .spawn(move || serve(&connection, waiting, &told))?;
        Ok(Self {
            operations: Mutex::new(Some(operations)),
            thread: Mutex::new(Some(thread)),
            trouble,
        })
    }

    /// Why the last write failed, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Waits until a write has failed and none has succeeded since. Cancel-safe.
    pub(super) async fn in_trouble(&self) {
        let mut trouble = self.trouble.subscribe();
        // The sender is here.
        trouble.wait_for(Option::is_some).await.ok();
    }

    /// Reads. Once queued it runs, even if its caller has gone.
    pub(super) async fn look<T, F>(&self, operation: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let look = Box::new(move |connection: &Connection| tell(answer, operation(connection)));
        self.submit(Operation::Look(look)).await?;
        received(outcome).await
    }

    /// Changes, and waits for the commit. Once queued it runs, even if its caller has gone.
    pub(super) async fn change<T, F>(&self, operation: F) -> Result<T, StateError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let change: Change = Box::new(move |connection| {
            let result = operation(connection);
            let kept = if result.is_ok() { Kept::Yes } else { Kept::No };
            (kept, Box::new(move || tell(answer, result)))
        });
        self.submit(Operation::Change(change)).await?;
        received(outcome).await
    }

    async fn submit(&self, operation: Operation) -> Result<(), StateError> {
        let operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let operations = operations.ok_or(StateError::NotCommitted)?;
        operations.send(operation).await.map_err(|_| StateError::NotCommitted)
    }

    /// Carries out what is queued and closes the connection. Blocks; what is submitted afterwards is refused.
    pub(super) fn close(&self) {
        *self.operations.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the edge's state has panicked");
        }
    }
}

fn tell<T>(answer: oneshot::Sender<rusqlite::Result<T>>, result: rusqlite::Result<T>) {
    if answer.send(result).is_err() {
        tracing::trace!("nobody waits for an answer of the state any more");
    }
}

/// An answer's channel closes when the commit failed, or the thread has ended.
async fn received<T>(outcome: oneshot::Receiver<rusqlite::Result<T>>) -> Result<T, StateError> {
    let result = outcome.await.map_err(|_| StateError::NotCommitted)?;
    result.map_err(StateError::Database)
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve(connection: &Connection, mut waiting: mpsc::Receiver<Operation>, trouble: &Trouble) {
    let mut next = None;
    while let Some(operation) = next.take().or_else(|| waiting.blocking_recv()) {
        let first = match operation {
            Operation::Look(look) => {
                look(connection);
                continue;
            }
            Operation::Change(first) => first,
        };
        let mut answers = Vec::new();
        let committed = commit(connection, first, &mut waiting, &mut answers, &mut next);
        if let Err(error) = committed {
            tracing::error!(%error, "the edge's state was not written");
            trouble.send_replace(Some(error.to_string()));
            roll_back(connection);
            continue;
        }
        let is_in_trouble = trouble.borrow().is_some();
        if is_in_trouble && touch(connection).is_ok() {
            trouble.send_replace(None);
            tracing::info!("the edge's state can be written again");
        }
        answers.into_iter().for_each(|answer| answer());
    }
}

/// Ends the transaction if it is still open; if it is not, nothing is left of it, which is what we want.
fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction of the edge's state can't be rolled back");
    }
}

/// Writes what is there already, to see whether that is possible.
fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("PRAGMA user_version = {VERSION}"))
}

/// Runs changes in one transaction, up to the first look, which is left in `next`.
fn commit(
    connection: &Connection,
    first: Change,
    waiting: &mut mpsc::Receiver<Operation>,
    answers: &mut Vec<Answer>,
    next: &mut Option<Operation>,
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let mut change = Some(first);
    while let Some(operation) = change.take() {
        connection.execute_batch("SAVEPOINT operation")?;
        let (kept, answer) = operation(connection);
        connection.execute_batch(match kept {
            Kept::Yes => "RELEASE operation",
            Kept::No => "ROLLBACK TO operation; RELEASE operation",
        })?;
        answers.push(answer);
        if answers.len() < MAX_WAITING {
            match waiting.try_recv() {
                Ok(Operation::Change(more)) => change = Some(more),
                Ok(look) => *next = Some(look),
                Err(_) => {}
            }
        }
    }
    connection.execute_batch("COMMIT")
}
