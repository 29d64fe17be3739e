//! Group commit: everything that has arrived since the last one goes to the disk with one write and one sync.
//!
//! ```text
//!  begin_commit: acknowledgements encoded, buffer frozen ──> Batch ──write──> finish_commit ──> Good
//!                                                              │                    │
//!                                                         no space: cut back        ├─ Full: same bytes, same places, again
//!                                                                                   └─ Failing: fresh segment (`rescue`)
//! ```
//!
//! A batch succeeds or fails as a whole, although it may touch two segments: the older one is synced before the newer one is
//! written, so what is on disk is a prefix whatever happens.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::segment::Segment;
use super::{Health, Log, report};
use crate::error::CommitError;
use crate::file_system::{File, FileSystem};
use crate::format::Stream;
use crate::lane::LaneId;

/// How much is gathered for one write when a batch consists of several chunks.
const GATHER_BYTES: usize = 1 << 20;

/// What one commit writes. Made by [`Log::begin_commit`]; at most one at a time.
#[derive(Debug)]
pub struct Batch {
    files: Arc<dyn FileSystem>,
    jobs: Vec<Job>,
    lane_ends: Vec<(LaneId, u64)>,
    records: u64,
    bytes: u64,
    dead: Vec<(Stream, u64)>,
}

#[derive(Debug)]
struct Job {
    number: u64,
    /// `None`: the file is to be created.
    file: Option<Arc<dyn File>>,
    at: u64,
    end: u64,
    chunks: Vec<Bytes>,
}

/// That a batch is on disk.
#[derive(Debug)]
pub struct Written {
    files: Vec<Arc<dyn File>>,
    syncs: u64,
    device_bytes: u64,
}

/// That a batch is not known to be on disk.
#[derive(Debug)]
pub struct WriteError {
    /// The disk was full, and nothing but space is needed to write the same again.
    pub full: bool,
    /// The file system's answer.
    pub source: io::Error,
}

impl WriteError {
    /// An error of a write. A full disk found by a sync is not one of these: the pages are lost then.
    fn of_write(source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self { full, source }
    }

    fn of_sync(source: io::Error) -> Self {
        Self { full: false, source }
    }
}

impl Log {
    /// Takes what is to be committed now; `None` if there is nothing. `now` is in milliseconds since 1970.
    ///
    /// The caller runs [`Batch::write`] and hands the result to [`Self::finish_commit`] before it begins another.
    pub fn begin_commit(&mut self, now: u64) -> Option<Batch> {
        if matches!(self.health, Health::Failing(_)) {
            self.rescue(now);
        }
        if self.health != Health::Full {
            self.encode_acknowledgements();
        }
        self.freeze();
        let jobs: Vec<Job> = self
            .journal
            .iter()
            .rev()
            .take_while(|segment| segment.durable < segment.end)
            .map(job)
            .collect();
        // At a full disk nothing is known of acknowledgements that no entry holds; the reserve takes care of those.
        let dead = if self.unlogged > 0 {
            Vec::new()
        } else {
            self.find_dead()
        };
        if jobs.is_empty() && dead.is_empty() {
            return None;
        }
        let lane_ends = self.lanes.iter().filter(|(_, lane)| lane.next != lane.durable_next);
        Some(Batch {
            files: Arc::clone(&self.files),
            bytes: jobs.iter().map(|job| job.end - job.at).sum(),
            jobs: jobs.into_iter().rev().collect(),
            lane_ends: lane_ends.map(|(&id, lane)| (id, lane.next)).collect(),
            records: self.stats.appended,
            dead,
        })
    }

    /// Takes note of how a batch went.
    ///
    /// # Errors
    /// The batch is not on disk. What it held stays appended, and the next commit writes it again.
    pub fn finish_commit(&mut self, batch: Batch, result: Result<Written, WriteError>) -> Result<(), CommitError> {
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                self.stats.failed_commits += 1;
                self.look_for_dead |= !batch.dead.is_empty();
                let reason = error.source.to_string();
                let (health, answer) = if error.full {
                    (Health::Full, CommitError::DiskFull)
                } else {
                    (Health::Failing(reason.clone()), CommitError::Failed { reason })
                };
                self.health = health;
                return Err(answer);
            }
        };
        for (job, file) in batch.jobs.iter().zip(written.files) {
            if let Ok(index) = self.journal.binary_search_by_key(&job.number, |segment| segment.number)
                && let Some(segment) = self.journal.get_mut(index)
            {
                segment.durable = job.end;
                segment.file = (!segment.sealed || segment.end > segment.durable).then_some(file);
                if segment.file.is_none() && segment.seal_at.is_some() {
                    segment.index = Vec::new();
                }
            }
        }
        for (id, end) in batch.lane_ends {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.durable_next = end;
            }
        }
        self.uncommitted -= batch.bytes;
        self.disk_bytes += batch.bytes;
        self.stats.durable = batch.records;
        self.stats.bytes_written += batch.bytes;
        self.stats.device_bytes += written.device_bytes;
        self.stats.syncs += written.syncs;
        self.stats.commits += u64::from(!batch.jobs.is_empty());
        if !batch.jobs.is_empty() || self.uncommitted == 0 {
            self.health = Health::Good;
        }
        self.cool();
        self.bury(&batch.dead);
        Ok(())
    }

    /// Lets go of the oldest hot bytes when there are more than asked for.
    fn cool(&mut self) {
        let hot_segments = self
            .journal
            .iter()
            .rev()
            .take_while(|segment| !segment.chunks.is_empty())
            .count();
        let first = self.journal.len() - hot_segments;
        for segment in self.journal.iter_mut().skip(first) {
            while self.hot > self.options.hot_bytes
                && let Some(chunk) = segment.chunks.front()
                && chunk.end() <= segment.durable
            {
                self.hot -= chunk.bytes.len() as u64;
                segment.chunks.pop_front();
            }
            // A chunk a commit: the list of a segment that grew by small ones is far larger than anything else that is kept
            // of it.
            if segment.chunks.is_empty() {
                segment.chunks = VecDeque::new();
            }
        }
    }
}

fn job(segment: &Segment) -> Job {
    let chunks = segment.chunks.iter().filter(|chunk| chunk.at >= segment.durable);
    Job {
        number: segment.number,
        file: segment.file.clone(),
        at: segment.durable,
        end: segment.end,
        chunks: chunks.map(|chunk| chunk.bytes.clone()).collect(),
    }
}

impl Batch {
    /// Writes and syncs the batch. Takes as long as the disk does; needs nothing of the log.
    ///
    /// # Errors
    /// What the file system answered. What was written is then cut off again as far as possible.
    pub fn write(&self) -> Result<Written, WriteError> {
        let mut files = Vec::with_capacity(self.jobs.len());
        let (mut syncs, mut device_bytes) = (0, 0);
        for job in &self.jobs {
            let (file, is_new) = match &job.file {
                Some(file) => (Arc::clone(file), false),
                None => {
                    let created = self.files.create(&Stream::Journal.segment_name(job.number));
                    (created.map_err(WriteError::of_write)?, true)
                }
            };
            if let Err(error) = write_chunks(file.as_ref(), job.at, &job.chunks) {
                // Best effort: what stays behind is written over, or found torn at the next opening.
                if is_new {
                    drop(self.files.remove(&Stream::Journal.segment_name(job.number)));
                } else {
                    drop(file.set_len(job.at));
                }
                return Err(WriteError::of_write(error));
            }
            file.sync().map_err(WriteError::of_sync)?;
            syncs += 1;
            device_bytes += report::device_bytes(job.at..job.end);
            if is_new {
                self.files
                    .sync_dir(&Stream::Journal.directory())
                    .map_err(WriteError::of_sync)?;
                syncs += 1;
                device_bytes += report::BLOCK_BYTES;
            }
            files.push(file);
        }
        Ok(Written {
            files,
            syncs,
            device_bytes,
        })
    }
}

/// Writes chunks one behind the other, with as few writes as a bounded buffer allows.
pub(super) fn write_chunks(file: &dyn File, mut at: u64, chunks: &[Bytes]) -> io::Result<()> {
    let mut gathered = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        if gathered.is_empty() && (chunk.len() >= GATHER_BYTES || index + 1 == chunks.len()) {
            file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
            continue;
        }
        gathered.extend_from_slice(chunk);
        if gathered.len() >= GATHER_BYTES || index + 1 == chunks.len() {
            file.write_all_at(&gathered, at)?;
            at += gathered.len() as u64;
            gathered.clear();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::lane::LaneKind;
    use crate::options::Options;
    use crate::record::NewRecord;
    use crate::testing::MemoryFiles;

    #[test]
    fn segments_that_are_on_disk_keep_nothing_of_the_commits_that_made_them() {
        let options = Options {
            segment_bytes: 64 << 10,
            hot_bytes: 16 << 10,
            ..Options::default()
        };
        let (mut log, _) = Log::open(Arc::new(MemoryFiles::new()), options, 0).unwrap();
        let lane = log.lane("lane", LaneKind::UntilAcknowledged).unwrap();
        let lanes = [(lane, 0)];
        let record = NewRecord {
            sender: "test",
            lanes: &lanes,
            enqueued_at: 0,
            payload: vec![0; 100].into(),
        };

        for _ in 0..5000 {
            log.append(&record).unwrap();
            log.commit(0).unwrap();
        }

        let cold = log.journal.iter().filter(|segment| segment.chunks.is_empty());
        let kept: Vec<_> = cold
            .map(|segment| (segment.chunks.capacity(), segment.index.capacity()))
            .collect();
        assert!(kept.len() > 5, "{kept:?}");
        assert!(kept.iter().all(|kept| *kept == (0, 0)), "{kept:?}");
    }
}
