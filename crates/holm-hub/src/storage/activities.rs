//! What was last known of each identity's connection. Written late and in batches: who is connected now is in memory.

use holm_model::{Identity, ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View, module_key};

/// What is known of an identity's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Whether it was connected.
    pub connected: bool,
    /// When `connected` last changed.
    pub state_updated: Timestamp,
    /// When it was last heard of.
    pub last_activity: Timestamp,
    /// The digital-twin model that it announced; empty for none.
    pub model_id: String,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            connected: false,
            state_updated: Timestamp::NEVER,
            last_activity: Timestamp::NEVER,
            model_id: String::new(),
        }
    }
}

impl View<'_> {
    /// What was last written of an identity's connection.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn activity(&self, identity: &Identity) -> Result<Option<Activity>, ServiceError> {
        self.one(
            "SELECT connected, state_updated, last_activity, model_id FROM activities WHERE device = ?1 AND module = ?2",
            params![identity.device.as_str(), module_key(identity)],
            |row| {
                Ok(Activity {
                    connected: row.get(0)?,
                    state_updated: Timestamp::from_unix_millis(row.get(1)?),
                    last_activity: Timestamp::from_unix_millis(row.get(2)?),
                    model_id: row.get(3)?,
                })
            },
        )
    }
}

impl Transaction<'_> {
    /// Writes what is known of an identity's connection, if the identity still exists.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_activity(&self, identity: &Identity, activity: &Activity) -> Result<(), ServiceError> {
        self.write(
            "INSERT OR REPLACE INTO activities (device, module, connected, state_updated, last_activity, model_id)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM identities WHERE device = ?1 AND module = ?2)",
            params![
                identity.device.as_str(),
                module_key(identity),
                activity.connected,
                activity.state_updated.unix_millis(),
                activity.last_activity.unix_millis(),
                activity.model_id,
            ],
        )?;
        Ok(())
    }

    /// Says of everybody that they are not connected: what holds when a hub has just started.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn disconnect_all(&self, now: Timestamp) -> Result<(), ServiceError> {
        self.write(
            "UPDATE activities SET connected = 0, state_updated = ?1 WHERE connected = 1",
            [now.unix_millis()],
        )?;
        Ok(())
    }
}
