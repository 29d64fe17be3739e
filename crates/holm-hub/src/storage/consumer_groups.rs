//! The consumer groups of the Event Hub.

use holm_model::{ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View};

impl View<'_> {
    /// Every consumer group with the time when it was made, in the order in which they were made.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn consumer_groups(&self) -> Result<Vec<(String, Timestamp)>, ServiceError> {
        let sql = "SELECT name, created FROM consumer_groups ORDER BY created, name";
        self.all(sql, [], |row| {
            Ok((row.get(0)?, Timestamp::from_unix_millis(row.get(1)?)))
        })
    }
}

impl Transaction<'_> {
    /// Adds a consumer group.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn add_consumer_group(&self, name: &str, created: Timestamp) -> Result<(), ServiceError> {
        let sql = "INSERT INTO consumer_groups (name, created) VALUES (?1, ?2)";
        self.write(sql, params![name, created.unix_millis()])?;
        Ok(())
    }

    /// Removes a consumer group, whose name is compared without case; says whether there was one.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_consumer_group(&self, name: &str) -> Result<bool, ServiceError> {
        let removed = self.write("DELETE FROM consumer_groups WHERE name = ?1", [name])?;
        Ok(removed > 0)
    }
}
