//! Which enrollment has made a device at a hub, or has taken it over last.

use holm_model::{DeviceId, Identity, ServiceError};
use rusqlite::params;

use super::{Transaction, View};
use crate::provisioning::Kind;

/// Whose a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// The host name of the hub in lower case; empty: that of this process.
    pub hub: String,
    /// The device.
    pub device: String,
    /// Which of that id.
    pub generation: String,
    /// Of one device, or of many.
    pub kind: Kind,
    /// The id of the enrollment in lower case.
    pub enrollment: String,
}

/// Under what the hub of this process is written down.
pub const OWN_HUB: &str = "";

impl View<'_> {
    /// Whose a device at a hub is, where an enrollment has made it.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn provisioned(&self, hub: &str, device: &str) -> Result<Option<Provisioned>, ServiceError> {
        let sql = "SELECT generation, kind, enrollment FROM provisioned WHERE hub = ?1 AND device = ?2";
        self.one(sql, params![hub, device], |row| {
            let kind: String = row.get(1)?;
            Ok(Provisioned {
                hub: hub.to_owned(),
                device: device.to_owned(),
                generation: row.get(0)?,
                kind: if kind == Kind::Group.name() {
                    Kind::Group
                } else {
                    Kind::Individual
                },
                enrollment: row.get(2)?,
            })
        })
    }
}

impl Transaction<'_> {
    /// Writes whose a device is.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_provisioned(&self, of: &Provisioned) -> Result<(), ServiceError> {
        let sql = "INSERT OR REPLACE INTO provisioned (hub, device, generation, kind, enrollment) VALUES (?1, ?2, ?3, ?4, ?5)";
        let kind = of.kind.name();
        self.write(sql, params![of.hub, of.device, of.generation, kind, of.enrollment])?;
        Ok(())
    }

    /// Forgets whose a device was that has gone.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn remove_provisioned(&self, hub: &str, device: &str) -> Result<(), ServiceError> {
        let sql = "DELETE FROM provisioned WHERE hub = ?1 AND device = ?2";
        self.write(sql, params![hub, device])?;
        Ok(())
    }

    /// Forgets whose a device of this hub was, where it has gone and no registration names it. As long as one does, it must stay known:
    /// of a device without a row the last registration tells whose it is, and one that somebody makes anew by hand would be taken
    /// for the enrollment's.
    ///
    /// # Errors
    /// When the database can't be read or written to.
    pub fn forget_provisioned(&self, device: &DeviceId) -> Result<(), ServiceError> {
        let is_there = self.entry(&Identity::of_device(device.clone()))?.is_some();
        if is_there || !self.registrations_for(device, 1)?.is_empty() {
            return Ok(());
        }
        self.remove_provisioned(OWN_HUB, device.as_str())
    }
}
