//! What became of twins: for each change, who made it and what leads back.

use holm_model::{Identity, ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View, module_key, to_i64, to_u64};

/// A change of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinChangeRow {
    /// The twin's version plus that of its reported properties after it: one more with each change.
    pub change: u64,
    /// When.
    pub at: Timestamp,
    /// Who, in the form of [`crate::actor::Actor`].
    pub actor: String,
    /// `twin.update`, `twin.replace` or `twin.report`.
    pub operation: String,
    /// What leads back to the twin before it, as JSON.
    pub undo: String,
}

impl View<'_> {
    /// The changes of a twin up to `last`, newest first, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn twin_changes(&self, identity: &Identity, last: u64, most: u32) -> Result<Vec<TwinChangeRow>, ServiceError> {
        let sql = "SELECT change, at, actor, operation, undo FROM twin_changes \
                   WHERE device = ?1 AND module = ?2 AND change <= ?3 ORDER BY change DESC LIMIT ?4";
        let (device, module) = (identity.device.as_str(), module_key(identity));
        self.all(sql, params![device, module, to_i64(last), most], |row| {
            Ok(TwinChangeRow {
                change: to_u64(row.get(0)?),
                at: Timestamp::from_unix_millis(row.get(1)?),
                actor: row.get(2)?,
                operation: row.get(3)?,
                undo: row.get(4)?,
            })
        })
    }
}

impl Transaction<'_> {
    /// Keeps what leads back over a change that the actor of this transaction has made.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn keep_twin_change(
        &self,
        identity: &Identity,
        change: u64,
        operation: &str,
        undo: &str,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        self.write(
            "INSERT OR REPLACE INTO twin_changes (device, module, change, at, actor, operation, undo) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                identity.device.as_str(),
                module_key(identity),
                to_i64(change),
                now.unix_millis(),
                self.actor().to_string(),
                operation,
                undo
            ],
        )?;
        Ok(())
    }

    /// Removes some of the changes that are older than `before`, or beyond the newest `most`; says whether there are more of them.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn forget_twin_changes(&self, before: Timestamp, most: u64) -> Result<bool, ServiceError> {
        self.forget_oldest("twin_changes", before, most)
    }
}
