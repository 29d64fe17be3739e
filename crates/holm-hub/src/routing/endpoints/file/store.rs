//! From messages to finished files: what gathers in the journal becomes files when it is old or large enough.
//!
//! ```text
//! {files}/{folder}/.holm/{lane}/lock          held by the endpoint that writes
//!                               journal       what is in no file yet, and up to where files go
//!                               partial       the file that is being written
//! {files}/{folder}/{name by pattern}          finished files, which nobody touches any more
//!
//! window over, or full: for each partition  partial --written, synced--> renamed to its name, directories synced
//!                       then                the journal starts over
//! ```
//!
//! - A file appears whole, under its name, or not at all.
//! - A crash between the two steps writes the same files again: one that is there with the same content is taken for itself, so no message
//!   is in two of them. Another file of that name gets a neighbour, `04_1.json`.
//! - What is in a file or the journal is not taken again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use holm_model::Timestamp;
use holm_model::wire::percent;
use holm_net::clock::instant;

use super::journal::{Entry, Journal, sync_directory};
use super::names::Names;
use super::writer;
use crate::Clock;
use crate::routing::definition::FileFormat;

/// Files of one minute and partition; whoever has more has a window that is far too small.
const MAX_REPEATS: u32 = 10_000;
/// Where endpoints keep what is no finished file, in their folder. Names with a dot are passed over by what reads such folders.
const OWN: &str = ".holm";

/// Held while a name is chosen and taken, so that two endpoints of one folder never take the same.
static NAMING: Mutex<()> = Mutex::new(());

/// What a store is told.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The folder.
    pub(super) folder: PathBuf,
    /// The lane of the endpoint: its place below [`OWN`].
    pub(super) lane: String,
    pub(super) names: Names,
    pub(super) format: FileFormat,
    pub(super) max_bytes: u64,
    pub(super) max_age: Duration,
    pub(super) clock: Clock,
}

/// The files of an endpoint. Everything here may take as long as a disk does.
#[derive(Debug)]
pub(super) struct Store {
    plan: Plan,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// Released when it is dropped.
    _lock: File,
    journal: Journal,
    /// When the window is over.
    due: Option<Instant>,
}

impl Store {
    pub(super) const fn new(plan: Plan) -> Self {
        Self { plan, open: None }
    }

    /// Takes up what an earlier process left, if it left something.
    ///
    /// # Errors
    /// What the file system refused.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if self.open.is_none() && Journal::is_at(&self.journal())? {
            self.open()?;
        }
        Ok(())
    }

    /// Takes messages; when this returns, they are on disk.
    ///
    /// # Errors
    /// What the file system refused. They may come again: those that were taken are recognised.
    pub(super) fn take(&mut self, entries: &[Entry]) -> io::Result<()> {
        // Before, so that what can't be finished does not grow without end.
        self.finish_if_due()?;
        let now = self.plan.clock.now();
        let max_age = self.plan.max_age;
        let open = self.open()?;
        open.journal.append(entries, now)?;
        if open.journal.window().is_some() && open.due.is_none() {
            open.due = Some(instant() + max_age);
        }
        Ok(())
    }

    /// When the window is over, if something has gathered.
    pub(super) fn due(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        let is_full = open.journal.window().is_some_and(|window| self.is_full(&window.bytes));
        if is_full { Some(instant()) } else { open.due }
    }

    /// Finishes the files of a window that is over or full.
    ///
    /// # Errors
    /// What the file system refused; nothing of them is to be seen then, or all of some partitions.
    pub(super) fn finish_if_due(&mut self) -> io::Result<()> {
        if self.due().is_some_and(|due| due <= instant()) {
            self.finish()?;
        }
        Ok(())
    }

    /// Finishes the files of the window, however young it is.
    ///
    /// # Errors
    /// As [`Store::finish_if_due`].
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let plan = self.plan.clone();
        let Some(open) = &mut self.open else { return Ok(()) };
        let Some(window) = open.journal.window().cloned() else {
            return Ok(());
        };
        let partial = plan.own().join("partial");
        for partition in window.bytes.keys() {
            let messages = open.journal.messages(*partition)?;
            let written = writer::write(plan.format, File::create(&partial)?, *partition, messages);
            let placed = written.and_then(|()| plan.place(&partial, *partition, window.started));
            if let Err(error) = placed {
                // On a full disk its room is what others wait for.
                if let Err(error) = fs::remove_file(&partial) {
                    tracing::debug!(path = %partial.display(), %error, "a file that was not finished stays until the next attempt");
                }
                return Err(error);
            }
        }
        open.journal.start_over()?;
        open.due = None;
        Ok(())
    }

    /// Lets others use the folder.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    fn is_full(&self, bytes: &std::collections::BTreeMap<u16, u64>) -> bool {
        bytes.values().any(|bytes| *bytes >= self.plan.max_bytes)
    }

    fn journal(&self) -> PathBuf {
        self.plan.own().join("journal")
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            fs::create_dir_all(self.plan.own())?;
            let lock = File::create(self.plan.own().join("lock"))?;
            lock.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::Error::other("another endpoint writes there"),
                TryLockError::Error(error) => error,
            })?;
            let journal = Journal::open(&self.journal())?;
            // What is left of the window of an earlier process, by the time of day, which is all that lasts.
            let due = journal.window().map(|window| {
                let age = self.plan.clock.now().millis_since(window.started);
                let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
                instant() + self.plan.max_age.saturating_sub(age)
            });
            self.open = Some(Open {
                _lock: lock,
                journal,
                due,
            });
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Plan {
    fn own(&self) -> PathBuf {
        // A lane's name has slashes.
        self.folder.join(OWN).join(percent::encode(&self.lane))
    }

    /// Gives a written file its name.
    fn place(&self, partial: &Path, partition: u16, started: Timestamp) -> io::Result<()> {
        let _naming = NAMING.lock().unwrap_or_else(PoisonError::into_inner);
        for repeat in 0..MAX_REPEATS {
            let path = self.folder.join(self.names.path(partition, started, repeat));
            if path.try_exists()? {
                if !is_same(partial, &path)? {
                    continue;
                }
                fs::remove_file(partial)?;
            } else {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
                fs::rename(partial, &path)?;
            }
            return self.sync_above(&path);
        }
        let first = self.names.path(partition, started, 0);
        Err(io::Error::other(format!(
            "there are {MAX_REPEATS} files like `{}`; make windows larger",
            first.display()
        )))
    }

    /// Makes the name of a file last, with the directories that may be new.
    fn sync_above(&self, path: &Path) -> io::Result<()> {
        let above = path.ancestors().skip(1);
        for directory in above.take_while(|directory| directory.starts_with(&self.folder)) {
            sync_directory(directory)?;
        }
        Ok(())
    }
}

/// Whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let mut left = one.metadata()?.len();
    if left != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut first, mut second) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(first.len());
        let (Some(first), Some(second)) = (first.get_mut(..piece), second.get_mut(..piece)) else {
            return Ok(false);
        };
        one.read_exact(first)?;
        other.read_exact(second)?;
        if first != second {
            return Ok(false);
        }
        left -= piece as u64;
    }
    Ok(true)
}
