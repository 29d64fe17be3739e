//! What the hub has to tell back ends, until one has taken it: feedback on messages, notifications of files.

use holm_model::{ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View, to_i64, to_u64};
use crate::notices::NoticeKind;

/// What decides when a notice is given out: it without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoticeHead {
    /// Its number; growing with time over both kinds, never used twice.
    pub id: u64,
    /// When it was written.
    pub enqueued: Timestamp,
    /// How often a delivery of it was abandoned.
    pub deliveries: u32,
}

/// An outcome as releases without feedback kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OldOutcome {
    pub(crate) device: String,
    pub(crate) generation: String,
    pub(crate) message_id: String,
    pub(crate) outcome: String,
    pub(crate) at: Timestamp,
}

impl View<'_> {
    /// The notices of a kind, without their bodies, oldest first.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn notice_heads(&self, kind: NoticeKind) -> Result<Vec<NoticeHead>, ServiceError> {
        let sql = "SELECT id, enqueued, deliveries FROM notices WHERE kind = ?1 ORDER BY id";
        self.all(sql, [kind.name()], |row| {
            Ok(NoticeHead {
                id: to_u64(row.get(0)?),
                enqueued: Timestamp::from_unix_millis(row.get(1)?),
                deliveries: row.get(2)?,
            })
        })
    }

    /// The body of a notice, if it is still there.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn notice_body(&self, id: u64) -> Result<Option<Vec<u8>>, ServiceError> {
        let sql = "SELECT body FROM notices WHERE id = ?1";
        self.one(sql, [to_i64(id)], |row| row.get(0))
    }

    /// The notices of a kind behind `after`, with their bodies, oldest first, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn notices_after(&self, kind: NoticeKind, after: u64, most: u32) -> Result<Vec<(u64, Vec<u8>)>, ServiceError> {
        let sql = "SELECT id, body FROM notices WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        self.all(sql, params![kind.name(), to_i64(after), most], |row| {
            Ok((to_u64(row.get(0)?), row.get(1)?))
        })
    }
}

impl Transaction<'_> {
    /// Adds a notice; its number is given out here and returned.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub(crate) fn add_notice(&self, kind: NoticeKind, at: Timestamp, body: &[u8]) -> Result<u64, ServiceError> {
        self.write(
            "INSERT INTO notices (kind, enqueued, deliveries, body) VALUES (?1, ?2, 0, ?3)",
            params![kind.name(), at.unix_millis(), body],
        )?;
        Ok(to_u64(self.connection.last_insert_rowid()))
    }

    /// Counts an abandoned delivery of a notice.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub(crate) fn count_notice_delivery(&self, id: u64) -> Result<(), ServiceError> {
        let sql = "UPDATE notices SET deliveries = deliveries + 1 WHERE id = ?1";
        self.write(sql, [to_i64(id)])?;
        Ok(())
    }

    /// Removes a notice.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub(crate) fn remove_notice(&self, id: u64) -> Result<(), ServiceError> {
        self.write("DELETE FROM notices WHERE id = ?1", [to_i64(id)])?;
        Ok(())
    }

    /// Takes out the outcomes that a release without feedback has kept, oldest first.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub(crate) fn take_old_outcomes(&self) -> Result<Vec<OldOutcome>, ServiceError> {
        let sql = "SELECT device, generation, message_id, outcome, at FROM c2d_outcomes ORDER BY id";
        let left = self.all(sql, [], |row| {
            Ok(OldOutcome {
                device: row.get(0)?,
                generation: row.get(1)?,
                message_id: row.get(2)?,
                outcome: row.get(3)?,
                at: Timestamp::from_unix_millis(row.get(4)?),
            })
        })?;
        if !left.is_empty() {
            self.write("DELETE FROM c2d_outcomes", [])?;
        }
        Ok(left)
    }
}
