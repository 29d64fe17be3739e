//! The one writer: a thread that shares commits among the operations that wait for it.
//!
//! ```text
//! wait for an operation -> BEGIN -> run it and all that wait by now, each in a savepoint -> COMMIT -> answer all
//! ```
//!
//! - An operation that fails is rolled back to its savepoint; the others go on.
//! - Nothing is answered and no effect is seen outside before the commit has returned. When it fails, all are told why.
//! - Answers are given in the order of the operations, on this thread: what tells devices of new twin versions relies on it.
//!
//! There is no timer: a commit starts when the one before it has returned, with whatever has arrived since.
//!
//! After a commit that failed the database counts as out of order until a write has succeeded again. An operation that wrote
//! nothing proves nothing, so the writer then writes something of its own behind it ([`touch`]).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use holm_model::ServiceError;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::fault;
use super::schema::FORMAT_VERSION;

/// Operations that may wait; one more waits at its caller. Each holds what its request brought, so this bounds memory.
const MAX_WAITING: usize = 1024;
/// Operations in one commit, so that the first one's answer does not wait for ever under load.
const MAX_IN_A_COMMIT: usize = 512;

/// An operation: writes through the connection, or learns why there is none to write through.
pub(super) type Operation = Box<dyn FnOnce(Result<&Connection, ServiceError>) -> Outcome + Send>;
/// What to do after the commit, which may have failed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), ServiceError>) + Send>;

/// How an operation went.
pub(super) struct Outcome {
    /// Why what it wrote is not to be kept; `None`: it is.
    pub(super) failure: Option<ServiceError>,
    /// What to do after the commit.
    pub(super) answer: Answer,
}

/// Why nothing can be written; `None` while writing works.
type Trouble = watch::Sender<Option<ServiceError>>;

#[derive(Debug)]
pub(super) struct Writer {
    /// `None` once it is closed.
    queue: Mutex<Option<mpsc::Sender<Operation>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    commits: Arc<AtomicU64>,
    trouble: Arc<Trouble>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> io::Result<Self> {
        let (queue, operations) = mpsc::channel(MAX_WAITING);
        let commits = Arc::<AtomicU64>::default();
        let trouble = Arc::new(Trouble::new(None));
        let (counted, told) = (Arc::clone(&commits), Arc::clone(&trouble));
        let thread = std::thread::Builder::new()
            .name("hub-db-writer".into())
            .spawn(move || run(&connection, operations, &counted, &told))?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            commits,
            trouble,
        })
    }

    /// Queues an operation; waits while the queue is full. An operation that was queued runs even if nobody waits for it.
    pub(super) async fn submit(&self, operation: Operation) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // An operation that is not queued is dropped with its answer's channel, so its caller knows.
        if let Some(queue) = queue
            && queue.send(operation).await.is_err()
        {
            tracing::error!("the thread that writes to the database has ended");
        }
    }

    /// Carries out what is queued and closes the connection. Blocks; what is submitted afterwards is not carried out.
    pub(super) fn close(&self) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes to the database has panicked");
        }
    }

    /// How many commits there were.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Whether the last write succeeded.
    pub(super) fn health(&self) -> Result<(), ServiceError> {
        self.trouble.borrow().clone().map_or(Ok(()), Err)
    }

    /// Waits until a write has failed and none has succeeded since. Cancel-safe.
    pub(super) async fn in_trouble(&self) {
        let mut trouble = self.trouble.subscribe();
        // The sender is here.
        trouble.wait_for(Option::is_some).await.ok();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(connection: &Connection, mut operations: mpsc::Receiver<Operation>, commits: &AtomicU64, trouble: &Trouble) {
    while let Some(first) = operations.blocking_recv() {
        let mut answers = Vec::new();
        let committed = commit(connection, first, &mut operations, &mut answers);
        match &committed {
            Ok(()) => {
                commits.fetch_add(1, Ordering::Relaxed);
                let is_in_trouble = trouble.borrow().is_some();
                if is_in_trouble && touch(connection).is_ok() {
                    trouble.send_replace(None);
                    tracing::info!("the database can be written to again");
                }
            }
            Err(error) => {
                roll_back(connection);
                trouble.send_replace(Some(error.clone()));
            }
        }
        for answer in answers {
            let told = committed.clone();
            if catch_unwind(AssertUnwindSafe(move || answer(told))).is_err() {
                tracing::error!("what follows a commit has panicked; this is a defect");
            }
        }
    }
}

/// Ends the transaction if it is still open; if it is not, nothing is left of it, which is what we want.
fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a failed transaction can't be rolled back");
    }
}

/// Writes what is there already, to see whether that is possible.
fn touch(connection: &Connection) -> Result<(), ServiceError> {
    let touched = connection.execute_batch(&format!("PRAGMA user_version = {FORMAT_VERSION}"));
    touched.map_err(|error| fault(&error))
}

/// Runs operations in one transaction. Those that ran, and one that could not, leave their answers, however it ends.
fn commit(
    connection: &Connection,
    first: Operation,
    operations: &mut mpsc::Receiver<Operation>,
    answers: &mut Vec<Answer>,
) -> Result<(), ServiceError> {
    let mut next = Some(first);
    let mut begin = "BEGIN IMMEDIATE; SAVEPOINT operation";
    while let Some(operation) = next.take() {
        if let Err(error) = connection.execute_batch(begin) {
            let error = fault(&error);
            answers.push(operation(Err(error.clone())).answer);
            return Err(error);
        }
        begin = "SAVEPOINT operation";
        execute(connection, operation, answers)?;
        if answers.len() < MAX_IN_A_COMMIT {
            next = operations.try_recv().ok();
        }
    }
    connection.execute_batch("COMMIT").map_err(|error| fault(&error))
}

fn execute(connection: &Connection, operation: Operation, answers: &mut Vec<Answer>) -> Result<(), ServiceError> {
    // A defect in one operation must not take the others with it: its savepoint is rolled back, so nothing half-done stays.
    let outcome = catch_unwind(AssertUnwindSafe(|| operation(Ok(connection))));
    let failure = match outcome {
        Ok(Outcome { failure, answer }) => {
            answers.push(answer);
            failure
        }
        Err(_) => {
            tracing::error!("an operation on the database has panicked; this is a defect");
            Some(ServiceError::server_error("a change of the hub's state broke off"))
        }
    };
    let end = match failure {
        // At a full or failing disk SQLite may have ended the whole transaction, and the neighbours with it.
        Some(failure) if connection.is_autocommit() => return Err(failure),
        Some(_) => "ROLLBACK TO operation; RELEASE operation",
        None => "RELEASE operation",
    };
    connection.execute_batch(end).map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    type Told = Result<(), ServiceError>;

    /// Submits SQL as a change would; it runs once `gate` is open.
    async fn submit(
        writer: &Writer,
        sql: &'static str,
        gate: std::sync::mpsc::Receiver<()>,
    ) -> oneshot::Receiver<Told> {
        let (answer, answered) = oneshot::channel();
        let operation: Operation = Box::new(move |connection| {
            gate.recv().ok();
            let result = connection.and_then(|it| it.execute_batch(sql).map_err(|error| fault(&error)));
            Outcome {
                failure: result.as_ref().err().cloned(),
                answer: Box::new(move |committed| answer.send(result.and(committed)).unwrap()),
            }
        });
        writer.submit(operation).await;
        answered
    }

    fn open_gate() -> std::sync::mpsc::Receiver<()> {
        std::sync::mpsc::sync_channel(1).1
    }

    #[tokio::test]
    async fn a_commit_that_fails_is_told_to_all_in_it_and_counts_until_a_write_succeeds() {
        let connection = Connection::open_in_memory().unwrap();
        // A rule that is checked by COMMIT, as the space on the disk is.
        let rule = "PRAGMA foreign_keys = ON; CREATE TABLE p (x PRIMARY KEY);
            CREATE TABLE c (x REFERENCES p DEFERRABLE INITIALLY DEFERRED);";
        connection.execute_batch(rule).unwrap();
        let writer = Writer::start(connection).unwrap();

        let (open, gate) = std::sync::mpsc::sync_channel(1);
        let first = submit(&writer, "INSERT INTO p VALUES (7)", gate).await;
        let second = submit(&writer, "INSERT INTO c VALUES (1)", open_gate()).await;
        drop(open);
        let told = [first.await.unwrap(), second.await.unwrap()];
        let trouble = writer.health();
        let later = submit(&writer, "SELECT 1", open_gate()).await.await.unwrap();
        // The trouble ends before the answer is given.
        let health = writer.health();

        assert!(told.iter().all(Result::is_err), "{told:?}");
        assert!(trouble.is_err() && later.is_ok());
        assert_eq!(health, Ok(()));
        let left = submit(&writer, "INSERT INTO p VALUES (7)", open_gate()).await.await;
        assert_eq!(left.unwrap(), Ok(()), "nothing of the failed commit is left");
    }

    #[tokio::test]
    async fn a_full_disk_is_named_to_the_caller() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (x); PRAGMA max_page_count = 4;")
            .unwrap();
        let writer = Writer::start(connection).unwrap();

        let fill = "INSERT INTO t VALUES (zeroblob(100000))";
        let told = submit(&writer, fill, open_gate()).await.await.unwrap();

        assert!(told.is_err_and(|error| error.message.contains("disk is full")));
    }
}
