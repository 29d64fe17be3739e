//! A record takes the place of another in the queue: the new one is on disk before the old one is acknowledged.

use std::time::Duration;

use bytes::Bytes;
use holm_queue::{AppendError, CommitError, LaneId, NewRecord, Pending, Queue, Record};

/// How long to wait before a disk that refused is asked again.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// Appends a copy of a record to a lane, with another content if one is given; waits while too much waits for the disk. The
/// size of the queue does not refuse it.
///
/// # Errors
/// Nothing is appended: the disk refuses, or the queue is closed.
pub(super) async fn append(
    queue: &Queue,
    record: &Record,
    lane: (LaneId, u64),
    payload: Bytes,
) -> Result<Pending, AppendError> {
    let lanes = [lane];
    let copy = NewRecord {
        sender: record.sender(),
        lanes: &lanes,
        enqueued_at: record.enqueued_at,
        payload,
    };
    loop {
        match queue.append_in_place(&copy) {
            Err(AppendError::Busy { .. }) => queue.room().await,
            result => return result,
        }
    }
}

/// Resolves when what was appended is on disk, however often the disk must be asked; never, once the queue is closed.
pub(super) async fn durable(queue: Queue, pending: Pending) {
    match pending.await {
        Ok(()) => {}
        Err(CommitError::Closed) => std::future::pending().await,
        // It stays appended, and the next commit that succeeds brings it to the disk.
        Err(_) => {
            tokio::time::sleep(DISK_RETRY).await;
            flushed(&queue).await;
        }
    }
}

/// Resolves when all that was appended and acknowledged is on disk, as [`durable`] does.
pub(super) async fn flushed(queue: &Queue) {
    loop {
        match queue.flush().await {
            Ok(()) => return,
            Err(CommitError::Closed) => return std::future::pending().await,
            Err(_) => tokio::time::sleep(DISK_RETRY).await,
        }
    }
}
