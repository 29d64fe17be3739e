//! Cloud-to-device messages that wait for their device.

use holm_model::{DeviceId, ServiceError, Timestamp};
use rusqlite::{Row, params};

use super::{Transaction, View, to_i64, to_u64};

/// A message that waits for its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number; growing with time, never used twice.
    pub sequence: u64,
    /// When it was sent.
    pub enqueued: Timestamp,
    /// When it becomes useless.
    pub expires: Timestamp,
    /// How often a delivery of it was abandoned.
    pub deliveries: u32,
    /// Which feedback its sender asked for: `none`, `positive`, `negative` or `full`.
    pub ack: String,
    /// The message, as in the event log.
    pub message: Vec<u8>,
}

const COLUMNS: &str = "sequence, enqueued, expires, deliveries, ack, message";

impl View<'_> {
    /// Messages that wait for a device, in order.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting(&self, device: &DeviceId) -> Result<Vec<Waiting>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM c2d_messages WHERE device = ?1 ORDER BY sequence");
        self.all(&sql, [device.as_str()], read)
    }

    /// One message that waits for a device.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_message(&self, device: &DeviceId, sequence: u64) -> Result<Option<Waiting>, ServiceError> {
        let sql = format!("SELECT {COLUMNS} FROM c2d_messages WHERE device = ?1 AND sequence = ?2");
        self.one(&sql, params![device.as_str(), to_i64(sequence)], read)
    }

    /// How many messages wait for a device.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_count(&self, device: &DeviceId) -> Result<u32, ServiceError> {
        let sql = "SELECT count(*) FROM c2d_messages WHERE device = ?1";
        Ok(self.one(sql, [device.as_str()], |row| row.get(0))?.unwrap_or(0))
    }

    /// How many messages wait for all devices together.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_in_all(&self) -> Result<u64, ServiceError> {
        let count = self.one("SELECT count(*) FROM c2d_messages", [], |row| row.get(0))?;
        Ok(to_u64(count.unwrap_or(0)))
    }

    /// A message that waits, whoever it is for; with its device, as it is written.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn waiting_of_any(&self, sequence: u64) -> Result<Option<(String, Waiting)>, ServiceError> {
        let sql = format!("SELECT {COLUMNS}, device FROM c2d_messages WHERE sequence = ?1");
        self.one(&sql, [to_i64(sequence)], |row| Ok((row.get(6)?, read(row)?)))
    }

    /// Messages whose time has ended, by when it did and their numbers, behind `after`; at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn overdue(
        &self,
        now: Timestamp,
        after: (Timestamp, u64),
        most: u32,
    ) -> Result<Vec<(Timestamp, u64)>, ServiceError> {
        let sql = "SELECT expires, sequence FROM c2d_messages
            WHERE expires <= ?1 AND (expires, sequence) > (?2, ?3) ORDER BY expires, sequence LIMIT ?4";
        let after = (after.0.unix_millis(), to_i64(after.1));
        self.all(sql, params![now.unix_millis(), after.0, after.1, most], |row| {
            Ok((Timestamp::from_unix_millis(row.get(0)?), to_u64(row.get(1)?)))
        })
    }
}

impl Transaction<'_> {
    /// Adds a message; its sequence is given out here and returned.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn add_waiting(&self, device: &DeviceId, message: &Waiting) -> Result<u64, ServiceError> {
        self.write(
            "INSERT INTO c2d_messages (device, enqueued, expires, deliveries, ack, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                device.as_str(),
                message.enqueued.unix_millis(),
                message.expires.unix_millis(),
                message.deliveries,
                message.ack,
                message.message,
            ],
        )?;
        Ok(to_u64(self.connection.last_insert_rowid()))
    }

    /// Counts an abandoned delivery.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn count_delivery(&self, sequence: u64) -> Result<(), ServiceError> {
        let sql = "UPDATE c2d_messages SET deliveries = deliveries + 1 WHERE sequence = ?1";
        self.write(sql, [to_i64(sequence)])?;
        Ok(())
    }

    /// Removes a message. Whether it was there.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn discard_waiting(&self, sequence: u64) -> Result<bool, ServiceError> {
        let sql = "DELETE FROM c2d_messages WHERE sequence = ?1";
        Ok(self.write(sql, [to_i64(sequence)])? > 0)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        sequence: to_u64(row.get(0)?),
        enqueued: Timestamp::from_unix_millis(row.get(1)?),
        expires: Timestamp::from_unix_millis(row.get(2)?),
        deliveries: row.get(3)?,
        ack: row.get(4)?,
        message: row.get(5)?,
    })
}
