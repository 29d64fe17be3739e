//! Twins, in the model's stored form.

use holm_model::{Identity, ServiceError, Twin};
use rusqlite::params;

use super::{Transaction, View, damaged, module_key, to_i64};

impl View<'_> {
    /// The twin of an identity; it exists exactly as long as the identity does.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn twin(&self, identity: &Identity) -> Result<Option<Twin>, ServiceError> {
        let sql = "SELECT document FROM twins WHERE device = ?1 AND module = ?2";
        let document = self.one(sql, params![identity.device.as_str(), module_key(identity)], |row| {
            row.get::<_, String>(0)
        })?;
        document
            .map(|document| serde_json::from_str(&document).map_err(|_| damaged("twin")))
            .transpose()
    }
}

impl Transaction<'_> {
    /// Writes a twin, new or changed.
    ///
    /// # Errors
    /// When the database can't be written to.
    pub fn put_twin(&self, twin: &Twin) -> Result<(), ServiceError> {
        let document = serde_json::to_string(twin).map_err(|_| damaged("twin"))?;
        self.write(
            "INSERT OR REPLACE INTO twins (device, module, version, document) VALUES (?1, ?2, ?3, ?4)",
            params![
                twin.identity().device.as_str(),
                module_key(twin.identity()),
                to_i64(twin.version()),
                document
            ],
        )?;
        self.touch(twin.identity());
        Ok(())
    }
}
