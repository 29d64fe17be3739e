//! Runs reads and changes: each change is one transaction of the writer, each read one snapshot on a connection of its own.
//!
//! Who reads waits only for those that read as shortly:
//!
//! ```text
//! read             log-ins, one device, what goes out next      4 connections
//! read_list        lists, and queries that an index bounds      2
//! read_long        whole fleets: queries, plans, histories      2, and one waits for them only so long
//! read_background  what the hub itself reads of a whole fleet   1
//! ```
//!
//! A long read whose future is dropped is ended in the database as well, so that nothing reads for nobody.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use holm_model::{ErrorCode, ServiceError};
use rusqlite::{Connection, InterruptHandle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::schema::{self, OpenError};
use super::transaction::{Touched, Transaction, View};
use super::writer::{Outcome, Writer};
use crate::actor::Actor;
use crate::events::Interest;

/// Connections that read at the same time. Reads are short, and each occupies a thread while it runs.
const READERS: usize = 4;
/// Connections of reads that take some hundred milliseconds at most.
const LIST_READERS: usize = 2;
/// Connections of queries, which read for seconds: as many as can keep a small machine busy.
const LONG_READERS: usize = 2;

/// How long until a read that goes on for nobody is ended once more.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(20);

/// The hub's state. Clones are the same.
#[derive(Clone, Debug)]
pub struct Repository(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Closed before the writer: who closes last puts everything into the one file.
    readers: Arc<Readers>,
    list_readers: Arc<Readers>,
    long_readers: Arc<Readers>,
    background_readers: Arc<Readers>,
    writer: Writer,
    keeps_history: AtomicBool,
    interest: RwLock<Interest>,
    watchers: RwLock<Vec<Watcher>>,
}

/// Learns what each commit has changed, on the writer's thread, in the order of the commits; must not block.
#[derive(Clone)]
struct Watcher(Arc<Told>);

type Told = dyn Fn(&[Touched]) + Send + Sync;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

#[derive(Debug)]
struct Readers {
    all: u32,
    free: Arc<Semaphore>,
    connections: Mutex<Vec<Connection>>,
}

/// A connection while it reads. It comes back without a transaction whatever happens to the one who reads.
struct Lent {
    readers: Arc<Readers>,
    connection: Option<Connection>,
    /// The permit says that a connection is here; it goes with the thread, which a caller that gives up leaves behind.
    _permit: OwnedSemaphorePermit,
}

/// Ends what a connection does, as long as it does it for this read.
#[derive(Clone, Default)]
struct Interrupt(Arc<Mutex<InterruptState>>);

#[derive(Default)]
struct InterruptState {
    is_given_up: bool,
    reading: Option<InterruptHandle>,
}

/// A read that can be ended.
struct Reading<'i>(&'i Interrupt);

/// Ends a read that nobody waits for any more.
struct InterruptOnDrop(Interrupt);

impl Repository {
    /// Opens the database, making it if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`]; a database of another version is not touched.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let writing = schema::open_for_writing(path)?;
        let readers = Arc::new(Readers::open(path, READERS)?);
        let list_readers = Arc::new(Readers::open(path, LIST_READERS)?);
        let long_readers = Arc::new(Readers::open(path, LONG_READERS)?);
        let background_readers = Arc::new(Readers::open(path, 1)?);
        let writer = Writer::start(writing).map_err(OpenError::Thread)?;
        let (watchers, interest) = (RwLock::default(), RwLock::default());
        Ok(Self(Arc::new(Shared {
            readers,
            list_readers,
            long_readers,
            background_readers,
            writer,
            keeps_history: AtomicBool::new(true),
            interest,
            watchers,
        })))
    }

    /// Whether what becomes of twins is kept from now on.
    pub fn keep_history(&self, keeps: bool) {
        self.0.keeps_history.store(keeps, Ordering::Relaxed);
    }

    /// Says where changes learn which events anybody wants to know of. Until then nobody does.
    pub(crate) fn follow(&self, interest: Interest) {
        *self.0.interest.write().unwrap_or_else(PoisonError::into_inner) = interest;
    }

    /// Which events anybody wants to know of.
    pub(crate) fn interest(&self) -> Interest {
        self.0.interest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has `told` called after each commit that changed identities, twins or configurations, for the life of the repository.
    /// Whoever reads what was changed after having been told sees the change.
    pub fn watch(&self, told: impl Fn(&[Touched]) + Send + Sync + 'static) {
        let mut watchers = self.0.watchers.write().unwrap_or_else(PoisonError::into_inner);
        watchers.push(Watcher(Arc::new(told)));
    }

    fn watchers(&self) -> Vec<Watcher> {
        self.0.watchers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads one snapshot, shortly: a device, a part of a queue.
    ///
    /// # Errors
    /// What `read` fails with; `ServiceUnavailable` when the database can't be read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.0.readers.read(None, read).await
    }

    /// Reads one snapshot of some thousand rows at most, on connections that log-ins don't wait for.
    ///
    /// # Errors
    /// As [`Repository::read`].
    pub async fn read_list<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.0.list_readers.read(None, read).await
    }

    /// Reads one snapshot, which may take long: on connections that nothing else waits for. Waits for one at most `wait`. Dropping the
    /// future ends the reading.
    ///
    /// # Errors
    /// As [`Repository::read`]; `ThrottlingBacklogTimeout` when all are busy.
    pub async fn read_long<T: Send + 'static>(
        &self,
        wait: Duration,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.0.long_readers.read(Some(wait), read).await
    }

    /// Reads one snapshot of the whole fleet, for the hub itself: one at a time, however long it takes.
    ///
    /// # Errors
    /// As [`Repository::read`].
    pub async fn read_background<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.0.background_readers.read(None, read).await
    }

    /// Changes state in one transaction, as the [`Actor`] of this task. The future resolves when that is on disk.
    ///
    /// Not cancelled by dropping the future: a change that was queued is carried out.
    ///
    /// # Errors
    /// What `change` fails with (then nothing is changed); `ServiceUnavailable` when the database can't be written to.
    pub async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.change_then(change, |_| ()).await
    }

    /// As [`Repository::change`]; `then` is called with the result once it is on disk, before the caller learns it. Calls
    /// happen in the order of the transactions. `then` must not block.
    ///
    /// # Errors
    /// As [`Repository::change`].
    pub async fn change_then<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, ServiceError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let (actor, keeps) = (Actor::current(), self.0.keeps_history.load(Ordering::Relaxed));
        let (watchers, interest) = (self.watchers(), self.interest());
        let operation = move |connection: Result<&Connection, ServiceError>| {
            let mut touched = Vec::new();
            let result = connection.and_then(|connection| {
                let transaction = Transaction::new(connection, actor, keeps, interest);
                let result = change(&transaction);
                touched = transaction.into_touched();
                result
            });
            Outcome {
                failure: result.as_ref().err().cloned(),
                answer: Box::new(move |committed: Result<(), ServiceError>| {
                    let result = result.and_then(|value| committed.map(|()| value));
                    if let Ok(value) = &result {
                        if !touched.is_empty() {
                            watchers.iter().for_each(|watcher| (watcher.0)(&touched));
                        }
                        then(value);
                    }
                    // An error means that the caller has gone away.
                    drop(answer.send(result));
                }),
            }
        };
        self.0.writer.submit(Box::new(operation)).await;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// How many commits there were since the database was opened.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.writer.commits()
    }

    /// Whether changes reach the disk.
    ///
    /// # Errors
    /// What the last change was refused with.
    pub fn health(&self) -> Result<(), ServiceError> {
        self.0.writer.health()
    }

    /// Waits until changes don't reach the disk. Cancel-safe.
    pub async fn in_trouble(&self) {
        self.0.writer.in_trouble().await;
    }

    /// Ends what runs and puts everything into the one file, whoever else has a clone: reads and changes fail from now on.
    pub async fn close(&self) {
        for readers in self.0.all_readers() {
            // Those that read give their connections back; an error means that somebody has closed it before.
            if let Ok(_all) = readers.free.acquire_many(readers.all).await {
                readers.free.close();
            }
        }
        let shared = Arc::clone(&self.0);
        let closing = tokio::task::spawn_blocking(move || {
            for readers in shared.all_readers() {
                readers.forget();
            }
            shared.writer.close();
        });
        if closing.await.is_err() {
            tracing::error!("the database was not closed in good order; the next start does the rest");
        }
    }

    /// Tries again whether changes reach the disk, where the last one did not.
    pub async fn try_again(&self) {
        if self.health().is_err()
            && let Err(error) = self.change(|_| Ok(())).await
        {
            tracing::debug!(%error, "the database still can't be written to");
        }
    }
}

impl Shared {
    fn all_readers(&self) -> [&Readers; 4] {
        [
            &self.readers,
            &self.list_readers,
            &self.long_readers,
            &self.background_readers,
        ]
    }
}

impl Readers {
    fn open(path: &Path, count: usize) -> Result<Self, OpenError> {
        let connections = (0..count)
            .map(|_| schema::open_for_reading(path))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            all: u32::try_from(count).unwrap_or(u32::MAX),
            free: Arc::new(Semaphore::new(count)),
            connections: Mutex::new(connections),
        })
    }

    fn forget(&self) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Waits for a connection, and reads; with `wait` so long at most, and no longer than the caller waits.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        wait: Option<Duration>,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let waiting = Arc::clone(&self.free).acquire_owned();
        let permit = match wait {
            None => waiting.await,
            Some(wait) => tokio::time::timeout(wait, waiting).await.map_err(|_| {
                let text = "too many queries are running; try again, with conditions that fewer devices meet";
                ServiceError::new(ErrorCode::ThrottlingBacklogTimeout, text)
            })?,
        };
        let lent = self.lend(permit.map_err(|_| closed())?)?;
        let interrupt = Interrupt::default();
        let _end = wait.map(|_| InterruptOnDrop(interrupt.clone()));
        let reading = tokio::task::spawn_blocking(move || {
            let connection = lent.connection.as_ref().ok_or_else(closed)?;
            let _reading = interrupt.begin(connection)?;
            snapshot(connection, read)
        });
        // What panics was told of by the panic.
        reading.await.unwrap_or_else(|_| Err(closed()))
    }

    fn lend(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Lent, ServiceError> {
        // Held for a push or a pop only.
        let connection = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lent {
            readers: Arc::clone(self),
            connection: Some(connection.ok_or_else(closed)?),
            _permit: permit,
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a connection that reads does not end its snapshot");
        }
        let mut connections = self.readers.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push(connection);
    }
}

impl Interrupt {
    fn begin(&self, connection: &Connection) -> Result<Reading<'_>, ServiceError> {
        let mut state = self.state();
        if state.is_given_up {
            return Err(super::given_up());
        }
        state.reading = Some(connection.get_interrupt_handle());
        Ok(Reading(self))
    }

    /// Ends what is done now; says whether nothing is, nor will be.
    fn give_up(&self) -> bool {
        let mut state = self.state();
        state.is_given_up = true;
        if let Some(reading) = &state.reading {
            reading.interrupt();
        }
        state.reading.is_none()
    }

    fn state(&self) -> MutexGuard<'_, InterruptState> {
        // Held for a look at it only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reading<'_> {
    /// The connection may read for somebody else from now on.
    fn drop(&mut self) {
        self.0.state().reading = None;
    }
}

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        let interrupt = self.0.clone();
        if interrupt.give_up() {
            return;
        }
        // A statement that begins just now is not ended by the first word. Without a runtime the program ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while !interrupt.give_up() {
                    tokio::time::sleep(INTERRUPT_AGAIN).await;
                }
            });
        }
    }
}

/// One state of the database; whoever lent the connection ends it.
fn snapshot<T>(
    connection: &Connection,
    read: impl FnOnce(&View<'_>) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    connection
        .execute_batch("BEGIN")
        .map_err(|error| super::fault(&error))?;
    read(&View::new(connection))
}

fn closed() -> ServiceError {
    ServiceError::unavailable("the hub's database can't be used now; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &tempfile::TempDir) -> Repository {
        Repository::open(&directory.path().join("hub.db")).unwrap()
    }

    #[tokio::test]
    async fn a_reader_that_panics_or_fails_leaves_its_connection_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let repository = open(&directory);

        for _ in 0..2 * READERS {
            let panicked = repository.read(|_| -> Result<(), ServiceError> { panic!("as a defect would") });
            assert!(panicked.await.is_err());
            let failed = repository.read(|_| Err::<(), _>(ServiceError::argument_invalid("no")));
            assert!(failed.await.is_err());
        }

        assert_eq!(repository.read(|view| view.device_counts()).await.unwrap().0, 0);
    }

    #[tokio::test]
    async fn who_reads_long_keeps_nobody_waiting_who_reads_shortly() {
        let directory = tempfile::tempdir().unwrap();
        let repository = open(&directory);
        let (end, ended) = std::sync::mpsc::sync_channel::<()>(1);
        let ended = Arc::new(Mutex::new(ended));
        let long: Vec<_> = (0..2 * LONG_READERS)
            .map(|_| {
                let (repository, ended) = (repository.clone(), Arc::clone(&ended));
                tokio::spawn(async move {
                    let read = move |_: &View<'_>| {
                        ended.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
                        Ok(())
                    };
                    repository.read_long(Duration::from_secs(600), read).await
                })
            })
            .collect();
        while repository.0.long_readers.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }

        repository.read(|view| view.device_counts()).await.unwrap();
        repository.read_list(|view| view.device_counts()).await.unwrap();
        repository.read_background(|view| view.device_counts()).await.unwrap();
        let refused = repository.read_long(Duration::from_millis(1), |_| Ok(())).await;

        assert!(refused.is_err_and(|error| error.code == ErrorCode::ThrottlingBacklogTimeout));
        drop(end);
        for read in long {
            read.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_long_read_ends_when_nobody_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let repository = open(&directory);
        let (begun, has_begun) = oneshot::channel();
        let (told, result) = oneshot::channel();
        let read = move |view: &View<'_>| {
            begun.send(()).ok();
            // Some minutes if nobody ends it.
            let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 3000000000) SELECT sum(n) FROM n";
            told.send(view.one(sql, [], |row| row.get::<_, i64>(0)).map(|_| ()))
                .ok();
            Ok(())
        };

        let reading = repository.read_long(Duration::from_secs(60), read);
        tokio::select! {
            _ = reading => panic!("it takes longer"),
            _ = has_begun => {}
        }

        let ended = tokio::time::timeout(Duration::from_secs(60), result)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_err_and(|error| error.message.contains("nobody waits")));
        assert_eq!(repository.read(|view| view.device_counts()).await.unwrap().0, 0);
    }
}
