//! Runs reads and changes: each change is one transaction of the writer, each read one snapshot on a connection of its own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use holm_model::ServiceError;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::schema::{self, OpenError};
use super::transaction::{Transaction, View};
use super::writer::{Outcome, Writer};

/// Connections that read at the same time. Reads are short, and each occupies a thread while it runs.
const READERS: usize = 4;

/// The hub's state. Clones are the same.
#[derive(Clone, Debug)]
pub struct Repository(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Closed before the writer: who closes last puts everything into the one file.
    readers: Arc<Readers>,
    writer: Writer,
}

#[derive(Debug)]
struct Readers {
    free: Arc<Semaphore>,
    connections: Mutex<Vec<Connection>>,
}

impl Repository {
    /// Opens the database, making it if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`]; a database of another version is not touched.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let writing = schema::open_for_writing(path)?;
        let connections = (0..READERS)
            .map(|_| schema::open_for_reading(path))
            .collect::<Result<Vec<_>, _>>()?;
        let readers = Arc::new(Readers {
            free: Arc::new(Semaphore::new(READERS)),
            connections: Mutex::new(connections),
        });
        let writer = Writer::start(writing).map_err(OpenError::Thread)?;
        Ok(Self(Arc::new(Shared { writer, readers })))
    }

    /// Reads one snapshot.
    ///
    /// # Errors
    /// What `read` fails with; `ServiceUnavailable` when the database can't be read.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let readers = Arc::clone(&self.0.readers);
        let permit = Arc::clone(&readers.free).acquire_owned().await.map_err(|_| closed())?;
        tokio::task::spawn_blocking(move || {
            // The permit says that a connection is here; it goes with the thread, which a caller that gives up leaves behind.
            let _permit = permit;
            let connection = readers.take().ok_or_else(closed)?;
            let result = snapshot(&connection, read);
            readers.give_back(connection);
            result
        })
        .await
        .unwrap_or_else(|_| Err(closed()))
    }

    /// Changes state in one transaction. The future resolves when that is on disk.
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
        let operation = move |connection: Result<&Connection, ServiceError>| {
            let result = connection.and_then(|connection| change(&Transaction::new(connection)));
            Outcome {
                failure: result.as_ref().err().cloned(),
                answer: Box::new(move |committed: Result<(), ServiceError>| {
                    let result = result.and_then(|value| committed.map(|()| value));
                    if let Ok(value) = &result {
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
        let readers = &self.0.readers;
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        // Those that read give their connections back; an error means that somebody has closed it before.
        if let Ok(_all) = readers.free.acquire_many(all).await {
            readers.free.close();
        }
        let shared = Arc::clone(&self.0);
        let closing = tokio::task::spawn_blocking(move || {
            shared
                .readers
                .connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
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

impl Readers {
    fn take(&self) -> Option<Connection> {
        // Held for a push or a pop only.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: Connection) {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

fn snapshot<T>(
    connection: &Connection,
    read: impl FnOnce(&View<'_>) -> Result<T, ServiceError>,
) -> Result<T, ServiceError> {
    connection
        .execute_batch("BEGIN")
        .map_err(|error| super::fault(&error))?;
    let result = read(&View::new(connection));
    connection
        .execute_batch("COMMIT")
        .map_err(|error| super::fault(&error))?;
    result
}

fn closed() -> ServiceError {
    ServiceError::unavailable("the hub's database can't be used now; try again")
}
