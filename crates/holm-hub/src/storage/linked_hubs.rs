//! Hubs that the provisioning service knows, and what is on its way to them.
//!
//! ```text
//! linked_hubs   how a hub is reached, and how many of the devices it gets
//! moves         a registration whose device is being made at its hub, until it is there
//! leftovers     a device that is still at a hub where it no longer belongs, until it has gone
//! ```

use holm_identity::Secret;
use holm_model::{RegistrationId, ServiceError, Timestamp};
use rusqlite::{Row, params};

use super::{Transaction, View};

/// A hub that devices may be given to.
#[derive(Clone, Debug)]
pub struct LinkedHub {
    /// Its host name.
    pub host: String,
    /// How it is reached; `None`: it is the hub of this process.
    pub connection_string: Option<Secret>,
    /// Whom to trust beside the system's authorities: PEM.
    pub authority: Option<String>,
    /// Its share of the devices.
    pub weight: u32,
    /// Whether devices are given to it where an enrollment names no hubs.
    pub is_allocated: bool,
    /// Changes with every change.
    pub etag: i64,
}

/// A registration whose device is being made at its hub.
#[derive(Clone, Debug)]
pub struct MoveRow {
    /// The registration id in lower case.
    pub id: String,
    /// What is to be done: JSON, with the device's secrets.
    pub document: Secret,
    /// Another one for each move.
    pub revision: i64,
    /// Since when.
    pub began: Timestamp,
}

/// A device that is still at a hub where it no longer belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The host name of the hub, in lower case.
    pub hub: String,
    /// The device.
    pub device: String,
    /// Whether it goes only if it was never finished there.
    pub if_unfinished: bool,
}

const MOVE: &str = "id, document, revision, began";

impl View<'_> {
    /// Every hub that something is known of, in order of their names.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn linked_hubs(&self) -> Result<Vec<LinkedHub>, ServiceError> {
        let sql =
            "SELECT spelled, connection_string, authority, weight, is_allocated, etag FROM linked_hubs ORDER BY host";
        self.all(sql, [], |row| {
            Ok(LinkedHub {
                host: row.get(0)?,
                connection_string: row.get::<_, Option<String>>(1)?.map(Secret::new),
                authority: row.get(2)?,
                weight: row.get(3)?,
                is_allocated: row.get(4)?,
                etag: row.get(5)?,
            })
        })
    }

    /// What is being done for a registration.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn pending_move(&self, id: &RegistrationId) -> Result<Option<MoveRow>, ServiceError> {
        self.one(
            &format!("SELECT {MOVE} FROM moves WHERE id = ?1"),
            [id.key()],
            read_move,
        )
    }

    /// The oldest moves, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn pending_moves(&self, most: u32) -> Result<Vec<MoveRow>, ServiceError> {
        self.all(
            &format!("SELECT {MOVE} FROM moves ORDER BY began, id LIMIT ?1"),
            [most],
            read_move,
        )
    }

    /// How many moves there are.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn pending_move_count(&self) -> Result<u32, ServiceError> {
        Ok(self
            .one("SELECT count(*) FROM moves", [], |row| row.get(0))?
            .unwrap_or_default())
    }

    /// Whether a device is to go from a hub.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn is_leftover(&self, hub: &str, device: &str) -> Result<bool, ServiceError> {
        let sql = "SELECT 1 FROM leftovers WHERE hub = ?1 AND device = ?2";
        Ok(self
            .one(sql, params![hub.to_ascii_lowercase(), device], |_| Ok(()))?
            .is_some())
    }

    /// The devices that are to go from a hub, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn leftovers(&self, hub: &str, most: u32) -> Result<Vec<Leftover>, ServiceError> {
        let sql = "SELECT hub, device, if_unfinished FROM leftovers WHERE hub = ?1 ORDER BY device LIMIT ?2";
        self.all(sql, params![hub.to_ascii_lowercase(), most], |row| {
            Ok(Leftover {
                hub: row.get(0)?,
                device: row.get(1)?,
                if_unfinished: row.get(2)?,
            })
        })
    }
}

impl Transaction<'_> {
    /// Writes a hub, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_linked_hub(&self, hub: &LinkedHub) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO linked_hubs (host, spelled, connection_string, authority, weight, is_allocated, etag) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.write(
            sql,
            params![
                hub.host.to_ascii_lowercase(),
                hub.host,
                hub.connection_string.as_ref().map(Secret::expose),
                hub.authority,
                hub.weight,
                hub.is_allocated,
                hub.etag
            ],
        )?;
        Ok(())
    }

    /// Forgets a hub, and what was to go from it.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_linked_hub(&self, host: &str) -> Result<(), ServiceError> {
        let host = host.to_ascii_lowercase();
        self.write("DELETE FROM linked_hubs WHERE host = ?1", [&host])?;
        self.write("DELETE FROM leftovers WHERE hub = ?1", [&host])?;
        Ok(())
    }

    /// Writes a move, new or in place of another one.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_move(&self, row: &MoveRow) -> Result<(), ServiceError> {
        let sql = format!("INSERT OR REPLACE INTO moves ({MOVE}) VALUES (?1, ?2, ?3, ?4)");
        self.write(
            &sql,
            params![row.id, row.document.expose(), row.revision, row.began.unix_millis()],
        )?;
        Ok(())
    }

    /// Ends the move of a registration, if there is one.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_move(&self, id: &RegistrationId) -> Result<(), ServiceError> {
        self.write("DELETE FROM moves WHERE id = ?1", [id.key()])?;
        Ok(())
    }

    /// Has a device go from a hub.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_leftover(&self, leftover: &Leftover) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO leftovers (hub, device, if_unfinished) VALUES (?1, ?2, ?3)";
        let hub = leftover.hub.to_ascii_lowercase();
        self.write(sql, params![hub, leftover.device, leftover.if_unfinished])?;
        Ok(())
    }

    /// A device has gone, or stays.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_leftover(&self, hub: &str, device: &str) -> Result<(), ServiceError> {
        let sql = "DELETE FROM leftovers WHERE hub = ?1 AND device = ?2";
        self.write(sql, params![hub.to_ascii_lowercase(), device])?;
        Ok(())
    }
}

fn read_move(row: &Row<'_>) -> rusqlite::Result<MoveRow> {
    Ok(MoveRow {
        id: row.get(0)?,
        document: Secret::new(row.get::<_, String>(1)?),
        revision: row.get(2)?,
        began: Timestamp::from_unix_millis(row.get(3)?),
    })
}
