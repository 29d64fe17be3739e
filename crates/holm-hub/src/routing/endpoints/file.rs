//! Files on the hub's machine as an endpoint: lines of JSON, or Parquet, below a folder, by partition and time.
//!
//! ```text
//! batch --journal, synced--> delivered      the journal --window over or full--> files (store.rs), by a task of the endpoint or the next batch
//! ```
//!
//! - A message is delivered when it is in the journal: it is in a file soon after, whatever happens to this process meanwhile.
//! - Each message is in one file, once.
//! - A disk that is full makes messages wait: what can't be written is tried again, and nothing half is to be seen.
//! - Whoever reads a folder finds whole files only; `.holm` in it is the endpoint's own.

mod journal;
mod names;
#[cfg(feature = "parquet")]
mod parquet;
mod store;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use holm_net::clock::instant;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;

use crate::routing::definition::{DefinitionError, FileSettings};
use crate::routing::{Endpoint, Limits, Routed, SendError, Surroundings};
use journal::Entry;
use names::Names;
use store::{Plan, Store};

/// How long messages gather before they are written and synced together. They are safe in the hub's log meanwhile.
const LINGER: Duration = Duration::from_millis(500);
/// When files that could not be finished are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Files on the hub's machine.
pub(super) struct FileEndpoint {
    store: Shared,
    folder: PathBuf,
    description: String,
    limits: Limits,
    /// Finishes files whose window is over. Not where an endpoint is made only to see whether it can be, outside of a runtime.
    task: Option<JoinHandle<()>>,
}

impl FileEndpoint {
    /// Whether the settings can work. Nothing is made.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(super) fn check(settings: &FileSettings, surroundings: &Surroundings) -> Result<(), DefinitionError> {
        names(settings, surroundings).map(drop)
    }

    /// An endpoint of settings. Within a tokio runtime, what an earlier process left becomes files also when nothing is sent.
    ///
    /// # Errors
    /// [`DefinitionError`] with the member.
    pub(super) fn new(settings: &FileSettings, surroundings: &Surroundings) -> Result<Self, DefinitionError> {
        let names = names(settings, surroundings)?;
        let extension = writer::extension(settings.format);
        let folder = surroundings.files.join(&settings.folder);
        let store = Shared::new(Store::new(Plan {
            folder: folder.clone(),
            lane: surroundings.lane.to_string(),
            names,
            format: settings.format,
            max_bytes: settings.max_file_bytes,
            max_age: settings.max_file_age,
            clock: surroundings.clock.clone(),
        }));
        Ok(Self {
            task: Handle::try_current()
                .ok()
                .map(|runtime| runtime.spawn(finish_in_time(store.clone(), folder.clone()))),
            description: format!("{extension} files in {}", folder.display()),
            limits: Limits {
                messages: 4096,
                bytes: 4 << 20,
                linger: LINGER.min(settings.max_file_age / 2),
            },
            folder,
            store,
        })
    }
}

impl FileEndpoint {
    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Endpoint for FileEndpoint {
    fn send<'a>(&'a mut self, batch: &'a [Routed]) -> BoxFuture<'a, Result<(), SendError>> {
        let entries: Vec<Entry> = batch.iter().map(Entry::of).collect();
        Box::pin(async move {
            self.task
                .get_or_insert_with(|| tokio::spawn(finish_in_time(self.store.clone(), self.folder.clone())));
            let taken = self.store.run(move |store| store.take(&entries)).await;
            self.store.changed.notify_one();
            taken.map_err(|error| SendError::later(unwritable(&self.folder, &error)))
        })
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.end();
            let finished = self.store.run(|store| {
                let finished = store.finish();
                store.close();
                finished
            });
            if let Err(error) = finished.await {
                tracing::warn!(folder = %self.folder.display(), %error, "files are not finished; they are when the endpoint is opened again");
            }
        })
    }
}

impl Drop for FileEndpoint {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for FileEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileEndpoint({})", self.description)
    }
}

fn names(settings: &FileSettings, surroundings: &Surroundings) -> Result<Names, DefinitionError> {
    writer::check(settings.format)?;
    let extension = writer::extension(settings.format);
    Names::parse(&settings.file_name_format, &surroundings.hub_name, extension)
        .map_err(|why| DefinitionError::new("fileNameFormat", why))
}

fn unwritable(folder: &Path, error: &io::Error) -> String {
    format!("can't write to `{}`: {error}", folder.display())
}

/// A store that blocks, used from tasks. Clones are the same.
#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    /// The window may have another end.
    changed: Arc<Notify>,
}

impl Shared {
    fn new(store: Store) -> Self {
        Self {
            store: Arc::new(Mutex::new(store)),
            changed: Arc::new(Notify::new()),
        }
    }

    /// Does something with the store, where blocking holds up nobody. It goes on when the caller is dropped, and who comes next waits
    /// for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut store = Arc::clone(&self.store).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut store)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Finishes files whose window is over, for as long as the endpoint is there.
async fn finish_in_time(store: Shared, folder: PathBuf) {
    let mut is_failing = false;
    loop {
        let done = store
            .run(|store| store.resume().and_then(|()| store.finish_if_due()))
            .await;
        if let Err(error) = &done
            && !is_failing
        {
            tracing::warn!(
                error = unwritable(&folder, error),
                "files can't be finished now; they are tried again"
            );
        }
        is_failing = done.is_err();
        let due = if is_failing {
            Some(instant() + TRY_AGAIN)
        } else {
            store.store.lock().await.due()
        };
        match due {
            None => store.changed.notified().await,
            Some(due) => tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {}
                () = store.changed.notified(), if !is_failing => {}
            },
        }
    }
}

#[cfg(test)]
mod tests;
