//! Events that a change has caused, on their way to the event log.
//!
//! ```text
//! change + event, one transaction -> outbox -> relay: append to the log, wait for its disk -> delete here
//! ```
//!
//! A crash between append and delete leaves an event in both; its key lets the relay see that.

use holm_model::{DeviceId, ServiceError, Timestamp};
use rusqlite::params;

use super::{Transaction, View, damaged};

/// An event to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Names the event for ever: what happened, to which generation of which identity, and which version that made.
    pub key: String,
    /// The device that it is about; events of one device keep their order.
    pub device: DeviceId,
    /// When it happened.
    pub at: Timestamp,
    /// The message, as in the event log.
    pub message: Vec<u8>,
}

/// An event that waits in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Its place in the outbox; growing.
    pub id: i64,
    /// The event.
    pub event: Event,
}

impl View<'_> {
    /// The oldest events that wait, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn outbox(&self, most: u32) -> Result<Vec<Emitted>, ServiceError> {
        let sql = "SELECT id, event_key, device, at, message FROM outbox ORDER BY id LIMIT ?1";
        let rows = self.all(sql, [most], |row| {
            let device: String = row.get(2)?;
            let event = (row.get(1)?, row.get(3)?, row.get(4)?);
            Ok((row.get(0)?, device, event))
        })?;
        rows.into_iter()
            .map(|(id, device, (key, at, message))| {
                let device = DeviceId::new(&device).map_err(|_| damaged("device id"))?;
                let at = Timestamp::from_unix_millis(at);
                let event = Event {
                    key,
                    device,
                    at,
                    message,
                };
                Ok(Emitted { id, event })
            })
            .collect()
    }
}

impl Transaction<'_> {
    /// Puts an event in the outbox: it is told if and only if this transaction is kept.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn emit(&self, event: &Event) -> Result<(), ServiceError> {
        self.write(
            "INSERT INTO outbox (event_key, device, at, message) VALUES (?1, ?2, ?3, ?4)",
            params![event.key, event.device.as_str(), event.at.unix_millis(), event.message],
        )?;
        Ok(())
    }

    /// Removes the events up to `last`: they are in the event log, on disk.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn relayed(&self, last: i64) -> Result<(), ServiceError> {
        self.write("DELETE FROM outbox WHERE id <= ?1", [last])?;
        Ok(())
    }
}
