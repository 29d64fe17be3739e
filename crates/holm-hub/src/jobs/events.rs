//! The rows of a job, each written together with the event that tells of it, where anybody wants to know.
//!
//! ```text
//! row:    pending            running             completed            failed            canceled
//! event:  deviceJobCreated   deviceJobStarted    deviceJobCompleted   deviceJobFailed   deviceJobCanceled
//! ```
//!
//! A row that waits again, because a crash took its answer, is told of when it is begun again.

use std::sync::Arc;

use holm_model::{ServiceError, Timestamp};

use super::Jobs;
use super::document;
use crate::events::notice;
use crate::routing::Source;
use crate::storage::{JobDevice, Transaction};

/// Writes rows within a transaction.
#[derive(Clone, Copy)]
pub(super) struct Rows<'t> {
    pub(super) transaction: &'t Transaction<'t>,
    hub_name: &'t str,
}

impl Jobs {
    /// Changes rows of jobs in one transaction, as `Repository::change` does.
    pub(super) async fn change_rows<T: Send + 'static>(
        &self,
        change: impl FnOnce(Rows<'_>) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        self.change_rows_then(change, |_| ()).await
    }

    /// As [`Jobs::change_rows`]; `then` is called once that is on disk, and must not block.
    pub(super) async fn change_rows_then<T: Send + 'static>(
        &self,
        change: impl FnOnce(Rows<'_>) -> Result<T, ServiceError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (hub_name, signals) = (Arc::clone(&self.hub_name), self.signals.clone());
        let change = move |transaction: &Transaction<'_>| {
            change(Rows {
                transaction,
                hub_name: &hub_name,
            })
        };
        let then = move |changed: &T| {
            then(changed);
            // Whether anybody wants the events is known in the change alone.
            signals.outbox_filled();
        };
        self.repository.change_then(change, then).await
    }
}

impl Rows<'_> {
    /// Adds a device to a job, if it is not in it.
    pub(super) fn add(self, row: &JobDevice) -> Result<(), ServiceError> {
        if self.transaction.add_job_device(row)? {
            self.tell(row)?;
        }
        Ok(())
    }

    /// Writes what has become of a device.
    pub(super) fn put(self, row: &JobDevice) -> Result<(), ServiceError> {
        self.transaction.put_job_device(row)?;
        self.tell(row)
    }

    /// Puts devices of a job that are in one state into another, at most `most`, with an outcome; whether there may be more.
    pub(super) fn end(
        self,
        id: &str,
        (from, to): (&str, &str),
        outcome: &str,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, ServiceError> {
        let ending = if self.is_told() {
            self.transaction.job_devices(id, from, most)?
        } else {
            Vec::new()
        };
        let is_more = self.transaction.end_job_devices(id, (from, to), outcome, now, most)?;
        for mut row in ending {
            to.clone_into(&mut row.status);
            outcome.clone_into(&mut row.outcome);
            (row.ended, row.updated) = (Some(now), now);
            self.tell(&row)?;
        }
        Ok(is_more)
    }

    fn is_told(self) -> bool {
        self.transaction.interest().wants(Source::DeviceJobLifecycleEvents)
    }

    fn tell(self, row: &JobDevice) -> Result<(), ServiceError> {
        if !self.is_told() {
            return Ok(());
        }
        let event = notice::device_job(self.hub_name, row, &document::device(row));
        self.transaction.emit(&event)
    }
}
