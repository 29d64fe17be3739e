//! Who changed what: a record a change, written in the transaction of the change.
//!
//! Records are numbered in the order of the changes. The oldest go first, by their age ([`Transaction::forget_audit`]) and by their
//! number ([`View::audit_excess`]). Each kind (what stands before the dot of the operation) has its own number: who may change
//! twins can't make so many records that those of keys and policies go.

use holm_model::{ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View, to_i64, to_u64};

/// A change that somebody made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Grows with each record.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Who, in the form of [`crate::actor::Actor`].
    pub actor: String,
    /// What was done, such as `device.create`.
    pub operation: String,
    /// To what: an identity, or the name of a policy or job.
    pub target: String,
    /// What the change made: the etag of an identity or policy, the version of a twin.
    pub mark: Option<String>,
}

/// Which records are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only those about this target; of a device, also those about its modules.
    pub target: Option<String>,
    /// Only those since then.
    pub since: Option<Timestamp>,
    /// Only those after this one.
    pub after: u64,
    /// Only those before this one, and of these the last instead of the first.
    pub before: Option<u64>,
}

const COLUMNS: &str = "id, at, actor, operation, target, mark";
/// The kind of a record, as the index of [`INDEX`] has it.
const KIND: &str = "substr(operation, 1, instr(operation, '.'))";
/// The records of each kind in their order.
pub(super) const INDEX: &str =
    "CREATE INDEX IF NOT EXISTS audit_by_kind ON audit (substr(operation, 1, instr(operation, '.')));";
/// Rows that are removed in one transaction, so that others don't wait for it.
const REMOVED_AT_ONCE: u64 = 5000;

impl View<'_> {
    /// The first records of a filter (with `before` the last), oldest first, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn audit(&self, filter: &AuditFilter, most: u32) -> Result<Vec<AuditRecord>, ServiceError> {
        let since = filter.since.unwrap_or(Timestamp::NEVER).unix_millis();
        let (after, before) = (to_i64(filter.after), to_i64(filter.before.unwrap_or(u64::MAX)));
        let order = if filter.before.is_some() { "DESC" } else { "ASC" };
        let within = format!("id > ?1 AND id < ?4 AND at >= ?2 ORDER BY id {order} LIMIT ?3");
        let mut found = match &filter.target {
            None => {
                let sql = format!("SELECT {COLUMNS} FROM audit WHERE {within}");
                self.all(&sql, params![after, since, most, before], read)?
            }
            Some(target) => {
                // `0` is the sign behind `/`, which no id holds.
                let sql = format!(
                    "SELECT {COLUMNS} FROM audit WHERE (target = ?5 OR (target > ?5 || '/' AND target < ?5 || '0')) AND {within}"
                );
                self.all(&sql, params![after, since, most, before, target], read)?
            }
        };
        if filter.before.is_some() {
            found.reverse();
        }
        Ok(found)
    }
}

impl View<'_> {
    /// The kinds of which there are more than `most` records: of each the last record that is one too many.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn audit_excess(&self, most: u64) -> Result<Vec<(String, u64)>, ServiceError> {
        let next = format!("SELECT {KIND} FROM audit WHERE {KIND} > ?1 ORDER BY {KIND} LIMIT 1");
        let last = format!("SELECT id FROM audit WHERE {KIND} = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2");
        let (mut excess, mut kind) = (Vec::new(), String::new());
        while let Some(found) = self.one(&next, [&kind], |row| row.get::<_, String>(0))? {
            if let Some(id) = self.one(&last, params![found, to_i64(most)], |row| row.get(0))? {
                excess.push((found.clone(), to_u64(id)));
            }
            kind = found;
        }
        Ok(excess)
    }
}

impl Transaction<'_> {
    /// Records what the actor of this transaction does. `mark` is what the change made, see [`AuditRecord::mark`].
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn record(
        &self,
        operation: &str,
        target: impl std::fmt::Display,
        mark: Option<&str>,
        now: Timestamp,
    ) -> Result<(), ServiceError> {
        let sql = "INSERT INTO audit (at, actor, operation, target, mark) VALUES (?1, ?2, ?3, ?4, ?5)";
        let (actor, target) = (self.actor().to_string(), target.to_string());
        self.write(sql, params![now.unix_millis(), actor, operation, target, mark])?;
        Ok(())
    }

    /// Removes some of the records that are older than `before`; says whether there are more of them.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn forget_audit(&self, before: Timestamp) -> Result<bool, ServiceError> {
        self.forget_oldest("audit", before, u64::MAX)
    }

    /// Removes some of the records of a kind up to `last`; says whether there are more of them.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn forget_audit_of(&self, kind: &str, last: u64) -> Result<bool, ServiceError> {
        let sql = format!(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE {KIND} = ?1 AND id <= ?2 ORDER BY id LIMIT ?3)"
        );
        let removed = self.write(&sql, params![kind, to_i64(last), to_i64(REMOVED_AT_ONCE)])?;
        Ok(u64::try_from(removed).is_ok_and(|removed| removed == REMOVED_AT_ONCE))
    }

    /// Removes the oldest rows of a table whose `id` grows with its `at`.
    pub(super) fn forget_oldest(&self, table: &str, before: Timestamp, most: u64) -> Result<bool, ServiceError> {
        let bounds = self.one(
            &format!(
                "SELECT coalesce(max(id), 0) - ?2, coalesce((SELECT id FROM {table} WHERE at >= ?1 ORDER BY id LIMIT 1) - 1, max(id), 0) \
                 FROM {table}"
            ),
            params![before.unix_millis(), to_i64(most)],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?;
        let (by_number, by_age) = bounds.unwrap_or_default();
        let sql =
            format!("DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE id <= ?1 ORDER BY id LIMIT ?2)");
        let removed = self.write(&sql, params![by_number.max(by_age), to_i64(REMOVED_AT_ONCE)])?;
        Ok(u64::try_from(removed).is_ok_and(|removed| removed == REMOVED_AT_ONCE))
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        sequence: to_u64(row.get(0)?),
        at: Timestamp::from_unix_millis(row.get(1)?),
        actor: row.get(2)?,
        operation: row.get(3)?,
        target: row.get(4)?,
        mark: row.get(5)?,
    })
}
