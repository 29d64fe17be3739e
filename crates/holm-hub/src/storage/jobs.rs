//! Jobs, and what became of each device of a job.
//!
//! A device's row is written in the transaction that changes its twin, or before and after its method is called: after a crash the
//! rows say what is still to be done.

use holm_model::{Identity, ServiceError, Timestamp};
use rusqlite::{Connection, Row, params};

use super::{RowKey, Transaction, View, fault, identity_of, module_key};

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it begins.
    pub start: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The published word for its state.
    pub status: String,
    /// Why it failed.
    pub failure: Option<String>,
    /// What was asked for, JSON.
    pub document: String,
}

/// How many devices of a job are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Not begun.
    pub pending: u32,
    /// Called, without an answer yet.
    pub running: u32,
    /// Done.
    pub completed: u32,
    /// Not done, and why is told.
    pub failed: u32,
    /// Not begun when the job was cancelled.
    pub canceled: u32,
}

/// A device of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobDevice {
    /// The job.
    pub job: String,
    /// The device.
    pub identity: Identity,
    /// The kind of the job, as published.
    pub kind: String,
    /// The published word for its state: `pending`, `running`, `completed`, `failed`, `canceled`.
    pub status: String,
    /// How often it was begun.
    pub attempts: u32,
    /// When it came into the job.
    pub created: Timestamp,
    /// When it was begun.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// When the row last changed.
    pub updated: Timestamp,
    /// What came of it, members of the published row in JSON; empty for nothing.
    pub outcome: String,
}

impl JobDevice {
    /// One that has just come into a job of a kind.
    #[must_use]
    pub fn pending(job: impl Into<String>, identity: Identity, kind: &str, now: Timestamp) -> Self {
        Self {
            job: job.into(),
            identity,
            kind: kind.to_owned(),
            status: "pending".to_owned(),
            attempts: 0,
            created: now,
            started: None,
            ended: None,
            updated: now,
            outcome: String::new(),
        }
    }
}

/// Made at every opening, as `ADDED` of `schema.rs` is: a release without jobs leaves them alone.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    start INTEGER NOT NULL,
    ended INTEGER,
    status TEXT NOT NULL,                       -- scheduled, queued, running, completed, failed, cancelled
    failure TEXT,
    document TEXT NOT NULL                      -- JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job_devices (
    job TEXT NOT NULL,
    device TEXT NOT NULL,
    module TEXT NOT NULL,
    kind TEXT NOT NULL,                         -- scheduleUpdateTwin, scheduleDeviceMethod
    status TEXT NOT NULL,                       -- pending, running, completed, failed, canceled
    attempts INTEGER NOT NULL,
    created INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER,
    updated INTEGER NOT NULL,
    outcome TEXT NOT NULL,                      -- JSON object, or empty
    PRIMARY KEY (job, device, module)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_devices_by_status ON job_devices (job, status, device, module);
CREATE INDEX IF NOT EXISTS job_devices_by_device ON job_devices (device, job);
";

pub(super) fn make_tables(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

const JOB: &str = "id, created, start, ended, status, failure, document";
const DEVICE: &str = "job, device, module, kind, status, attempts, created, started, ended, updated, outcome";

impl View<'_> {
    /// A job.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn job(&self, id: &str) -> Result<Option<JobRecord>, ServiceError> {
        self.one(&format!("SELECT {JOB} FROM jobs WHERE id = ?1"), [id], read_job)
    }

    /// The jobs behind `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn jobs(&self, after: &str, most: u32) -> Result<Vec<JobRecord>, ServiceError> {
        let sql = format!("SELECT {JOB} FROM jobs WHERE id > ?1 ORDER BY id LIMIT ?2");
        self.all(&sql, params![after, most], read_job)
    }

    /// The jobs that have not ended, the one that begins first before the others.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn open_jobs(&self) -> Result<Vec<JobRecord>, ServiceError> {
        let sql = format!("SELECT {JOB} FROM jobs WHERE ended IS NULL ORDER BY start, id");
        self.all(&sql, [], read_job)
    }

    /// The ids of jobs that have ended and have devices that have not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn unsettled_jobs(&self) -> Result<Vec<String>, ServiceError> {
        let sql = "SELECT id FROM jobs WHERE ended IS NOT NULL AND EXISTS \
                   (SELECT 1 FROM job_devices WHERE job = id AND job_devices.status IN ('pending', 'running'))";
        self.all(sql, [], |row| row.get(0))
    }

    /// The id of a job that ended before `before`, if there is one.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn old_job(&self, before: Timestamp) -> Result<Option<String>, ServiceError> {
        let sql = "SELECT id FROM jobs WHERE ended < ?1 LIMIT 1";
        self.one(sql, [before.unix_millis()], |row| row.get(0))
    }

    /// How many devices of a job are in which state.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn job_counts(&self, id: &str) -> Result<JobCounts, ServiceError> {
        let sql = "SELECT status, count(*) FROM job_devices WHERE job = ?1 GROUP BY status";
        let mut counts = JobCounts::default();
        for (status, count) in self.all(sql, [id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))? {
            match status.as_str() {
                "pending" => counts.pending = count,
                "running" => counts.running = count,
                "completed" => counts.completed = count,
                "failed" => counts.failed = count,
                _ => counts.canceled = count,
            }
        }
        Ok(counts)
    }

    /// Devices of a job in a state, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn job_devices(&self, id: &str, status: &str, most: u32) -> Result<Vec<JobDevice>, ServiceError> {
        let sql =
            format!("SELECT {DEVICE} FROM job_devices WHERE job = ?1 AND status = ?2 ORDER BY device, module LIMIT ?3");
        let rows = self.all(&sql, params![id, status, most], |row| Ok(read_device(row)))?;
        rows.into_iter().collect()
    }

    /// Devices of all jobs, or of this job, or this device, behind a job and an identity, in the order of those; at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn all_job_devices(
        &self,
        only_job: Option<&str>,
        only_device: Option<&str>,
        after: Option<&(String, RowKey)>,
        most: u32,
    ) -> Result<Vec<JobDevice>, ServiceError> {
        let (job, (device, module)) = after.cloned().unwrap_or_default();
        // Each has an index that knows also where to go on. Every parameter stands in each.
        let only = match (only_job, only_device) {
            (Some(_), None) => "job = ?5 AND ?6 IS NULL AND ?1 <= ?5 AND (device, module) > (?2, ?3)",
            (Some(_), Some(_)) => "job = ?5 AND device = ?6 AND (job, device, module) > (?1, ?2, ?3)",
            (None, Some(_)) => "?5 IS NULL AND device = ?6 AND (job, device, module) > (?1, ?2, ?3)",
            (None, None) => "?5 IS NULL AND ?6 IS NULL AND (job, device, module) > (?1, ?2, ?3)",
        };
        let sql = format!("SELECT {DEVICE} FROM job_devices WHERE {only} ORDER BY job, device, module LIMIT ?4");
        let parameters = params![job, device, module, most, only_job, only_device];
        self.all(&sql, parameters, |row| Ok(read_device(row)))?
            .into_iter()
            .collect()
    }
}

impl Transaction<'_> {
    /// Writes a job, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_job(&self, job: &JobRecord) -> Result<(), ServiceError> {
        let sql = format!("INSERT OR REPLACE INTO jobs ({JOB}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
        self.write(
            &sql,
            params![
                job.id,
                job.created.unix_millis(),
                job.start.unix_millis(),
                job.ended.map(Timestamp::unix_millis),
                job.status,
                job.failure,
                job.document,
            ],
        )?;
        Ok(())
    }

    /// Writes a device of a job, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_job_device(&self, row: &JobDevice) -> Result<(), ServiceError> {
        self.write_job_device("REPLACE", row).map(drop)
    }

    /// Adds a device to a job, if it is not in it; whether it was not.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn add_job_device(&self, row: &JobDevice) -> Result<bool, ServiceError> {
        Ok(self.write_job_device("IGNORE", row)? > 0)
    }

    fn write_job_device(&self, otherwise: &str, row: &JobDevice) -> Result<usize, ServiceError> {
        let sql = format!(
            "INSERT OR {otherwise} INTO job_devices ({DEVICE}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        );
        self.write(
            &sql,
            params![
                row.job,
                row.identity.device.as_str(),
                module_key(&row.identity),
                row.kind,
                row.status,
                row.attempts,
                row.created.unix_millis(),
                row.started.map(Timestamp::unix_millis),
                row.ended.map(Timestamp::unix_millis),
                row.updated.unix_millis(),
                row.outcome,
            ],
        )
    }

    /// Puts devices of a job that are in one state into another, at most `most`, with an outcome; whether there may be more.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn end_job_devices(
        &self,
        id: &str,
        (from, to): (&str, &str),
        outcome: &str,
        now: Timestamp,
        most: u32,
    ) -> Result<bool, ServiceError> {
        // Up to a key, and not by a list of keys, so that each lot costs what it changes.
        let sql = "SELECT device, module FROM job_devices WHERE job = ?1 AND status = ?2 \
                   ORDER BY device, module LIMIT 1 OFFSET ?3";
        let last: Option<RowKey> = self.one(sql, params![id, from, most.saturating_sub(1)], read_key)?;
        let end =
            "UPDATE job_devices SET status = ?3, outcome = ?4, ended = ?5, updated = ?5 WHERE job = ?1 AND status = ?2";
        let now = now.unix_millis();
        match &last {
            None => self.write(end, params![id, from, to, outcome, now])?,
            Some((device, module)) => self.write(
                &format!("{end} AND (device, module) <= (?6, ?7)"),
                params![id, from, to, outcome, now, device, module],
            )?,
        };
        Ok(last.is_some())
    }

    /// Removes a job that ended before `before`, of its devices at most `most`; whether there may be more to remove.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn forget_job(&self, before: Timestamp, most: u32) -> Result<bool, ServiceError> {
        let Some(id) = self.old_job(before)? else {
            return Ok(false);
        };
        let sql = "SELECT device, module FROM job_devices WHERE job = ?1 ORDER BY device, module LIMIT 1 OFFSET ?2";
        let last: Option<RowKey> = self.one(sql, params![id, most.saturating_sub(1)], read_key)?;
        match last {
            Some((device, module)) => {
                let sql = "DELETE FROM job_devices WHERE job = ?1 AND (device, module) <= (?2, ?3)";
                self.write(sql, params![id, device, module])?;
            }
            None => {
                self.write("DELETE FROM job_devices WHERE job = ?1", [&id])?;
                self.write("DELETE FROM jobs WHERE id = ?1", [&id])?;
            }
        }
        Ok(true)
    }
}

fn read_key(row: &Row<'_>) -> rusqlite::Result<RowKey> {
    Ok((row.get(0)?, row.get(1)?))
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        id: row.get(0)?,
        created: Timestamp::from_unix_millis(row.get(1)?),
        start: Timestamp::from_unix_millis(row.get(2)?),
        ended: row.get::<_, Option<i64>>(3)?.map(Timestamp::from_unix_millis),
        status: row.get(4)?,
        failure: row.get(5)?,
        document: row.get(6)?,
    })
}

fn read_device(row: &Row<'_>) -> Result<JobDevice, ServiceError> {
    let text = |index: usize| row.get::<_, String>(index).map_err(|error| fault(&error));
    let time = |index: usize| {
        let millis = row.get::<_, Option<i64>>(index).map_err(|error| fault(&error))?;
        Ok::<_, ServiceError>(millis.map(Timestamp::from_unix_millis))
    };
    Ok(JobDevice {
        job: text(0)?,
        identity: identity_of(&text(1)?, &text(2)?)?,
        kind: text(3)?,
        status: text(4)?,
        attempts: row.get(5).map_err(|error| fault(&error))?,
        created: time(6)?.unwrap_or(Timestamp::NEVER),
        started: time(7)?,
        ended: time(8)?,
        updated: time(9)?.unwrap_or(Timestamp::NEVER),
        outcome: text(10)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Repository;

    async fn job_of(directory: &tempfile::TempDir, devices: u32) -> Repository {
        let repository = Repository::open(&directory.path().join("hub.db")).unwrap();
        repository
            .change(move |transaction| {
                transaction.put_job(&JobRecord {
                    id: "j".to_owned(),
                    created: Timestamp::NEVER,
                    start: Timestamp::NEVER,
                    ended: Some(Timestamp::from_unix_millis(1)),
                    status: "cancelled".to_owned(),
                    failure: None,
                    document: "{}".to_owned(),
                })?;
                for number in 0..devices {
                    transaction.add_job_device(&JobDevice::pending(
                        "j",
                        format!("d{number}").parse().unwrap(),
                        "scheduleDeviceMethod",
                        Timestamp::NEVER,
                    ))?;
                }
                Ok(())
            })
            .await
            .unwrap();
        repository
    }

    #[tokio::test]
    async fn many_rows_are_ended_and_removed_some_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let repository = job_of(&directory, 25).await;
        let count = async || {
            let counts = repository.read(|view| view.job_counts("j")).await.unwrap();
            (counts.pending, counts.canceled)
        };

        let mut ended = Vec::new();
        let mut is_more = true;
        while is_more {
            is_more = repository
                .change(|transaction| {
                    transaction.end_job_devices("j", ("pending", "canceled"), "", Timestamp::NEVER, 10)
                })
                .await
                .unwrap();
            ended.push(count().await);
        }
        let mut left = Vec::new();
        while repository
            .change(|transaction| transaction.forget_job(Timestamp::from_unix_millis(2), 10))
            .await
            .unwrap()
        {
            left.push(count().await.1);
        }

        assert_eq!(ended, [(15, 10), (5, 20), (0, 25)]);
        assert_eq!(left, [15, 5, 0]);
    }
}
