//! Reading a lane from any position, as often and by as many as wanted.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::core::{Cursor, Passed, ReadBuffer, ReadPlan};
use crate::error::ReadError;
use crate::lane::LaneId;
use crate::queue::{Shared, WaitingReader};
use crate::record::{Record, Start, Visibility};

/// What a reader skipped since it was last asked.
pub type Skipped = Passed;

/// Reads a lane in order, leaving out what is acknowledged, expired or damaged. Reading does not acknowledge.
pub struct Reader {
    shared: Arc<Shared>,
    id: u64,
    lane: LaneId,
    visibility: Visibility,
    cursor: Cursor,
    buffer: ReadBuffer,
    skipped: Skipped,
}

impl Reader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lane: LaneId,
        from: Start,
        visibility: Visibility,
    ) -> Result<Self, ReadError> {
        let mut state = shared.lock();
        let cursor = state
            .log
            .as_ref()
            .ok_or(ReadError::Closed)?
            .cursor(lane, from, visibility)?;
        let id = state.next_reader;
        state.next_reader += 1;
        drop(state);
        Ok(Self {
            shared,
            id,
            lane,
            visibility,
            cursor,
            buffer: ReadBuffer::default(),
            skipped: Skipped::default(),
        })
    }

    /// The lane that is read.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        self.lane
    }

    /// The next position to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.cursor.position()
    }

    /// How many records were skipped because they had expired or were damaged, since this was last asked. They count as
    /// acknowledged.
    pub fn take_skipped(&mut self) -> Skipped {
        std::mem::take(&mut self.skipped)
    }

    /// Reads up to so many records, and records until there are so many payload bytes (the last one may go beyond). Returns
    /// none when nothing is visible. May read the disk, 64 KiB at a time, if the reader does not keep up.
    ///
    /// # Errors
    /// The file system refused, the lane was removed, or the queue is closed. Reading can go on after the first.
    pub fn try_read(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let now = self.shared.clock.now();
        let mut fetched = None;
        loop {
            let mut state = self.shared.lock();
            let log = state.log.as_mut().ok_or(ReadError::Closed)?;
            if let Some(fetched) = fetched.take() {
                let (more, passed) = log.settle_read(&mut self.cursor, fetched, now)?;
                self.skipped.expired += passed.expired;
                self.skipped.corrupt += passed.corrupt;
                bytes += more.iter().map(Record::payload_len).sum::<usize>();
                if records.is_empty() {
                    records = more
                } else {
                    records.extend(more)
                }
            }
            if records.len() >= max_records || (bytes >= max_bytes && !records.is_empty()) {
                // What was passed over counts as acknowledged.
                self.shared.acknowledged(state);
                return Ok(records);
            }
            let corrupt = log.stats().corrupt;
            let plan = log.plan_read(&mut self.cursor, self.visibility)?;
            self.skipped.corrupt += log.stats().corrupt - corrupt;
            self.shared.acknowledged(state);
            let ReadPlan::Ready(fetch) = plan else {
                return Ok(records);
            };
            let more_bytes = max_bytes.saturating_sub(bytes).max(1);
            match fetch.run(&mut self.buffer, max_records - records.len(), more_bytes) {
                Ok(found) => fetched = Some(found),
                Err(_) if !records.is_empty() => return Ok(records),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until something is visible that was not read yet. What it was may have expired by the time it is read, so
    /// [`Self::try_read`] may still return none.
    ///
    /// Cancel safety: may be dropped at any time; nothing is missed by waiting again.
    ///
    /// # Errors
    /// The lane was removed, or the queue is closed.
    pub async fn wait(&mut self) -> Result<(), ReadError> {
        poll_fn(|context| self.poll_wait(context)).await
    }

    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let mut state = self.shared.lock();
        let key = (self.lane, self.id);
        state.remove_reader(key);
        let Some(log) = &state.log else {
            return Poll::Ready(Err(ReadError::Closed));
        };
        match log.is_readable(&self.cursor, self.visibility) {
            Ok(false) => {}
            Ok(true) => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let (visibility, waker) = (self.visibility, context.waker().clone());
        // What lies below the visible end is acknowledged; only a record from there on is news.
        let end = log.lane_bounds(self.lane).map_or(0, |bounds| match visibility {
            Visibility::Appended => bounds.next,
            Visibility::Durable => bounds.durable_next,
        });
        let position = self.cursor.position().max(end);
        state.readers.insert(
            key,
            WaitingReader {
                visibility,
                position,
                waker,
            },
        );
        state.waiting_for_appends += usize::from(visibility == Visibility::Appended);
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let waker = self.shared.lock().remove_reader((self.lane, self.id));
        drop(waker);
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("lane", &self.lane)
            .field("position", &self.cursor.position())
            .field("visibility", &self.visibility)
            .finish_non_exhaustive()
    }
}
