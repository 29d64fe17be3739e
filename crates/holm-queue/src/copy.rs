//! Copying a queue directory while the queue is open.
//!
//! ```text
//! Queue::hold_files ──> no file goes ──files_to_copy──> names with lengths ──copy──> drop the hold: what was dead goes
//! ```
//!
//! A file of a queue only ever grows, a segment is complete before the next one is made, and what was decided is in the journal. So
//! the files that are there at one moment, each up to the length that it has then, are what a crash at that moment would leave:
//! opening them is recovery. They must stay until they are copied, though, and that is what the hold is for.
//!
//! The reserve is not copied: it helps on a full disk alone, and is made anew. Nor is the lock.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::CommitError;
use crate::file_system::{Directory, FileSystem};
use crate::queue::{Queue, Shared};

/// As long as this lives, no file of the queue is removed; what nothing needs any more is removed when it is dropped. Space that would
/// come back is not there meanwhile, so hold it for as long as a copy takes and no longer. On a full disk the space is needed more,
/// and files are removed all the same.
pub struct FilesHeld(Arc<Shared>);

impl Queue {
    /// Keeps all files that are there, for a copy; everything else goes on. Everything appended so far is on disk then.
    ///
    /// Cancel safety: may be dropped at any time.
    ///
    /// # Errors
    /// What was appended is not on disk; see [`CommitError`].
    pub async fn hold_files(&self) -> Result<FilesHeld, CommitError> {
        self.shared().lock().holds += 1;
        let held = FilesHeld(Arc::clone(self.shared()));
        // A removal that has begun ends before the commit after it.
        self.flush().await?;
        Ok(held)
    }
}

impl Drop for FilesHeld {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.holds = state.holds.saturating_sub(1);
        state.maintain |= state.holds == 0;
        self.0.wake_writer(state);
    }
}

impl fmt::Debug for FilesHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilesHeld")
    }
}

/// The files that make a copy of a queue directory, and how many bytes of each: names relative to it, `/` between. Nobody has it open,
/// or its files are held.
///
/// # Errors
/// Those of the file system.
pub fn files_to_copy(directory: &Path) -> io::Result<Vec<(String, u64)>> {
    list(&Directory::existing(directory))
}

fn list(files: &dyn FileSystem) -> io::Result<Vec<(String, u64)>> {
    let mut names = Vec::new();
    let mut directories = vec!["journal".to_owned()];
    for name in files.list("")? {
        if name == "format" {
            names.push(name);
        } else if name.starts_with("lane-") {
            directories.push(name);
        }
    }
    for directory in directories {
        let segments = files.list(&directory)?;
        let segments = segments.iter().filter(|name| name.ends_with(".seg"));
        names.extend(segments.map(|name| format!("{directory}/{name}")));
    }
    names.sort_unstable();
    // After all names are known: a segment that comes after another one is made when that is complete.
    let lengths = names.into_iter().map(|name| {
        let length = files.open(&name)?.len()?;
        Ok((name, length))
    });
    lengths.collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::lane::LaneKind;
    use crate::options::Options;
    use crate::record::{NewRecord, Start, Visibility};
    use crate::testing::MemoryFiles;

    fn options() -> Options {
        Options {
            segment_bytes: 64 << 10,
            maintain_interval: Duration::from_millis(5),
            acknowledge_delay: Duration::ZERO,
            ..Options::default()
        }
    }

    /// Copies the first bytes of each file, as they are now.
    fn copy(from: &MemoryFiles, files: &[(String, u64)]) -> MemoryFiles {
        let to = MemoryFiles::new();
        for (name, length) in files {
            if let Some((directory, _)) = name.split_once('/') {
                to.create_dir(directory).unwrap();
            }
            let mut bytes = vec![0; usize::try_from(*length).unwrap()];
            let read = from.open(name).unwrap().read_at(&mut bytes, 0).unwrap();
            assert_eq!(read, bytes.len(), "{name}");
            to.create(name).unwrap().write_all_at(&bytes, 0).unwrap();
        }
        to
    }

    #[tokio::test]
    async fn a_copy_of_held_files_is_the_queue_as_it_was_however_it_goes_on() {
        let files = MemoryFiles::new();
        let (queue, _) = Queue::open_on(Arc::new(files.clone()), options()).unwrap();
        let lane = queue.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let lanes = [(lane, 0)];
        let append = |number: u32| {
            let record = NewRecord {
                sender: "test",
                lanes: &lanes,
                enqueued_at: 0,
                payload: format!("{number:01000}").into(),
            };
            queue.append(&record).unwrap()
        };
        let pending: Vec<_> = (0..300).map(append).collect();
        queue.acknowledge(lane, 0..10).unwrap();

        let held = queue.hold_files().await.unwrap();
        let listed = list(&files).unwrap();
        drop(pending);
        for number in 300..600 {
            append(number).await.unwrap();
        }
        queue.acknowledge(lane, 0..600).unwrap();
        queue.flush().await.unwrap();
        let copied = copy(&files, &listed);
        drop(held);

        let deadline = Instant::now() + Duration::from_secs(60);
        while files.open("journal/0000000000000001.seg").is_ok() {
            assert!(Instant::now() < deadline, "what is dead never goes");
            tokio::task::yield_now().await;
        }
        let (again, report) = Queue::open_on(Arc::new(copied), options()).unwrap();
        let lane = again.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let mut reader = again.reader(lane, Start::LowWater, Visibility::Durable).unwrap();
        let records = reader.try_read(1000, 1 << 20).unwrap();
        assert_eq!(report.irregularities(), None);
        assert_eq!(records.first().map(|record| record.position), Some(10));
        assert_eq!(records.last().map(|record| record.position), Some(299));
    }
}
