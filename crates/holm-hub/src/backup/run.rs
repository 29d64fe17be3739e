//! One backup after the other, of a hub that runs or of one that does not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holm_model::{ServiceError, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::contents::{Contents, Taker};
use super::format::{BLOBS, Head};
use super::taken::{BackupError, Places, Work, contents, event_files, remove_left};
use crate::Clock;
use crate::blobs::{Blobs, BlobsHeld};
use crate::events::EventLog;
use crate::file_error::failed;
use crate::hub::{DataDirectoryError, Lock, lock_data};
use crate::storage::{Repository, Snapshot, SnapshotError};

/// Makes backups of the hub of this process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Backups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    places: Places,
    repository: Repository,
    log: EventLog,
    blobs: Option<Blobs>,
    clock: Clock,
    name: String,
    turn: Arc<Semaphore>,
}

/// A backup that is being made: its moment is over, and it can be written. What it needs is held until it is dropped.
#[derive(Debug)]
pub struct Making {
    contents: Contents,
    // In this order: what was needed goes first, then others may come.
    _work: Work,
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Running {
        _events: holm_queue::FilesHeld,
        _blobs: Option<BlobsHeld>,
        _turn: OwnedSemaphorePermit,
    },
    Stopped {
        _lock: Lock,
    },
}

/// Makes a backup of a hub that does not run.
#[derive(Debug)]
pub struct Offline;

/// Tells the one who works in another thread that nobody waits any more.
struct GivesUp(Arc<AtomicBool>);

impl Drop for GivesUp {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Backups {
    pub(crate) fn new(
        (data, blobs): (&Path, Option<Blobs>),
        (repository, log, clock): (Repository, EventLog, Clock),
        (host_name, name): (String, String),
    ) -> Self {
        if let Err(error) = remove_left(data) {
            tracing::warn!(error = %holm_net::error_chain(&error), "what an earlier backup needed stays until the next one");
        }
        let directory = blobs.as_ref().map(|blobs| blobs.path().to_owned());
        Self(Arc::new(Shared {
            places: Places {
                data: data.to_owned(),
                blobs: directory.unwrap_or_else(|| data.join(BLOBS)),
                host_name,
            },
            repository,
            log,
            blobs,
            clock,
            name,
            turn: Arc::new(Semaphore::new(1)),
        }))
    }

    /// Takes a moment of this hub, after what was acknowledged so far. Returns when the database is copied.
    ///
    /// Cancel safety: may be dropped at any time; nothing of it stays then.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn begin(&self) -> Result<Making, BackupError> {
        let shared = &self.0;
        let turn = Arc::clone(&shared.turn).try_acquire_owned();
        let turn = turn.map_err(|_| BackupError::Busy)?;
        let (name, now) = (shared.name.clone(), shared.clock.now());
        let recorded = shared
            .repository
            .change(move |transaction| transaction.record("hub.backup", name, None, now));
        recorded.await?;
        let blobs = shared.blobs.as_ref().map(Blobs::hold_files);
        let events = shared.log.hold_files().await?;
        let held = Held::Running {
            _events: events,
            _blobs: blobs,
            _turn: turn,
        };
        let places = shared.places.clone();
        let snapshot = blocking(move || Ok(Snapshot::open(&places.database())?)).await?;
        let places = shared.places.clone();
        // Within a change, so that none is committed meanwhile; earlier ones of the same commit are not seen, and not told of yet.
        let taken = shared.repository.change(move |_| {
            snapshot.fix().map_err(|error| out_of_order(&error))?;
            let events = event_files(&places).map_err(|error| out_of_order(&error))?;
            Ok((snapshot, events))
        });
        let taken = taken.await?;
        let is_wanted = Arc::new(AtomicBool::new(true));
        let _gives_up = GivesUp(Arc::clone(&is_wanted));
        let places = shared.places.clone();
        blocking(move || {
            let work = Work::new(&places.data)?;
            let contents = contents(&places, &work, taken, now, &|| is_wanted.load(Ordering::Relaxed))?;
            Ok(Making {
                contents,
                _work: work,
                _held: held,
            })
        })
        .await
    }
}

impl Offline {
    /// Takes the hub of a data directory that no process uses. `blobs` is where its files of devices are, if not in `blobs` there.
    /// Blocks.
    ///
    /// # Errors
    /// [`BackupError`]; [`DataDirectoryError::InUse`] where a hub runs there, which can be asked instead.
    pub fn begin(data: &Path, blobs: Option<&Path>, now: Timestamp) -> Result<Making, BackupError> {
        let places = Places {
            data: data.to_owned(),
            blobs: blobs.map_or_else(|| data.join(BLOBS), Path::to_owned),
            host_name: crate::hub::host_name(data).unwrap_or_default(),
        };
        if !places.database().exists() {
            return Err(DataDirectoryError::NoHub { path: data.to_owned() }.into());
        }
        let lock = lock_data(data)?;
        let snapshot = Snapshot::open_alone(&places.database())?;
        snapshot.fix().map_err(SnapshotError::from)?;
        let events = event_files(&places)?;
        let work = Work::new(data)?;
        let contents = contents(&places, &work, (snapshot, events), now, &|| true)?;
        Ok(Making {
            contents,
            _work: work,
            _held: Held::Stopped { _lock: lock },
        })
    }
}

impl Making {
    /// What the archive will say of itself.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.contents.head
    }

    /// How many bytes the archive will have.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.contents.length()
    }

    /// Writes the archive: gives it away piece by piece. Blocks.
    ///
    /// # Errors
    /// When something can't be read or given away; with its causes. What was given away is no archive then.
    pub fn write(&self, taker: &mut Taker<'_>) -> Result<(), impl std::error::Error + Send + Sync + 'static + use<>> {
        self.contents.write(taker)
    }
}

fn out_of_order(error: &(dyn std::error::Error + 'static)) -> ServiceError {
    tracing::error!(error = %holm_net::error_chain(error), "a backup can't be made");
    ServiceError::unavailable("the hub's state can't be read now; its log tells why")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed("work on", Path::new("a backup"))(std::io::Error::other(error)).into()))
}
