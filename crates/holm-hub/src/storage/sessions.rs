//! What sessions leave behind: their subscriptions, which a client that comes back without `clean` resumes.

use holm_model::{Identity, ServiceError};
use rusqlite::params;

use super::{Transaction, View, damaged, module_key};

impl View<'_> {
    /// The subscriptions that the last session left, as filter and quality of service; `None` when there was none.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn session(&self, identity: &Identity) -> Result<Option<Vec<(String, u8)>>, ServiceError> {
        let sql = "SELECT filters FROM sessions WHERE device = ?1 AND module = ?2";
        let filters = self.one(sql, params![identity.device.as_str(), module_key(identity)], |row| {
            row.get::<_, String>(0)
        })?;
        filters
            .map(|filters| serde_json::from_str(&filters).map_err(|_| damaged("session")))
            .transpose()
    }
}

impl Transaction<'_> {
    /// Keeps a session's subscriptions.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_session(&self, identity: &Identity, filters: &[(String, u8)]) -> Result<(), ServiceError> {
        let filters = serde_json::to_string(filters).map_err(|_| damaged("session"))?;
        self.write(
            "INSERT OR REPLACE INTO sessions (device, module, filters) VALUES (?1, ?2, ?3)",
            params![identity.device.as_str(), module_key(identity), filters],
        )?;
        Ok(())
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_session(&self, identity: &Identity) -> Result<(), ServiceError> {
        self.write(
            "DELETE FROM sessions WHERE device = ?1 AND module = ?2",
            params![identity.device.as_str(), module_key(identity)],
        )?;
        Ok(())
    }
}
