//! Which devices stand below which edge device.
//!
//! ```text
//! edge e1 (device_scope S1) <── parent_scopes ["S1"] ── leaf
//!                           <── parent_scopes ["S1"] ── edge e2 (device_scope S2) <── parent_scopes ["S2"] ── leaf
//! ```
//!
//! A scope holds the generation of its edge device, so that children of a device that was deleted are not those of another one
//! of the same name. Each query follows an index.

use holm_model::{DeviceId, ServiceError};
use rusqlite::params;

use super::identities::{COLUMNS, read};
use super::{Transaction, View, damaged, identity_of};
use crate::registry::{Entry, MAX_LEVELS};

/// The devices below `?1`, itself first: their ids, and how far down they are.
const FAMILY: &str = "
    WITH RECURSIVE family (device, scope, level) AS (
        SELECT device, device_scope, 0 FROM identities WHERE device = ?1 AND module = '' AND edge = 1
        UNION
        SELECT child.device, CASE child.edge WHEN 1 THEN child.device_scope END, family.level + 1
        FROM family JOIN identities AS child ON child.parent_scopes = '[\"' || family.scope || '\"]'
        WHERE child.module = '' AND child.parent_scopes != '[]' AND family.level < ?2
    )";

/// The list of parent scopes as it is stored.
pub(super) fn stored_scopes(scopes: &[String]) -> Result<String, ServiceError> {
    serde_json::to_string(scopes).map_err(|_| damaged("list of parent scopes"))
}

impl View<'_> {
    /// The devices whose parent has this scope: those after `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn children(&self, scope: &str, after: &str, most: u32) -> Result<Vec<Entry>, ServiceError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM identities WHERE parent_scopes = ?1 AND parent_scopes != '[]' AND module = '' \
             AND device > ?2 ORDER BY device LIMIT ?3"
        );
        let scopes = stored_scopes(&[scope.to_owned()])?;
        let found = self.all(&sql, params![scopes, after, most], |row| Ok(read(row)))?;
        found.into_iter().collect()
    }

    /// How many devices have the parent of this scope.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn child_count(&self, scope: &str) -> Result<u32, ServiceError> {
        let sql = "SELECT count(*) FROM identities WHERE parent_scopes = ?1 AND parent_scopes != '[]' AND module = ''";
        let count = self.one(sql, [stored_scopes(&[scope.to_owned()])?], |row| row.get(0))?;
        Ok(count.unwrap_or_default())
    }

    /// An edge device and all devices below it: those after `after`, in order of their ids, at most `most`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn family(&self, edge: &DeviceId, after: &str, most: u32) -> Result<Vec<Entry>, ServiceError> {
        let sql = format!(
            "{FAMILY} SELECT {COLUMNS} FROM identities WHERE module = '' AND device > ?3 \
             AND device IN (SELECT device FROM family) ORDER BY device LIMIT ?4"
        );
        let found = self.all(&sql, params![edge.as_str(), MAX_LEVELS, after, most], |row| {
            Ok(read(row))
        })?;
        found.into_iter().collect()
    }

    /// How many edge devices stand below one another below an edge device.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn edges_below(&self, edge: &DeviceId) -> Result<u32, ServiceError> {
        let sql = format!("{FAMILY} SELECT max(level) FROM family WHERE scope IS NOT NULL");
        let level = self.one(&sql, params![edge.as_str(), MAX_LEVELS], |row| {
            row.get::<_, Option<u32>>(0)
        })?;
        Ok(level.flatten().unwrap_or_default())
    }

    /// The ids of all devices below an edge device, without itself.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn below(&self, edge: &DeviceId) -> Result<Vec<DeviceId>, ServiceError> {
        let sql = format!("{FAMILY} SELECT DISTINCT device FROM family WHERE level > 0");
        let found = self.all(&sql, params![edge.as_str(), MAX_LEVELS], |row| row.get::<_, String>(0))?;
        found
            .into_iter()
            .map(|id| DeviceId::new(&id).map_err(|_| damaged("device id")))
            .collect()
    }

    /// The parent of a device.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn parent(&self, of: &Entry) -> Result<Option<Entry>, ServiceError> {
        match of.parent_scopes.first() {
            Some(scope) => self.edge_of_scope(scope),
            None => Ok(None),
        }
    }
}

impl Transaction<'_> {
    /// Frees the children of a parent that is no edge device any more.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn free_children(&self, scope: &str) -> Result<(), ServiceError> {
        let scopes = stored_scopes(&[scope.to_owned()])?;
        let children =
            "SELECT device FROM identities WHERE parent_scopes = ?1 AND parent_scopes != '[]' AND module = ''";
        for child in self.all(children, [&scopes], |row| row.get::<_, String>(0))? {
            self.touch(&identity_of(&child, "")?);
        }
        let sql = "UPDATE identities SET parent_scopes = '[]', \
                   device_scope = CASE edge WHEN 1 THEN device_scope END, etag = random() & 9223372036854775807 \
                   WHERE parent_scopes = ?1 AND parent_scopes != '[]' AND module = ''";
        self.write(sql, [scopes]).map(|_| ())
    }
}
