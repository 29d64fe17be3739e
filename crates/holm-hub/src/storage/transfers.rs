//! Import and export jobs: what was ordered, how far each has come, and what it could not do.

use holm_model::{ServiceError, Timestamp};
use rusqlite::{Row, params};

use super::{Transaction, View, to_i64, to_u64};

/// A job that reads or writes the whole registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Its id, made here.
    pub id: String,
    /// What was ordered, as JSON.
    pub order: String,
    /// `enqueued`, `running`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// When it was ordered.
    pub created: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How far it has come: bytes of the input, or devices that were written.
    pub done: u64,
    /// How far it has to come.
    pub total: u64,
    /// Lines of the input that were carried out.
    pub lines: u64,
    /// Why it failed.
    pub failure: Option<String>,
}

const COLUMNS: &str = "id, job, status, created, ended, done, total, lines, failure";

impl View<'_> {
    /// A job.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn transfer(&self, id: &str) -> Result<Option<Transfer>, ServiceError> {
        self.one(&format!("SELECT {COLUMNS} FROM transfers WHERE id = ?1"), [id], read)
    }

    /// Every job, the newest first, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn transfers(&self, most: u32) -> Result<Vec<Transfer>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM transfers ORDER BY created DESC, id LIMIT ?1");
        self.all(&sql, [most], read)
    }

    /// The first job that has not ended.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn open_transfer(&self) -> Result<Option<Transfer>, ServiceError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM transfers WHERE status IN ('enqueued', 'running') ORDER BY created, id LIMIT 1"
        );
        self.one(&sql, [], read)
    }

    /// A job that has ended and whose errors are still here.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn untold_transfer(&self) -> Result<Option<Transfer>, ServiceError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM transfers WHERE ended IS NOT NULL \
             AND EXISTS (SELECT 1 FROM transfer_errors WHERE transfer = transfers.id) LIMIT 1"
        );
        self.one(&sql, [], read)
    }

    /// What a job could not do, as lines of its file of errors.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn transfer_errors(&self, id: &str) -> Result<Vec<String>, ServiceError> {
        let sql = "SELECT text FROM transfer_errors WHERE transfer = ?1 ORDER BY line";
        self.all(sql, [id], |row| row.get(0))
    }
}

impl Transaction<'_> {
    /// Writes a job, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_transfer(&self, transfer: &Transfer) -> Result<(), ServiceError> {
        let sql = format!("INSERT OR REPLACE INTO transfers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
        self.write(
            &sql,
            params![
                transfer.id,
                transfer.order,
                transfer.status,
                transfer.created.unix_millis(),
                transfer.ended.map(Timestamp::unix_millis),
                to_i64(transfer.done),
                to_i64(transfer.total),
                to_i64(transfer.lines),
                transfer.failure,
            ],
        )?;
        Ok(())
    }

    /// Notes what a job could not do with a line of its input.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn add_transfer_error(&self, id: &str, line: u64, text: &str) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO transfer_errors (transfer, line, text) VALUES (?1, ?2, ?3)";
        self.write(sql, params![id, to_i64(line), text])?;
        Ok(())
    }

    /// Forgets what a job could not do with a line of its input.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_transfer_error(&self, id: &str, line: u64) -> Result<(), ServiceError> {
        let sql = "DELETE FROM transfer_errors WHERE transfer = ?1 AND line = ?2";
        self.write(sql, params![id, to_i64(line)])?;
        Ok(())
    }

    /// Forgets what a job could not do.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_transfer_errors(&self, id: &str) -> Result<(), ServiceError> {
        self.write("DELETE FROM transfer_errors WHERE transfer = ?1", [id])?;
        Ok(())
    }

    /// Forgets jobs that were ordered before a time and have ended.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn forget_transfers(&self, before: Timestamp) -> Result<(), ServiceError> {
        let sql = "DELETE FROM transfers WHERE created < ?1 AND ended IS NOT NULL";
        self.write(sql, [before.unix_millis()])?;
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    Ok(Transfer {
        id: row.get(0)?,
        order: row.get(1)?,
        status: row.get(2)?,
        created: Timestamp::from_unix_millis(row.get(3)?),
        ended: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_unix_millis),
        done: to_u64(row.get(5)?),
        total: to_u64(row.get(6)?),
        lines: to_u64(row.get(7)?),
        failure: row.get(8)?,
    })
}
